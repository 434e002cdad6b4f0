"""Assert statements as tests: `assert CALL == VALUE` and its kin, split between the box and the host.

The box evaluates only the calls of the entry point, over plain arguments; the host evaluates the rest over
the plain values that come back, with `assert_eval.py`. Every call of an assert is made, in the order of the
text, even where Python would have stopped at an `and`.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from sdpo_solve.errors import ProblemError
from sdpo_solve.grading.assert_eval import Evaluator, Refused, check_deep, dotted, operands
from sdpo_solve.sandboxes.wire_values import NotPlain, encode
from sdpo_solve.sanitize import middle_cut
from sdpo_solve.types import Call

MAX_TEXT_CHARS = 100_000
_SHOWN_CHARS = 200


@dataclass(frozen=True, slots=True)
class ParsedAssert:
    """One assert: the calls for the box, and the rest of the expression for the host."""

    calls: tuple[Call, ...]
    expected_bytes: int
    """Length of the constants that results are compared with, in wire form."""
    _test: ast.expr
    _numbers: Mapping[ast.AST, int]
    _constants: Mapping[ast.AST, object]

    @property
    def constants(self) -> list[object]:
        """The values of the largest parts without a call, iterators left out."""
        return list(self._constants.values())

    def holds(self, values: Sequence[object]) -> bool:
        """Whether the assert passes where the calls returned `values`; one that raises does not."""
        evaluator = Evaluator(
            {**self._constants, **{call: values[number] for call, number in self._numbers.items()}}
        )
        try:
            return bool(evaluator.value(self._test))
        except (ArithmeticError, TypeError, ValueError, LookupError, RecursionError, MemoryError):
            return False


def parse(text: str, entry_point: str) -> ParsedAssert:
    """The assert that `text` states about `entry_point` (a function, or `Class.method`).

    Raises ProblemError, quoting the text, for anything but one assert of the supported form.
    """
    try:
        test = _single_assert(text)
        nodes = check_deep(test, partial(_is_call_of, entry_point))
        if not nodes:
            raise Refused(f"it never calls {entry_point}")
        calls = tuple(_call_of(node) for node in nodes if isinstance(node, ast.Call))
        constants = _constants(test, nodes)
        return ParsedAssert(
            calls=calls,
            expected_bytes=sum(map(wire_bytes, constants.values())),
            _test=test,
            _numbers={node: number for number, node in enumerate(nodes)},
            _constants=constants,
        )
    except (Refused, SyntaxError, ArithmeticError, TypeError, ValueError, LookupError) as exc:
        reason = exc.msg if isinstance(exc, SyntaxError) else str(exc)
    except (RecursionError, MemoryError):
        reason = "it is nested too deep"
    shown = middle_cut(" ".join(text.split()), _SHOWN_CHARS)
    owner, _, function = entry_point.rpartition(".")
    called = f"{owner}().{function}" if owner else function
    remedy = f"write `assert {called}(...) == VALUE` with plain values"
    raise ProblemError(f"assert not supported, {reason}: {shown!r}; {remedy}")


def _single_assert(text: str) -> ast.expr:
    if len(text) > MAX_TEXT_CHARS:
        raise Refused(f"it is longer than {MAX_TEXT_CHARS} characters")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a stray backslash in a literal
        body = ast.parse(text.strip()).body
    if len(body) != 1 or not isinstance(body[0], ast.Assert):
        raise Refused("it is not one assert statement")
    return body[0].test


def _constants(test: ast.expr, calls: Sequence[ast.AST]) -> dict[ast.AST, object]:
    """The values of the largest parts that hold no call: what cannot be evaluated is refused at load."""
    known: dict[ast.AST, object] = {}
    waiting: list[ast.AST] = [test]
    while waiting:
        node = waiting.pop()
        if node in calls:
            continue
        if any(inner in calls for inner in ast.walk(node)):
            waiting += operands(node)
        elif isinstance(node, ast.expr):
            value = Evaluator({}).value(node)
            if not isinstance(value, Iterator):  # an iterator can be used once only
                known[node] = value
    return known


def wire_bytes(value: object) -> int:
    """Length of a value in wire form; 0 for one that has none."""
    try:
        return len(encode(value))
    except (NotPlain, RecursionError):
        return 0


def _is_call_of(entry_point: str, node: ast.AST) -> bool:
    """Whether this calls a function, or a method of a class made without arguments."""
    owner, _, function = entry_point.rpartition(".")
    match node:
        case ast.Call(func=ast.Name(id=name)):
            return name == function and not owner
        case ast.Call(func=ast.Attribute(attr=name, value=ast.Call(func=made, args=[], keywords=[]))):
            return name == function and dotted(made) == owner != ""
    return False


def _call_of(node: ast.Call) -> Call:
    evaluator = Evaluator({})
    kwargs: dict[str, object] = {}
    for child in [*node.args, *(keyword.value for keyword in node.keywords)]:
        check_deep(child)
    for keyword in node.keywords:
        if keyword.arg is None or keyword.arg in kwargs:
            raise Refused("`**`, or a keyword given twice, in a call")
        kwargs[keyword.arg] = evaluator.value(keyword.value)
    args = tuple(evaluator.value(arg) for arg in node.args)
    encode([args, kwargs])  # refuses what cannot enter a box: types, ranges, iterators
    return Call(args, kwargs)
