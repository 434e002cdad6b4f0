"""Checkers: pure comparisons of a program's answer with the expected one. The README has them as a table.

Both sides may be hostile in size and shape (megabytes, nan, 1e400, monster integers), so every rule here is
linear in the texts and never raises for an answer. Independent of problems, boxes and verdicts. Checkers that
are programs are in `checker_program.py`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from functools import partial

from sdpo_solve.sandboxes.wire_values import NotPlain, check_spread
from sdpo_solve.types import Checker

_Close = Callable[[float, float], bool]
_NUMBERS = (int, float, Fraction, Decimal)
# A longer token is compared as text: numbers of answers are shorter, and reading one is not linear.
_NUMBER_CHARS = 400
_CODECONTESTS_ERROR = 1e-5
_INTEGER = re.compile(r"[-+]?\d+")
# Numbers inside a token such as `(0.5,` or `x=1e-3;`; letters beside one make it part of a word.
_GLUED = re.compile(
    r"(?<![\w.])[-+]?(?:\d++\.?+\d*+|\.\d++)(?:[eE][-+]?\d++)?+(?![\w.])|(?<!\w)[-+]?(?:inf|nan)(?!\w)", re.I
)


def texts_match(checker: Checker, expected: object, output: str) -> bool:
    """Whether the text `output` is an answer where `expected` is one, or a list of several right ones."""
    if isinstance(expected, (list, tuple)):
        return any(texts_match(checker, text, output) for text in expected)
    wanted_text = str(expected)
    if checker.ignore_case:
        wanted_text, output = wanted_text.casefold(), output.casefold()
    match checker.name:
        case "tokens":
            return wanted_text.split() == output.split()
        case "codecontests" | "apps":
            if checker.tolerance and texts_match(Checker("float", checker.tolerance), wanted_text, output):
                return True
            close = _close_for_codecontests if checker.name == "codecontests" else _close_for_apps
            return _all_match(wanted_text, output, lambda w, g: w == g or _numbers_match(w, g, close))
        case "float":
            close = partial(_close, tolerance=checker.tolerance)
            return _all_match(wanted_text, output, partial(_tokens_close, close=close))
        case "livecodebench":
            if checker.tolerance and texts_match(Checker("float", checker.tolerance), expected, output):
                return True
            wanted, given = _stripped_lines(wanted_text), _stripped_lines(output)
            return len(wanted) == len(given) and all(
                w == g or _same_decimals(w, g) for w, g in zip(wanted, given, strict=True)
            )
        case _:
            return _normalise(wanted_text) == _normalise(output)


def values_match(checker: Checker, expected: object, value: object) -> bool:
    """Whether the plain value `value` (see `wire_values.py`) is an answer where `expected` is one."""
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
        case "apps":
            return _same(expected, value, None, are_bools_numbers=True)
        case _:
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


def _close(expected: float, given: float | Fraction | Decimal, tolerance: float) -> bool:
    """Within `tolerance`, relative or absolute; nan and infinities only where just they are expected."""
    if expected != expected or given != given:
        return expected != expected and given != given
    try:
        return math.isclose(expected, given, rel_tol=tolerance, abs_tol=tolerance)
    except OverflowError:  # an integer beyond the range of floats
        return expected == given


def _close_for_codecontests(expected: float, given: float) -> bool:
    """https://github.com/google-deepmind/code_contests, execution/tester_sandboxer.cc."""
    return abs(expected - given) < _CODECONTESTS_ERROR


def _close_for_apps(expected: float, given: float) -> bool:
    """numpy's `allclose`, as in https://github.com/hendrycks/apps, eval/testing_util.py."""
    return _all_close(expected, given, absolute=1e-8, relative=1e-5)


def _all_close(expected: float, given: float, *, absolute: float, relative: float) -> bool:
    """numpy's `allclose` of one number; nan is close to nothing."""
    gap = abs(expected - given)
    return expected == given or (math.isfinite(gap) and gap <= absolute + relative * abs(expected))


def _all_match(expected: str, given: str, match: Callable[[str, str], bool]) -> bool:
    """Whether the texts have equally many tokens, and each matches its own."""
    wanted, tokens = expected.split(), given.split()
    return len(wanted) == len(tokens) and all(map(match, wanted, tokens))


def _tokens_close(expected: str, given: str, close: _Close) -> bool:
    """Equal, or the same token but for numbers that match."""
    if expected == given:
        return True
    if _number(expected) is not None:
        return _numbers_match(expected, given, close)
    if _GLUED.sub("0", expected) != _GLUED.sub("0", given):
        return False
    numbers = zip(_GLUED.findall(expected), _GLUED.findall(given), strict=True)
    return all(_numbers_match(wanted, number, close) for wanted, number in numbers)


def _numbers_match(expected: str, given: str, close: _Close) -> bool:
    """Two numbers that are close; exactly equal ones where both are written as integers."""
    wanted, number = _number(expected), _number(given)
    if wanted is None or number is None:
        return False
    if _INTEGER.fullmatch(expected) and _INTEGER.fullmatch(given):
        return _same_decimals(expected, given)
    return close(wanted, number)


def _stripped_lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().split("\n")]


def decimals(line: str) -> list[Decimal] | None:
    """The numbers of a line, None where it holds anything else."""
    try:
        return [Decimal(token) for token in line.split()]
    except (InvalidOperation, ValueError):
        return None


def _same_decimals(expected: str, given: str) -> bool:
    wanted = decimals(expected)
    try:
        return wanted is not None and wanted == decimals(given)
    except InvalidOperation:  # of an sNaN
        return False


def _same(
    expected: object, value: object, tolerance: float | None, *, are_bools_numbers: bool = False
) -> bool:
    """Equality at every depth (which the decoder bounds); a tolerance is for numbers of which one at least
    is no integer.

    `are_bools_numbers`: True equals 1 and False 0, as Python has it.
    """

    def alike(one: object, other: object) -> bool:
        return _same(one, other, tolerance, are_bools_numbers=are_bools_numbers)

    if isinstance(expected, (list, tuple)):
        return (
            isinstance(value, (list, tuple))
            and len(expected) == len(value)
            and all(alike(e, v) for e, v in zip(expected, value, strict=True))
        )
    if isinstance(expected, Mapping):
        return (
            isinstance(value, Mapping)
            and expected.keys() == value.keys()
            and all(alike(item, value[key]) for key, item in expected.items())
        )
    if not are_bools_numbers and (isinstance(expected, bool) or isinstance(value, bool)):
        return isinstance(expected, bool) and isinstance(value, bool) and expected is value
    are_integers = isinstance(expected, int) and isinstance(value, int)
    if (
        tolerance is not None
        and isinstance(expected, (int, float))
        and isinstance(value, _NUMBERS)
        and not are_integers
    ):
        return _close(expected, value, tolerance)
    return bool(expected == value) or (expected != expected and value != value)


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
            return _all_close(float(expected), float(value), absolute=tolerance, relative=1e-7)
        except OverflowError:  # an integer beyond the range of floats
            return False
    return False
