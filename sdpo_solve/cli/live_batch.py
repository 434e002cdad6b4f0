"""What a person sees of a batch: a live table on a terminal, plain lines elsewhere, and the lines of its log.

A fold over events and their drawing; nothing is run or read here. Events are those of the runs, each with its
run's name under `run`, and the batch's own: batch_started, run_ended, notice, batch_finished.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sdpo_solve.batch.event_bus import how_it_ended, never_began
from sdpo_solve.report.table import clock
from sdpo_solve.sanitize import clean

_SHOWN_DISCOVERIES = 5
_SHOWN_FAILURES = 3
_SHOWN_RUNS = 8
_PHASES = ("sampling", "grading", "learning")


@dataclass(slots=True)
class ArmCounts:
    """The runs of one method that have ended."""

    finished: int = 0
    solved: int = 0
    attempts: int = 0
    tokens: int = 0


@dataclass(slots=True)
class BatchProgress:
    """Counts of a batch so far; `apply` folds one event in."""

    n_runs: int = 0
    n_kept: int = 0
    n_ended: int = 0
    n_solved: int = 0
    n_failed: int = 0
    arms: dict[str, ArmCounts] = field(default_factory=dict)
    under_way: dict[str, str] = field(default_factory=dict)
    discoveries: deque[str] = field(default_factory=lambda: deque(maxlen=_SHOWN_DISCOVERIES))
    failures: deque[str] = field(default_factory=lambda: deque(maxlen=_SHOWN_FAILURES))
    notice: str = ""
    n_tokens: int = 0
    sample_s: float = 0.0
    started_s: float = field(default_factory=time.monotonic)

    def apply(self, event: Mapping[str, Any]) -> None:
        """Fold one event in; unknown events are ignored."""
        kind = event["event"]
        if kind == "batch_started":
            self.n_runs, self.started_s = event["runs"], time.monotonic()
            self.arms = {method: ArmCounts() for method in event["methods"]}
        elif kind == "run_ended":
            self._ended(event)
        elif kind == "notice":
            self.notice = event["text"]
        elif kind == "group":
            self.n_tokens += event["n_tokens"]
            self.sample_s += event["sample_s"]
        elif kind in _PHASES:
            self.under_way[event["run"]] = f"{kind} {event['size']}"

    def left_s(self) -> float | None:
        """Seconds left at the pace of the runs that this command has ended; None before the first."""
        ended_now = self.n_ended - self.n_kept
        if ended_now <= 0:
            return None
        spent_s = time.monotonic() - self.started_s
        return spent_s / ended_now * (self.n_runs - self.n_ended)

    def _ended(self, event: Mapping[str, Any]) -> None:
        self.under_way.pop(event["run"], None)
        if event["status"] == "failed":
            self.failures.append(f"{event['run']}: {event['error']}")
        if event["status"] == "stopped" or event["may_retry"]:
            return
        self.n_ended += 1
        self.n_kept += event["kept"]
        if event["status"] == "failed":
            self.n_failed += 1
            return
        arm = self.arms.setdefault(event["arm"], ArmCounts())
        arm.finished += 1
        arm.attempts += event["attempts"]
        arm.tokens += event["tokens"]
        if event["solved"]:
            arm.solved += 1
            self.n_solved += 1
            if not event["kept"]:
                self.discoveries.append(f"{event['run']}: attempt {event['discovery_time']}")


# -- the views -----------------------------------------------------------------------------------------------


class LiveBatchView:
    """Redraws in place; the last frame stays on the screen."""

    def __init__(self, console: Console) -> None:
        self.progress = BatchProgress()
        self._guard = threading.Lock()
        self._live = Live(console=console, get_renderable=self._frame, refresh_per_second=2, transient=False)

    def __enter__(self) -> LiveBatchView:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def on_event(self, event: Mapping[str, Any]) -> None:
        with self._guard:
            self.progress.apply(event)

    def _frame(self) -> RenderableType:
        with self._guard:
            return frame(self.progress)


class PlainBatchView:
    """One line a run, for pipes and logs."""

    def __init__(self, console: Console) -> None:
        self.progress = BatchProgress()
        self._console = console

    def __enter__(self) -> PlainBatchView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def on_event(self, event: Mapping[str, Any]) -> None:
        self.progress.apply(event)
        line = plain_line(event, self.progress)
        if line:
            self._console.print(Text(line), soft_wrap=True)


BatchView = LiveBatchView | PlainBatchView


def make_batch_view(console: Console) -> BatchView:
    live = console.is_terminal and not console.is_dumb_terminal
    return LiveBatchView(console) if live else PlainBatchView(console)


# -- lines ---------------------------------------------------------------------------------------------------


def plain_line(event: Mapping[str, Any], progress: BatchProgress) -> str | None:
    """The line of one event after it was folded in, or None where it needs none."""
    kind = event["event"]
    if kind == "notice":
        return clean(event["text"])
    if kind != "run_ended" or (event["kept"] and event["status"] == "finished") or never_began(event):
        return None
    counted = f"{progress.n_ended}/{progress.n_runs}".rjust(len(str(progress.n_runs)) * 2 + 1)
    left_s = progress.left_s()
    left = f", about {clock(left_s)} left" if left_s else ""
    return f"{counted}  {clean(event['run'])}: {how_it_ended(event)}{left}"


# -- the live frame ------------------------------------------------------------------------------------------


def frame(progress: BatchProgress) -> RenderableType:
    """The whole view, at most 80 columns wide where the terminal is narrow."""
    parts: list[RenderableType] = [_counts(progress), _arms(progress)]
    if progress.under_way:
        parts.append(_list("under way", [f"{k}: {v}" for k, v in progress.under_way.items()][:_SHOWN_RUNS]))
    if progress.discoveries:
        parts.append(_list("solved last", list(progress.discoveries)))
    if progress.failures:
        parts.append(_list("failed last", list(progress.failures)))
    if progress.notice:
        parts.append(Text(clean(progress.notice), style="yellow"))
    return Group(*parts)


def _counts(progress: BatchProgress) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", min_width=11)
    table.add_column()
    bar = Table.grid(padding=(0, 2))
    bar.add_row(
        ProgressBar(total=max(1, progress.n_runs), completed=progress.n_ended, width=30),
        Text(f"{progress.n_ended}/{progress.n_runs}"),
    )
    table.add_row("runs", bar)
    failed = f" · {progress.n_failed} failed" if progress.n_failed else ""
    kept = f" · {progress.n_kept} kept" if progress.n_kept else ""
    table.add_row("", Text(f"{progress.n_solved} solved{failed}{kept}"))
    left_s = progress.left_s()
    time_left = f" · about {clock(left_s)} left" if left_s is not None else ""
    pace = f" · {progress.n_tokens / progress.sample_s:.0f} tokens/s" if progress.sample_s else ""
    table.add_row("spent", Text(f"{clock(time.monotonic() - progress.started_s)}{time_left}{pace}"))
    return table


def _arms(progress: BatchProgress) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("method")
    for column in ("finished", "solved", "rate", "attempts", "tokens"):
        table.add_column(column, justify="right")
    for method, arm in progress.arms.items():
        rate = f"{100 * arm.solved / arm.finished:.0f} %" if arm.finished else "–"
        numbers = (str(arm.finished), str(arm.solved), rate, str(arm.attempts), str(arm.tokens))
        table.add_row(clean(method), *numbers)
    return table


def _list(name: str, lines: list[str]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", min_width=11)
    table.add_column(overflow="ellipsis", no_wrap=True)
    for number, line in enumerate(lines):
        table.add_row("" if number else name, Text(clean(line)))
    return table
