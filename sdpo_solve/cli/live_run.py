"""What a person sees in the terminal while a run goes on, and at its end.

A reader of journal events and nothing else: a live view on a terminal, plain lines elsewhere. Whatever a
model or a program wrote is cleaned before it is drawn, and never read as markup.
"""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import indent
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from sdpo_solve.report.progress import LEGEND, Progress
from sdpo_solve.report.table import Phrases, clock
from sdpo_solve.run.events import arm_name
from sdpo_solve.sanitize import clean, middle_cut

_STYLES = {"✓": "bold green", "H": "yellow", "-": "dim", "w": "red", "e": "magenta", "c": "magenta"}
# Lines of feedback that a frame shows at least and at most, marks of its strip, and updates of its table.
_MIN_FEEDBACK, _MAX_FEEDBACK, _SHOWN_MARKS, _SHOWN_UPDATES = 3, 8, 192, 4


class LiveView:
    """Redraws in place; the last frame stays on the screen."""

    def __init__(self, console: Console) -> None:
        self.progress, self._console = Progress(), console  # before Live, which asks for a frame at once
        self._live = Live(console=console, get_renderable=self._frame, refresh_per_second=4, transient=False)

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def on_event(self, event: Mapping[str, Any]) -> None:
        self.progress.apply(event)

    def _frame(self) -> RenderableType:
        return frame(self.progress, self._console.height)


class PlainView:
    """One line an event, for pipes, logs and `--json`."""

    def __init__(self, console: Console) -> None:
        self.progress = Progress()
        self._console = console

    def __enter__(self) -> PlainView:
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


View = LiveView | PlainView


def make_view(console: Console) -> View:
    return LiveView(console) if console.is_terminal and not console.is_dumb_terminal else PlainView(console)


# -- plain lines ---------------------------------------------------------------------------------------------


def plain_line(event: Mapping[str, Any], progress: Progress) -> str | None:
    """The line for one event, or None where the event needs none."""
    kind = event["event"]
    if kind == "run_started":
        return title(progress.header)
    if kind == "run_resumed":
        return f"resumed after {event['attempts']} attempts and {event['updates']} updates"
    if event.get("replayed"):
        return None
    if kind == "attempt":
        passed = sum(case["status"] == "accepted" for case in event["cases"])
        said = clean(event["feedback"]).strip().split("\n")
        return f"attempt {event['index']:>4}  {passed}/{len(event['cases'])} passed  {said[0]}"
    if kind == "group":
        total = progress.budget.get("attempts")
        of = f"/{total}" if total else ""
        return (
            f"group of {event['size']}: {len(progress.marks)}{of} attempts, {event['n_solved']} solved, "
            f"{event['n_tokens']} tokens, sampled in {event['sample_s']:.1f} s, "
            f"graded in {event['grade_s']:.1f} s"
        )
    if kind == "update":
        numbers = ", ".join(f"{name} {value:.3g}" for name, value in _shown(event["metrics"]))
        line = f"update {event['version']}: loss {_number(event['loss'])}{', ' if numbers else ''}{numbers}"
        return "\n".join([line, *(f"  ! {clean(notice)}" for notice in event.get("notices", ()))])
    if kind == "notice":
        return clean(event["text"])
    return None


# -- the live frame ------------------------------------------------------------------------------------------


def frame(progress: Progress, height: int = 40) -> RenderableType:
    """The whole view of one run, at most 80 columns wide where the terminal is narrow.

    `height` in lines: the feedback gives way where the terminal is low.
    """
    parts: list[RenderableType] = [Text(title(progress.header), style="bold"), _budget_table(progress)]
    if progress.marks:
        parts.append(_marks(progress))
    if progress.updates:
        parts.append(_updates_table(progress))
    if progress.last_attempt and not progress.discovery:
        n_updates = min(len(progress.updates), _SHOWN_UPDATES)
        others = 14 + n_updates + min(len(progress.marks), _SHOWN_MARKS) // 64
        shown = max(_MIN_FEEDBACK, min(_MAX_FEEDBACK, height - others))
        parts.append(_feedback_panel(progress.last_attempt, shown))
    for notice in progress.notices[-2:]:
        parts.append(Text(clean(notice), style="yellow"))
    return Group(*parts)


def title(header: Mapping[str, Any]) -> str:
    names = [header.get("problem"), arm_name(header) if header else None, header.get("model")]
    seed = header.get("seed")
    shown = [clean(str(name)) for name in names if name]
    return " · ".join([*shown, f"seed {seed}"] if seed is not None else shown) or "starting"


