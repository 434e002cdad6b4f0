"""The command `show`: the runs in a directory, the story of one run, or two runs side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import Field
from rich.console import Console

from sdpo_solve.cli.flags import WithJson, command
from sdpo_solve.config import Flag
from sdpo_solve.errors import ConfigError


class ShowCommand(WithJson):
    panel = ""
    sources: Annotated[tuple[Path, ...], Flag(metavar="DIR", is_argument=True)] = Field(
        (Path("runs"),), description="a directory that holds runs, one run, or two runs to compare"
    )
    attempt: int | None = Field(None, ge=1, description="one attempt of a run instead of its whole story")
    full: bool = Field(False, description="with the figures of every update")
    follow: bool = Field(
        False, description="the live view, until neither runs nor a batch go on; Ctrl-C leaves them alone"
    )


@command(
    ShowCommand,
    "show runs",
    "show runs/first --follow",
    "show runs/first --json",
    "show runs/first/inc/sdpo",
    "show runs/first/inc/sdpo --attempt 3",
    "show runs/first/inc/sdpo runs/first/inc/best-of-k",
)
def show(given: ShowCommand) -> None:
    """What lies on disk: a list of runs, the solution and the story of one, or a comparison of two.

    Runs may be under way in another terminal; nothing is changed.
    """
    from sdpo_solve.cli.watch import watch
    from sdpo_solve.report import run_text, runs
    from sdpo_solve.report.runs import find_run_dirs, one_run_dir, only_reading

    console = Console(highlight=False)
    first, *others = given.sources
    if len(others) > 1 or (others and (given.follow or given.attempt)):
        raise ConfigError("show takes one directory, or two runs to compare, without --attempt and --follow")
    if given.follow and given.attempt:
        raise ConfigError("--attempt and --follow: give one of them")
    if given.follow and given.as_json:
        raise ConfigError("--follow and --json: give one of them")
    with only_reading():
        if given.as_json:
            typer.echo(json.dumps(_as_json(given)))
        elif given.follow:
            watch(first, console)
        elif others:
            one, other = (runs.load_run(one_run_dir(source)) for source in given.sources)
            console.print(run_text.comparison_text(one, other))
        elif given.attempt is None and len(find_run_dirs([first])) != 1:
            console.print(run_text.list_runs(runs.some_runs(first), first))
        else:
            run = runs.load_run(one_run_dir(first))
            attempt = given.attempt
            console.print(
                run_text.run_text(run, full=given.full)
                if attempt is None
                else run_text.attempt_text(run, attempt)
            )


def _as_json(given: ShowCommand) -> dict[str, Any]:
    """What is printed as one object: a list of runs, an attempt, or the story of one run or of two."""
    from sdpo_solve.report import files, runs

    first, *others = given.sources
    if not others and given.attempt is None and len(runs.find_run_dirs([first])) != 1:
        found = runs.some_runs(first)
        damaged = [error.short for error in found.damaged]
        return {"runs": [files.run_summary(run) for run in found.runs], "damaged": damaged}
    records = [runs.load_run(runs.one_run_dir(source)) for source in given.sources]
    if given.attempt is not None:
        attempt: dict[str, Any] = files.plain_record(runs.read_attempt(records[0], given.attempt))
        return attempt
    stories = [files.run_story(record) for record in records]
    return {"runs": stories} if others else stories[0]
