"""What a person sees of a screening: a live frame on a terminal, a line a round elsewhere, and the table.

Draws counts and runs nothing (see `screen.py`).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sdpo_solve.batch.difficulty import (
    CONFIDENCE,
    HARD_RATE,
    TAUGHT_SAMPLES,
    VERY_HARD_RATE,
    Counts,
    Rule,
    Screened,
    interval,
    pass_at,
)
from sdpo_solve.batch.screening_file import Screening
from sdpo_solve.datasets.selection import describe_left_out
from sdpo_solve.report.table import clock
from sdpo_solve.sanitize import clean

# A longer table is for a file: easy problems are then left out of it.
_MOST_ROWS = 40
_MOST_NAMES = 8
_SHOWN_HARDEST = 6
_EASY = "not hard"


@dataclass(slots=True)
class ScreenProgress:
    """The counts of every problem, and what this command has spent."""

    rule: Rule
    screened: dict[str, Screened] = field(default_factory=dict)
    n_samples: int = 0
    n_tokens: int = 0
    phase: str = ""
    notice: str = ""
    started_s: float = field(default_factory=time.monotonic)

    @property
    def n_settled(self) -> int:
        """Problems that get no more samples."""
        return sum(item.base.n > 0 and self.rule.is_settled(item.base) for item in self.screened.values())

    @property
    def spent(self) -> str:
        spent_s = time.monotonic() - self.started_s
        pace = f" · {self.n_tokens / spent_s:.0f} tokens/s" if self.n_tokens and spent_s >= 1 else ""
        return f"{clock(spent_s)} · {self.n_samples:,} samples{pace}"


class PlainScreenView:
    """One line a round, for pipes and logs."""

    def __init__(self, console: Console, progress: ScreenProgress) -> None:
        self.progress = progress
        self._console = console
        self._last = ""

    def __enter__(self) -> PlainScreenView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def on_start(self, screened: Mapping[str, Screened], left_out: Mapping[str, str]) -> None:
        _begin(self._console, self.progress, screened, left_out)

    def on_tokens(self, n_tokens: int, n_ended: int) -> None:
        """Sampling goes on; nothing to print."""

    def on_sampling(self, n_samples: int, n_problems: int) -> None:
        """A call of the engine begins; nothing to print."""

    def on_look(self, item: Screened, n_samples: int) -> None:
        """A problem's look was counted."""
        _count(self.progress, item, n_samples)

    def on_round(self) -> None:
        """All looks of a round were counted."""
        progress = self.progress
        counted = f"{progress.n_settled}/{len(progress.screened)} done: {marks_line(progress.screened)}"
        if progress.n_samples and counted != self._last:
            self._console.print(Text(f"{counted} · {progress.spent}"), soft_wrap=True)
            self._last = counted

    def on_notice(self, text: str) -> None:
        self._console.print(Text(clean(text)), soft_wrap=True)


class LiveScreenView:
    """Redraws in place; the frame goes when the table comes."""

    def __init__(self, console: Console, progress: ScreenProgress) -> None:
        self.progress = progress
        self._console = console
        self._live = Live(console=console, get_renderable=self._frame, refresh_per_second=2, transient=True)

    def __enter__(self) -> LiveScreenView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def on_start(self, screened: Mapping[str, Screened], left_out: Mapping[str, str]) -> None:
        _begin(self._console, self.progress, screened, left_out)
        self._live.start()

    def on_tokens(self, n_tokens: int, n_ended: int) -> None:
        """The engine's own count within its call."""
        begun = self.progress.phase.split(":")[0]
        self.progress.phase = f"{begun}: {n_ended} ended, {n_tokens:,} tokens"

    def on_sampling(self, n_samples: int, n_problems: int) -> None:
        what = "problem" if n_problems == 1 else "problems"
        self.progress.phase = f"sampling {n_samples} of {n_problems} {what}"

    def on_look(self, item: Screened, n_samples: int) -> None:
        _count(self.progress, item, n_samples)

    def on_round(self) -> None:
        """Grading goes on while the next round is sampled; nothing to say."""

    def on_notice(self, text: str) -> None:
        self.progress.notice = text

    def _frame(self) -> RenderableType:
        return frame(self.progress)


ScreenView = LiveScreenView | PlainScreenView


def make_screen_view(console: Console, progress: ScreenProgress) -> ScreenView:
    live = console.is_terminal and not console.is_dumb_terminal
    return LiveScreenView(console, progress) if live else PlainScreenView(console, progress)


def _begin(
    console: Console,
    progress: ScreenProgress,
    screened: Mapping[str, Screened],
    left_out: Mapping[str, str],
) -> None:
    progress.screened, progress.started_s = dict(screened), time.monotonic()
    if left_out:
        console.print(Text(clean(describe_left_out(left_out)), style="dim"), soft_wrap=True)


def _count(progress: ScreenProgress, item: Screened, n_samples: int) -> None:
    progress.n_tokens += item.tokens - progress.screened[item.problem].tokens
    progress.n_samples += n_samples
    progress.screened[item.problem] = item


