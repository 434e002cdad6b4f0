"""The command `explain`: which attempt is explained, the model that it needs, and where the result goes."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import Field
from rich.console import Console
from rich.text import Text

from sdpo_solve import methods
from sdpo_solve.cli.flags import WithJson, command
from sdpo_solve.cli.live_view import Waiting
from sdpo_solve.config import OUTPUT, Flag
from sdpo_solve.errors import ConfigError

if TYPE_CHECKING:
    from sdpo_solve.report.explain.records import Signal
    from sdpo_solve.report.runs import AttemptRow, RunRecord


class ExplainCommand(WithJson):
    panel = ""
    run: Annotated[Path, Flag(metavar="RUN", is_argument=True)] = Field(
        description="a run's directory, or one that holds one run"
    )
    attempt: int | None = Field(
        None, description="the attempt whose tokens are shown (default: one behind the last update)"
    )
    update: int | None = Field(None, description="the update to explain (default: the last)")
    no_model: bool = Field(False, description="only what the journal says; loads no weights")
    html: Annotated[Path | None, OUTPUT] = Field(
        None, description="write one self-contained page to this file as well"
    )


@command(
    ExplainCommand,
    "explain runs/first/inc/sdpo",
    "explain runs/first/inc/sdpo --update 1 --html e.html",
)
def explain(given: ExplainCommand) -> None:
    """Why the policy changed: the teacher's view of an attempt token by token, and how answers moved.

    Loads the model of the run to score one attempt again, which takes seconds.
    """
    from sdpo_solve.report.runs import only_reading

    if given.attempt is not None and (given.update is not None or given.no_model):
        raise ConfigError("--attempt stands alone: it says which update, and it needs the model")
    with only_reading():
        _explain(given, Console(stderr=given.as_json, highlight=False))


def _explain(given: ExplainCommand, console: Console) -> None:
    """Print how the run's policies moved and the attempt's tokens, and write the page.

    Raises ConfigError for a run, update or attempt that cannot be explained, PrerequisiteError where the
    run's model is not on this disk.
    """
    from sdpo_solve.report.explain import html, policies, text
    from sdpo_solve.report.files import plain_record
    from sdpo_solve.report.run_text import diff_text
    from sdpo_solve.report.runs import load_run, one_run_dir

    run = load_run(one_run_dir(given.run))
    stages = policies.stages(run)
    if given.update is not None:
        policies.group_behind(run, given.update)
        stages = [stage for stage in stages if stage.version in (given.update - 1, given.update)]
    if not stages:
        raise ConfigError(f"{run.run_dir} has no graded attempt yet")
    diffs = [diff_text(before.program, after.program) for before, after in itertools.pairwise(stages)]
    scored = given.attempt is not None or (not given.no_model and bool(run.updates))
    with Waiting(Console(stderr=True), "scoring the attempt with the run's model"):
        signals = [_signal(run, _chosen(run, given))] if scored else []
    if given.attempt is None:
        console.print(text.policies_renderable(run, stages, diffs))
        console.print()
    colour = console.is_terminal and not console.no_color
    for signal in signals:
        console.print(text.signal_renderable(signal, colour=colour))
    if not signals and not given.no_model:
        console.print(
            Text("this run learned nothing from a teacher: there are no tokens to explain", style="dim")
        )
    if given.as_json:
        record = {"stages": stages, "changes": [str(diff) for diff in diffs], "signals": signals}
        typer.echo(json.dumps(plain_record(record)))
    if given.html is not None:
        html.write_page(run, stages, [str(diff) for diff in diffs], signals, given.html)
        Console(stderr=True, highlight=False).print(Text(f"written: {given.html}"), soft_wrap=True)


def _chosen(run: RunRecord, given: ExplainCommand) -> int:
    """The chosen attempt; else the failed one that passed most tests in the group behind the update."""
    from sdpo_solve.report.explain import policies

    if given.attempt is not None:
        return given.attempt
    last = run.updates[-1].version
    group = policies.group_behind(run, given.update if given.update is not None else last)
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

    method = methods.REGISTRY.find(run.method)
    if method is None or not method.learns:
        raise ConfigError(f"{run.method} has no teacher; explain --attempt is for runs of methods that learn")
    identity = run.header.model_identity
    if identity == "scripted replies":
        raise ConfigError("scripted replies have no weights behind them; use --no-model")
    quantization = run.header.config["options"].get("quantization")
    model = names.resolve(str(run.header.model)).held_as(quantization)
    if model.identity != identity:
        raise ConfigError(f"{run.header.model} here is {model.identity}, the run used {identity}")
    from sdpo_solve.model.adapted import AdaptedModel
    from sdpo_solve.report.explain.score import score

    return score(run.run_dir, index, AdaptedModel.load(model.path, quantization=model.quantization))
