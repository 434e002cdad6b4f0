"""What a person sees of a batch: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from sdpo_solve.batch.event_bus import BatchStarted, RunEnded, batch_record_of
from sdpo_solve.cli.live_view import View, bar
from sdpo_solve.report.marks import mark, strip
from sdpo_solve.report.table import AlignedTable, clock, labelled
from sdpo_solve.run.records import Event, Graded, GroupEvent, Notice, Phase, Record
from sdpo_solve.sanitize import clean

_SHOWN_DISCOVERIES = 5
_SHOWN_FAILURES = 3
_SHOWN_RUNS = 8
_SHOWN_MARKS = 16


@dataclass(slots=True)
class ArmCounts:
    """The runs of one arm that have ended."""

    finished: int = 0
    solved: int = 0
    attempts: int = 0
    tokens: int = 0


@dataclass(slots=True)
class RunUnderWay:
    """What a run does since when, and its latest verdicts."""

    phase: str = "starting"
    since_s: float = field(default_factory=time.monotonic)
    marks: deque[str] = field(default_factory=lambda: deque(maxlen=_SHOWN_MARKS))

    def __str__(self) -> str:
        return f"{self.phase} {clock(time.monotonic() - self.since_s)}"


@dataclass(slots=True)
class BatchProgress:
    """Counts of a batch so far; `apply` folds one record in."""

    n_runs: int = 0
    n_kept: int = 0
    n_ended: int = 0
    n_solved: int = 0
    n_failed: int = 0
    arms: dict[str, ArmCounts] = field(default_factory=dict)
    under_way: dict[str, RunUnderWay] = field(default_factory=dict)
    discoveries: deque[str] = field(default_factory=lambda: deque(maxlen=_SHOWN_DISCOVERIES))
    failures: deque[str] = field(default_factory=lambda: deque(maxlen=_SHOWN_FAILURES))
    notice: str = ""
    n_tokens: int = 0
    sample_s: float = 0.0
    started_s: float = field(default_factory=time.monotonic)
    last_end_s: float = field(default_factory=time.monotonic)

    def apply(self, record: Record) -> None:
        """Fold one record in; other kinds are ignored."""
        match record:
            case BatchStarted():
                self.n_runs, self.started_s = record.runs, time.monotonic()
                self.arms = {method: ArmCounts() for method in record.methods}
            case RunEnded():
                self._end(record)
            case Notice():
                self.notice = record.text
            case GroupEvent():
                self.n_tokens += record.n_tokens
                self.sample_s += record.sample_s
            case Phase():
                self._run(record).phase, self._run(record).since_s = record.event, time.monotonic()
            case Graded():
                self._run(record).marks.append(mark(record))

    def _run(self, record: Record) -> RunUnderWay:
        return self.under_way.setdefault(record.run, RunUnderWay())

    def left_s(self) -> float | None:
        """Seconds left at the pace of the runs that this command has ended, counted down from the last end.

        None before the first end, and where a run takes so long that the estimate is used up.
        """
        ended_now = self.n_ended - self.n_kept
        if ended_now <= 0:
            return None
        run_s = (self.last_end_s - self.started_s) / ended_now
        left_s = run_s * (self.n_runs - self.n_ended) - (time.monotonic() - self.last_end_s)
        return max(0.0, left_s) if self.n_ended == self.n_runs or left_s > 0 else None

    def spent(self) -> str:
        """Time, what is left of it at most, and pace."""
        left_s = self.left_s()
        time_left = f" · about {clock(left_s)} left" if left_s is not None else ""
        pace = f" · {self.n_tokens / self.sample_s:.0f} tokens/s" if self.sample_s else ""
        return f"{clock(time.monotonic() - self.started_s)}{time_left}{pace}"

    def _end(self, end: RunEnded) -> None:
        self.under_way.pop(end.run, None)
        if end.status == "failed":
            self.failures.append(f"{end.run}: {end.error}")
        if not end.is_counted:
            return
        self.n_ended += 1
        self.n_kept += end.kept
        self.last_end_s = time.monotonic()
        if end.status == "failed":
            self.n_failed += 1
            return
        arm = self.arms.setdefault(end.arm, ArmCounts())
        arm.finished += 1
        arm.attempts += end.attempts
        arm.tokens += end.tokens
        arm.solved += end.solved
        self.n_solved += end.solved
        if end.solved and not end.kept:
            self.discoveries.append(f"{end.run}: attempt {end.discovery_time}")


class BatchView(View):
    """The view of a batch of this process."""

    refresh_per_s = 2.0

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.progress = BatchProgress()

    def on_event(self, event: Event) -> None:
        record = batch_record_of(event)
        if record is not None:
            with self.guard:
                self.progress.apply(record)
                self.print_line(plain_line(record, self.progress))

    def frame(self) -> RenderableType:
        return frame(self.progress)

    def status_line(self) -> str:
        progress = self.progress
        runs = [*progress.under_way.items()][:2]
        under_way = ", ".join(f"{run}: {one}" for run, one in runs)
        return f"{progress.n_ended}/{progress.n_runs} · {under_way or 'starting'} · {progress.spent()}"


def plain_line(record: Record, progress: BatchProgress) -> str | None:
    """The line of one record after it was folded in, or None where it needs none."""
    match record:
        case Notice(text=text):
            return text
        case RunEnded() as end if not (end.never_began or (end.kept and end.status == "finished")):
            counted = f"{progress.n_ended}/{progress.n_runs}".rjust(len(str(progress.n_runs)) * 2 + 1)
            left_s = progress.left_s()
            left = f", about {clock(left_s)} left" if left_s else ""
            return f"{counted}  {end.run}: {end}{left}"
    return None


# -- the live frame ------------------------------------------------------------------------------------------


def frame(progress: BatchProgress) -> RenderableType:
    """The whole view, at most 80 columns wide where the terminal is narrow."""
    parts: list[RenderableType] = [_counts(progress), _arms(progress)]
    under_way = [
        Text(clean(f"{run}  "))
        + strip(one.marks)
        + Text("  " * bool(one.marks))
        + Text(str(one), style="dim")
        for run, one in [*progress.under_way.items()][:_SHOWN_RUNS]
    ]
    lists = {
        "under way": under_way,
        "solved last": [Text(clean(line)) for line in progress.discoveries],
        "failed last": [Text(clean(line)) for line in progress.failures],
    }
    parts += [_list(name, lines) for name, lines in lists.items() if lines]
    if progress.notice:
        parts.append(Text(clean(progress.notice), style="yellow"))
    return Group(*parts)


def _counts(progress: BatchProgress) -> Table:
    failed = f" · {progress.n_failed} failed" if progress.n_failed else ""
    kept = f" · {progress.n_kept} kept" if progress.n_kept else ""
    rows: list[tuple[str, RenderableType]] = [
        ("runs", bar(progress.n_ended, progress.n_runs)),
        ("", f"{progress.n_solved} solved{failed}{kept}"),
        ("spent", progress.spent()),
    ]
    return labelled(rows, width=11)


def _arms(progress: BatchProgress) -> AlignedTable:
    table = AlignedTable(("method", "finished", "solved", "rate", "attempts", "tokens"))
    for name, arm in progress.arms.items():
        rate = f"{100 * arm.solved / arm.finished:.0f} %" if arm.finished else "–"
        table.add([name, str(arm.finished), str(arm.solved), rate, str(arm.attempts), str(arm.tokens)])
    return table


def _list(name: str, lines: Sequence[Text]) -> Table:
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return labelled([("" if n else name, line) for n, line in enumerate(lines)], width=11)
