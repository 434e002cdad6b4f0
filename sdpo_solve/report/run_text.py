"""Runs as text: a list of those on disk, one run, one of its attempts, two runs side by side.

Draws what `runs.py` reads, changes nothing, computes no statistics. Whatever a model or a program wrote is
cleaned and never read as markup.
"""

from __future__ import annotations

import difflib
import itertools
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from sdpo_solve.report.follow import locked
from sdpo_solve.report.marks import LEGEND, strip
from sdpo_solve.report.runs import RunRecord, RunsRead, RunStatus, read_attempt
from sdpo_solve.report.sections import share_without_program
from sdpo_solve.report.table import AlignedTable, clock, labelled
from sdpo_solve.report.updates import CONFIRMED, notice_lines, updates_table
from sdpo_solve.run.events import FILE_NAME, keeps_texts
from sdpo_solve.run.identity import flat
from sdpo_solve.run.records import AttemptEvent
from sdpo_solve.sanitize import clean

_STATUS_STYLES = {RunStatus.SOLVED: "green", RunStatus.FAILED: "red", RunStatus.UNFINISHED: "yellow"}
_NOT_KEPT = "not kept: the run was packed without its texts"


# -- many runs -----------------------------------------------------------------------------------------------


def list_runs(found: RunsRead, root: Path) -> RenderableType:
    """How many runs came to what, then a line a run: where, what became of it, what it spent, its last event.

    Below them one line for each journal that cannot be read.
    """
    table = AlignedTable(("run", "status", "attempts", "time", "last event"), names=("status",))
    written = locked(run.run_dir / FILE_NAME for run in found.runs)
    for run in found.runs:
        limit, n = run.header.attempts_limit, len(run.attempts)
        status = Text(run.status.value, style=_STATUS_STYLES.get(run.status, ""))
        if run.run_dir / FILE_NAME in (written or ()):
            status = Text("running", style="bold")
        elif run.first is not None:
            status.append(f" at {run.first.index}")
        elif run.status is RunStatus.UNFINISHED and written is not None:
            status = Text("stopped", style="yellow")
        inside = run.run_dir.relative_to(root) if run.run_dir.is_relative_to(root) else run.run_dir
        name = str(inside if inside.parts else run.run_dir)
        attempts = f"{n}/{limit}" if limit else str(n)
        table.add([name, status, attempts, clock(run.elapsed_s), _ago(run.last_event_time)])
    damaged = [Text(clean(error.short), style="red", overflow="fold") for error in found.damaged]
    counts = Counter(row[1].plain.partition(" at ")[0] for row in table.rows)
    totals = Text(" · ".join(f"{n} {status}" for status, n in counts.most_common()), style="bold")
    parts: list[RenderableType] = [totals, table] if found.runs else []
    return Group(*parts, *damaged)


def _ago(then: float) -> str:
    if not then:
        return "–"
    seconds = max(0.0, time.time() - then)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


# -- one run -------------------------------------------------------------------------------------------------


def run_text(run: RunRecord, *, full: bool = False) -> RenderableType:
    """The outcome, the verdicts policy by policy, and the solution; `full`: the updates' figures too."""
    parts: list[RenderableType] = [labelled(summary_rows(run)), Text(), *_policies(run)]
    if full and run.updates:
        parts += [Text(), updates_table(run.updates)]
    parts += [Text(line, style="yellow") for line in notice_lines(run.updates)]
    if run.attempts:
        parts += [Text(), *_ending(run)]
    return Group(*parts)


def _ending(run: RunRecord) -> Iterator[RenderableType]:
    """The solution, else the last feedback; of a packed run that it was not kept."""
    what, shown = ("last feedback", run.attempts[-1]) if run.first is None else ("solution", run.first)
    title = f"the {what}, attempt {shown.index}"
    if _is_packed(run):
        yield Text(f"{title}, {_NOT_KEPT}", style="bold")
        return
    yield Text(title, style="bold")
    attempt = read_attempt(run, shown.index)
    yield _program(attempt) if run.first else Padding(Text(clean(attempt.feedback).strip()), (0, 2))


def _is_packed(run: RunRecord) -> bool:
    return not keeps_texts(run.run_dir / FILE_NAME)


def attempt_text(run: RunRecord, index: int) -> RenderableType:
    """One attempt: its program, its verdict, its feedback.

    Raises ConfigError where the run has no such attempt.
    """
    attempt = read_attempt(run, index)
    verdict = _plain_table("test", "shown", "verdict")
    for n, case in enumerate(attempt.cases, start=1):
        verdict.add_row(str(n), "visible" if case.visible else "hidden", case.status.replace("_", " "))
    feedback = Padding(Text(clean(attempt.feedback).strip()), (1, 2))
    title = Text(f"attempt {index} of {clean(run.name)}", style="bold")
    if _is_packed(run):
        return Group(title, Text(f"its program and its feedback, {_NOT_KEPT}"), Text(), verdict)
    return Group(title, _program(attempt), verdict, feedback)


def _plain_table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _program(attempt: AttemptEvent) -> RenderableType:
    """The program of an attempt, highlighted; the whole answer where it holds none."""
    if attempt.code is None:
        return Padding(Text(clean(attempt.text)), (1, 2))
    code = clean(attempt.code)
    return Padding(
        Syntax(code, "python", theme="ansi_dark", background_color="default", word_wrap=True), (1, 2)
    )


