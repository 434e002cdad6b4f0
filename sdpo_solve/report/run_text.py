"""What lies on disk, and the story of one run or of two side by side: `runs`, `show` and `diff` draw this.

Reads journals through `runs.py`, changes nothing, computes no statistics. Whatever a model or a program wrote
is cleaned and never read as markup.
"""

from __future__ import annotations

import difflib
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from sdpo_solve.errors import ConfigError
from sdpo_solve.report.follow import being_written
from sdpo_solve.report.progress import LEGEND
from sdpo_solve.report.runs import (
    AttemptTexts,
    Found,
    RunRecord,
    RunStatus,
    UpdateRow,
    attempt_texts,
    read_all,
    read_run,
)
from sdpo_solve.report.table import Sheet, clock
from sdpo_solve.run.events import FILE_NAME, check_lines, last_event, read_events
from sdpo_solve.sanitize import clean

MARK_STYLES = {"✓": "bold green", "H": "yellow", "-": "dim", "w": "red", "e": "magenta", "c": "magenta"}
_STATUS_STYLES = {RunStatus.SOLVED: "green", RunStatus.FAILED: "red", RunStatus.UNFINISHED: "yellow"}
# The learner's figures that fit beside the loss, in this order; those that it reports are shown.
SHOWN_METRICS = ("entropy", "mean_length_tokens", "kl_to_base", "grad_norm", "repetition")


def load_run(run_dir: Path) -> RunRecord:
    """The run in `run_dir`.

    Raises ConfigError where its journal does not name a run, JournalError where it is damaged.
    """
    run = read_run(run_dir)
    if run is None:
        raise ConfigError(f"the journal in {run_dir} names no run yet")
    return run


# -- runs ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunLine:
    """One run in one line."""

    run_dir: Path
    header: Mapping[str, Any]
    status: RunStatus
    discovery_time: int | None
    n_attempts: int
    elapsed_s: float
    last_event_time: float


def read_line(run_dir: Path) -> RunLine | None:
    """The run in short; of a finished journal only the first and last lines are read, the others looked at.

    None where it does not name a run yet. Raises JournalError for a damaged journal, where the damage shows
    at the ends of a line; `read_run` finds what lies within one.
    """
    path = run_dir / FILE_NAME
    started, last = next(read_events(path), None), last_event(path)
    needed = {"discovery_time", "attempts", "elapsed_s", "time"}
    if started and last and last["event"] == "run_finished" and needed <= last.keys():
        check_lines(path)
        solved = last["discovery_time"] is not None
        return RunLine(
            run_dir, started[0], RunStatus.SOLVED if solved else RunStatus.UNSOLVED, last["discovery_time"],
            last["attempts"], last["elapsed_s"], last["time"],
        )  # fmt: skip
    run = read_run(run_dir)
    if run is None:
        return None
    first = run.first.index if run.first else None
    return RunLine(
        run_dir, run.header, run.status, first, len(run.attempts), run.elapsed_s, run.last_event_time
    )


def read_lines(sources: Sequence[Path]) -> Found[RunLine]:
    """Every run in or under `sources` in short; raises as `read_runs` does."""
    return read_all(sources, read_line)


def list_runs(found: Found[RunLine], root: Path) -> RenderableType:
    """One line a run: where, what became of it, what it spent, and how long ago it last said something.

    Below them one line for each journal that cannot be read.
    """
    runs = found.runs
    if not runs and not found.damaged:
        return Text(f"no runs under {root}")
    sheet = Sheet(("run", "status", "attempts", "time", "last event"), names=("status",))
    written = being_written([run.run_dir / FILE_NAME for run in runs]) or set()
    for run in runs:
        limit = (run.header.get("budget") or {}).get("attempts")
        status = Text(run.status.value, style=_STATUS_STYLES.get(run.status, ""))
        if run.run_dir / FILE_NAME in written:
            status = Text("running", style="bold")
        elif run.discovery_time is not None:
            status.append(f" at {run.discovery_time}")
        attempts = f"{run.n_attempts}/{limit}" if limit else str(run.n_attempts)
        inside = run.run_dir.relative_to(root) if run.run_dir.is_relative_to(root) else run.run_dir
        name = str(inside if inside.parts else run.run_dir)
        sheet.add([name, status, attempts, clock(run.elapsed_s), _ago(run.last_event_time)])
    damaged = [Text(clean(error.short), style="red", overflow="fold") for error in found.damaged]
    return Group(*([sheet] if runs else []), *damaged)


