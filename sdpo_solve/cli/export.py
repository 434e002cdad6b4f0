"""The command `export`: what runs found, in forms that other tools read."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from pydantic import Field

from sdpo_solve.cli.flags import RUNS, command
from sdpo_solve.config import OUTPUT, Options
from sdpo_solve.errors import ConfigError
from sdpo_solve.paths import write_text


class ExportCommand(Options):
    sources: Annotated[tuple[Path, ...], RUNS] = Field(
        description="directories of runs, or ones that hold them"
    )
    format: str = Field(
        "livecodebench",
        description="livecodebench: what its custom_evaluator reads; pack: runs without texts, for 'report'",
    )
    method: str | None = Field(None, description="the arm to write, where there are several")
    all_attempts: bool = Field(False, description="every attempt's program, not one program a run")
    rows: Path | None = Field(
        None, description="rows of LiveCodeBench: questions that were not run get an empty program"
    )
    out: Annotated[Path | None, OUTPUT] = Field(None, description="file to write (default: standard output)")


@command(
    ExportCommand,
    "export runs/lcb --format livecodebench --method sdpo > answers.json",
    "export runs/lcb --format pack --out results.zip",
)
def export(given: ExportCommand) -> None:
    """Write what was found in a form that other tools read, or as one small file that 'report' reads."""
    from sdpo_solve.report import archive
    from sdpo_solve.report import export as exporting
    from sdpo_solve.report.runs import only_reading

    out = given.out
    with only_reading():
        if given.format == "pack":
            if out is None or given.method or given.all_attempts or given.rows:
                raise ConfigError("--format pack needs --out FILE and takes no other option")
            typer.echo(f"{archive.pack(given.sources, out)} runs are in {out}")
            return
        text = exporting.render(
            given.sources,
            given.format,
            method=given.method,
            all_attempts=given.all_attempts,
            rows=given.rows,
            say=partial(typer.echo, err=True),
        )
    if out is None:
        typer.echo(text)
    else:
        write_text(out, text + "\n")
