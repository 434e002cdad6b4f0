"""Where a wrong answer first differs, by the checker's own rule."""

import time

import pytest

from sdpo_solve.grading import difference
from sdpo_solve.types import Checker


@pytest.mark.parametrize(
    ("checker", "expected", "output", "place"),
    [
        ("exact", "3\n", "4\n", "line 1, column 1"),
        ("exact", "abc\ndef\n", "abc\ndxf\n", "line 2, column 2"),
        ("exact", "a  \nb\n", "a\nc\n", "line 2, column 1"),  # white space at line ends is no difference
        ("exact", "a\nb\n", "a\n\nb\n", "line 2, column 1"),
        ("exact", "a\nb\nc\n", "a\nb\n", "line 3, column 1"),
        ("exact", "a\n", "a\nb\n", "line 2, column 1"),
        ("exact", "a b", "a  b", "line 1, column 3"),
        ("tokens", "1 2 3", "1\n2   4", "line 2, column 5"),
        ("float", "1.0 2.0 3", "1.0000001 2 4", "line 1, column 13"),
        ("float", "x", "", "line 1, column 1"),
        ("apps", "1.0 2 3", "1\n2.000001 4", "line 2, column 10"),
    ],
)
def test_texts(checker: str, expected: str, output: str, place: str) -> None:
    found = difference.of_texts(Checker(checker, 1e-6), expected, output)  # type: ignore[arg-type]
    assert found.place == place


@pytest.mark.parametrize(
    ("expected", "output", "place"),
    [
        ("1.0\n2\n", " 1\n3\n", "line 2, column 1"),
        ("1\n2\n3\n", "\n\n1\n2\n9\n", "line 3, column 1"),  # what is before the first line is no line
        ("a\nb\n", "  a\n\tc\n", "line 2, column 2"),
        ("1 2 3 4", "1.0 2.0 9 4", "line 1, column 9"),
        ("1 2", "1.0 2 3", "line 1, column 7"),
        ("1 2 3", "1.00 2", "line 1, column 7"),
        # Not a line of numbers: compared as a text.
        ("x 1 2", "x 1.0 3", "line 1, column 4"),
        ("a b", "a  b", "line 1, column 3"),
        ("sNaN 2", "sNaN 3", "line 1, column 6"),
    ],
)
def test_texts_as_livecodebench_compares_them(expected: str, output: str, place: str) -> None:
    assert difference.of_texts(Checker("livecodebench"), expected, output).place == place


def test_of_several_right_texts_the_one_that_the_output_follows_furthest() -> None:
    found = difference.of_texts(Checker(), ["1\n" * 200, "2\n" * 200], "2\n" * 199 + "3\n")
    assert found.place == "line 200, column 1"
    assert found.expected == "2\n" * 200
    assert difference.of_texts(Checker("tokens"), ["1 2", "3 4"], "5").expected == "1 2"


def test_a_granted_error_is_none_of_the_differences() -> None:
    found = difference.of_texts(Checker("livecodebench", 1e-3), "0.333 0.5 1", "0.3333333 0.5001 2")
    assert found.place == "line 1, column 18"


@pytest.mark.parametrize(
    ("expected", "value", "place"),
    [
        ([1, 2, 3], [1, 5, 3], "at [1]"),
        ([1, [2, 3]], [1, [2, 4]], "at [1][1]"),
        ([1, 2], [1], "at [1]"),
        ([1], [1, 2], "at [1]"),
        ({"a": 1, "b": [2]}, {"a": 1, "b": [3]}, "at ['b'][0]"),
        ({"a": 1}, {}, "at ['a']"),
        (3, 4, ""),
    ],
)
def test_values(expected: object, value: object, place: str) -> None:
    assert difference.of_values(Checker(), expected, value).place == place


def test_excerpts_hold_the_difference() -> None:
    expected = "".join(f"{n}\n" for n in range(50_000))
    found = difference.of_texts(Checker(), expected, expected.replace("\n31415\n", "\n31416\n"))
    assert found.place == "line 31416, column 5"
    assert found.output[found.output_at] == "6"
    assert found.expected[found.expected_at] == "5"
    assert found.output_chars == len(expected)
    assert len(found.output) <= 2 * difference.EXCERPT_CHARS


@pytest.mark.parametrize("checker", ["exact", "tokens", "float", "livecodebench"])
def test_megabytes_are_compared_in_linear_time(checker: str) -> None:
    started = time.process_time()
    for text in ("1 " * 500_000, "1\n" * 500_000, " " * 1_000_000, "1" * 1_000_000, "\n" * 500_000):
        difference.of_texts(Checker(checker, 1e-6), text + "2", text + "3")  # type: ignore[arg-type]
    assert time.process_time() - started < 20
