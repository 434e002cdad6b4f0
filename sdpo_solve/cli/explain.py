"""The command `explain`: which attempt is explained, the model that it needs, and where the result goes.

Joins `runs.py`, the room `explain` and the model on this disk; scores nothing itself.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from sdpo_solve.errors import ConfigError
from sdpo_solve.report.explain import html as page
from sdpo_solve.report.explain import policies, text
from sdpo_solve.report.explain.records import Signal
from sdpo_solve.report.run_text import diff_text, load_run
from sdpo_solve.report.runs import AttemptRow, RunRecord, one_run_dir


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user asked for; None: the last update, and one attempt of the group behind it."""

    attempt: int | None
    update: int | None
    with_model: bool


def explain(source: Path, wanted: Wanted, console: Console, html: Path | None) -> None:
    """Print the run's moves and the attempt's tokens, and write the page.

    Raises ConfigError for a run, update or attempt that cannot be explained, PrerequisiteError where the
    run's model is not on this disk.
    """
    run = load_run(one_run_dir(source))
    found = policies.stages(run)
    if wanted.update is not None:
        policies.group_behind(run, wanted.update)
        found = [stage for stage in found if stage.version in (wanted.update - 1, wanted.update)]
    if not found:
        raise ConfigError(f"{run.run_dir} has no graded attempt yet")
    pairs = list(itertools.pairwise(found))
    diffs = [diff_text(before.program, after.program) for before, after in pairs]
    signals = [_signal(run, _chosen(run, wanted))] if _needs_model(run, wanted) else []
    if wanted.attempt is None:
        console.print(text.run_story(run, found, diffs))
        console.print()
    colour = console.is_terminal and not console.no_color
    for signal in signals:
        console.print(text.signal_renderable(signal, colour=colour))
    if not signals and wanted.with_model:
        console.print(
            Text("this run learned nothing from a teacher: there are no tokens to explain", style="dim")
        )
    if html is not None:
        page.write_page(run, found, [str(diff) for diff in diffs], signals, html)
        Console(stderr=True, highlight=False).print(Text(f"written: {html}"), soft_wrap=True)


def _needs_model(run: RunRecord, wanted: Wanted) -> bool:
    return wanted.attempt is not None or (wanted.with_model and bool(run.updates))


def _chosen(run: RunRecord, wanted: Wanted) -> int:
    """The attempt asked for; else the failed one that passed most tests in the group behind the update."""
    if wanted.attempt is not None:
        return wanted.attempt
    last = run.updates[-1].version
    group = policies.group_behind(run, wanted.update if wanted.update is not None else last)
    failed = [attempt for attempt in group if not attempt.solved and attempt.n_tokens]
    if not failed:
        raise ConfigError(
            f"no failed attempt is behind that update of {run.run_dir}; name one with --attempt"
        )

    def rank(attempt: AttemptRow) -> tuple[int, int]:
        return attempt.n_passed, -attempt.index

    return max(failed, key=rank).index


def _signal(run: RunRecord, index: int) -> Signal:
    """The attempt scored by the run's own model."""
    from sdpo_solve.model import names

    if run.method != "sdpo":
        raise ConfigError(f"{run.method} has no teacher; explain --attempt is for runs of sdpo")
    identity = run.header.get("config", {}).get("model")
    if identity == "scripted replies":
        raise ConfigError("scripted replies have no weights behind them; use --no-model")
    model = names.resolve(str(run.header["model"]))
    if model.identity != identity:
        raise ConfigError(f"{run.header['model']} here is {model.identity}, the run used {identity}")
    from sdpo_solve.model.adapted import AdaptedModel
    from sdpo_solve.report.explain.score import score

    return score(run.run_dir, index, AdaptedModel.load(model.path))