def summary_rows(run: RunRecord) -> Iterator[tuple[str, str]]:
    """Name and value of each line that sums a run up."""
    first = run.first
    outcome = f"solved at attempt {first.index}, {CONFIRMED[run.confirmed]}" if first else run.status.value
    yield "outcome", f"{outcome}: {run.error}" if run.error else outcome
    yield "spent", f"{len(run.attempts)} attempts, {run.n_tokens} tokens, {clock(run.elapsed_s)}"
    yield "run", f"{run.problem} · {run.arm} · seed {run.seed} · {run.header.model or 'unknown model'}"
    if run.n_without_program:
        share = share_without_program(len(run.attempts), run.n_without_program, run.n_cut_off)
        yield "no program", f"{share} of the attempts hold none that could be graded"
    if run.n_overfits:
        yield "overfits", f"{run.n_overfits} attempts passed the visible tests and failed a hidden one"
    if run.n_collapses:
        yield "collapses", f"{run.n_collapses} (times a health rule saw a collapsed policy or an unsafe step)"


def _policies(run: RunRecord) -> Iterator[RenderableType]:
    """The verdicts of each policy version in a row."""
    table = _plain_table("policy", "attempts", "verdicts")
    for version, rows in run.by_version.items():
        first, last = rows[0].index, rows[-1].index
        # A group may have been sampled from several versions: not all between first and last are this one's.
        which = f"{len(rows)} in " if len(rows) <= last - first else ""
        table.add_row(str(version), f"{which}{first}–{last}", strip(attempt.mark for attempt in rows))
    yield table
    seen = {attempt.mark for attempt in run.attempts}
    yield Text(" · ".join(f"{mark} {LEGEND[mark]}" for mark in LEGEND if mark in seen), style="dim")


# -- two runs ------------------------------------------------------------------------------------------------


def comparison_text(one: RunRecord, other: RunRecord) -> RenderableType:
    """Two runs side by side: settings that differ, outcomes, and the difference of their programs."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("", overflow="fold", max_width=26)
    for column in ("first", "second"):
        table.add_column(column, overflow="fold", ratio=1)
    for name, a, b in [*_outcome_rows(one, other), *_settings_rows(one, other)]:
        style = "" if a == b else "bold"
        table.add_row(
            Text(clean(name), style="dim"), Text(clean(a), style=style), Text(clean(b), style=style)
        )
    return Group(table, Text(), *_programs(one, other))


def _programs(one: RunRecord, other: RunRecord) -> Iterator[RenderableType]:
    """The difference of the best programs of two runs; where one was packed, that it was not kept."""
    packed = [name for run, name in ((one, "first"), (other, "second")) if _is_packed(run)]
    if packed:
        yield Text(f"programs of the {' and the '.join(packed)}, {_NOT_KEPT}", style="bold")
        return
    first, second = _best_attempt(one), _best_attempt(other)
    names = [f"attempt {attempt.index}" if attempt else "none" for attempt in (first, second)]
    yield Text(f"programs: {names[0]} of the first, {names[1]} of the second", style="bold")
    yield Padding(diff_text(_code(first), _code(second)), (1, 2))


def _outcome_rows(one: RunRecord, other: RunRecord) -> Iterator[tuple[str, str, str]]:
    first, second = dict(summary_rows(one)), dict(summary_rows(other))
    for name in first | second:
        yield name, first.get(name, "–"), second.get(name, "–")


def _settings_rows(one: RunRecord, other: RunRecord) -> Iterator[tuple[str, str, str]]:
    """Settings that differ; a part that only one of the runs has (the learner, a method) is one row."""
    parts = [run.header.parts for run in (one, other)]
    lonely = {part for part in {*parts[0], *parts[1]} if (part in parts[0]) != (part in parts[1])}
    for part in sorted(lonely):
        a, b = (f"{len(each[part])} settings" if part in each else "–" for each in parts)
        yield part, a, b
    left_out = {"event", "run", "replayed", "time", "elapsed_s", "problem", "method", "seed", "model"}
    leaves = [flat(run.header.model_dump(exclude=left_out)) for run in (one, other)]
    for key in sorted(leaves[0].keys() | leaves[1].keys()):
        a, b = (str(each[key]) if each.get(key) is not None else "–" for each in leaves)
        name = key.removeprefix("config.").removeprefix("parts.")
        if a != b and name.partition(".")[0] not in lonely and name != "options.method":
            yield name, a, b


def _best_attempt(run: RunRecord) -> AttemptEvent | None:
    """The solution; without one the first of the attempts that passed most tests."""
    if not run.attempts:
        return None
    best = run.first or max(run.attempts, key=lambda attempt: (attempt.n_passed, -attempt.index))
    return read_attempt(run, best.index)


def _code(attempt: AttemptEvent | None) -> str:
    return "" if attempt is None else attempt.text if attempt.code is None else attempt.code


def diff_text(before: str, after: str) -> Text:
    """A unified difference without its header, coloured; `no difference` where there is none."""
    lines = difflib.unified_diff(clean(before).splitlines(), clean(after).splitlines(), lineterm="", n=3)
    shown = Text()
    for line in itertools.islice(lines, 2, None):
        style = {"+": "green", "-": "red", "@": "dim"}.get(line[:1], "")
        shown.append(f"{line}\n", style=style)
    return shown if shown else Text("no difference", style="dim")
