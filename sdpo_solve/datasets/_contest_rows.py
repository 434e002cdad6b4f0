"""Shared parts of formats of contest problems: tests from pairs of texts, limits, faults of rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sdpo_solve.datasets._rows import FileRow, parse_json, row_candidates
from sdpo_solve.datasets._statements import (
    SEVERAL,
    granted_error,
    grants_case,
    starter_fault,
    statement_fault,
)
from sdpo_solve.datasets.selection import Candidate, Unfit
from sdpo_solve.errors import ProblemError
from sdpo_solve.types import Checker, Kind, Limits, Problem, TestCase

_TOKENS = Checker("tokens")
N_VISIBLE = 2  # of a row that does not say which of its tests are samples


@dataclass(frozen=True, slots=True)
class Facts:
    """What a row is chosen by, before it is made a problem."""

    id: str
    statement: str
    difficulty: str = ""
    platform: str = ""
    fault: str | None = None
    has_checker: bool = False
    """Whether a program judges outputs, so that several may be right."""


def candidates(
    source: str, facts: Callable[[FileRow, int], Facts], make: Callable[[FileRow, Facts], Problem]
) -> Iterator[Candidate]:
    """The rows of a file; `facts` gets a row and its 1-based number."""

    def candidate(row: FileRow, place: int) -> Candidate:
        known = facts(row, place)
        fault = known.fault or statement_fault(known.statement)
        if known.has_checker and fault == SEVERAL:
            fault = None
        return Candidate(
            row.later(lambda again: make(again, facts(again, place))),
            id=known.id,
            difficulty=known.difficulty,
            platform=known.platform,
            fault=fault or starter_fault(str(row.data.get("starter_code") or "")),
        )

    return row_candidates(Path(source), candidate)


def text(row: FileRow, name: str) -> str:
    """A column that must be a text. Raises ProblemError."""
    value = row.data.get(name)
    if not isinstance(value, str):
        raise ProblemError(f"{row.place}: {name} is missing or no text; see the data set's columns")
    return value


def loaded(row: FileRow, name: str) -> Any:
    """A column that is JSON, as a text or read already; None for a blank one. Raises Unfit where it
    cannot be read."""
    value = row.data.get(name)
    if isinstance(value, str) and not value.strip():
        return None
    if not isinstance(value, str):
        return value
    try:
        return parse_json(value, row.place, name)
    except ProblemError as exc:
        raise Unfit(row.place, str(exc).removeprefix(f"{row.place}: ")) from None


def stdin_tests(pairs: Iterable[tuple[Any, Any]], visible: bool) -> list[TestCase]:
    """Tests of texts; a list of lines is joined."""
    return [TestCase(_joined(given), _joined(expected), visible) for given, expected in pairs]


def stdin_problem(
    row: FileRow,
    facts: Facts,
    tests: Sequence[TestCase],
    limits: Limits,
    rule: Checker = _TOKENS,
    **more: Any,
) -> Problem:
    """A problem over standard input; `more`: further fields. Raises Unfit where it has no tests.

    `rule`: how the data set's own judge compares; what the statement grants is granted as well.
    """
    if not tests:
        raise Unfit(f"{row.place}: {facts.id}", "it has no tests")
    checker = replace(rule, ignore_case=rule.ignore_case or grants_case(facts.statement))
    if error := granted_error(facts.statement):
        name = "float" if rule == _TOKENS else rule.name
        checker = replace(checker, name=name, tolerance=error)
    meta = {"difficulty": facts.difficulty, "platform": facts.platform}
    return Problem(
        id=facts.id,
        statement=facts.statement,
        kind=Kind.STDIN,
        tests=tuple(tests),
        limits=limits,
        meta={key: value for key, value in meta.items() if value},
        **{"checker": checker, **more},
    )


def limits(time_s: object, memory_mb: object) -> Limits:
    """Limits from numbers or texts such as `2.0 seconds`; the defaults where there are none."""
    seconds, megabytes = number(time_s), number(memory_mb)
    default = Limits()
    return Limits(
        min(max(seconds, 0.5), 600.0) if seconds else default.time_s,
        min(max(int(megabytes), 16), 65536) if megabytes else default.memory_mb,
    )


def number(value: object) -> float | None:
    """A finite number, or the one that a text such as `2.0 seconds` begins with; None for anything else."""
    try:
        found = float(str(value).split()[0])
    except (ValueError, IndexError):
        return None
    return found if math.isfinite(found) else None


def pairs_of(columns: object) -> list[tuple[Any, Any]]:
    """Pairs of a table {"input": [...], "output": [...]} or of a list of such objects. Raises TypeError."""
    if isinstance(columns, Mapping):
        return list(zip(items(columns.get("input")), items(columns.get("output")), strict=False))
    return [(each.get("input"), each.get("output")) for each in items(columns) if isinstance(each, Mapping)]


def items(column: object) -> list[Any]:
    """A column that is a list, empty where the row has none. Raises TypeError: the row is a broken one."""
    if column is None or isinstance(column, list):
        return column or []
    raise TypeError(f"a list is due, not {type(column).__name__}")


def _joined(value: Any) -> str:
    return "\n".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
