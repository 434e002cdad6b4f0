"""Flags that several commands share, and the filters of problems as one record. Prints and calls nothing."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sdpo_solve.config import read_options
from sdpo_solve.selection import Selection

SOURCES_HELP = "Problem files, folders, lcb:v6, lcb:FILE, mbpp:FILE, humaneval:FILE."
_PANEL = "Which problems"

JsonFlag = Annotated[
    bool, typer.Option("--json", help="One JSON object on standard output, all else on standard error.")
]
SandboxFlag = Annotated[
    str, typer.Option("--sandbox", help="docker, bubblewrap, or auto: the first that works.")
]
SetFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PART.OPTION=VALUE",
        help="Set an option of a part, e.g. learner.lr=1e-4 (repeatable).",
    ),
]
ProblemArgument = Annotated[
    str,
    typer.Argument(
        metavar="PROBLEM", help="A problem file, or lcb:v6, lcb:FILE, mbpp:FILE, humaneval:FILE with --ids."
    ),
]
IdsFlag = Annotated[
    str | None,
    typer.Option(
        "--ids", help="Problems to keep, by id, comma-separated; bad ones too.", rich_help_panel=_PANEL
    ),
]
DifficultyFlag = Annotated[
    str | None,
    typer.Option(
        "--difficulty", help="Difficulties to keep, comma-separated, e.g. hard.", rich_help_panel=_PANEL
    ),
]
PlatformFlag = Annotated[
    str | None,
    typer.Option("--platform", help="Platforms to keep, e.g. atcoder,leetcode.", rich_help_panel=_PANEL),
]
FromFlag = Annotated[
    str | None,
    typer.Option("--from", help="First contest date to keep, e.g. 2025-02-01.", rich_help_panel=_PANEL),
]
ToFlag = Annotated[
    str | None, typer.Option("--to", help="Last contest date to keep.", rich_help_panel=_PANEL)
]
HalfFlag = Annotated[
    str | None,
    typer.Option(
        "--half",
        help="Half of the problems, by their ids: dev (to tune on) or test (to look at once).",
        rich_help_panel=_PANEL,
    ),
]
FirstFlag = Annotated[
    int | None,
    typer.Option("--first", help="Keep the first N of those left.", min=1, rich_help_panel=_PANEL),
]
IncludeBadFlag = Annotated[
    bool,
    typer.Option("--include-bad", help="Keep problems that are known to be bad.", rich_help_panel=_PANEL),
]


def selection(**given: Any) -> Selection:
    """The filters of a command; None stands for a flag that was not given.

    Raises ConfigError for a date that is none.
    """
    return read_options(
        Selection, {key: value for key, value in given.items() if value is not None}, "filter"
    )
