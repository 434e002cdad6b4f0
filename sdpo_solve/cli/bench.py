"""The commands of `bench` about one part: what it costs on this machine, as ratios in one run.

Parse, call, print; `cli.py` registers them. Heavy parts are imported inside the commands.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from sdpo_solve.cli.flags import SOURCES_HELP, FirstFlag, HalfFlag, IdsFlag, JsonFlag, SandboxFlag, SetFlag
from sdpo_solve.errors import ConfigError

SAMPLING_EPILOG = (
    "Examples:\n\nsdpo-solve bench sampling\n\nsdpo-solve bench sampling --engines hf --rounds 3"
)


def sampling(
    model: Annotated[
        str | None, typer.Option(help="Model name, hub id or directory (default: the default model).")
    ] = None,
    engines: Annotated[
        str | None, typer.Option(help="Engines, comma-separated (default: those that are installed).")
    ] = None,
    samples: Annotated[int, typer.Option(help="Samples wanted.", min=1)] = 64,
    rows: Annotated[int, typer.Option(help="Answers sampled at the same time at most.", min=1)] = 16,
    max_tokens: Annotated[int, typer.Option(help="Tokens of one answer at most.", min=1)] = 200,
    rounds: Annotated[int, typer.Option(help="Rounds over all arms; the best of each counts.", min=1)] = 1,
    as_json: JsonFlag = False,
) -> None:
    """Tokens a second of each engine, beside plain `generate` and raw vLLM with the same settings."""
    from sdpo_solve.bench import sampling as bench
    from sdpo_solve.model import names

    size = bench.Size(samples, rows, max_tokens, rounds, bench.parse_engines(engines))
    model_dir = names.resolve(model or names.default_name()).path
    err = Console(stderr=True, highlight=False)
    figures = bench.run(model_dir, size, lambda line: err.print(Text(line, style="dim"), soft_wrap=True))
    if as_json:
        typer.echo(json.dumps(figures.record()))
    else:
        Console(highlight=False).print(bench.page(figures))


GRADING_EPILOG = "Examples:\n\nsdpo-solve bench grading\n\nsdpo-solve bench grading --rounds 1 --json"


def grading(
    rounds: Annotated[int, typer.Option(help="Rounds over all arms; the best of each counts.", min=1)] = 3,
    as_json: JsonFlag = False,
) -> None:
    """What Docker boxes cost: the same programs bare, in warm boxes, and with one `docker run` an attempt."""
    from sdpo_solve.bench import grading as bench

    err = Console(stderr=True, highlight=False)
    figures = bench.run(lambda line: err.print(Text(line, style="dim"), soft_wrap=True), rounds)
    if as_json:
        typer.echo(json.dumps(bench.as_record(figures)))
    else:
        Console(highlight=False).print(bench.page(figures))


UPDATE_EPILOG = (
    "Examples:\n\nsdpo-solve bench update\n\n"
    "sdpo-solve bench update --attempts 1 --answer-tokens 8192 --no-plain"
)


def update(
    model: Annotated[
        str | None, typer.Option(help="Model name, hub id or directory (default: the default model).")
    ] = None,
    attempts: Annotated[int, typer.Option(help="Attempts of the group.", min=1)] = 16,
    question_tokens: Annotated[int, typer.Option(help="Tokens of the question.", min=2)] = 200,
    feedback_tokens: Annotated[int, typer.Option(help="Tokens of each feedback.", min=1)] = 150,
    answer_tokens: Annotated[int, typer.Option(help="Tokens of each answer.", min=1)] = 100,
    rounds: Annotated[int, typer.Option(help="Updates of each form; the fastest counts.", min=1)] = 2,
    no_plain: Annotated[
        bool, typer.Option("--no-plain", help="Leave the plain form out: it may not fit into memory.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Time and memory of an update, beside the plain form and the machine's rate of matrix products.

    Random tokens against the frozen teacher, defaults of the learner. Exit code 1: a ratio misses its target.
    """
    from sdpo_solve.bench import update as bench
    from sdpo_solve.model import names

    model_dir = names.resolve(model or names.default_name()).path
    size = bench.Size(attempts, question_tokens, feedback_tokens, answer_tokens)
    err = Console(stderr=True, highlight=False)
    found = bench.run(
        model_dir,
        lambda line: err.print(Text(line, style="dim"), soft_wrap=True),
        size=size,
        with_plain=not no_plain,
        n_rounds=rounds,
    )
    if as_json:
        typer.echo(json.dumps(found.record()))
    else:
        Console(highlight=False).print(bench.page(found))
    raise typer.Exit(0 if found.ok else 1)


