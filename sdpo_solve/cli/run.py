"""The command `run`: one problem, one run, with its display."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from pydantic import Field
from rich.console import Console
from rich.text import Text

from sdpo_solve.cli import live_run
from sdpo_solve.cli.flags import PROBLEM_HELP, WithJson, WithRuntime, command
from sdpo_solve.config import OUTPUT, REPLIES_HELP, SAMPLING, Flag, RunOptions
from sdpo_solve.datasets import load
from sdpo_solve.datasets.selection import Selection
from sdpo_solve.run import build
from sdpo_solve.run.identity import check_out, default_out
from sdpo_solve.run.options import make_plan
from sdpo_solve.solve import solve, write_solution
from sdpo_solve.types import Outcome, OutcomeStatus


class RunCommand(WithJson, WithRuntime, RunOptions, Selection):
    """What `run` takes."""

    problem: Annotated[str, Flag(metavar="PROBLEM", is_argument=True)] = Field(description=PROBLEM_HELP)
    replies: Annotated[Path | None, SAMPLING] = Field(None, description=REPLIES_HELP)
    out: Annotated[Path | None, OUTPUT] = Field(
        None, description="directory of the results (default: runs/<engine>-<options>)"
    )


@dataclass(frozen=True, slots=True)
class RunResult:
    """What `run --json` prints. `out` is the directory of the run, which holds its journal."""

    solved: bool
    status: str
    discovery_time: int | None
    attempts: int
    tokens: int
    wall_s: float
    confirmed: bool | None
    method: str
    seed: int
    out: str


@command(
    RunCommand,
    "run problems/letter-tally.json",
    "run problems/letter-tally.json --method best-of-k --attempts 128 --json",
    "run lcb:v6 --ids abc387_f --max-tokens 8192 --wall-seconds 3600",
)
def run(given: RunCommand) -> None:
    """Solve one problem: sample, test, learn from the failures, until solved or spent.

    The same command again goes on where the run stopped. Exit code 0: solved, 1: budget spent.
    """
    result = run_one(given, Console(stderr=given.as_json, highlight=False))
    if given.as_json:
        typer.echo(json.dumps(asdict(result)))
    raise typer.Exit(0 if result.solved else 1)


def run_one(given: RunCommand, console: Console) -> RunResult:
    """One run with its display, from nothing or on from its journal.

    Raises UserError, PrerequisiteError or RunError; boxes and weights are gone when this returns or raises.
    """
    options = given.narrow(RunOptions)
    plan = make_plan(options)
    out = given.out or default_out(options, options.engine)
    check_out(out)
    view = live_run.RunView(console)

    def on_tokens(n_tokens: int, n_finished: int) -> None:
        view.on_event({"event": "progress", "n_tokens": n_tokens, "n_finished": n_finished})

    with build.Parts(plan, replies=given.replies, progress=on_tokens) as parts, ExitStack() as stack:
        problem = build.problem_for(options, load.load_one(given.problem, given, lambda: parts.sandbox))
        stack.enter_context(view)
        run = build.new_run(parts, plan, problem, out, [view.on_event])
        before = run.journal.state.outcome
        try:
            outcome = solve(run)
            write_solution(run)
        finally:
            run.close()
    live_run.print_result(console, view.progress, str(run.journal.run_dir))
    if before is not None:
        console.print(
            Text("this run was finished before; another --seed or --out makes a new one", style="dim")
        )
    return _result(outcome, options, run.journal.run_dir)


def _result(outcome: Outcome, options: RunOptions, run_dir: Path) -> RunResult:
    return RunResult(
        solved=outcome.status is OutcomeStatus.SOLVED,
        status=outcome.status.value,
        discovery_time=outcome.discovery_time,
        attempts=outcome.attempts,
        tokens=outcome.tokens,
        wall_s=outcome.wall_s,
        confirmed=outcome.confirmed,
        method=options.method,
        seed=options.seed,
        out=str(run_dir),
    )
