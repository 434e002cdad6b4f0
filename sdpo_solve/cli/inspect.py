"""The commands that look at runs: report, explain, watch, runs, show, diff.

Parse, call, print; `cli.py` registers them. Heavy parts are imported inside the commands.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from sdpo_solve.errors import ConfigError

if TYPE_CHECKING:
    from sdpo_solve.report.problems import Marks

Sources = Annotated[
    list[Path],
    typer.Argument(metavar="DIR...", help="Directories of runs, ones that hold them, or packed files."),
]


def _examples(*lines: str) -> str:
    """An epilog whose lines stay apart; a test runs them."""
    return "Examples:\n\n" + "\n\n".join(f"sdpo-solve {line}" for line in lines)


def report(
    sources: Sources,
    x: Annotated[
        str, typer.Option("--x", help="What discovery is counted in: attempts, tokens or seconds.")
    ] = "attempts",
    at: Annotated[
        str | None, typer.Option("--at", help="Points of the table, e.g. 1,16,64 (default: a few).")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option("--against", help="The arm that the others are compared with (default: sdpo)."),
    ] = None,
    common: Annotated[
        bool, typer.Option("--common", help="Only the problems and seeds that every arm has.")
    ] = False,
    screening: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A screening that says which problems are hard and very hard."),
    ] = None,
    replicates: Annotated[int, typer.Option(help="Bootstrap replicates.", min=100, max=100_000)] = 1000,
    linear: Annotated[
        bool, typer.Option("--linear", help="A linear x axis instead of a logarithmic one.")
    ] = False,
    no_curves: Annotated[bool, typer.Option("--no-curves", help="Tables only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The report as one JSON object.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="One row a run, as CSV.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="The tables in Markdown.")] = False,
    png: Annotated[Path | None, typer.Option(help="Write the curves to this PNG file.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write one self-contained page to this file.")] = None,
) -> None:
    """discovery@k, speed-ups and a table by problem, from the journals of runs alone.

    Works at any time, also while a batch is running.
    """
    from sdpo_solve.report import archive, files, plots
    from sdpo_solve.report.cohort import Axis, load_cohort
    from sdpo_solve.report.figures import ReportOptions, make_report
    from sdpo_solve.report.text import report_renderable

    if as_json + as_csv + as_markdown > 1:
        raise ConfigError("--json, --csv and --markdown: give one of them")
    if x not in list(Axis):
        raise ConfigError(f"--x is attempts, tokens or seconds, not {x!r}")
    marks = _marks(screening) if screening is not None else None
    with archive.unpacked(sources) as dirs:
        cohort = load_cohort(dirs)
        options = ReportOptions(Axis(x), _points(at), against, common, replicates, marks=marks)
        found = make_report(cohort, options)
        if png is not None:
            plots.write_png(found, png, linear=linear)
        if html is not None:
            from sdpo_solve.report import page

            page.write_page(found, cohort, html)
    if as_json:
        typer.echo(json.dumps(files.as_json(found), indent=2))
    elif as_csv:
        typer.echo(files.as_csv(cohort), nl=False)
    elif as_markdown:
        typer.echo(files.as_markdown(found))
    else:
        console = Console(highlight=False)
        curves = None if no_curves else plots.terminal_curves(found, console.width, linear=linear)
        console.print(report_renderable(found, curves))
    for path in (png, html):
        if path is not None:
            Console(stderr=True, highlight=False).print(Text(f"written: {path}"), soft_wrap=True)


def _marks(screening: Path) -> Marks:
    """What a screening has decided; problems that it has not are left out."""
    from sdpo_solve.batch.difficulty import HARD_RATE, VERY_HARD_RATE
    from sdpo_solve.batch.screening_file import read_marks
    from sdpo_solve.report.problems import EASIER, HARD, VERY_HARD, Marks

    found = read_marks(screening)
    easier = {name for name, item in found.problems.items() if item.is_below(HARD_RATE) is False}
    marks = {
        **dict.fromkeys(easier, EASIER),
        **dict.fromkeys(found.named(HARD_RATE), HARD),
        **dict.fromkeys(found.named(VERY_HARD_RATE), VERY_HARD),
    }
    return Marks(str(found.config.get("model", "unknown")), marks)


def _points(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        points = tuple(sorted({float(part) for part in text.split(",")}))
    except ValueError:
        points = ()
    if not points or points[0] < 0:
        raise ConfigError(f"--at wants numbers with commas between, for example 1,16,64; got {text!r}")
    return points


# -- watch, runs, show, diff ---------------------------------------------------------------------------------

RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run's directory, or one that holds one run.")
]


def watch(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="A run, or a directory that holds runs.")],
    once: Annotated[bool, typer.Option("--once", help="Show the state now and stop.")] = False,
) -> None:
    """The live view of runs that were started elsewhere; ends when none goes on. Ctrl-C leaves them alone."""
    from sdpo_solve.cli.watch import watch as follow
    from sdpo_solve.report.runs import only_reading

    with only_reading():
        follow(source, Console(highlight=False), once=once)


def runs(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="A directory that holds runs.")] = Path(
        "runs"
    ),
) -> None:
    """List the runs on disk: what became of them, what they spent, and when they last said something."""
    from sdpo_solve.report.run_text import list_runs, read_lines

    Console(highlight=False).print(list_runs(read_lines([source]), source))


def show(
    run: RunArgument,
    attempt: Annotated[int | None, typer.Option(help="One attempt instead of the whole story.")] = None,
) -> None:
    """Print the solution of a run and its story: verdicts policy by policy, and the updates between."""
    from sdpo_solve.report.run_text import load_run, tell, tell_attempt
    from sdpo_solve.report.runs import one_run_dir, only_reading

    with only_reading():
        record = load_run(one_run_dir(run))
        Console(highlight=False).print(tell(record) if attempt is None else tell_attempt(record, attempt))


def diff(
    one: RunArgument,
    other: Annotated[Path, typer.Argument(metavar="RUN", help="The run to compare it with.")],
) -> None:
    """Compare two runs: settings that differ, outcomes, and the difference of their best programs."""
    from sdpo_solve.report.run_text import compare, load_run
    from sdpo_solve.report.runs import one_run_dir, only_reading

    with only_reading():
        Console(highlight=False).print(compare(load_run(one_run_dir(one)), load_run(one_run_dir(other))))


# -- explain -------------------------------------------------------------------------------------------------


def explain(
    run: RunArgument,
    attempt: Annotated[
        int | None,
        typer.Option(help="The attempt whose tokens are shown (default: one behind the last update)."),
    ] = None,
    update: Annotated[int | None, typer.Option(help="The update to explain (default: the last).")] = None,
    no_model: Annotated[
        bool, typer.Option("--no-model", help="Only what the journal says; loads no weights.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option(help="Write one self-contained page to this file as well.")
    ] = None,
) -> None:
    """Why the policy changed: the teacher's word on an attempt token by token, and how answers moved.

    Loads the model of the run to score one attempt again, which takes seconds.
    """
    if attempt is not None and (update is not None or no_model):
        raise ConfigError("--attempt stands alone: it says which update, and it needs the model")
    from sdpo_solve.cli import explain as explaining
    from sdpo_solve.report.runs import only_reading

    console = Console(highlight=False)
    wanted = explaining.Wanted(attempt=attempt, update=update, with_model=not no_model)
    with only_reading():
        explaining.explain(run, wanted, console, html)


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    examples = (
        "report runs/first",
        "report runs/first --x seconds --linear",
        "report runs/first --json",
        "report runs/first --html report.html --png curves.png",
    )
    app.command(epilog=_examples(*examples))(report)
    app.command(epilog=_examples("watch runs/first", "watch runs/first --once"))(watch)
    app.command("runs", epilog=_examples("runs", "runs runs/first"))(runs)
    app.command(epilog=_examples("show runs/first/inc/sdpo", "show runs/first/inc/sdpo --attempt 3"))(show)
    app.command(epilog=_examples("diff runs/first/inc/sdpo runs/first/inc/best-of-k"))(diff)
    app.command(
        epilog=_examples(
            "explain runs/first/inc/sdpo", "explain runs/first/inc/sdpo --update 1 --html e.html"
        )
    )(explain)