# -- pages ---------------------------------------------------------------------------------------------------


def frame(progress: ScreenProgress) -> RenderableType:
    """The whole live view."""
    total, settled = len(progress.screened), progress.n_settled
    page = Table.grid(padding=(0, 2))
    page.add_column(style="dim", min_width=11)
    page.add_column(overflow="ellipsis", no_wrap=True)
    bar = Table.grid(padding=(0, 2))
    bar.add_row(ProgressBar(total=max(1, total), completed=settled, width=30), Text(f"{settled}/{total}"))
    page.add_row("done", bar)
    page.add_row("", Text(marks_line(progress.screened)))
    page.add_row("spent", Text(progress.spent))
    page.add_row("now", Text(progress.phase))
    hardest = _hardest(progress.screened)
    for number, item in enumerate(hardest):
        line = f"{clean(item.problem)}  {item.base.solved}/{item.base.n}  {item.mark}"
        page.add_row("" if number else "hardest", Text(line))
    return Group(page, Text(clean(progress.notice), style="yellow")) if progress.notice else page


def marks_line(screened: Mapping[str, Screened]) -> str:
    """How many problems bear each mark, those never looked at apart."""
    counts = Counter(item.mark if item.base.n else "not looked at" for item in screened.values())
    return " · ".join(f"{n} {mark}" for mark, n in counts.most_common())


def print_table(console: Console, screened: Mapping[str, Screened], out: Path, *, stopped: bool) -> None:
    """The table, and below it the counts and what to do next. Of many problems the easy ones are left out."""
    shown = dict(screened)
    if len(shown) > _MOST_ROWS:
        shown = {name: item for name, item in shown.items() if item.base.n and item.mark != _EASY}
    console.print(table(shown))
    if len(shown) < len(screened):
        left_out = len(screened) - len(shown)
        console.print(Text(f"{left_out} not hard or not looked at are left out; --json lists all"))
    if line := taught_line(screened):
        console.print(Text(line))
    console.print(Text(f"{marks_line(screened)}; kept in {clean(str(out))}", style="dim"), soft_wrap=True)
    if stopped:
        console.print(Text("stopped; the same command goes on"))


def taught_line(screened: Mapping[str, Screened]) -> str:
    """Where feedback solves what the question does not: there self-distillation has something to teach."""
    n_told = sum(item.teacher.n >= TAUGHT_SAMPLES for item in screened.values())
    if not n_told:
        return ""
    names = [clean(name) for name, item in screened.items() if item.is_taught]
    if not names:
        return f"feedback opens none of those tried ({n_told}): sdpo has little to learn from it"
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    problems = ", ".join(names[:_MOST_NAMES]) + more
    return f"sdpo has something to learn from feedback (batch --only taught): {problems}"


def table(screened: Mapping[str, Screened]) -> Table:
    """A row a problem: rate, interval, pass@64, mark, and the teacher's rate where it was sampled."""
    with_teacher = any(item.teacher.n for item in screened.values())
    page = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    page.add_column("problem", overflow="fold")
    for column in ("solved", "rate", f"{100 * CONFIDENCE:.0f} % interval", "pass@64"):
        page.add_column(column, justify="right")
    page.add_column("mark")
    if with_teacher:
        page.add_column("with feedback", justify="right")
    for item in screened.values():
        ends, at_64 = interval(item.base), pass_at(64, item.base)
        cells = [
            clean(item.problem),
            f"{item.base.solved}/{item.base.n}",
            _percent(item.base),
            f"{100 * ends.low:.2f} – {100 * ends.high:.2f} %",
            "–" if at_64 is None else f"{at_64:.2f}",
            item.mark,
        ]
        if with_teacher:
            cells.append(f"{item.teacher.solved}/{item.teacher.n} {_percent(item.teacher)}")
        page.add_row(*cells)
    return page


def as_record(found: Screening) -> dict[str, Any]:
    """The table as one JSON object."""
    rows = []
    for item in found.problems.values():
        ends = interval(item.base)
        rows.append(
            {
                "problem": item.problem,
                "samples": item.base.n,
                "solved": item.base.solved,
                "rate": item.base.rate,
                "interval": [ends.low, ends.high],
                "pass_at_64": pass_at(64, item.base),
                "hard": item.is_below(HARD_RATE),
                "very_hard": item.is_below(VERY_HARD_RATE),
                "teacher_samples": item.teacher.n,
                "teacher_solved": item.teacher.solved,
                "tokens": item.tokens,
            }
        )
    return {"confidence": CONFIDENCE, "config": dict(found.config), "problems": rows}


def _hardest(screened: Mapping[str, Screened]) -> list[Screened]:
    """The problems that took most samples, the easy ones left out."""
    open_ones = [item for item in screened.values() if item.base.n and item.mark != _EASY]
    return sorted(open_ones, key=lambda item: (-item.base.n, item.base.solved))[:_SHOWN_HARDEST]


def _percent(counts: Counts) -> str:
    return "–" if counts.rate is None else f"{100 * counts.rate:.1f} %"