def _ago(then: float) -> str:
    if not then:
        return "–"
    seconds = max(0.0, time.time() - then)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


# -- show ----------------------------------------------------------------------------------------------------


def tell(run: RunRecord) -> RenderableType:
    """The outcome, the verdicts policy by policy, the updates between them, and the solution."""
    parts: list[RenderableType] = [_head(run), Text(), *_policies(run)]
    first = run.first
    texts = {t.index: t for t in attempt_texts(run.run_dir) if first is None or t.index <= first.index}
    if run.updates:
        parts += [Text(), updates_table(run.updates), *notice_lines(run.updates)]
    if first is not None:
        parts += [
            Text(),
            Text(f"the solution, attempt {first.index}", style="bold"),
            program(texts[first.index]),
        ]
    elif texts:
        last = texts[max(texts)]
        parts += [Text(), Text(f"the last feedback, attempt {last.index}", style="bold")]
        parts.append(Padding(Text(clean(last.feedback).strip()), (0, 2)))
    return Group(*parts)


def tell_attempt(run: RunRecord, index: int) -> RenderableType:
    """One attempt: its program, its verdict, its feedback.

    Raises ConfigError where the run has no such attempt.
    """
    found = one_attempt(run, index)
    verdict = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("test", "shown", "verdict"):
        verdict.add_column(column)
    for n, (status, visible) in enumerate(zip(found.statuses, found.visible, strict=True), start=1):
        verdict.add_row(str(n), "visible" if visible else "hidden", status.replace("_", " "))
    said = Padding(Text(clean(found.feedback).strip()), (1, 2))
    return Group(Text(f"attempt {index} of {clean(run.name)}", style="bold"), program(found), verdict, said)


def one_attempt(run: RunRecord, index: int) -> AttemptTexts:
    """The texts of attempt `index`.

    Raises ConfigError where the run has no such attempt.
    """
    for found in attempt_texts(run.run_dir):
        if found.index == index:
            return found
    raise ConfigError(f"{run.run_dir} has no attempt {index}; it has {len(run.attempts)}")


def program(texts: AttemptTexts) -> RenderableType:
    """The program of an attempt, highlighted; the whole answer where it holds none."""
    if texts.code is None:
        return Padding(Text(clean(texts.text)), (1, 2))
    syntax = Syntax(
        clean(texts.code), "python", theme="ansi_dark", background_color="default", word_wrap=True
    )
    return Padding(syntax, (1, 2))


def _head(run: RunRecord) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", min_width=8)
    table.add_column(overflow="fold")
    for name, value in head_rows(run):
        table.add_row(name, Text(clean(value)))
    return table


def head_rows(run: RunRecord) -> Iterator[tuple[str, str]]:
    """Name and value of each line of a run's head."""
    first, sure = (
        run.first,
        {True: "hidden tests passed", False: "hidden tests failed", None: "no hidden tests"},
    )
    yield (
        "run",
        f"{run.problem} · {run.arm} · seed {run.seed} · {run.header.get('model', 'unknown model')}",
    )
    said = f"solved at attempt {first.index}, {sure[run.confirmed]}" if first else run.status.value
    yield "outcome", f"{said}: {run.error}" if run.error else said
    yield "spent", f"{len(run.attempts)} attempts, {run.n_tokens} tokens, {clock(run.elapsed_s)}"
    if run.n_overfits:
        yield "overfits", f"{run.n_overfits} attempts passed the visible tests and failed a hidden one"
    if run.n_collapses:
        yield "collapses", f"{run.n_collapses} (times a health rule saw a collapsed policy or an unsafe step)"


