"""Evaluator of Python expressions over plain values: the host's half of an assert.

It supports a fixed list of operators and functions, reads no attribute of a value, and bounds every operation
that could grow without limit, so that neither a problem file nor a program can make it run anything, or for
long. It works on syntax trees; the split of an assert is in `asserts.py`.
"""

from __future__ import annotations

import ast
import itertools
import math
import operator
import re
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

from sdpo_solve.sandboxes.wire_values import check_spread

_MAX_DEPTH = 100
_MAX_ITEMS = 1_000_000
_MAX_BITS = 1 << 19
_MAX_DIGITS = 50_000  # of an integer that a program in a box turns into text; Python's own limit is 4300
_LONG_INTEGER = re.compile(r"[-+]?[0-9]{4301,50000}")
_SHOWN_CHARS = 60
_MAX_FORMAT_CHARS = 10_000
# Conversions whose widths have three digits at most, and no names or `*`.
_CONVERSION = re.compile(r"%(?:%|[-#0 +]*\d{0,3}(?:\.\d{0,3})?[diouxXeEfFgGcrs])")
# Nodes that are nothing but their operands; the others are looked at one by one in `_check_form`.
_NODES = (ast.List, ast.Tuple, ast.Set, ast.UnaryOp, ast.BoolOp, ast.Subscript, ast.Slice)


class Refused(ValueError):
    """The expression holds something that is not evaluated here; the message names it."""


def check_deep(
    node: ast.AST, is_known: Callable[[ast.AST], bool] = lambda _: False, depth: int = 0
) -> list[ast.AST]:
    """Raises Refused for what cannot be evaluated. Returns the nodes that are known, in order of evaluation.

    `is_known`: nodes whose values others find out; they are not looked into.
    """
    if depth > _MAX_DEPTH:
        raise Refused("it is nested too deep")
    if is_known(node):
        return [node]
    _check_form(node)
    return [found for child in operands(node) for found in check_deep(child, is_known, depth + 1)]


def operands(node: ast.AST) -> list[ast.AST]:
    """The sub-expressions that are evaluated: not the name of a function, not operators and contexts."""
    if isinstance(node, ast.Call):
        return [*node.args, *(keyword.value for keyword in node.keywords)]
    if isinstance(node, (ast.Attribute, ast.Name)):
        return []
    skipped = (ast.expr_context, ast.operator, ast.unaryop, ast.cmpop, ast.boolop)
    return [child for child in ast.iter_child_nodes(node) if not isinstance(child, skipped)]


def _check_form(node: ast.AST) -> None:
    """Raises Refused where the evaluator below would not know what to do with this node itself."""
    match node:
        case ast.Constant(value=value) if value is not Ellipsis:
            return
        case ast.Call(func=func, keywords=keywords):
            name = dotted(func)
            if name not in _FUNCTIONS:
                raise Refused(f"`{name or ast.unparse(func)}` is not a function that asserts know")
            if any(keyword.arg not in _KEYWORDS.get(name, ()) for keyword in keywords):
                raise Refused(f"a keyword argument of `{name}` that asserts do not know")
        case ast.Attribute() | ast.Name():
            name = dotted(node)
            if name not in _CONSTANTS:
                raise Refused(f"`{name or ast.unparse(node)}` is not a plain value")
        case ast.Dict(keys=keys) if None not in keys:
            return
        case ast.Compare(ops=ops, comparators=comparators):
            for op, right in zip(ops, comparators, strict=True):
                singleton = isinstance(right, ast.Constant) and (
                    right.value is None or right.value is True or right.value is False
                )
                if isinstance(op, (ast.Is, ast.IsNot)) and not singleton:
                    raise Refused("`is` with something else than None, True or False")
        case ast.BinOp(left=ast.Constant(value=str(text)), op=ast.Mod()):
            _check_format(text)
        case ast.BinOp(op=op) if type(op) in _BINARY:
            return
        case _ if not isinstance(node, _NODES):
            raise Refused(f"`{ast.unparse(node)[:_SHOWN_CHARS]}` is not a plain value")


