"""What counts as the same answer, rule by rule."""

import math
import time
from decimal import Decimal
from fractions import Fraction

import pytest

from sdpo_solve.grading.checkers import texts_match, values_match
from sdpo_solve.grading.difference import of_values, shown_value
from sdpo_solve.sandboxes.wire_values import Match, decode, encode_result
from sdpo_solve.types import Checker

EXACT, TOKENS, LCB = Checker("exact"), Checker("tokens"), Checker("livecodebench")
FLOAT = Checker("float", 1e-6)


@pytest.mark.parametrize(
    ("expected", "output", "same"),
    [
        ("3\n", "3", True),
        ("3", "3  \n\n\n", True),
        ("1 2\n3", "1 2 \r\n3\t", True),
        ("a  b", "a b", False),
        ("a", " a", False),
        ("a\n\nb", "a\nb", False),
        ("", "\n", True),
        ("Yes", "yes", False),
    ],
)
def test_exact_ignores_only_line_ends_and_newlines_at_the_end(expected: str, output: str, same: bool) -> None:
    assert texts_match(EXACT, expected, output) is same


@pytest.mark.parametrize(
    ("expected", "output", "same"),
    [("1 2\n3", "1\n2 3", True), ("1 2", "12", False), ("1", "1.0", False), ("", " \n", True)],
)
def test_tokens_ignores_all_white_space(expected: str, output: str, same: bool) -> None:
    assert texts_match(TOKENS, expected, output) is same


@pytest.mark.parametrize(
    ("expected", "output", "same"),
    [
        ("0.333333", "0.3333334", True),
        ("0.3333", "0.3334", False),
        ("1000000.0", "1000000.5", True),  # 1e-6 of a million is one
        ("1000000.0", "1000002", False),
        ("2", "2.0000001", True),  # a jury's file may write a number as a whole one
        ("1000000", "1000002.5", False),
        ("3 1000001 0.5", "3 1000000 0.5", False),  # two integers are exact
        ("1000001", "1000001.0", True),
        ("-7", "-7.00", True),
        ("9007199254740993", "9007199254740992", False),
        ("0.0", "-1e-7", True),
        ("0", "-1e-7", True),
        ("0", "-1e-5", False),
        ("1e6", "1000000.5", True),
        ("x = 1.0", "x = 1.0000001", True),
        ("(0.5, 0.25)", "(0.50000001, 0.2499999999)", True),
        ("(0.5, 0.25)", "(0.5, 0.26)", False),
        ("(0.5,3)", "(0.5,3.0)", True),
        ("(0.5,3)", "(0.5,3.0000001)", True),
        ("(0.5,1000001)", "(0.5,1000000)", False),
        ("[[0.5,1],[2.25]]", "[[0.5000000001,1],[2.25]]", True),
        ("[0.5]", "(0.5)", False),
        ("x=0.5;", "x=.5;", True),
        ("x1", "x1.0", False),
        ("v1.5.2", "v1.5.20000001", False),
        ("50.0%", "50.00000001%", True),
        ("$0.5", "$0.5000000001", True),
        ("0.5s", "0.50000001s", False),
        ("x = 1", "y = 1", False),
        ("1 2", "1", False),
        ("nan", "NaN", True),
        ("nan", "0", False),
        ("0", "nan", False),
        ("inf", "Infinity", True),
        ("inf", "-inf", False),
        ("inf", "1e400", False),
        ("1e300", "inf", False),
        ("1000", "1_000", False),
        ("1" * 500, "1" * 500, True),
        ("1" * 500, "1" * 499 + "2", False),
    ],
)
def test_float_compares_numbers_within_the_tolerance(expected: str, output: str, same: bool) -> None:
    assert texts_match(FLOAT, expected, output) is same


@pytest.mark.parametrize(
    ("expected", "output", "same"),
    [
        ("1 2\n3", "\n 1 2 \n  3\n\n", True),
        ("1 2", "1   2.00", True),  # a line of numbers
        ("a b", "a  b", False),
        ("0.1", "0.10000000001", False),  # no tolerance
        ("1\n2", "1 2", False),
        ("1e2", "100", True),
        ("nan", "nan", True),  # equal as text
        ("nan", "NaN", False),
        ("1", "sNaN", False),
        ("1", "1e99999999999999999999", False),
        ("a\n\nb", "a\nb", False),
    ],
)
def test_livecodebench_texts(expected: str, output: str, same: bool) -> None:
    assert texts_match(LCB, expected, output) is same


