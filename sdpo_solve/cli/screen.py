"""The command `screen`: how often the base model solves each problem."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import Field
from rich.console import Console

from sdpo_solve.batch import screening
from sdpo_solve.batch.difficulty import Rule, rate_of
from sdpo_solve.batch.spec import ScreenedOptions, make_screen_spec, read_toml
from sdpo_solve.cli import live_screening
from sdpo_solve.cli.flags import WithFile, WithJson, WithRuntime, WithServer, file_command, split
from sdpo_solve.config import BUDGET, OUTPUT, SAMPLING, Flag

SOME_BROKEN = 2


class ScreenOptions(WithFile, WithJson):
    """What is sampled of each problem, besides the options that a batch has too."""

    file: Annotated[Path | None, Flag(short="f")] = Field(
        None, description="TOML file of a batch: problems and sampling as there; flags win"
    )
    attempts: int = Field(512, ge=1, description="samples of one problem at most")
    total: Annotated[int | None, BUDGET] = Field(
        None,
        ge=1,
        description="samples of this command at most, those with feedback of --teacher not counted",
    )
    group_size: int = Field(
        16, ge=1, description="samples of one problem taken at a time at most; the first look takes 4"
    )
    round_size: Annotated[int, SAMPLING] = Field(
        64, ge=1, description="samples of all problems that go through the engine together"
    )
    ceiling: Annotated[str, BUDGET] = Field(
        "hard", description="leave a problem alone once its rate is surely above this: hard, or e.g. 0.1"
    )
    teacher: Annotated[bool, SAMPLING] = Field(
        False, description="also sample from the prompt that shows a failure's feedback"
    )
    seed: int = Field(0, ge=0, description="seed of the samples")


class ScreenCommand(ScreenOptions, WithRuntime, WithServer, ScreenedOptions):
    """What `screen` takes."""

    out: Annotated[Path | None, OUTPUT] = Field(
        None, description="directory of the screening (default: the file's, or runs/screen)"
    )


@file_command(
    ScreenCommand,
    "screen problems --attempts 512",
    "screen lcb:rows.jsonl --difficulty hard --teacher --out runs/screen-hard",
    "screen --file batch.toml",
)
def screen(flags: Mapping[str, Any]) -> None:
    """How often the base model solves each problem, with intervals; marks hard and very hard ones.

    The same command again goes on where it stopped. `batch --only hard` reads the result, and needs the same
    model and sampling. The samples serve no comparison. Exit code 2: broken problems were left out.
    """
    own, others = split(ScreenOptions, flags)
    spec = make_screen_spec(
        read_toml(own.file, ScreenCommand) if own.file else {}, others, str(own.file or "screen")
    )
    rule = Rule(own.group_size, own.attempts, rate_of(own.ceiling))
    screen_spec = screening.ScreenSpec(
        spec, spec.batch.screening, rule, own.round_size, own.total, own.teacher, own.seed
    )
    console = Console(stderr=own.as_json, highlight=False)
    with live_screening.ScreenView(console, rule) as view:
        ended = screening.run(screen_spec, view)
    live_screening.print_table(console, ended.problems, screen_spec.out)
    if own.as_json:
        typer.echo(json.dumps(live_screening.as_record(ended.screening)))
    if ended.has_broken:
        raise typer.Exit(SOME_BROKEN)