def dotted(node: ast.AST) -> str:
    """`a` or `a.b` as written, empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return f"{node.value.id}.{node.attr}"
    return ""


class Evaluator:
    """Evaluates a checked expression; `results` holds known values: those of the calls of the entry point."""

    def __init__(self, results: Mapping[ast.AST, object]) -> None:
        self._results = results

    def value(self, node: ast.expr) -> Any:
        if node in self._results:
            return self._results[node]
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name() | ast.Attribute():
                return _CONSTANTS[dotted(node)]
            case ast.List(elts=elts):
                return [self.value(item) for item in elts]
            case ast.Tuple(elts=elts):
                return tuple(self.value(item) for item in elts)
            case ast.Set(elts=elts):
                return {self.value(item) for item in elts}
            case ast.Dict(keys=keys, values=values):
                return {self.value(k): self.value(v) for k, v in zip(keys, values, strict=True) if k}
            case ast.UnaryOp(op=op, operand=operand):
                return _UNARY[type(op)](self.value(operand))
            case ast.BinOp(left=left, op=op, right=right):
                return _BINARY[type(op)](self.value(left), self.value(right))
            case ast.BoolOp(op=op, values=parts):
                return self._bool_op(op, parts)
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                return self._compare(self.value(left), ops, comparators)
            case ast.Subscript(value=value, slice=index):
                return self.value(value)[self.value(index)]
            case ast.Slice(lower=lower, upper=upper, step=step):
                return slice(*(None if part is None else self.value(part) for part in (lower, upper, step)))
            case ast.Call(func=func, args=args, keywords=keywords):
                named = {keyword.arg: self.value(keyword.value) for keyword in keywords if keyword.arg}
                return _FUNCTIONS[dotted(func)](*(self.value(arg) for arg in args), **named)
            case _:
                raise Refused("not a plain value")

    def _bool_op(self, op: ast.boolop, parts: Sequence[ast.expr]) -> Any:
        value: Any = None
        for part in parts:
            value = self.value(part)
            if bool(value) is isinstance(op, ast.Or):
                break
        return value

    def _compare(self, left: Any, ops: Sequence[ast.cmpop], comparators: Sequence[ast.expr]) -> bool:
        for op, comparator in zip(ops, comparators, strict=True):
            right = self.value(comparator)
            if not _COMPARE[type(op)](left, right):
                return False
            left = right
        return True


# -- operators and functions, bounded ------------------------------------------------------------------------


def _bits(value: object) -> int:
    if isinstance(value, Fraction):
        return value.numerator.bit_length() + value.denominator.bit_length()
    return value.bit_length() if isinstance(value, int) else 0


def _weight(value: object, limit: int) -> int:
    """How many items `value` holds at every depth, counted no further than just past `limit`."""
    if isinstance(value, (str, bytes)):
        return len(value)
    if not isinstance(value, (list, tuple, deque)):
        return 0
    weight = 0
    for item in value:
        weight += 1 + _weight(item, limit - weight)
        if weight > limit:
            break
    return weight


def _multiply(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, (str, bytes, list, tuple, deque)):
        a, b = b, a
    if isinstance(a, (str, bytes, list, tuple, deque)):
        if isinstance(b, int) and b > 0 and _weight(a, _MAX_ITEMS) * b > _MAX_ITEMS:
            raise Refused("a product that is too large")
    elif _bits(a) + _bits(b) > _MAX_BITS:
        raise Refused("a product that is too large")
    return a * b


def _power(a: Any, b: Any) -> Any:
    if isinstance(b, Fraction):
        raise Refused("a fraction as an exponent")
    grows = isinstance(b, int) and (b > 0 or isinstance(a, Fraction)) and a not in (0, 1, -1)
    if grows and _bits(a) * abs(b) > _MAX_BITS:
        raise Refused("a power that is too large")
    return a**b


def _shift_left(a: Any, b: Any) -> Any:
    if isinstance(b, int) and _bits(a) + b > _MAX_BITS:
        raise Refused("a shift that is too large")
    return a << b


def _check_format(text: str) -> None:
    """Raises Refused for a %-format whose output is not bounded by its text and values."""
    if len(text) > _MAX_FORMAT_CHARS or "%" in _CONVERSION.sub("", text):
        raise Refused("a %-format with other than plain conversions")


def _modulo(a: Any, b: Any) -> Any:
    if isinstance(a, str):
        _check_format(a)
        return a % b
    return _divide_with(operator.mod)(a, b)


def _divide_with(divide: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def bounded(a: Any, b: Any) -> Any:
        if isinstance(a, (str, bytes)):
            raise Refused("a quotient of texts")
        if _bits(a) > _MAX_BITS or _bits(b) > _MAX_BITS:
            raise Refused("a quotient that is too large")
        return divide(a, b)

    return bounded


def _round(number: Any, ndigits: Any = None) -> Any:
    if isinstance(ndigits, int) and abs(ndigits) > 400:
        raise Refused("rounding to more than 400 digits")
    return round(number, ndigits)


def _range(*args: Any) -> range:
    numbers = range(*args)
    if len(numbers) > _MAX_ITEMS:
        raise Refused("a range that is too long")
    return numbers


def _sum(items: Any, start: Any = 0) -> Any:
    if isinstance(start, (list, tuple)):  # sum(lists, []) joins them
        parts = [*items]
        if any(type(part) is not type(start) for part in parts):
            raise TypeError("lists and other values in one sum")
        return type(start)(itertools.chain(start, *parts))
    numbers = [*items, start]
    kinds = (int, float, complex, Fraction, Decimal)
    if any(not isinstance(n, kinds) or _bits(n) > _MAX_BITS for n in numbers):
        raise Refused("a sum of something else than plain numbers")
    if sum(_bits(n) for n in numbers if isinstance(n, Fraction)) > _MAX_BITS:  # denominators multiply
        raise Refused("a sum that is too large")
    return sum(numbers[:-1], start)


def decimal_text(number: int) -> str:
    """An integer as programs in a box write it. Raises ValueError where they could not."""
    if number.bit_length() > 4 * _MAX_DIGITS or len(text := str(Decimal(number))) > _MAX_DIGITS:
        raise ValueError("an integer of too many digits")
    return text


def _str(*args: Any) -> str:
    return decimal_text(args[0]) if [type(arg) for arg in args] == [int] else str(*args)


def _int(*args: Any) -> int:
    text = args[0].strip() if len(args) == 1 and isinstance(args[0], str) else ""
    return int(Decimal(text)) if _LONG_INTEGER.fullmatch(text) else int(*args)


def _spread(make: Callable[..., Any]) -> Callable[..., Any]:
    """`make` on one collection of keys, unless they were made to collide."""

    def bounded(items: Any = ()) -> Any:
        keyed = items if isinstance(items, Mapping) else list(items)
        check_spread(key[0] if make is dict and keyed is not items else key for key in keyed)
        return make(keyed)

    return bounded


def _isinstance(value: object, kind: Any) -> bool:
    return isinstance(value, kind)


_CONSTANTS: dict[str, object] = {
    "math.inf": math.inf,
    "math.nan": math.nan,
    "math.pi": math.pi,
    "math.e": math.e,
    **{
        kind.__name__: kind
        for kind in (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset)
    },
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{f.__name__: f for f in (abs, all, any, bool, complex, float, len, list)},
    **{f.__name__: f for f in (max, min, sorted, tuple, enumerate, zip, reversed)},
    "int": _int,
    "str": _str,
    **{f.__name__: _spread(f) for f in (dict, frozenset, set)},
    **{
        f"math.{f.__name__}": f
        for f in (math.isclose, math.isnan, math.isinf, math.sqrt, math.floor, math.ceil)
    },
    "Counter": _spread(Counter),
    "collections.Counter": _spread(Counter),
    "isclose": math.isclose,
    "isinstance": _isinstance,
    "range": _range,
    "round": _round,
    "sum": _sum,
    "type": lambda value: type(value),
    "divmod": _divide_with(divmod),
}
_KEYWORDS: dict[str, tuple[str, ...]] = {
    "math.isclose": ("rel_tol", "abs_tol"),
    "isclose": ("rel_tol", "abs_tol"),
    "sorted": ("reverse",),
    "round": ("ndigits",),
    "sum": ("start",),
    "max": ("default",),
    "min": ("default",),
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.Not: operator.not_,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Invert: operator.invert,
}
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: _multiply,
    ast.Div: _divide_with(operator.truediv),
    ast.FloorDiv: _divide_with(operator.floordiv),
    ast.Mod: _modulo,
    ast.Pow: _power,
    ast.LShift: _shift_left,
    ast.RShift: operator.rshift,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda item, container: item in container,
    ast.NotIn: lambda item, container: item not in container,
}