@pytest.mark.parametrize(
    ("expected", "value", "same"),
    [
        ([1, [2, 3]], (1, (2, 3)), True),
        ([1, 2], [1, 2, 3], False),
        (1, 1.0, True),
        (1, True, False),
        (True, 1, False),
        ([0], [False], False),
        (None, 0, False),
        ("a", "a", True),
        ("ab", ["a", "b"], False),
        ({"a": [1]}, {"a": (1,)}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"1": 2}, {1: 2}, False),
        ([1, 2], {1, 2}, False),
        ({1, 2}, {2, 1}, True),
        (math.nan, math.nan, True),
        pytest.param(10**5000, 10**5000, True, id="monster"),
        (0.1, 0.1 + 1e-12, False),
    ],
)
def test_exact_values(expected: object, value: object, same: bool) -> None:
    assert values_match(EXACT, expected, value) is same


@pytest.mark.parametrize(
    ("expected", "value", "same"),
    [
        ([1.0, {"a": 2.0}], (1.0000001, {"a": 2.0000001}), True),
        ([1.0, {"a": 2}], (1.0000001, {"a": 2.0000001}), True),
        ([1, 0.5], [True, 0.5], False),
        (2, 2.1, False),
        ([3, 1000001, 0.5], [3, 1000000, 0.5], False),
        (3, 3.0, True),
        ([[0.5, [1.25]]], [[Decimal("0.5"), [Fraction(5, 4)]]], True),
        (0.3333333, Fraction(1, 3), True),
        (1.0, 1.1, False),
        (1.0, "1.0", False),
        (1.0, True, False),
        (math.inf, math.inf, True),
        (math.inf, 1e308, False),
        (1.0, math.nan, False),
        (math.nan, math.nan, True),
        (10**400, 10**400, True),
        (1.5, 10**400, False),
        (10**400, 10**400 + 1, False),
    ],
)
def test_float_values(expected: object, value: object, same: bool) -> None:
    assert values_match(FLOAT, expected, value) is same


@pytest.mark.parametrize(
    ("expected", "value", "same"),
    [
        ([1, 2], (1, 2), True),  # a tuple at the top
        ([[1, 2]], [(1, 2)], False),  # not below
        (1, True, True),  # Python's ==
        (1, 1.0, True),
        (0.3, 0.1 + 0.2, False),
    ],
)
def test_livecodebench_values(expected: object, value: object, same: bool) -> None:
    assert values_match(LCB, expected, value) is same


def test_livecodebench_takes_the_tolerance_that_a_statement_grants() -> None:
    lenient = Checker("livecodebench", 1e-5)
    assert values_match(lenient, 1.16667, 7 / 6)
    assert not values_match(LCB, 1.16667, 7 / 6)
    assert not values_match(lenient, 1.16667, 1.167)
    assert texts_match(lenient, "0.333333", "0.33333333")
    assert texts_match(lenient, "2", "1.9999999999")
    assert not texts_match(lenient, "1000001", "1000000")
    assert not texts_match(LCB, "0.333333", "0.33333333")


@pytest.mark.parametrize(
    ("checker", "expected", "value", "same"),
    [
        (Checker("python"), (1, 2), [1, 2], False),
        (Checker("python"), 1, True, True),
        (Checker("python"), 0.3, 0.1 + 0.2, True),  # floats are due: 1e-6
        (Checker("python"), [0.3, 1.0], (0.1 + 0.2, 1), True),
        (Checker("python"), 0.3, 0.31, False),
        (Checker("python"), 3, 3.0000001, False),  # an integer is due
        (Checker("python", 0.01), 3, 3.005, True),
        (Checker("python"), math.nan, math.nan, True),
        (Checker("python"), math.inf, 1e308, False),
        (Checker("python"), 1.0, "1.0", False),
        (Checker("set"), (1, 2), [2, 1, 1], True),
        (Checker("set"), [1, 2], [1], False),
        (Checker("set"), [[1]], [[1]], True),
        (Checker("set"), [1], 1, False),
        (Checker("apps"), [True, (0, 1)], (1, [False, 1]), True),
        (Checker("apps"), [True], [2], False),
        (Checker("apps"), {1: [2.5]}, {1: (2.5,)}, True),
        (Checker("exact"), [True], [1], False),
        (Checker("not-none"), True, Match("'ab'"), True),
        (Checker("not-none"), True, 0, True),
        (Checker("not-none"), True, False, False),
        (Checker("not-none"), True, None, False),
        (Checker("not-none"), False, None, True),
        (Checker("not-none"), False, False, True),
        (Checker("not-none"), False, Match("''"), False),
        (Checker("python"), True, Match("'ab'"), False),
    ],
)
def test_evalplus_values(checker: Checker, expected: object, value: object, same: bool) -> None:
    assert values_match(checker, expected, value) is same


