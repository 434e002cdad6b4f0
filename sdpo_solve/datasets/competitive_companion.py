"""Competitive Companion (https://github.com/jmerle/competitive-companion): what the extension sends, one
problem as JSON or a list of them; samples and limits, no statement.

The statement is the text file of the same name beside it (`.md` or `.txt`) where there is one, else the name
and address of the problem.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

from sdpo_solve.datasets import Format
from sdpo_solve.datasets import _contest_rows as contest
from sdpo_solve.datasets._contest_rows import Facts
from sdpo_solve.datasets._rows import FileRow, safe_id
from sdpo_solve.datasets._statements import INTERACTIVE
from sdpo_solve.datasets.selection import Candidate
from sdpo_solve.errors import ProblemError
from sdpo_solve.protocols import Sandbox
from sdpo_solve.types import Problem


class CompetitiveCompanion(Format):
    """A file of the extension, or a folder of them."""

    schemes: ClassVar = {"companion": "companion:FILE"}
    columns: ClassVar = frozenset({"name", "url", "tests", "memoryLimit", "timeLimit"})

    @classmethod
    def candidates(cls, source: str, sandbox: Callable[[], Sandbox]) -> Iterator[Candidate]:
        """All tests are samples, so visible. Raises ProblemError for a bad file or an empty folder."""
        path = Path(source)
        files = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not files:
            raise ProblemError(f"{path}: no files of Competitive Companion here; expected *.json")
        for file in files:
            yield from contest.candidates(str(file), _facts, _problem)


PLUGIN = CompetitiveCompanion


def _facts(row: FileRow, number: int) -> Facts:
    name, fault = contest.text(row, "name"), None
    kinds = [(row.data.get(end) or {}).get("type", "") for end in ("input", "output")]
    if row.data.get("interactive"):
        fault = INTERACTIVE
    elif "file" in kinds or "regex" in kinds:
        fault = "it reads or writes a file"
    return Facts(safe_id(name, row.place), _statement(row, name), platform=_judge(row), fault=fault)


def _judge(row: FileRow) -> str:
    return str(row.data.get("group") or "").partition(" - ")[0]


def _statement(row: FileRow, name: str) -> str:
    file = Path(row.place.rpartition(": ")[0])
    for beside in (file.with_suffix(".md"), file.with_suffix(".txt")):
        if beside.is_file():
            return beside.read_text(encoding="utf-8-sig")
    return "\n".join(str(part) for part in (name, row.data.get("group"), row.data.get("url")) if part)


def _problem(row: FileRow, facts: Facts) -> Problem:
    milliseconds = row.data.get("timeLimit")
    seconds = milliseconds / 1000 if isinstance(milliseconds, (int, float)) else None
    tests = contest.stdin_tests(contest.pairs_of(row.data.get("tests")), True)
    return contest.stdin_problem(row, facts, tests, contest.limits(seconds, row.data.get("memoryLimit")))
