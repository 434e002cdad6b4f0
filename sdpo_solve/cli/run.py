"""The command `run`: one problem, one run, with its display."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from textwrap import indent
from typing import Annotated

import typer
from pydantic import Field
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sdpo_solve.cli import live_run
from sdpo_solve.cli.flags import PROBLEM_HELP, WithJson, WithRuntime, WithServer, command
from sdpo_solve.config import OUTPUT, REPLIES_HELP, SAMPLING, Flag, RunOptions
from sdpo_solve.datasets import load
from sdpo_solve.datasets.selection import Selection
from sdpo_solve.errors import JournalError, RunError
from sdpo_solve.run import build
from sdpo_solve.run.identity import check_out, default_out
from sdpo_solve.run.options import Plan, make_plan, warnings_of
from sdpo_solve.sanitize import clean
from sdpo_solve.solve import solve, write_solution
from sdpo_solve.types import Attempt, Finish, Outcome, OutcomeStatus, Status


class RunCommand(WithJson, WithRuntime, WithServer, RunOptions, Selection):
    """What `run` takes."""

    problem: Annotated[str, Flag(metavar="PROBLEM", is_argument=True)] = Field(description=PROBLEM_HELP)
    replies: Annotated[Path | None, SAMPLING] = Field(None, description=REPLIES_HELP)
    out: Annotated[Path | None, OUTPUT] = Field(
        None, description="directory of the results (default: runs/<problem>-<model>-<options>)"
    )


@command(
    RunCommand,
    "run problems/letter-tally.json",
    "run problems/letter-tally.json --method best-of-k --attempts 128 --json",
    "run lcb:v6 --ids abc387_f --max-tokens 8192 --wall-seconds 3600",
)
def run(given: RunCommand) -> None:
    """Solve one problem: sample, test, learn from the failures, until solved or spent.

    The same command again goes on where the run stopped. Exit code 0: solved, 1: unsolved.
    """
    console = Console(stderr=given.as_json, highlight=False)
    options = given.narrow(RunOptions)
    plan = make_plan(options)
    out = given.out or default_out(options, options.engine, [given.problem])
    check_out(out)
    view = live_run.RunView(console)

    def on_tokens(n_tokens: int, n_finished: int) -> None:
        view.on_event({"event": "progress", "n_tokens": n_tokens, "n_finished": n_finished})

    with build.Parts(plan, replies=given.replies, progress=on_tokens) as parts, ExitStack() as stack:
        stack.enter_context(view)
        problem = build.problem_for(options, load.load_one(given.problem, given, lambda: parts.sandbox))
        for warning in warnings_of(plan):
            console.print(Text(f"warning: {warning}", style="yellow"), soft_wrap=True)
        run = build.new_run(parts, plan, problem, out, [view.on_event])
        before = run.journal.state.outcome
        try:
            outcome = solve(run)
            write_solution(run)
        except RunError as exc:
            with suppress(JournalError):  # a full disk does not take this line either
                run.journal.fail(exc)
            raise
        finally:
            run.close()
    live_run.print_result(console, view.progress, str(run.journal.run_dir))
    solved = outcome.status is OutcomeStatus.SOLVED
    if not solved:
        print_failures(console, run, plan, outcome)
    if outcome is before:
        console.print(Text(finished_before(run, outcome), style="dim"), soft_wrap=True)
    if given.as_json:
        solving = (attempt.code for attempt in run.journal.history if attempt.verdict.solved)
        record = {
            "solved": solved,
            **asdict(outcome),
            "method": options.method,
            "model": plan.model_name,
            "seed": options.seed,
            "out": str(run.journal.run_dir),
            "program": next(solving, None),
        }
        typer.echo(json.dumps(record))
    raise typer.Exit(0 if solved else 1)


def finished_before(run: build.Run, outcome: Outcome) -> str:
    """What a repeated command says of a run that it found at its end."""
    if outcome.status is OutcomeStatus.SOLVED and not run.options.keep_going:
        return "this run was solved before; another --seed or --out begins a new one"
    more = f"{larger_budget(run, outcome)} goes on"
    return f"this run was finished before; {more}, another --seed or --out begins a new one"


# -- unsolved ------------------------------------------------------------------------------------------------


def print_failures(console: Console, run: build.Run, plan: Plan, outcome: Outcome) -> None:
    """What the attempts failed at, the best of them, and what to try next."""
    history = run.journal.history
    if not history:
        more = f"the same command with {larger_budget(run, outcome)} goes on"
        console.print(Text(f"the time was spent before the first attempt; {more}"), soft_wrap=True)
        return
    failures = Counter(map(failure_of, history)).most_common()
    console.print(Text("; ".join(f"{n} {what}" for what, n in failures)), soft_wrap=True)
    best = max(history, key=_quality)
    if best.code is not None:
        passed = f"{n_passed(best)} of {len(best.verdict.cases)} tests passed"
        console.print(Text(f"\nthe best is attempt {best.index}: {passed}"))
        console.print(Text(indent(clean(best.code).rstrip(), "  "), style="dim"), soft_wrap=True)
    console.print(Text("\nto try next, the same command with"))
    table = Table.grid(padding=(0, 2))
    for flag, why in next_steps(history, run, plan, outcome):
        table.add_row(Text(f"  {flag}"), Text(why, style="dim"))
    console.print(table)


def _quality(attempt: Attempt) -> tuple[bool, int, bool]:
    """Larger for a better attempt; a wrong answer is better than none."""
    case = attempt.verdict.first_failure
    answers = case is None or case.status is Status.WRONG_ANSWER
    return attempt.code is not None, n_passed(attempt), answers


def n_passed(attempt: Attempt) -> int:
    """Tests that an attempt passed."""
    return sum(case.status is Status.ACCEPTED for case in attempt.verdict.cases)


def failure_of(attempt: Attempt) -> str:
    """What became of an attempt, in words that follow a count."""
    was_cut = attempt.sample.finish is Finish.LENGTH
    if attempt.code is None:
        return "cut off at the token limit before a program" if was_cut else "without a program"
    case = attempt.verdict.first_failure
    if case is None:
        return "solved" if attempt.verdict.solved else "not judged"
    status = case.status.value.replace("_", " ")
    return f"{status} in {'a visible' if case.visible else 'a hidden'} test" + ", cut off" * was_cut


def next_steps(
    history: Sequence[Attempt], run: build.Run, plan: Plan, outcome: Outcome
) -> list[tuple[str, str]]:
    """Flags that may help, the likeliest first, and why."""
    n_cut = sum(attempt.sample.finish is Finish.LENGTH for attempt in history)
    options = plan.parts[plan.run.method]
    steps = []
    if 4 * n_cut >= len(history):
        share = f"{n_cut} of {len(history)} answers were cut off"
        steps.append((f"--max-tokens {2 * run.spec.max_tokens}", f"{share} (a run of its own)"))
    steps.append((larger_budget(run, outcome), "this run goes on"))
    if getattr(options, "feedback_share", None) == 0:
        setting = f"--set {plan.run.method}.feedback_share=0.5"
        steps.append((setting, "half of the attempts see what failed before (a run of its own)"))
    if plan.has_weights:
        steps.append(("--model NAME", "a larger model: 'sdpo-solve model list'"))
    return steps


def larger_budget(run: build.Run, outcome: Outcome) -> str:
    """The flags with which a run that spent its budget goes on: each limit reached, by as much again."""
    budget = run.options.budget
    limits = (
        ("attempts", budget.attempts, outcome.attempts),
        ("tokens", budget.tokens, outcome.tokens),
        ("wall-seconds", budget.wall_s, outcome.wall_s),
    )
    return " ".join(
        f"--{name} {math.ceil(used + limit)}"
        for name, limit, used in limits
        if limit is not None and used >= limit
    )
