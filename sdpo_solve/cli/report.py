"""The command `report`: discovery@k, speed-ups and tables of runs on disk."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from pydantic import Field
from rich.console import Console
from rich.text import Text

from sdpo_solve.cli.flags import RUNS, RUNS_HELP, WithJson, command
from sdpo_solve.cli.live_view import Waiting
from sdpo_solve.config import Flag, Listed, Options
from sdpo_solve.errors import ConfigError, SdpoSolveError, UserError

if TYPE_CHECKING:
    from sdpo_solve.report.archive import Opened
    from sdpo_solve.report.cohort import Cohort
    from sdpo_solve.report.figures import Report
    from sdpo_solve.report.problems import Marks


class FigureOptions(Options):
    """What is computed."""

    sources: Annotated[tuple[Path, ...], RUNS] = Field(description=RUNS_HELP)
    x: Literal["attempts", "tokens", "seconds"] = Field(
        "attempts", description="what discovery is counted in"
    )
    at: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Listed] = Field(
        (), description="points of the table, e.g. 1,16,64 (default: a few)"
    )
    against: str | None = Field(None, description="the arm that the others are compared with (default: sdpo)")
    set_number: Annotated[int | None, Flag(name="set", metavar="N")] = Field(
        None, ge=1, description="of runs that must not be mixed the N-th consistent set"
    )
    common: bool = Field(False, description="only the problems and seeds that every arm has")
    screening: Annotated[Path | None, Flag(metavar="DIR")] = Field(
        None, description="a screening that says which problems are hard and very hard"
    )
    replicates: int = Field(1000, ge=100, le=100_000, description="bootstrap replicates")


class ReportCommand(WithJson, FigureOptions):
    panel = "Output"
    linear: bool = Field(False, description="a linear x axis instead of a logarithmic one")
    no_curves: bool = Field(False, description="tables only")
    as_csv: Annotated[bool, Flag(name="csv")] = Field(False, description="one row a run, as CSV")
    as_markdown: Annotated[bool, Flag(name="markdown")] = Field(False, description="the tables in Markdown")
    as_latex: Annotated[bool, Flag(name="latex")] = Field(
        False, description="the main tables in LaTeX (booktabs)"
    )
    full: bool = Field(False, description="every table, not the answer alone")
    png: Path | None = Field(None, description="write the curves to this file, as wide as a page of a paper")
    pdf: Path | None = Field(None, description="the same as PDF")
    svg: Path | None = Field(None, description="the same as SVG")
    band: str | None = Field(
        None, description="in a picture of more than two arms: the arm whose interval is drawn as a band"
    )
    html: Path | None = Field(None, description="write one self-contained page to this file")


@command(
    ReportCommand,
    "report runs/first",
    "report runs/first --x seconds --linear",
    "report runs/first --json",
    "report runs/first --full",
    "report runs/first --html report.html --png curves.png",
)
def report(given: ReportCommand) -> None:
    """What the runs show: how far each arm got, which is quicker and how sure that is, from journals alone.

    Works at any time, also while a batch is running.
    """
    from sdpo_solve.report import archive, files, plots
    from sdpo_solve.report.cohort import Axis
    from sdpo_solve.report.figures import ReportOptions, make_report
    from sdpo_solve.report.text import report_renderable

    if given.as_json + given.as_csv + given.as_markdown + given.as_latex > 1:
        raise ConfigError("--json, --csv, --markdown and --latex: give one of them")
    options = ReportOptions(
        axis=Axis(given.x),
        at=tuple(sorted(set(given.at))) or None,
        reference=given.against,
        common=given.common,
        n_replicates=given.replicates,
        marks=_marks(given.screening) if given.screening is not None else None,
    )
    with archive.unpacked(given.sources) as opened:
        with Waiting(Console(stderr=True, highlight=False), "reading the journals"):
            cohort = _cohort(opened, given)
            figures = make_report(cohort, options)
        not_written = _write_files(figures, cohort, given)
    if given.as_json:
        typer.echo(json.dumps(files.as_json(figures), indent=2))
    elif given.as_csv:
        typer.echo(files.as_csv(cohort, opened.named), nl=False)
    elif given.as_markdown:
        typer.echo(files.as_markdown(figures))
    elif given.as_latex:
        typer.echo(files.as_latex(figures))
    else:
        console = Console(highlight=False)
        curves = (
            None if given.no_curves else plots.terminal_curves(figures, console.width, linear=given.linear)
        )
        console.print(report_renderable(figures, curves, full=given.full))
    if not_written:
        # What is missing is missing for every picture.
        one_each = dict.fromkeys(map(str, not_written))
        raise not_written[0] if len(one_each) == 1 else UserError("; ".join(one_each))


def _cohort(opened: Opened, given: ReportCommand) -> Cohort:
    """The runs; where they must not be mixed and no set is chosen, a command for each set is listed.

    Messages name packed files, and no folder that was made for one.
    """
    from sdpo_solve.report.cohort import load_cohort
    from sdpo_solve.report.consistency import MixedRuns

    try:
        cohort = load_cohort(opened.dirs, given.set_number)
    except ConfigError as exc:
        if isinstance(exc, MixedRuns):
            command = f"sdpo-solve report {shlex.join(map(str, given.sources))}"
            typer.echo(exc.commands(command), err=True)
        raise ConfigError(opened.named(str(exc))) from None
    return replace(cohort, unreadable=tuple(map(opened.named, cohort.unreadable)))


def _write_files(figures: Report, cohort: Cohort, given: ReportCommand) -> list[SdpoSolveError]:
    """Write each file that was given, whatever became of the others; the errors of those not written."""
    from sdpo_solve.report import page, plots

    draw = partial(plots.write_picture, figures, linear=given.linear, band=given.band)
    forms = {"png": given.png, "pdf": given.pdf, "svg": given.svg}
    writers: dict[Path | None, Callable[[Path], None]] = {
        path: partial(draw, form=form) for form, path in forms.items()
    }
    writers[given.html] = partial(page.write_page, figures, cohort)
    errors: list[SdpoSolveError] = []
    console = Console(stderr=True, highlight=False)
    for path, write in writers.items():
        if path is None:
            continue
        try:
            write(path)
            console.print(Text(f"written: {path}"), soft_wrap=True)
        except SdpoSolveError as exc:
            errors.append(exc)
    return errors


def _marks(screening: Path) -> Marks:
    """What a screening has decided; problems that it has not are left out."""
    from sdpo_solve.batch.difficulty import HARD_RATE, VERY_HARD_RATE
    from sdpo_solve.batch.screening_file import read_marks
    from sdpo_solve.report.problems import EASIER, HARD, VERY_HARD, Marks

    screened = read_marks(screening)
    easier = {name for name, item in screened.problems.items() if item.is_below(HARD_RATE) is False}
    marks = {
        **dict.fromkeys(easier, EASIER),
        **dict.fromkeys(screened.named(HARD_RATE), HARD),
        **dict.fromkeys(screened.named(VERY_HARD_RATE), VERY_HARD),
    }
    digests = {name: item.digest for name, item in screened.problems.items()}
    return Marks(str(screened.config.get("model", "unknown")), marks, screened.config, digests)