@pytest.mark.parametrize("checker", [EXACT, TOKENS, FLOAT, LCB])
def test_megabytes_compare_in_linear_time(checker: Checker) -> None:
    line = "1.5 " * 500_000
    lines = "7 \n" * 500_000
    started = time.process_time()
    assert texts_match(checker, line, line + " ")
    assert texts_match(checker, lines, lines)
    assert not texts_match(checker, "9" * 3_000_000, "9" * 3_000_000 + "8")
    assert texts_match(checker, "x", "x" + "\n" * 3_000_000)
    assert time.process_time() - started < 20  # a quadratic rule needs hours


def test_one_of_several_right_outputs_is_right() -> None:
    for checker in (EXACT, TOKENS, LCB, FLOAT):
        assert texts_match(checker, ["3\n", "5\n"], "5")
        assert not texts_match(checker, ["3\n", "5\n"], "4")


def test_tokens_may_ignore_case() -> None:
    lenient = Checker("tokens", ignore_case=True)
    assert texts_match(lenient, "YES\nNO", "Yes no")
    assert texts_match(lenient, "Straße", "STRASSE")
    assert not texts_match(lenient, "YES", "NO")
    assert not texts_match(TOKENS, "YES", "Yes")


@pytest.mark.parametrize(
    ("expected", "output", "same"),
    [
        ("0.333333", "0.33334", True),
        ("0.333333", "0.3334", False),
        ("123456.5", "123457.0", False),  # no relative error
        ("3", "3.000001", True),
        ("3", "3.1", False),
        ("007", "7", True),
        ("9007199254740993", "9007199254740992", False),  # integers are exact
        ("1 2", "1 2 3", False),
        ("a1.0", "a1.000001", False),
        ("nan", "NaN", False),
        ("inf", "1e308", False),
        ("1e400", "1e401", False),
    ],
)
def test_tokens_may_be_numbers_with_an_absolute_error(expected: str, output: str, same: bool) -> None:
    assert texts_match(Checker("codecontests"), expected, output) is same


@pytest.mark.parametrize(
    ("expected", "output", "same"),
    [
        ("0.333333333333", "0.3333333333333333", True),
        ("4", "4.0000001", True),
        ("4", "4.0", True),
        ("100000.5", "100001.0", True),  # a relative error of 1e-5
        ("100000.5", "100003.0", False),
        ("0.0", "1e-8", True),
        ("0.0", "1e-7", False),
        ("1000001", "1000000", False),  # numpy's allclose takes it, a judge of integers does not
        ("YES 0.5\n", "YES\n0.5000001", True),
        ("a\nb", "b\na", False),  # lines in any order are not taken over, nor numbers to three decimals
        ("0.3333", "0.3329", False),
        ("inf", "Infinity", True),
        ("inf", "1e308", False),
        ("nan", "0", False),
    ],
)
def test_numbers_of_apps_are_close_as_numpy_has_it(expected: str, output: str, same: bool) -> None:
    assert texts_match(Checker("apps"), expected, output) is same


def test_a_statement_may_grant_more_than_the_judge_of_apps() -> None:
    for name in ("apps", "codecontests"):
        assert texts_match(Checker(name, 1e-2), "0.5", "0.509")  # type: ignore[arg-type]
        assert not texts_match(Checker(name), "0.5", "0.509")  # type: ignore[arg-type]


def test_a_tolerance_may_ignore_case() -> None:
    lenient = Checker("float", 1e-6, ignore_case=True)
    assert texts_match(lenient, "No 1.5 1E5", "NO 1.50000001 1e5")
    assert not texts_match(FLOAT, "No 1.5", "NO 1.5")


@pytest.mark.parametrize("value", [Decimal("sNaN"), Decimal("-sNaN12"), Decimal("NaN")])
@pytest.mark.parametrize(
    "checker",
    [
        EXACT,
        FLOAT,
        LCB,
        *map(Checker, ("tokens", "python", "set", "not-none", "apps")),
        Checker("python", 0.1),
    ],
)
def test_a_decimal_that_is_no_number_is_wrong(checker: Checker, value: Decimal) -> None:
    """To compare a signalling one raises."""
    back = decode(encode_result([value, [value], (value,), [{"a": value}]]))
    assert isinstance(back, list)
    for expected, given in zip((1.5, [1.5], [1.5], [{"a": 1.5}]), back, strict=True):
        assert not values_match(checker, expected, given)
        shown_value(given)
        of_values(checker, expected, given)


def test_numbers_glued_to_text_are_compared_in_linear_time() -> None:
    text = "(" + "1.5," * 100_000 + ")"
    started = time.process_time()
    assert not texts_match(FLOAT, text, text[:-1] + "]")
    assert texts_match(FLOAT, text, text.replace("1.5", "1.50000001"))
    for piece in ("1", "1.", "-", "e1", ".", "1e", "1.1."):
        assert not texts_match(FLOAT, "(" + piece * 200_000 + "x", "(" + piece * 200_000 + "y")
    assert time.process_time() - started < 5
