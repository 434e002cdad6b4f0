"""The command `show`: the runs in a directory, the story of one run, or two runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field
from rich.console import Console

from sdpo_solve.cli.flags import command
from sdpo_solve.config import Flag, Options
from sdpo_solve.errors import ConfigError


class ShowCommand(Options):
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
    with only_reading():
        if given.follow:
            watch(first, console)
        elif others:
            one, other = (runs.load_run(one_run_dir(source)) for source in given.sources)
            console.print(run_text.comparison_text(one, other))
        elif given.attempt is None and len(find_run_dirs([first])) != 1:
            console.print(run_text.list_runs(runs.read_runs([first]), first))
        else:
            run = runs.load_run(one_run_dir(first))
            attempt = given.attempt
            console.print(
                run_text.run_text(run, full=given.full)
                if attempt is None
                else run_text.attempt_text(run, attempt)
            )