def _budget_table(progress: Progress) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", min_width=8)
    table.add_column()
    total = progress.budget.get("attempts")
    done = len(progress.marks)
    if total:
        bar = Table.grid(padding=(0, 2))
        bar.add_row(ProgressBar(total=total, completed=done, width=30), Text(f"{done}/{total}"))
        table.add_row("attempts", bar)
    else:
        table.add_row("attempts", str(done))
    if not progress.finished:
        table.add_row("now", _phase(progress))
    spent = f"{progress.n_tokens} tokens · {clock(progress.elapsed_now_s())}"
    left_s = progress.left_s()
    if left_s is not None and not progress.finished:
        spent += f" · at most {clock(left_s)} left"
    if progress.tokens_per_s and not progress.finished:
        spent += f" · {progress.tokens_per_s:.0f} tokens/s"
    table.add_row("spent", spent)
    if progress.n_tests:
        table.add_row("tests", f"best attempt passed {progress.best_passed} of {progress.n_tests}")
    return table


def _phase(progress: Progress) -> str:
    if progress.phase == "sampling":
        return (
            f"sampling {progress.phase_size} · {progress.phase_finished} finished · "
            f"{progress.phase_tokens} tokens"
        )
    if progress.phase in ("grading", "learning"):
        verb = "grading" if progress.phase == "grading" else "learning from"
        return f"{verb} {progress.phase_size} attempts"
    return progress.phase


def _marks(progress: Progress) -> Table:
    """The latest verdicts, and how many of each there are in all."""
    marks = progress.marks
    strip = Text(overflow="fold")
    strip.append("… " if len(marks) > _SHOWN_MARKS else "", style="dim")
    for mark in marks[-_SHOWN_MARKS:]:
        strip.append(mark, style=_STYLES.get(mark, "red"))
    seen = [f"{mark} {marks.count(mark)} {LEGEND[mark]}" for mark in LEGEND if mark in marks]
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", min_width=8)
    table.add_column(overflow="fold")
    table.add_row("verdicts", strip)
    table.add_row("", Phrases(seen, style="dim"))
    return table


def _updates_table(progress: Progress) -> Table:
    names = [name for name, _ in _shown(progress.updates[-1].metrics)]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", title_justify="left")
    for column in ("update", "loss", *(name.replace("_", " ") for name in names)):
        table.add_column(column, justify="right")
    for row in progress.updates[-_SHOWN_UPDATES:]:
        values = [_number(row.metrics.get(name)) for name in names]
        table.add_row(str(row.version), _number(row.loss), *values)
    return table


def _feedback_panel(attempt: Mapping[str, Any], n_lines: int) -> RenderableType:
    lines = clean(attempt["feedback"]).strip().split("\n")
    shown = [middle_cut(line, 76) for line in lines[:n_lines]]
    if len(lines) > n_lines:
        shown[-1] = "..."
    heading = f"feedback on attempt {attempt['index']}"
    return Panel(Text("\n".join(shown)), title=heading, title_align="left", border_style="dim", width=80)


# The health figures that fit beside the loss; a display shows those that the learner reports.
_SHOWN_METRICS = ("entropy", "mean_length_tokens", "kl_to_base", "grad_norm")


def _shown(metrics: Mapping[str, float | None]) -> list[tuple[str, float]]:
    found = ((name, metrics.get(name)) for name in _SHOWN_METRICS)
    return [(name, value) for name, value in found if value is not None]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


# -- the end -------------------------------------------------------------------------------------------------


def print_result(console: Console, progress: Progress, out: str) -> None:
    """The outcome in two or three lines, and the solution where there is one."""
    end = progress.finished
    if end is None:
        return
    spent = f"{end['attempts']} attempts, {end['tokens']} tokens, {clock(end['wall_s'])}"
    console.print()
    if end["discovery_time"] is None:
        console.print(Text("not solved", style="bold yellow") + Text(f" · {spent}"))
    else:
        sure = {True: "hidden tests passed", False: "hidden tests failed", None: "no hidden tests"}
        first = f" at attempt {end['discovery_time']}"
        console.print(
            Text("solved", style="bold green") + Text(f"{first} · {sure[end['confirmed']]} · {spent}")
        )
        if progress.discovery and progress.discovery["code"]:
            language = progress.header.get("language", "python")
            _print_solution(console, clean(progress.discovery["code"]), language)
    console.print(Text(f"journal and results: {out}", style="dim"), soft_wrap=True)


def _print_solution(console: Console, code: str, language: str) -> None:
    """The program, whole: on a terminal long lines go on in the next row, elsewhere lines stay lines."""
    if console.is_terminal:
        lit = Syntax(code, language, theme="ansi_dark", background_color="default", word_wrap=True)
        console.print(Padding(lit, (1, 2)))
    else:
        console.print(Text(f"\n{indent(code.rstrip(), '  ')}\n"), soft_wrap=True)
