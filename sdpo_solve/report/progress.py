"""What a run has come to, folded from its records: the state behind every live view.

Serves a run of this process, a resumed one and one started elsewhere alike. Draws nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from sdpo_solve.report.marks import mark
from sdpo_solve.report.table import clock, plural
from sdpo_solve.run.records import (
    AttemptEvent,
    Graded,
    GroupEvent,
    Notice,
    Phase,
    Record,
    RunFinished,
    RunResumed,
    RunStarted,
    TokensSampled,
    UpdateEvent,
)

_TIMED = ("sampling", "grading", "learning")


def resumed(record: RunResumed) -> str:
    """From where a run goes on."""
    return f"resumed after {plural(record.attempts, 'attempt')} and {plural(record.updates, 'update')}"


@dataclass(slots=True)
class Progress:
    """Counts, marks and the latest records of one run; `apply` folds one record in."""

    header: RunStarted = field(default_factory=RunStarted)
    marks: list[str] = field(default_factory=list)
    n_tokens: int = 0
    best_passed: int = 0
    n_tests: int = 0
    discovery: AttemptEvent | None = None
    last_attempt: AttemptEvent | None = None
    updates: list[UpdateEvent] = field(default_factory=list)
    phase: str = "starting"
    phase_size: int = 0
    phase_tokens: int = 0
    phase_finished: int = 0
    phase_started_s: float = 0.0
    group_marks: dict[int, str] = field(default_factory=dict)
    """Verdicts of the group that is being graded, by attempt; known before the group is recorded."""
    tokens_per_s: float = 0.0
    elapsed_s: float = 0.0
    seen_s: float = field(default_factory=time.monotonic)
    finished: RunFinished | None = None
    notices: list[str] = field(default_factory=list)

    def apply(self, record: Record) -> None:
        """Fold one record in; kinds that a run does not have are ignored."""
        match record:
            case RunStarted():
                self.header, self.seen_s = record, time.monotonic()
                self.phase, self.finished = "starting", None  # again where the budget of a finished run grew
            case RunResumed():
                self.notices.append(resumed(record))
            case Phase():
                self.phase, self.phase_size = record.event, record.size
                self.phase_tokens, self.phase_finished, self.phase_started_s = 0, 0, time.monotonic()
            case TokensSampled():
                self.phase_tokens, self.phase_finished = record.n_tokens, record.n_finished
                spent_s = time.monotonic() - self.phase_started_s
                if spent_s > 0.5:
                    self.tokens_per_s = self.phase_tokens / spent_s
            case AttemptEvent():
                self._add(record)
            case Graded():
                self.group_marks[record.index] = mark(record)
            case GroupEvent():
                self.phase, self.group_marks = f"after a group of {record.size}", {}
                if record.sample_s > 0:
                    self.tokens_per_s = record.n_tokens / record.sample_s
            case UpdateEvent():
                self.phase = f"after update {record.version}"
                self.updates.append(record)
                self.notices.extend(record.notices)
            case Notice():
                self.notices.append(record.text)
            case RunFinished():
                self.phase, self.finished = "finished", record
        if record.elapsed_s is not None:
            self.elapsed_s, self.seen_s = record.elapsed_s, time.monotonic()

    def _add(self, attempt: AttemptEvent) -> None:
        self.marks.append(mark(attempt))
        self.n_tokens += attempt.n_tokens
        self.n_tests = len(attempt.cases)
        self.best_passed = max(self.best_passed, attempt.n_passed)
        self.last_attempt = attempt
        if attempt.solved and self.discovery is None:
            self.discovery = attempt

    def elapsed_now_s(self) -> float:
        """Seconds of the run, the time since the last record included while it runs."""
        return self.elapsed_s if self.finished else self.elapsed_s + time.monotonic() - self.seen_s

    @property
    def is_timed(self) -> bool:
        """Whether what it does now has a clock of its own."""
        return self.phase in _TIMED

    def doing(self) -> str:
        """What the run does now, and how long it has."""
        size, taken = self.phase_size, clock(time.monotonic() - self.phase_started_s)
        match self.phase:
            case "sampling":
                counts = f"{self.phase_finished} finished · {self.phase_tokens} tokens · "
                return f"sampling {size} · {counts * bool(self.phase_tokens)}{taken}"
            case "grading":
                return f"grading {size} attempts · {len(self.group_marks)} judged · {taken}"
            case "learning":
                return f"learning from {size} attempts · {taken}"
        return self.phase

    def left_s(self) -> float | None:
        """Seconds until the budget is spent at the pace so far; None before there is a pace."""
        done, total = len(self.marks), self.header.attempts_limit
        if not done or not total or not self.elapsed_s:
            return None
        since_s = self.elapsed_now_s() - self.elapsed_s
        left_s = max(0.0, self.elapsed_s / done * max(0, total - done) - since_s)
        limit_s = self.header.wall_limit_s
        return left_s if limit_s is None else max(0.0, min(left_s, limit_s - self.elapsed_now_s()))
