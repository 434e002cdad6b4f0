"""The commands `grade`, `check` and `schema`: programs and problems judged without a model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path
from textwrap import indent
from typing import Annotated, Any

import typer
from pydantic import Field
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from sdpo_solve.cli.flags import PROBLEM_HELP, WithJson, WithRuntime, command
from sdpo_solve.cli.live_view import Waiting
from sdpo_solve.cli.new import TODO, is_unfilled
from sdpo_solve.config import Flag, Options, PartOptions, RunOptions
from sdpo_solve.datasets import load
from sdpo_solve.datasets.selection import SOURCES_HELP, Selection, describe_left_out
from sdpo_solve.errors import ProblemError, UserError
from sdpo_solve.grading import feedback
from sdpo_solve.report.table import AlignedTable
from sdpo_solve.run.build import Parts
from sdpo_solve.run.options import make_plan
from sdpo_solve.sandboxes import languages
from sdpo_solve.sanitize import clean
from sdpo_solve.types import Extracted, Kind, Problem, Verdict


class GradingOptions(WithRuntime, PartOptions, Selection):
    """Which problems are judged, and in which sandbox."""

    def new_parts(self, language: str = "python") -> Parts:
        """Parts that judge and sample nothing."""
        given = {"sandbox": self.sandbox, "settings": self.settings, "language": language}
        return Parts(make_plan(RunOptions.model_validate(given), grading_only=True))


class GradeCommand(WithJson, GradingOptions):
    problem: Annotated[str, Flag(metavar="PROBLEM", is_argument=True)] = Field(description=PROBLEM_HELP)
    program: Annotated[Path, Flag(is_argument=True)] = Field(description="the program to judge")


class CheckCommand(WithJson, GradingOptions):
    problems: Annotated[tuple[str, ...], Flag(metavar="PROBLEM", is_argument=True)] = Field(
        description=SOURCES_HELP
    )


# -- grade ---------------------------------------------------------------------------------------------------


@command(
    GradeCommand,
    "grade problems/letter-tally.json answer.py",
    "grade lcb:rows.jsonl answer.py --ids abc387_f --json",
)
def grade(given: GradeCommand) -> None:
    """Judge a program without a model. Exit code 0: solved, 1: not."""
    taken = _language_of(given.program)
    parts = given.new_parts(taken)
    try:
        code = given.program.read_text(encoding="utf-8")
    except OSError as exc:
        raise UserError(f"cannot read {given.program}: {exc.strerror}") from None
    except UnicodeDecodeError as exc:
        raise UserError(f"{given.program} is not UTF-8: {exc.reason} at byte {exc.start}") from None
    with parts, Waiting(Console(stderr=True), "judging"):
        problem = load.load_one(given.problem, given, lambda: parts.sandbox)
        (verdict,) = parts.judge().grade(problem, [code], thorough=True)
        sandbox = parts.sandbox.identity()
    if given.as_json:
        typer.echo(json.dumps({**verdict_json(verdict), "sandbox": sandbox}))
    else:
        console = Console(highlight=False)
        print_verdict(console, problem, code, verdict)
        short = re.sub(r"(sha256:\w{12})\w+", r"\1", sandbox)
        console.print(Text(f"\njudged as {taken} in {short}", style="dim"), soft_wrap=True)
    raise typer.Exit(0 if verdict.solved else 1)


def _language_of(program: Path) -> str:
    """The language that a file's name ends like; the usual one for a text, or a name without an ending.

    Raises UserError for an ending of anything else.
    """
    ending = program.suffix.lower()
    if language := languages.of_file(Path(f"program{ending}")):
        return language.name
    if ending not in ("", ".txt"):
        known = ", ".join(suffix for name in languages.names() for suffix in languages.get(name).suffixes)
        raise UserError(f"{program}: programs in {program.suffix} cannot be judged; known: {known}")
    return RunOptions().language


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    """The object that `grade --json` prints."""
    cases = [
        {"status": c.status.value, "visible": c.visible, "cpu_s": c.cpu_s, "wall_s": c.wall_s}
        for c in verdict.cases
    ]
    return {
        "solved": verdict.solved,
        "passed_visible": verdict.passed_visible,
        "passed_hidden": verdict.passed_hidden,
        "cases": cases,
    }


def verdict_table(problem: Problem, verdict: Verdict) -> AlignedTable:
    """One line a test, marked as `problem` has it: a verdict may know every test as visible."""
    header = ("test", "shown", "verdict", "cpu s", "MB")
    table = AlignedTable(header, names=("shown", "verdict"), first_is_name=False)
    for case in verdict.cases:
        style = "green" if case.status.value == "accepted" else "red"
        shown = "visible" if problem.tests[case.index].visible else "hidden"
        status = Text(case.status.value.replace("_", " "), style=style)
        table.add([str(case.index + 1), shown, status, f"{case.cpu_s:.2f}", f"{case.peak_mb:.0f}"])
    return table


def print_verdict(console: Console, problem: Problem, code: str, verdict: Verdict) -> None:
    """One line a test, then the feedback that a model would be shown."""
    console.print(verdict_table(problem, verdict))
    if verdict.solved:
        console.print(Text("solved", style="bold green"))
    else:
        console.print(Text("unsolved", style="bold yellow"))
        text = feedback.render(problem, Extracted(code), verdict, feedback.Options())
        console.print(Text(f"\n{text}", style="dim"), soft_wrap=True)


# -- check ---------------------------------------------------------------------------------------------------


@command(CheckCommand, "check problems/*.json", "check mbpp:MbppPlus.jsonl.gz --first 20")
def check(given: CheckCommand) -> None:
    """Validate problems, and judge each reference solution, which must be solved.

    Exit code 2: a problem cannot be read or judged, 1: a reference fails.
    """
    console = Console(stderr=given.as_json, highlight=False)
    right: dict[str, bool] = {}
    unreadable: list[ProblemError] = []
    unproven = 0

    def complain(exc: ProblemError) -> None:
        for mistake in exc.mistakes:
            console.print(Text(f"✗ {clean(mistake)}", style="red"), soft_wrap=True)
        unreadable.append(exc)

    def count_unproven(problem: Problem) -> None:
        nonlocal unproven
        unproven += problem.reference is None

    with ExitStack() as stack:
        parts = cache(lambda language: stack.enter_context(given.new_parts(language)))
        taken = load.load(
            given.problems,
            given,
            lambda: parts(languages.DEFAULT).sandbox,
            on_made=count_unproven,
            on_broken=complain,
        )
        for name in taken.problems.ids:
            alone = len(taken.problems) == 1
            try:
                right[name] = _check_one(taken.problems.named(name), parts, console, in_full=alone)
            except ProblemError as exc:  # its checker crashed; the others are judged all the same
                complain(exc)
    note = f", {unproven} without a reference" if unproven else ""
    n_right, n_problems = sum(right.values()), len(right) + len(unreadable)
    console.print(Text(f"{n_right} of {n_problems} problems are right{note}"))
    if taken.left_out:
        console.print(Text(clean(describe_left_out(taken.left_out)), style="dim"), soft_wrap=True)
    if given.as_json:
        record = {
            "right": right,
            "unreadable": [line for exc in unreadable for line in exc.mistakes],
            "left_out": dict(taken.left_out),
        }
        typer.echo(json.dumps(record))
    raise typer.Exit(2 if unreadable else 1 if n_right < n_problems else 0)


def _check_one(problem: Problem, parts: Callable[[str], Parts], console: Console, *, in_full: bool) -> bool:
    """Judge the reference; where it fails, or `in_full`, print what `grade` does, hidden tests included.

    `parts`: those of a language.
    """
    from sdpo_solve.datasets.problem_json import language_of

    n_visible = sum(test.visible for test in problem.tests)
    counts = f"{problem.kind.value}, {n_visible} visible and {len(problem.tests) - n_visible} hidden tests"
    unfilled = [name for name in ("statement", "reference") if is_unfilled(getattr(problem, name) or "")]
    if unfilled:
        console.print(Text(f"✗ {problem.id}: {' and '.join(unfilled)} still to write ({TODO})", style="red"))
        return False
    if not n_visible:
        warning = "no test is visible: feedback has nothing to quote, and learning little to go by"
        console.print(Text(f"! {problem.id}: {warning}", style="yellow"), soft_wrap=True)
    if problem.reference is None:
        console.print(Text(f"– {problem.id}: {counts}, no reference to judge", style="dim"), soft_wrap=True)
        return True
    shown = replace(problem, tests=tuple(replace(test, visible=True) for test in problem.tests))
    language = language_of(problem.reference) if problem.kind is Kind.STDIN else languages.DEFAULT
    with Waiting(Console(stderr=True), f"judging the reference of {problem.id}"):
        (verdict,) = parts(language).judge().grade(shown, [problem.reference], thorough=True)
    if verdict.passed_all:
        console.print(Text(f"✓ {problem.id}: {counts}, reference solved"), soft_wrap=True)
    else:
        console.print(Text(f"✗ {problem.id}: {counts}, the reference fails", style="red"), soft_wrap=True)
    if in_full or not verdict.passed_all:
        console.print(Padding(verdict_table(problem, verdict), (0, 0, 0, 4)))
    if not verdict.passed_all:
        text = feedback.render(shown, Extracted(problem.reference), verdict, feedback.Options())
        console.print(Text(indent(text, "    "), style="dim"), soft_wrap=True)
    return verdict.passed_all


@command(Options, "schema > problem.schema.json")
def schema(_: Options) -> None:
    """Print the JSON Schema of a problem file."""
    from sdpo_solve.datasets import problem_json

    typer.echo(json.dumps(problem_json.schema(), indent=2))
