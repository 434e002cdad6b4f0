"""The first difference between a wrong answer and the expected one, for feedback to quote.

Found by the checker's own rule: white space that the checker ignores is no difference. Linear in the texts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import zip_longest
from operator import itemgetter
from typing import NamedTuple

from sdpo_solve.grading.assert_eval import decimal_text
from sdpo_solve.grading.checkers import decimals, texts_match, values_match
from sdpo_solve.types import Checker, Difference

EXCERPT_CHARS = 1000  # kept on each side of the difference


def of_texts(checker: Checker, expected: object, output: str) -> Difference:
    """Where a wrong text first differs: by token for checkers of tokens, else by line.

    `expected`: a text, or several right ones, of which that counts which the output follows furthest.
    """
    texts = expected if isinstance(expected, (list, tuple)) else [expected]
    found = [_of_text(checker, str(text), output) for text in texts]
    return max(found, key=itemgetter(0))[1]


def _of_text(checker: Checker, expected: str, output: str) -> tuple[int, Difference]:
    """The difference to one right text, after its place in the output."""
    pieces = _lines
    if checker.name == "livecodebench":
        expected, output, pieces = expected.strip(), output.strip(), _stripped_lines
        if checker.tolerance:  # it is wrong by the rule for floats too
            checker = Checker("float", checker.tolerance)
    if checker.name in ("tokens", "float", "codecontests", "apps"):
        pieces = _tokens
    there, here = _first(checker, expected, output, pieces)
    line = output.count("\n", 0, here) + 1
    column = here - (output.rfind("\n", 0, here) + 1) + 1
    return here, _difference(f"line {line}, column {column}", output, here, expected, there)


def of_values(checker: Checker, expected: object, value: object) -> Difference:
    """Where a wrong value first differs, by index and key, with both written as Python does."""
    place = "".join(_path(checker, expected, value))
    wanted, given = shown_value(expected), shown_value(value)
    at = _common_prefix(wanted, given)
    return _difference(place and f"at {place}", given, at, wanted, at)


def _difference(place: str, output: str, here: int, expected: str, there: int) -> Difference:
    start, other = max(here - EXCERPT_CHARS, 0), max(there - EXCERPT_CHARS, 0)
    return Difference(
        place=place,
        output=output[start : here + EXCERPT_CHARS],
        output_at=here - start,
        output_chars=len(output),
        expected=expected[other : there + EXCERPT_CHARS],
        expected_at=there - other,
        expected_chars=len(expected),
    )


class _Piece(NamedTuple):
    start: int
    text: str


def _first(
    checker: Checker, expected: str, output: str, pieces: Callable[[str], Iterator[_Piece]]
) -> tuple[int, int]:
    """Where the texts first differ, expected and output; a line of numbers is compared number by number."""
    for wanted, given in zip_longest(pieces(expected), pieces(output)):
        if wanted is None or given is None:
            return wanted.start if wanted else len(expected), given.start if given else len(output)
        if wanted.text != given.text and not texts_match(checker, wanted.text, given.text):
            there = here = _common_prefix(wanted.text, given.text)
            if pieces is _stripped_lines and None not in (decimals(wanted.text), decimals(given.text)):
                there, here = _first(checker, wanted.text, given.text, _tokens)
            return wanted.start + there, given.start + here
    return 0, 0


def _tokens(text: str) -> Iterator[_Piece]:
    return (_Piece(match.start(), match[0]) for match in re.finditer(r"\S+", text))


def _lines(text: str) -> Iterator[_Piece]:
    """Lines without white space at their ends; newlines at the end are left out."""
    start = 0
    for line in text.rstrip().split("\n"):
        yield _Piece(start, line.rstrip())
        start += len(line) + 1


def _stripped_lines(text: str) -> Iterator[_Piece]:
    """Lines without white space around them."""
    start = 0
    for line in text.split("\n"):
        yield _Piece(start + len(line) - len(line.lstrip()), line.strip())
        start += len(line) + 1


def _path(checker: Checker, expected: object, value: object, depth: int = 0) -> list[str]:
    """Index and key down to the first part that differs."""
    if depth < 50 and isinstance(expected, (list, tuple)) and isinstance(value, (list, tuple)):
        for number, (wanted, given) in enumerate(zip(expected, value, strict=False)):
            if not values_match(checker, wanted, given):
                return [f"[{number}]", *_path(checker, wanted, given, depth + 1)]
        return [] if len(expected) == len(value) else [f"[{min(len(expected), len(value))}]"]
    if depth < 50 and isinstance(expected, Mapping) and isinstance(value, Mapping):
        for key, wanted in expected.items():
            if key not in value or not values_match(checker, wanted, value[key]):
                inner = _path(checker, wanted, value[key], depth + 1) if key in value else []
                return [f"[{key!r}]", *inner]
    return []


def _common_prefix(one: str, other: str) -> int:
    """How many characters at the start are equal."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[:middle] == other[:middle] else (low, middle - 1)
    return low


def shown_value(value: object) -> str:
    """A value as Python writes it, a large integer as its size."""
    try:  # Python itself refuses decimal text for integers of more than 4300 digits
        return decimal_text(value) if type(value) is int else repr(value)
    except ValueError:
        bits = value.bit_length() if isinstance(value, int) else 0
        return f"(an integer of {bits} bits)" if bits else "(a value that holds a very large integer)"
