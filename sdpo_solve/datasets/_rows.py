"""Rows of a data file as records and as candidates, read one at a time; knows no format.

How rows lie in files of each kind is in `_row_files.py`. A row is read again from its file when its problem
is made, so that listing a file of any size costs the memory of one row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sdpo_solve.datasets._row_files import Place, RowFile, open_rows
from sdpo_solve.datasets.selection import Candidate
from sdpo_solve.errors import ProblemError
from sdpo_solve.sanitize import middle_cut
from sdpo_solve.types import Problem

_MOST_DIGITS = 50_000  # that programs in a box may turn into text
_CHUNK_DIGITS = 4000
# What a format raises over a row whose columns hold other things than the data set's.
_ODD = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)


@dataclass(frozen=True, slots=True)
class FileRow:
    """One row: its columns, where it stands (`FILE: line 3`, for messages), and how it is read again."""

    data: Mapping[str, Any]
    place: str
    again: Callable[[], FileRow] | None = None

    def later(self, make: Callable[[FileRow], Problem]) -> Callable[[], Problem]:
        """`make` of this row, read again when it is called: a row may hold many megabytes of tests.

        What it returns raises ProblemError for an odd row.
        """
        again, place = self.again or (lambda: self), self.place

        def made() -> Problem:
            with _odd_is_broken(place):
                return make(again())

        return made


def read_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[FileRow]:
    """The rows of a file, in order. `columns`: those read of a parquet table, by default all.

    Raises ProblemError naming the file and the line, PrerequisiteError for parquet without pyarrow.
    """
    file = open_rows(path, columns)
    return (_row(file, place) for place in file.places())


def sound_rows(path: Path) -> Iterator[FileRow]:
    """The rows that are JSON objects. Raises ProblemError where the file itself cannot be read."""
    file = open_rows(path)
    for place in file.places():
        try:
            row = _row(file, place)
        except ProblemError:
            continue
        yield row


def row_candidates(
    path: Path,
    candidate: Callable[[FileRow, int], Candidate],
    columns: Sequence[str] | None = None,
) -> Iterator[Candidate]:
    """One candidate a row, made from the row and its 1-based number.

    A row that is no JSON object, or of which `candidate` raises ProblemError, is a broken one that goes by
    its place. Raises as `read_rows` does where the file itself cannot be read.
    """
    file = open_rows(path, columns)
    for number, place in enumerate(file.places(), 1):
        try:
            with _odd_is_broken(f"{path}: {place.name}"):
                found = candidate(_row(file, place), number)
        except ProblemError as exc:
            found = Candidate.broken(f"{path.name}: {place.name}", exc)
        yield found
    file.rest()


@contextmanager
def _odd_is_broken(place: str) -> Iterator[None]:
    """Formats read columns as the data set has them; in a row that is not so, the first surprise names it."""
    try:
        yield
    except _ODD as exc:
        fault = middle_cut(" ".join(f"{type(exc).__name__}: {exc}".split()), 120)
        raise ProblemError(f"{place}: its columns are not as the data set has them ({fault})") from exc


def _row(file: RowFile, place: Place) -> FileRow:
    where = f"{file.path}: {place.name}"
    data = file.read(place)
    if isinstance(data, bytes):
        try:
            text = data.decode()
        except UnicodeDecodeError as exc:
            raise ProblemError(f"{where}: not UTF-8 near byte {exc.start}; save it as UTF-8") from None
        del data
        data = parse_json(text, where, "the row")
    if not isinstance(data, dict):
        raise ProblemError(f"{where}: not a JSON object; expected one object a row")
    return FileRow(data, where, partial(_row_alone, file, place))


def _row_alone(file: RowFile, place: Place) -> FileRow:
    row = _row(file, place)
    file.rest()
    return row


def parse_json(text: str, place: str, what: str) -> Any:
    """`text` as JSON, with integers of many digits. Raises ProblemError that names `place` and `what`."""
    try:
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            raise
        except ValueError:  # more digits than Python reads; calling back for every integer is slow
            return json.loads(text, parse_int=_whole_number)
    except json.JSONDecodeError as exc:
        raise ProblemError(f"{place}: {what} is not JSON: {middle_cut(str(exc), 120)}") from None
    except RecursionError:
        raise ProblemError(f"{place}: {what} is not JSON: nested too deep") from None
    except ValueError as exc:
        raise ProblemError(f"{place}: {what} holds {exc}") from None


def _whole_number(digits: str) -> int:
    """An integer's decimal text as its value. Raises ValueError that says how many digits are too many."""
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits, more than the {_MOST_DIGITS} that boxes allow")
    number, unsigned = 0, digits.removeprefix("-")
    for start in range(0, len(unsigned), _CHUNK_DIGITS):
        chunk = unsigned[start : start + _CHUNK_DIGITS]
        number = number * 10 ** len(chunk) + int(chunk)
    return -number if digits.startswith("-") else number


def safe_id(name: str, place: str) -> str:
    """`name` as a directory name. Raises ProblemError where no letter or digit is left."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:100]
    if not safe:
        raise ProblemError(f"{place}: the id {name[:40]!r} holds no letter or digit")
    return safe
