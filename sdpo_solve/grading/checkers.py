"""Checkers: pure comparisons of a program's answer with the expected one.

Both sides may be hostile in size and shape (megabytes, nan, 1e400, monster integers), so every rule here is
linear in the texts and never raises for an answer. Independent of problems, boxes and verdicts.

Texts (stdin problems)
    exact          equal after dropping white space at line ends and newlines at the end
    tokens         equal when split at white space
    float          equal token by token, numbers within the tolerance
    livecodebench  LiveCodeBench's rule: stripped lines, a line of numbers compared as decimals, exactly (a
                   tolerance is given for the few rows whose statement grants one)
Values (function problems)
    exact          equal at every depth: a tuple is a list (JSON has no tuples), 1 equals 1.0, True is not 1,
                   nan equals nan, keys of a dict as in Python
    tokens         the same as exact: values have no tokens
    float          the same, numbers within the tolerance
    livecodebench  Python's ==, a tuple at the top counting as a list
    python         EvalPlus's rule: Python's ==, or floats within the tolerance (1e-6 where floats are due)
    set            EvalPlus's rule for eight problems: the same items, whatever their order and number
    not-none       EvalPlus's rule for three problems: whether the value is None
`python`, `set` and `not-none` compare texts as `exact` does.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from decimal import Decimal, InvalidOperation

from sdpo_solve.sandboxes.wire_values import NotPlain, check_spread
from sdpo_solve.types import Checker

# A longer token is compared as text: no honest number is so long, and reading one is not linear.
_NUMBER_CHARS = 400


def texts_match(checker: Checker, expected: str, output: str) -> bool:
    """Whether the text `output` is an answer where `expected` is one."""
    match checker.name:
        case "exact" | "python" | "set" | "not-none":
            return _normalise(expected) == _normalise(output)
        case "tokens":
            return expected.split() == output.split()
        case "float":
            wanted, given = expected.split(), output.split()
            return len(wanted) == len(given) and all(
                _tokens_close(w, g, checker.tolerance) for w, g in zip(wanted, given, strict=True)
            )
        case "livecodebench":
            if checker.tolerance and texts_match(Checker("float", checker.tolerance), expected, output):
                return True
            wanted, given = _stripped_lines(expected), _stripped_lines(output)
            return len(wanted) == len(given) and all(
                w == g or _same_decimals(w, g) for w, g in zip(wanted, given, strict=True)
            )


def values_match(checker: Checker, expected: object, value: object) -> bool:
    """Whether the plain value `value` (see `values.py`) is an answer where `expected` is one."""
    match checker.name:
        case "livecodebench":
            if checker.tolerance and _same(expected, value, checker.tolerance):
                return True
            return bool((list(value) if isinstance(value, tuple) else value) == expected)
        case "python":
            return bool(value == expected) or _arrays_close(expected, value, checker.tolerance)
        case "set":
            return _same_items(expected, value)
        case "not-none":
            return expected == (value if isinstance(value, bool) else value is not None)
        case "float":
            return _same(expected, value, checker.tolerance)
        case "exact" | "tokens":
            return _same(expected, value, None)


def _normalise(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.split("\n")).rstrip("\n")


def _number(token: str) -> float | None:
    """The number that `token` spells, None where it spells none or one beyond the range of floats."""
    if len(token) > _NUMBER_CHARS or "_" in token:
        return None
    try:
        number = float(token)
    except ValueError:
        return None
    overflowed = math.isinf(number) and "inf" not in token.lower()
    return None if overflowed else number


def _close(expected: float, given: float, tolerance: float) -> bool:
    """Within `tolerance`, relative or absolute; nan and infinities only where just they are expected."""
    if expected != expected or given != given:
        return expected != expected and given != given
    try:
        return math.isclose(expected, given, rel_tol=tolerance, abs_tol=tolerance)
    except OverflowError:  # an integer beyond the range of floats
        return expected == given


def _tokens_close(expected: str, given: str, tolerance: float) -> bool:
    if expected == given:
        return True
    wanted, number = _number(expected), _number(given)
    return wanted is not None and number is not None and _close(wanted, number, tolerance)


def _stripped_lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().split("\n")]


def _same_decimals(expected: str, given: str) -> bool:
    try:
        wanted = [Decimal(token) for token in expected.split()]
        return wanted == [Decimal(token) for token in given.split()]
    except (InvalidOperation, ValueError):
        return False


def _same(expected: object, value: object, tolerance: float | None) -> bool:
    """Equality at every depth (which the decoder bounds); a tolerance of None compares numbers exactly."""
    if isinstance(expected, (list, tuple)):
        return (
            isinstance(value, (list, tuple))
            and len(expected) == len(value)
            and all(_same(e, v, tolerance) for e, v in zip(expected, value, strict=True))
        )
    if isinstance(expected, Mapping):
        return (
            isinstance(value, Mapping)
            and expected.keys() == value.keys()
            and all(_same(item, value[key], tolerance) for key, item in expected.items())
        )
    if isinstance(expected, bool) or isinstance(value, bool):
        return isinstance(expected, bool) and isinstance(value, bool) and expected is value
    if isinstance(expected, (int, float)) and isinstance(value, (int, float)):
        if expected == value or tolerance is None:
            return expected == value or (expected != expected and value != value)
        return _close(expected, value, tolerance)
    return bool(expected == value)


def _same_items(expected: object, value: object) -> bool:
    if not isinstance(expected, Collection) or not isinstance(value, Collection):
        return bool(expected == value)
    try:
        check_spread(value)
        return set(expected) == set(value)
    except TypeError:  # an item that cannot be in a set
        return bool(expected == value)
    except NotPlain:  # items made to collide
        return False


def _arrays_close(expected: object, value: object, tolerance: float) -> bool:
    """EvalPlus's second chance (evalplus/eval/__init__.py): `assert_allclose`, where floats are due."""
    items = expected if isinstance(expected, (list, tuple)) else [expected]
    if not tolerance and not all(isinstance(item, float) for item in items):
        return False
    return _near(expected, value, tolerance or 1e-6)


def _near(expected: object, value: object, tolerance: float) -> bool:
    if isinstance(expected, (list, tuple)) and isinstance(value, (list, tuple)):
        return len(expected) == len(value) and all(
            _near(e, v, tolerance) for e, v in zip(expected, value, strict=True)
        )
    if isinstance(expected, (int, float)) and isinstance(value, (int, float)):
        if expected == value or (expected != expected and value != value):
            return True
        try:
            gap, size = abs(float(expected) - float(value)), abs(float(expected))
        except OverflowError:  # an integer beyond the range of floats
            return False
        return math.isfinite(gap) and gap <= tolerance + 1e-7 * size
    return False