FORGETTING_EPILOG = (
    "Examples:\n\nsdpo-solve bench forgetting RUN problems\n\n"
    "sdpo-solve bench forgetting RUN mbpp:MbppPlus.jsonl.gz --first 40 --samples 16"
)


def forgetting(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run of sdpo that has learned.")],
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help=SOURCES_HELP)],
    ids: IdsFlag = None,
    half: HalfFlag = None,
    first: FirstFlag = None,
    samples: Annotated[int, typer.Option(help="Answers of each problem, with and without.", min=1)] = 8,
    version: Annotated[int | None, typer.Option(help="Policy to try (default: the newest).", min=1)] = None,
    sandbox: SandboxFlag = "auto",
    as_json: JsonFlag = False,
) -> None:
    """What a run's adapter does to other problems, and whether the base is unharmed without it.

    Exit code 1: answers of the base changed.
    """
    from sdpo_solve.bench import forgetting as bench
    from sdpo_solve.config import read_options
    from sdpo_solve.datasets.selection import Selection
    from sdpo_solve.report.runs import only_reading

    flags = {"ids": ids, "half": half, "first": first}
    chosen = read_options(Selection, {name: x for name, x in flags.items() if x is not None}, "bench")
    asked = bench.Asked(run, tuple(sources), chosen, samples, version, sandbox)
    err = Console(stderr=True, highlight=False)
    with only_reading():
        found = bench.measure(asked, lambda line: err.print(Text(line, style="dim"), soft_wrap=True))
    if as_json:
        typer.echo(json.dumps(found.record()))
    else:
        Console(highlight=False).print(bench.page(found))
    raise typer.Exit(0 if found.same_again == found.again else 1)


LESSON_EPILOG = (
    "Examples:\n\nsdpo-solve bench lesson RUN --vary learner.lr=5e-5,2e-4,1e-3\n\n"
    "sdpo-solve bench lesson RUNS --references problems --group-size 8 --updates 3 --vary learner.alpha=0,0.5"
)


def lesson(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Runs whose failures are learned from.")
    ],
    settings: SetFlag = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(metavar="learner.OPTION=A,B,...", help="Values to try one by one (repeatable)."),
    ] = None,
    references: Annotated[
        list[str] | None,
        typer.Option(help="Problem files whose references count where no run solved the problem."),
    ] = None,
    group_size: Annotated[int, typer.Option(help="Attempts of a group.", min=1)] = 16,
    updates: Annotated[int, typer.Option(help="Groups that are learned from in turn.", min=1)] = 1,
    as_json: JsonFlag = False,
) -> None:
    """What updates on a run's failures do to right answers, one learner setting after another.

    Nothing is sampled: failures and right answers are those of the runs. Use runs made with --keep-going.
    """
    from sdpo_solve.bench import lesson as bench
    from sdpo_solve.config import parse_settings
    from sdpo_solve.report.runs import only_reading

    given, varied = parse_settings(settings or []), parse_settings(vary or [])
    if others := {*given, *varied} - {"learner"}:
        raise ConfigError(f"bench lesson compares options of the learner, not of {', '.join(sorted(others))}")
    values = {
        name: [None if one.strip().lower() == "none" else one.strip() for one in str(value).split(",")]
        for name, value in varied.get("learner", {}).items()
    }
    rows = bench.settings_of(given.get("learner", {}), values)
    asked = bench.Asked(tuple(runs), tuple(references or ()), tuple(rows), group_size, updates)
    err = Console(stderr=True, highlight=False)
    with only_reading():
        found = bench.measure(asked, lambda line: err.print(Text(line, style="dim"), soft_wrap=True))
    if as_json:
        typer.echo(json.dumps(found.record()))
    else:
        Console(highlight=False).print(bench.page(found))


def add_to(bench_app: typer.Typer) -> None:
    """Register the commands below `bench`."""
    bench_app.command("sampling", epilog=SAMPLING_EPILOG)(sampling)
    bench_app.command("grading", epilog=GRADING_EPILOG)(grading)
    bench_app.command("update", epilog=UPDATE_EPILOG)(update)
    bench_app.command("forgetting", epilog=FORGETTING_EPILOG)(forgetting)
    bench_app.command("lesson", epilog=LESSON_EPILOG)(lesson)
