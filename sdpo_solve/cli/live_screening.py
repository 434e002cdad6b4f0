"""What a person sees of a screening: a live frame on a terminal, a line a round elsewhere, and the table."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
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
from sdpo_solve.cli.live_view import View, bar
from sdpo_solve.datasets.selection import Selected, describe_left_out
from sdpo_solve.report.table import AlignedTable, clock, labelled
from sdpo_solve.sanitize import clean

# A longer table is for a file: easy problems are then left out of it.
_MOST_ROWS = 40
_MOST_NAMES = 8
_SHOWN_HARDEST = 6
_EASY = "not hard"


class ScreenView(View):
    """The counts of every problem, and what this command has spent; the frame goes when the table comes."""

    refresh_per_s = 2.0
    is_transient = True

    def __init__(self, console: Console, rule: Rule) -> None:
        super().__init__(console)
        self.rule = rule
        self.screened: dict[str, Screened] = {}
        self.n_samples = self.n_tokens = 0
        self.phase, self.notice, self._last_line = "starting", "", ""
        self._started_s = time.monotonic()

    def on_start(self, screened: Mapping[str, Screened], selected: Selected) -> None:
        """The counts so far of each problem; which problems were taken and left out."""
        self.screened, self._started_s = dict(screened), time.monotonic()
        if selected.left_out:
            line = describe_left_out(selected.left_out, selected.broken)
            self.console.print(Text(clean(line), style="dim"), soft_wrap=True)

    def on_tokens(self, n_tokens: int, n_ended: int) -> None:
        """The engine's own count within its call."""
        self.phase = f"{self.phase.split(':')[0]}: {n_ended} ended, {n_tokens:,} tokens"

    def on_sampling(self, n_samples: int, n_problems: int) -> None:
        """A call of the engine begins."""
        self.phase = f"sampling {n_samples} of {n_problems} {'problem' if n_problems == 1 else 'problems'}"

    def on_look(self, item: Screened, n_samples: int) -> None:
        """A problem's new counts, after so many more samples."""
        with self.guard:
            self.n_tokens += item.tokens - self.screened[item.problem].tokens
            self.n_samples += n_samples
            self.screened[item.problem] = item

    def on_round(self) -> None:
        """All looks of a round were counted: a line where they changed something."""
        counted = f"{self.n_settled}/{len(self.screened)} done: {marks_line(self.screened)}"
        if self.n_samples and counted != self._last_line:
            self.print_line(f"{counted} · {self._spent()}")
            self._last_line = counted

    def on_notice(self, text: str) -> None:
        """A sentence for the user."""
        self.notice = text
        self.print_line(text)

    @property
    def n_settled(self) -> int:
        """Problems that get no more samples."""
        return sum(item.base.n > 0 and self.rule.is_settled(item.base) for item in self.screened.values())

    def _spent(self) -> str:
        spent_s = time.monotonic() - self._started_s
        pace = f" · {self.n_tokens / spent_s:.0f} tokens/s" if self.n_tokens and spent_s >= 1 else ""
        return f"{clock(spent_s)} · {self.n_samples:,} samples{pace}"

    def status_line(self) -> str:
        return f"{self.n_settled}/{len(self.screened)} done · {self.phase} · {self._spent()}"

    def frame(self) -> RenderableType:
        hardest = [
            Text(f"{clean(item.problem)}  {item.base.solved}/{item.base.n}  {item.mark}", overflow="ellipsis")
            for item in _hardest(self.screened)
        ]
        rows: list[tuple[str, RenderableType]] = [
            ("done", bar(self.n_settled, len(self.screened))),
            ("", marks_line(self.screened)),
            ("spent", self._spent()),
            ("now", self.phase),
            *(("" if n else "hardest", line) for n, line in enumerate(hardest)),
        ]
        notice = [Text(clean(self.notice), style="yellow")] if self.notice else []
        return Group(labelled(rows, width=11), *notice)


# -- the end -------------------------------------------------------------------------------------------------


def marks_line(screened: Mapping[str, Screened]) -> str:
    """How many problems bear each mark, those never looked at apart."""
    counts = Counter(item.mark if item.base.n else "not looked at" for item in screened.values())
    return " · ".join(f"{n} {mark}" for mark, n in counts.most_common())


def print_table(console: Console, screened: Mapping[str, Screened], out: Path) -> None:
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


def taught_line(screened: Mapping[str, Screened]) -> str:
    """Where feedback solves what the question does not: there self-distillation has something to teach."""
    n_tried = sum(item.teacher.n >= TAUGHT_SAMPLES for item in screened.values())
    if not n_tried:
        return ""
    names = [clean(name) for name, item in screened.items() if item.is_taught]
    if not names:
        return f"feedback opens none of those tried ({n_tried}): sdpo has little to learn from it"
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    problems = ", ".join(names[:_MOST_NAMES]) + more
    return f"sdpo has something to learn from feedback (batch --only taught): {problems}"


def table(screened: Mapping[str, Screened]) -> AlignedTable:
    """A row a problem: rate, interval, pass@64, mark, and the teacher's rate where it was sampled."""
    with_teacher = any(item.teacher.n for item in screened.values())
    header = ["problem", "solved", "rate", f"{100 * CONFIDENCE:.0f} % interval", "pass@64", "mark"]
    rows = AlignedTable([*header, "with feedback"] if with_teacher else header, names=("mark",))
    for item in screened.values():
        ends, at_64 = interval(item.base), pass_at(64, item.base)
        cells = [
            item.problem,
            f"{item.base.solved}/{item.base.n}",
            _percent(item.base),
            f"{100 * ends.low:.2f} – {100 * ends.high:.2f} %",
            "–" if at_64 is None else f"{at_64:.2f}",
            item.mark,
        ]
        if with_teacher:
            cells.append(f"{item.teacher.solved}/{item.teacher.n} {_percent(item.teacher)}")
        rows.add(cells)
    return rows


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
