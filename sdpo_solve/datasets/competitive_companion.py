"""Competitive Companion (https://github.com/jmerle/competitive-companion): what the extension sends, one
problem as JSON or a list of them; samples and limits, no statement.

The statement is the text file of the same name beside it (`.md` or `.txt`) where there is one, else the name
and address of the problem.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sdpo_solve.config import fault_words
from sdpo_solve.datasets import Format
from sdpo_solve.datasets import _contest_rows as contest
from sdpo_solve.datasets._contest_rows import Facts
from sdpo_solve.datasets._rows import FileRow, safe_id
from sdpo_solve.datasets._statements import INTERACTIVE
from sdpo_solve.datasets.selection import Candidate
from sdpo_solve.errors import ProblemError
from sdpo_solve.protocols import Sandbox
from sdpo_solve.types import Problem


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Channel(_Part):
    type: str = ""


class Sample(_Part):
    input: str
    output: str


class Contest(_Part):
    """Problems that were sent together; `size`: how many."""

    id: str = ""
    size: int = 1


class Posted(_Part):
    """One problem as the extension sends it; what is not named here is ignored. Milliseconds and
    megabytes."""

    name: str = Field(min_length=1)
    group: str = ""
    url: str = ""
    interactive: bool = False
    memoryLimit: float | None = None
    timeLimit: float | None = None
    input: Channel = Channel()
    output: Channel = Channel()
    tests: tuple[Sample, ...] = ()
    batch: Contest = Contest()

    @classmethod
    def read(cls, data: Mapping[str, Any], place: str) -> Posted:
        """Raises ProblemError that names the field at fault."""
        try:
            return cls.model_validate(data)
        except ValidationError as exc:
            fault = exc.errors(include_url=False)[0]
            field = ".".join(map(str, fault["loc"]))
            raise ProblemError(f"{place}: {field} {fault_words(fault)}; send the problem again") from None

    @property
    def id(self) -> str:
        """The name, with the address where characters that an id cannot hold would leave another's name."""
        if re.fullmatch(r"[A-Za-z0-9 .,:;_'\"()!?&-]+", self.name):
            return self.name
        return f"{self.name}-{self.url.partition('://')[2].partition('/')[2]}"

    @property
    def judge(self) -> str:
        return self.group.partition(" - ")[0]

    @property
    def fault(self) -> str | None:
        """Why its outputs cannot be judged, or None."""
        if self.interactive:
            return INTERACTIVE
        to_file = {self.input.type, self.output.type} & {"file", "regex"}
        return "it reads or writes a file" if to_file else None

    def problem(self, row: FileRow, statement: str) -> Problem:
        """Raises Unfit where it has no samples."""
        facts = Facts(safe_id(self.id, row.place), statement, platform=self.judge, fault=self.fault)
        tests = contest.stdin_tests([(each.input, each.output) for each in self.tests], True)
        seconds = None if self.timeLimit is None else self.timeLimit / 1000
        return contest.stdin_problem(row, facts, tests, contest.limits(seconds, self.memoryLimit))


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
    posted = Posted.read(row.data, row.place)
    statement = _statement(row, posted)
    return Facts(safe_id(posted.id, row.place), statement, platform=posted.judge, fault=posted.fault)


def _statement(row: FileRow, posted: Posted) -> str:
    file = Path(row.place.rpartition(": ")[0])
    for beside in (file.with_suffix(".md"), file.with_suffix(".txt")):
        if beside.is_file():
            return beside.read_text(encoding="utf-8-sig")
    return "\n".join(part for part in (posted.name, posted.group, posted.url) if part)


def _problem(row: FileRow, facts: Facts) -> Problem:
    return Posted.read(row.data, row.place).problem(row, facts.statement)
