"""The runs that lie on disk, read from their journals into small records for reports.

Reads journals line by line, also while they are being written, and keeps no token and no text: pages that
show programs read those again (`attempt_texts`). Changes nothing on disk and computes no statistics.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Generic, TypeVar

from sdpo_solve.errors import ConfigError, JournalError, UserError
from sdpo_solve.report.progress import mark
from sdpo_solve.run.events import FILE_NAME, arm_name, not_of_this_version, read_events

ACCEPTED = "accepted"


class RunStatus(StrEnum):
    """What has become of a run so far."""

    SOLVED = "solved"
    UNSOLVED = "unsolved"
    """It ended without a success: its budget is spent."""
    UNFINISHED = "unfinished"
    """No end in its journal: it is running, or was stopped and can be resumed."""
    FAILED = "failed"
    """A part broke: neither solved nor unsolved, left out of every rate."""


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One attempt without its texts. `elapsed_s` is the run's clock when its group had been graded.

    `overfit`: every quotable test passed (there is one) and a held-out one failed.
    """

    index: int
    n_tokens: int
    solved: bool
    passed_all: bool
    overfit: bool
    n_passed: int
    n_cases: int
    mark: str
    version: int
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class UpdateRow:
    """One update: the version it made, and the learner's figures (units in their names)."""

    version: int
    loss: float | None
    n_examples: int
    n_tokens: int
    metrics: Mapping[str, float | None]
    elapsed_s: float
    notices: tuple[str, ...] = ()
    """What the learner did instead of an ordinary step, in its words."""

    @property
    def went_on_collapsed(self) -> bool:
        """A health rule saw a collapse and was told to ignore it, which journals hold in words only."""
        return any("looks collapsed (" in notice for notice in self.notices)


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run as its journal tells it, groups that were never closed left out."""

    run_dir: Path
    header: Mapping[str, Any]
    attempts: tuple[AttemptRow, ...]
    updates: tuple[UpdateRow, ...]
    status: RunStatus
    error: str | None
    elapsed_s: float
    last_event_time: float

    @property
    def problem(self) -> str:
        return str(self.header["problem"])

    @property
    def method(self) -> str:
        return str(self.header["method"])

    @property
    def arm(self) -> str:
        """What it is compared as: its method, unless it was named."""
        return arm_name(self.header)

    @property
    def seed(self) -> int:
        return int(self.header["seed"])

    @property
    def name(self) -> str:
        return f"{self.problem}/{self.arm}/seed-{self.seed}"

    @property
    def failed(self) -> bool:
        return self.status is RunStatus.FAILED

    @property
    def first(self) -> AttemptRow | None:
        """The first solving attempt."""
        return next((attempt for attempt in self.attempts if attempt.solved), None)

    @property
    def n_tokens(self) -> int:
        return sum(attempt.n_tokens for attempt in self.attempts)

    @property
    def n_overfits(self) -> int:
        return sum(attempt.overfit for attempt in self.attempts)

    @property
    def n_collapses(self) -> int:
        """Updates at which a health rule skipped a step, went back to an old version, ended learning, or
        would have, had it not been told to ignore what it saw."""
        frozen = [bool(update.metrics.get("frozen")) for update in self.updates]
        return sum(
            "rolled_back_to" in update.metrics
            or bool(update.metrics.get("skipped"))
            or update.went_on_collapsed
            or (frozen[n] and not (n and frozen[n - 1]))
            for n, update in enumerate(self.updates)
        )

    @property
    def confirmed(self) -> bool | None:
        """Whether the first success passed every test; None without one, or where none is held out."""
        first = self.first
        if first is None or not self.header.get("n_hidden"):
            return None
        return first.passed_all


def find_run_dirs(sources: Sequence[Path]) -> list[Path]:
    """Every run directory in or under `sources`, sorted, each once.

    Raises ConfigError for a path that is not a directory.
    """
    found: set[Path] = set()
    for source in sources:
        if not source.is_dir():
            raise ConfigError(f"{source} is not a directory; give a run's directory or one that holds runs")
        for folder, folders, files in os.walk(source):
            folders[:] = [name for name in folders if name != "policies"]
            if FILE_NAME in files:
                found.add(Path(folder))
    return sorted(found)


def one_run_dir(source: Path) -> Path:
    """The one run directory in or under `source`.

    Raises ConfigError where there is none or several; the message names the first few.
    """
    found = find_run_dirs([source])
    if len(found) == 1:
        return found[0]
    if not found:
        raise ConfigError(f"no run under {source}; 'sdpo-solve runs' lists what is on disk")
    listed = ", ".join(str(path) for path in found[:3])
    raise ConfigError(f"{source} holds {len(found)} runs; name one: {listed}{', ...' if found[3:] else ''}")


@dataclass
class _Reading:
    """What has been read of one journal."""

    header: dict[str, Any] = field(default_factory=dict)
    attempts: list[AttemptRow] = field(default_factory=list)
    open_group: list[dict[str, Any]] = field(default_factory=list)
    updates: list[UpdateRow] = field(default_factory=list)
    status: RunStatus = RunStatus.UNFINISHED
    error: str | None = None
    elapsed_s: float = 0.0
    time: float = 0.0

    def apply(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "attempt":
            self.open_group.append(event)
            return
        self.elapsed_s = event.get("elapsed_s", self.elapsed_s)
        self.time = event.get("time", self.time)
        if kind == "run_started":
            self.header = {key: value for key, value in event.items() if key != "event"}
        elif kind == "group":
            self.attempts += [_row(attempt, self.elapsed_s) for attempt in self.open_group]
            self.open_group = []
        elif kind == "update":
            self.updates.append(_update(event, self.elapsed_s))
        elif kind == "run_failed":
            self.error = str(event.get("error", "no reason given"))
        if kind in ("group", "update", "run_finished"):  # a failed run that was taken up again
            self.error = None
        if kind == "run_finished":
            self.status = RunStatus(event["status"] if event["status"] == "solved" else "unsolved")


def read_run(run_dir: Path) -> RunRecord | None:
    """The run in `run_dir`, or None where its journal does not name a run yet.

    Raises JournalError for a damaged journal.
    """
    path = run_dir / FILE_NAME
    reading = _Reading()
    for number, (event, _) in enumerate(read_events(path, numbers=False), start=1):
        try:
            reading.apply(event)
        except (KeyError, TypeError, ValueError) as exc:
            raise not_of_this_version(path, number, exc) from None
    if not {"problem", "method", "seed"} <= reading.header.keys():
        return None
    return RunRecord(
        run_dir=run_dir,
        header=reading.header,
        attempts=tuple(reading.attempts),
        updates=tuple(reading.updates),
        status=RunStatus.FAILED if reading.error is not None else reading.status,
        error=reading.error,
        elapsed_s=reading.elapsed_s,
        last_event_time=reading.time,
    )


@contextmanager
def only_reading() -> Iterator[None]:
    """Within it a journal that cannot be read is a UserError: nothing ran, so that no run failed."""
    try:
        yield
    except JournalError as exc:
        raise UserError(f"cannot read {str(exc).removeprefix('cannot read ')}") from None


_Run = TypeVar("_Run")


@dataclass(frozen=True, slots=True)
class Found(Generic[_Run]):
    """Runs that were read, and one error for each journal that could not be."""

    runs: tuple[_Run, ...]
    damaged: tuple[JournalError, ...]


def read_runs(sources: Sequence[Path]) -> Found[RunRecord]:
    """Every run in or under `sources`; journals that name no run yet are left out.

    Raises ConfigError for a path that is not a directory.
    """
    return read_all(sources, read_run)


def read_all(sources: Sequence[Path], read: Callable[[Path], _Run | None]) -> Found[_Run]:
    """What `read` makes of every run directory in or under `sources`; raises as `read_runs` does."""
    runs, damaged = [], []
    for run_dir in find_run_dirs(sources):
        try:
            run = read(run_dir)
        except JournalError as exc:
            damaged.append(exc)
            continue
        if run is not None:
            runs.append(run)
    return Found(tuple(runs), tuple(damaged))


def _row(event: Mapping[str, Any], elapsed_s: float) -> AttemptRow:
    cases = event["cases"]
    passed = [case["status"] == ACCEPTED for case in cases]
    quotable = [p for p, case in zip(passed, cases, strict=True) if case["visible"]]
    return AttemptRow(
        index=event["index"],
        # Packed runs hold the count; where the reader counted, the list is its length.
        n_tokens=event["n_tokens"] if "n_tokens" in event else event["token_ids"],
        solved=bool(event["solved"]),
        passed_all=bool(cases) and all(passed),
        overfit=bool(quotable) and all(quotable) and not all(passed),
        n_passed=sum(passed),
        n_cases=len(cases),
        mark=mark(event),
        version=event["policy"]["version"],
        elapsed_s=elapsed_s,
    )


def _update(event: Mapping[str, Any], elapsed_s: float) -> UpdateRow:
    return UpdateRow(
        event["version"], event["loss"], event["n_examples"], event["n_tokens"], event["metrics"], elapsed_s,
        tuple(map(str, event.get("notices", ()))),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class AttemptTexts:
    """What a model and a program wrote in one attempt, raw: clean or escape it before it is shown."""

    index: int
    text: str
    code: str | None
    feedback: str
    statuses: tuple[str, ...]
    visible: tuple[bool, ...]


def attempt_texts(run_dir: Path) -> Iterator[AttemptTexts]:
    """The texts of every attempt of closed groups, in order.

    Raises JournalError for a damaged journal.
    """
    group: list[AttemptTexts] = []
    path = run_dir / FILE_NAME
    for number, (event, _) in enumerate(read_events(path, numbers=False), start=1):
        if event["event"] == "attempt":
            try:
                group.append(_texts(event))
            except (KeyError, TypeError, ValueError) as exc:
                raise not_of_this_version(path, number, exc) from None
        elif event["event"] == "group":
            yield from group
            group = []


def _texts(event: Mapping[str, Any]) -> AttemptTexts:
    statuses = tuple(str(case["status"]) for case in event["cases"])
    visible = tuple(bool(case["visible"]) for case in event["cases"])
    return AttemptTexts(event["index"], event["text"], event["code"], event["feedback"], statuses, visible)
