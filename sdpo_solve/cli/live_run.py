"""What a person sees in the terminal while a run goes on, and at its end.

Whatever a model or a program wrote is cleaned before it is drawn, and never read as markup.
"""

from __future__ import annotations

from textwrap import indent

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from sdpo_solve.cli.live_view import View, bar
from sdpo_solve.report.marks import LEGEND, mark, strip
from sdpo_solve.report.progress import Progress, resumed
from sdpo_solve.report.table import Phrases, clock, labelled
from sdpo_solve.report.updates import CONFIRMED, figure, shown_metrics, updates_table
from sdpo_solve.run.records import (
    AttemptEvent,
    Event,
    Graded,
    GroupEvent,
    Notice,
    Record,
    RunResumed,
    RunStarted,
    UpdateEvent,
    record_of,
)
from sdpo_solve.sanitize import clean, middle_cut

# Lines of feedback that a frame shows at least and at most, marks of its strip, and updates of its table.
_MIN_FEEDBACK, _MAX_FEEDBACK, _SHOWN_MARKS, _SHOWN_UPDATES = 3, 8, 192, 4


class RunView(View):
    """The view of one run of this process."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.progress = Progress()

    def on_event(self, event: Event) -> None:
        record = record_of(event)
        if record is not None:
            with self.guard:
                self.progress.apply(record)
                self.print_line(plain_line(record, self.progress))

    def frame(self) -> RenderableType:
        return frame(self.progress, self.console.height)

    def status_line(self) -> str:
        doing, spent = self.progress.doing(), clock(self.progress.elapsed_now_s())
        return f"{doing} · {spent}{' in all' * self.progress.is_timed}"


# -- plain lines ---------------------------------------------------------------------------------------------


def plain_line(record: Record, progress: Progress) -> str | None:
    """The line for one record that is folded in already, or None where it needs none."""
    match record:
        case RunStarted() as header:
            return title(header)
        case RunResumed():
            return resumed(record)
        case Record(replayed=True):
            return None
        case AttemptEvent(index=index) if index in progress.group_marks:
            return None  # its line came when it was graded
        case Graded() as graded:
            passed = f"{graded.n_passed}/{len(graded.cases)} passed"
            return f"attempt {graded.index:>4}  {passed}  {LEGEND[mark(graded)]}"
        case GroupEvent() as group:
            total = progress.header.attempts_limit
            of = f"/{total}" if total else ""
            return (
                f"group of {group.size}: {len(progress.marks)}{of} attempts, {group.n_solved} solved, "
                f"{group.n_tokens} tokens, sampled in {group.sample_s:.1f} s, graded in {group.grade_s:.1f} s"
            )
        case UpdateEvent() as update:
            numbers = [f"{name} {figure(update.metrics[name])}" for name in shown_metrics([update])]
            line = ", ".join([f"update {update.version}: loss {figure(update.loss)}", *numbers])
            return "\n".join([line, *(f"  ! {notice}" for notice in update.notices)])
        case Notice(text=text):
            return text
    return None


# -- the live frame ------------------------------------------------------------------------------------------


def frame(progress: Progress, height: int = 40) -> RenderableType:
    """The whole view of one run, at most 80 columns wide where the terminal is narrow.

    `height` in lines: the feedback gives way where the terminal is low.
    """
    parts: list[RenderableType] = [Text(title(progress.header), style="bold"), _budget(progress)]
    marks = [*progress.marks, *progress.group_marks.values()]
    if marks:
        parts.append(_marks(marks))
    if progress.updates:
        parts.append(updates_table(progress.updates[-_SHOWN_UPDATES:]))
    if progress.last_attempt and not progress.discovery:
        n_updates = min(len(progress.updates), _SHOWN_UPDATES)
        others = 14 + n_updates + min(len(progress.marks), _SHOWN_MARKS) // 64
        shown = max(_MIN_FEEDBACK, min(_MAX_FEEDBACK, height - others))
        parts.append(_feedback_panel(progress.last_attempt, shown))
    parts += [Text(clean(notice), style="yellow") for notice in progress.notices[-2:]]
    return Group(*parts)


def title(header: RunStarted) -> str:
    """Problem, arm, model and seed in one line."""
    if not header.is_named:
        return "starting"
    names = (header.problem, header.arm_name, header.model or "")
    return " · ".join([*(clean(name) for name in names if name), f"seed {header.seed}"])


def _budget(progress: Progress) -> Table:
    total, done = progress.header.attempts_limit, len(progress.marks) + len(progress.group_marks)
    colour = "green" if progress.discovery else "yellow" if progress.finished else "cyan"
    # Full where the problem is solved, however many attempts were left; empty where it was not.
    filled = 1.0 if progress.discovery else 0.0 if progress.finished else None
    shown = bar(done, total, colour, filled=filled) if total else str(done)
    rows: list[tuple[str, RenderableType]] = [("attempts", shown)]
    spent = f"{progress.n_tokens} tokens · {clock(progress.elapsed_now_s())}"
    if not progress.finished:
        rows.append(("now", progress.doing()))
        left_s = progress.left_s()
        spent += f" · at most {clock(left_s)} left" if left_s is not None else ""
        spent += f" · {progress.tokens_per_s:.0f} tokens/s" if progress.tokens_per_s else ""
    rows.append(("spent", spent))
    if progress.n_tests:
        rows.append(("tests", f"best attempt passed {progress.best_passed} of {progress.n_tests}"))
    return labelled(rows)


def _marks(marks: list[str]) -> Table:
    """The latest verdicts, and how many of each there are in all."""
    before = Text("… " if len(marks) > _SHOWN_MARKS else "", style="dim", overflow="fold")
    seen = [f"{mark} {marks.count(mark)} {LEGEND[mark]}" for mark in LEGEND if mark in marks]
    return labelled([("verdicts", before + strip(marks[-_SHOWN_MARKS:])), ("", Phrases(seen, style="dim"))])


def _feedback_panel(attempt: AttemptEvent, n_lines: int) -> RenderableType:
    lines = clean(attempt.feedback).strip().split("\n")
    shown = [middle_cut(line, 76) for line in lines[:n_lines]]
    if len(lines) > n_lines:
        shown[-1] = "..."
    heading = f"feedback on attempt {attempt.index}"
    return Panel(Text("\n".join(shown)), title=heading, title_align="left", border_style="dim", width=80)


# -- the end -------------------------------------------------------------------------------------------------


def print_result(console: Console, progress: Progress, out: str) -> None:
    """The outcome in two or three lines, and the solution where there is one."""
    end, first = progress.finished, progress.discovery
    if end is None:
        return
    spent = f"{end.attempts} attempts, {end.tokens} tokens, {clock(end.wall_s)}"
    console.print()
    if end.discovery_time is None:
        console.print(Text("unsolved", style="bold yellow") + Text(f" · {spent}"))
    else:
        where = f" at attempt {end.discovery_time} · {CONFIRMED[end.confirmed]} · {spent}"
        console.print(Text("solved", style="bold green") + Text(where))
        if first is not None and first.code:
            _print_solution(console, clean(first.code), progress.header.language)
    console.print(Text(f"journal and results: {out}", style="dim"), soft_wrap=True)


def _print_solution(console: Console, code: str, language: str) -> None:
    """The program, whole: on a terminal long lines go on in the next row, elsewhere lines stay lines."""
    if console.is_terminal:
        lit = Syntax(code, language, theme="ansi_dark", background_color="default", word_wrap=True)
        console.print(Padding(lit, (1, 2)))
    else:
        console.print(Text(f"\n{indent(code.rstrip(), '  ')}\n"), soft_wrap=True)
