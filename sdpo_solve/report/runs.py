"""The runs that lie on disk, read from their journals into small records for reports.

Reads journals line by line, also while they are being written, and keeps no token and no text: pages that
show programs read those again (`read_attempts`). Changes nothing on disk and computes no statistics.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from sdpo_solve.errors import ConfigError, JournalError, UserError
from sdpo_solve.paths import MEASURE_PREFIX
from sdpo_solve.report.marks import mark
from sdpo_solve.run.events import FILE_NAME, read_records
from sdpo_solve.run.records import (
    AttemptEvent,
    GroupEvent,
    Record,
    RunFailed,
    RunFinished,
    RunStarted,
    UpdateEvent,
)
from sdpo_solve.types import OutcomeStatus


class RunStatus(StrEnum):
    """What has become of a run so far."""

    SOLVED = "solved"
    UNSOLVED = "unsolved"
    """It ended without a success: its budget is spent."""
    UNFINISHED = "unfinished"
    """No end in its journal: it is running, or was stopped and can be resumed."""
    FAILED = "failed"
    """A part broke: left out of every rate."""


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One attempt without its texts. `elapsed_s` is the run's clock when its group had been graded.

    `overfit`: every quotable test passed (there is one) and a held-out one failed. `no_program`: none was
    found in the answer; `cut_off`: because the token limit ended it. `question_alone`: its prompt held no
    feedback.
    """

    index: int
    n_tokens: int
    solved: bool
    passed_all: bool
    overfit: bool
    no_program: bool
    cut_off: bool
    n_passed: int
    n_cases: int
    mark: str
    version: int
    elapsed_s: float
    question_alone: bool

    @property
    def kind(self) -> str:
        """solved, overfit or other."""
        return "solved" if self.solved else "overfit" if self.overfit else "other"

    @classmethod
    def of(cls, attempt: AttemptEvent, elapsed_s: float, *, question_alone: bool) -> AttemptRow:
        return cls(
            index=attempt.index,
            n_tokens=attempt.n_tokens,
            solved=attempt.solved,
            passed_all=attempt.passed_all,
            overfit=attempt.is_overfit,
            no_program=attempt.has_no_program,
            cut_off=attempt.is_cut_off,
            n_passed=attempt.n_passed,
            n_cases=len(attempt.cases),
            mark=mark(attempt),
            version=attempt.version,
            elapsed_s=elapsed_s,
            question_alone=question_alone,
        )


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run as its journal has it, groups that were never closed left out."""

    run_dir: Path
    header: RunStarted
    attempts: tuple[AttemptRow, ...]
    updates: tuple[UpdateEvent, ...]
    groups_before: tuple[range, ...]
    """For each update the places in `attempts` of the group that it followed."""
    status: RunStatus
    error: str | None
    elapsed_s: float
    last_event_time: float

    @property
    def problem(self) -> str:
        return self.header.problem

    @property
    def method(self) -> str:
        return self.header.method

    @property
    def arm(self) -> str:
        """What it is compared as: its method, unless it was named."""
        return self.header.arm_name

    @property
    def problem_digest(self) -> str | None:
        """Of the problem as the run had it, what is visible included; early journals have none."""
        digest: str | None = self.header.config.get("problem", {}).get("digest")
        return digest

    @property
    def seed(self) -> int:
        return self.header.seed or 0

    @property
    def name(self) -> str:
        return self.header.name

    @property
    def failed(self) -> bool:
        return self.status is RunStatus.FAILED

    @property
    def first(self) -> AttemptRow | None:
        """The first solving attempt."""
        return next((attempt for attempt in self.attempts if attempt.solved), None)

    @property
    def by_version(self) -> dict[int, list[AttemptRow]]:
        """The attempts of each policy version, versions in order; groups may mix versions."""
        versions = sorted({attempt.version for attempt in self.attempts})
        return {v: [attempt for attempt in self.attempts if attempt.version == v] for v in versions}

    @property
    def n_tokens(self) -> int:
        return sum(attempt.n_tokens for attempt in self.attempts)

    @property
    def n_overfits(self) -> int:
        return sum(attempt.overfit for attempt in self.attempts)

    @property
    def n_without_program(self) -> int:
        """Attempts in whose answers no program was found, those that were cut off included."""
        return sum(attempt.no_program for attempt in self.attempts)

    @property
    def n_cut_off(self) -> int:
        return sum(attempt.cut_off for attempt in self.attempts)

    @property
    def n_collapses(self) -> int:
        """Updates at which a health rule skipped a step, went back to an old version, ended learning, or
        would have, but for an option that has it ignored."""
        frozen = [bool(update.metrics.get("frozen")) for update in self.updates]
        return sum(
            "rolled_back_to" in update.metrics
            or bool(update.metrics.get("skipped"))
            or update.collapse_ignored
            or (frozen[n] and not (n and frozen[n - 1]))
            for n, update in enumerate(self.updates)
        )

    @property
    def confirmed(self) -> bool | None:
        """Whether the first success passed every test; None without one, or where none is held out."""
        first = self.first
        return None if first is None or not self.header.n_hidden else first.passed_all


# -- places --------------------------------------------------------------------------------------------------


def find_run_dirs(sources: Sequence[Path]) -> list[Path]:
    """Every run directory in or under `sources`, sorted, each once.

    Raises ConfigError for a path that is not a directory.
    """
    found: set[Path] = set()
    for source in sources:
        if not source.is_dir():
            raise ConfigError(f"{source} is not a directory; give a run's directory or one that holds runs")
        for folder, folders, files in os.walk(source):
            folders[:] = [n for n in folders if n != "policies" and not n.startswith(MEASURE_PREFIX)]
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
        raise ConfigError(f"no run under {source}; 'sdpo-solve show DIR' lists what is on disk")
    listed = ", ".join(str(path) for path in found[:3])
    raise ConfigError(f"{source} holds {len(found)} runs; name one: {listed}{', ...' if found[3:] else ''}")


# -- reading -------------------------------------------------------------------------------------------------


def read_run(run_dir: Path) -> RunRecord | None:
    """The run in `run_dir`, or None where its journal does not name a run yet.

    Raises JournalError for a damaged journal.
    """
    header, last = RunStarted(), Record()
    attempts: list[AttemptRow] = []
    group: list[AttemptEvent] = []
    question: str | None = None  # the first attempt's prompt is the question alone
    updates: list[UpdateEvent] = []
    groups_before: list[range] = []
    last_group = range(0)
    status, error, elapsed_s = RunStatus.UNFINISHED, None, 0.0
    for line in read_records(run_dir / FILE_NAME):
        record = line.record
        if isinstance(record, AttemptEvent):
            group.append(record)
            question = record.prompt if question is None else question
            continue
        last = record
        elapsed_s = elapsed_s if record.elapsed_s is None else record.elapsed_s
        error = record.error if isinstance(record, RunFailed) else None  # else it was taken up again
        if isinstance(record, RunStarted):  # again where the budget of a finished run grew
            header, status = record, RunStatus.UNFINISHED
        elif isinstance(record, GroupEvent):
            last_group = range(len(attempts), len(attempts) + len(group))
            attempts += [
                AttemptRow.of(attempt, elapsed_s, question_alone=attempt.prompt == question)
                for attempt in group
            ]
            group = []
        elif isinstance(record, UpdateEvent):
            updates.append(record)
            groups_before.append(last_group)
        elif isinstance(record, RunFinished):
            solved = record.status is OutcomeStatus.SOLVED
            status = RunStatus.SOLVED if solved else RunStatus.UNSOLVED
    if not header.is_named:
        return None
    status = RunStatus.FAILED if error is not None else status
    found = (tuple(attempts), tuple(updates), tuple(groups_before))
    return RunRecord(run_dir, header, *found, status, error, elapsed_s, last.time)


def load_run(run_dir: Path) -> RunRecord:
    """The run in `run_dir`.

    Raises ConfigError where its journal does not name a run, JournalError where it is damaged.
    """
    run = read_run(run_dir)
    if run is None:
        raise ConfigError(f"the journal in {run_dir} names no run yet")
    return run


@contextmanager
def only_reading() -> Iterator[None]:
    """Within it a journal that cannot be read is a UserError: nothing ran, so that no run failed."""
    try:
        yield
    except JournalError as exc:
        raise UserError(f"cannot read {str(exc).removeprefix('cannot read ')}") from None


@dataclass(frozen=True, slots=True)
class RunsRead:
    """Runs that were read, and one error for each journal that could not be."""

    runs: tuple[RunRecord, ...]
    damaged: tuple[JournalError, ...]


def read_runs(sources: Sequence[Path]) -> RunsRead:
    """Every run in or under `sources`; journals that name no run yet are left out.

    Raises ConfigError for a path that is not a directory.
    """
    runs, damaged = [], []
    for run_dir in find_run_dirs(sources):
        try:
            run = read_run(run_dir)
        except JournalError as exc:
            damaged.append(exc)
            continue
        if run is not None:
            runs.append(run)
    return RunsRead(tuple(runs), tuple(damaged))


def some_runs(source: Path) -> RunsRead:
    """As `read_runs`, for a list of what is there. Raises ConfigError also where nothing is."""
    found = read_runs([source])
    if not found.runs and not found.damaged:
        raise ConfigError(f"no runs under {source}")
    return found


def read_attempts(run_dir: Path) -> Iterator[AttemptEvent]:
    """Every attempt of closed groups with its texts, in order; clean or escape them before they are shown.

    Raises JournalError for a damaged journal.
    """
    for line in read_records(run_dir / FILE_NAME):
        if isinstance(line.record, AttemptEvent):
            yield line.record


def read_attempt(run: RunRecord, index: int) -> AttemptEvent:
    """Attempt `index` of the run with its texts.

    Raises ConfigError where the run has no such attempt.
    """
    for attempt in read_attempts(run.run_dir):
        if attempt.index == index:
            return attempt
    raise ConfigError(f"{run.run_dir} has no attempt {index}; it has {len(run.attempts)}")