def _policies(run: RunRecord) -> Iterator[RenderableType]:
    """The verdicts of each policy version in a row."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("policy", justify="right")
    table.add_column("attempts")
    table.add_column("verdicts", overflow="fold")
    for version, group in itertools.groupby(run.attempts, key=lambda attempt: attempt.version):
        rows = list(group)
        strip = Text(overflow="fold")
        for attempt in rows:
            strip.append(attempt.mark, style=MARK_STYLES.get(attempt.mark, "red"))
        table.add_row(str(version), f"{rows[0].index}–{rows[-1].index}", strip)
    yield table
    seen = {attempt.mark for attempt in run.attempts}
    yield Text(" · ".join(f"{mark} {LEGEND[mark]}" for mark in LEGEND if mark in seen), style="dim")


def updates_table(updates: Sequence[UpdateRow]) -> Sheet:
    """Loss and the learner's health figures, one update a line."""
    names = [
        name for name in SHOWN_METRICS if any(update.metrics.get(name) is not None for update in updates)
    ]
    sheet = Sheet(["update", "loss", *(name.replace("_", " ") for name in names)], first_is_name=False)
    for update in updates:
        values = [figure(update.metrics.get(name)) for name in names]
        sheet.add([str(update.version), figure(update.loss), *values])
    return sheet


def notice_lines(updates: Sequence[UpdateRow]) -> list[Text]:
    """What the learner did instead of an ordinary step, a line each."""
    return [
        Text(f"update {update.version}: {clean(notice)}", style="yellow")
        for update in updates
        for notice in update.notices
    ]


def figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


# -- diff ----------------------------------------------------------------------------------------------------


def compare(one: RunRecord, other: RunRecord) -> RenderableType:
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
    first, second = _best_program(one), _best_program(other)
    names = [f"attempt {texts.index}" if texts else "none" for texts in (first, second)]
    title = f"programs: {names[0]} of the first, {names[1]} of the second"
    lines = diff_text(_code(first), _code(second))
    return Group(table, Text(), Text(title, style="bold"), Padding(lines, (1, 2)))


def _outcome_rows(one: RunRecord, other: RunRecord) -> Iterator[tuple[str, str, str]]:
    heads = dict(head_rows(one)), dict(head_rows(other))
    for name in dict.fromkeys([*heads[0], *heads[1]]):
        yield name, heads[0].get(name, "–"), heads[1].get(name, "–")


def _settings_rows(one: RunRecord, other: RunRecord) -> Iterator[tuple[str, str, str]]:
    """Settings that differ; a part that only one of the runs has (the learner, a method) is one row."""
    parts = [run.header.get("config", {}).get("parts", {}) for run in (one, other)]
    lonely = {part for part in {*parts[0], *parts[1]} if (part in parts[0]) != (part in parts[1])}
    for part in sorted(lonely):
        a, b = (f"{len(each[part])} settings" if part in each else "–" for each in parts)
        yield part, a, b
    left_out = {"time", "elapsed_s", "problem", "method", "seed", "model"}
    flat = [_flat({k: v for k, v in run.header.items() if k not in left_out}) for run in (one, other)]
    for key in sorted(flat[0].keys() | flat[1].keys()):
        a, b = (str(each[key]) if each.get(key) is not None else "–" for each in flat)
        name = key.removeprefix("config.").removeprefix("parts.")
        if a != b and name.partition(".")[0] not in lonely and name != "options.method":
            yield name, a, b


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _best_program(run: RunRecord) -> AttemptTexts | None:
    """The solution; without one the first of the attempts that passed most tests."""
    if not run.attempts:
        return None
    best = run.first or max(run.attempts, key=lambda attempt: (attempt.n_passed, -attempt.index))
    return one_attempt(run, best.index)


def _code(texts: AttemptTexts | None) -> str:
    return "" if texts is None else texts.code if texts.code is not None else texts.text


def diff_text(before: str, after: str) -> Text:
    """A unified difference without its header, coloured; `no difference` where there is none."""
    lines = difflib.unified_diff(clean(before).splitlines(), clean(after).splitlines(), lineterm="", n=3)
    shown = Text()
    for line in itertools.islice(lines, 2, None):
        style = {"+": "green", "-": "red", "@": "dim"}.get(line[:1], "")
        shown.append(f"{line}\n", style=style)
    return shown if shown else Text("no difference", style="dim")
