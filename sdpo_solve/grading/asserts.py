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

from sdpo_solve.errors import ProblemError
from sdpo_solve.grading.assert_eval import (
    MAX_DEPTH,
    Evaluator,
    Refused,
    check_deep,
    check_form,
    dotted,
    operands,
)
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
    _numbers: Mapping[ast.expr, int]
    _constants: Mapping[ast.expr, object]

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
        collector = _Collector(entry_point)
        collector.visit(test, 0)
        if not collector.calls:
            raise Refused(f"it never calls {entry_point}")
        constants = _constants(test, collector.nodes)
        return ParsedAssert(
            calls=tuple(collector.calls),
            expected_bytes=sum(map(wire_bytes, constants.values())),
            _test=test,
            _numbers={node: number for number, node in enumerate(collector.nodes)},
            _constants=constants,
        )
    except (Refused, SyntaxError, ArithmeticError, TypeError, ValueError, LookupError) as exc:
        reason = exc.msg if isinstance(exc, SyntaxError) else str(exc)
    except (RecursionError, MemoryError):
        reason = "it is nested too deep"
    shown = middle_cut(" ".join(text.split()), _SHOWN_CHARS)
    remedy = f"write `assert {entry_point}(...) == VALUE` with plain values"
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


def _constants(test: ast.expr, calls: Sequence[ast.Call]) -> dict[ast.expr, object]:
    """The values of the largest parts that hold no call: what cannot be evaluated is refused at load."""
    known: dict[ast.expr, object] = {}
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


class _Collector:
    """Checks the form of an expression and finds the calls of the entry point, in order of evaluation."""

    def __init__(self, entry_point: str) -> None:
        self._class, _, self._function = entry_point.rpartition(".")
        self.calls: list[Call] = []
        self.nodes: list[ast.Call] = []

    def visit(self, node: ast.AST, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise Refused("it is nested too deep")
        if isinstance(node, ast.Call) and self._is_entry(node.func):
            self.calls.append(_call_of(node))
            self.nodes.append(node)
            return
        check_form(node)
        for child in operands(node):
            self.visit(child, depth + 1)

    def _is_entry(self, func: ast.expr) -> bool:
        if not self._class:
            return isinstance(func, ast.Name) and func.id == self._function
        return (
            isinstance(func, ast.Attribute)
            and func.attr == self._function
            and isinstance(func.value, ast.Call)
            and dotted(func.value.func) == self._class
            and not func.value.args
            and not func.value.keywords
        )


def _call_of(node: ast.Call) -> Call:
    evaluator = Evaluator({})
    kwargs: dict[str, object] = {}
    for child in [*node.args, *(keyword.value for keyword in node.keywords)]:
        check_deep(child, 0)
    for keyword in node.keywords:
        if keyword.arg is None or keyword.arg in kwargs:
            raise Refused("`**`, or a keyword given twice, in a call")
        kwargs[keyword.arg] = evaluator.value(keyword.value)
    args = tuple(evaluator.value(arg) for arg in node.args)
    encode([args, kwargs])  # refuses what cannot enter a box: types, ranges, iterators
    return Call(args, kwargs)
