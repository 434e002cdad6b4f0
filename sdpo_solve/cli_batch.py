"""The commands about many runs: batch, screen, export, bench batch.

Parse, call, print; `cli.py` registers them. Heavy parts are imported inside the commands.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from sdpo_solve.cli_flags import (
    SOURCES_HELP,
    DifficultyFlag,
    FirstFlag,
    FromFlag,
    HalfFlag,
    IdsFlag,
    IncludeBadFlag,
    PlatformFlag,
    ToFlag,
)
from sdpo_solve.errors import ConfigError

Sources = Annotated[
    list[str] | None,
    typer.Argument(metavar="SOURCE...", help=SOURCES_HELP),
]
FileFlag = Annotated[
    Path | None, typer.Option("--file", "-f", help="TOML file with any of these options; flags win.")
]
ModelFlag = Annotated[str | None, typer.Option(help="Model name, hub id or directory.")]
SandboxFlag = Annotated[
    str | None, typer.Option(help="docker, bubblewrap, or auto: the first that works (default: auto).")
]
SetFlag = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PART.OPTION=VALUE", help="Set an option of a part, e.g. learner.lr=1e-4."),
]
MaxTokensFlag = Annotated[
    int | None, typer.Option(help="Tokens of one answer at most (default: 512, with CUDA 8192).")
]


def _epilog(*lines: str) -> str:
    return "Examples:\n\n" + "\n\n".join(lines)


BATCH_EPILOG = _epilog(
    "sdpo-solve batch problems --seeds 3 --attempts 64 --dry-run",
    "sdpo-solve batch lcb:rows.jsonl --from 2025-02-01 --difficulty hard --seeds 5 --attempts 512 "
    "--out runs/lcb",
    "sdpo-solve batch --file batch.toml --attempts 128",
)


def batch(
    sources: Sources = None,
    file: FileFlag = None,
    methods: Annotated[
        str | None, typer.Option(help="Methods, comma-separated (default: sdpo,best-of-k,multi-turn).")
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Seeds of each problem and method (default: 1).")] = None,
    ids: IdsFlag = None,
    difficulty: DifficultyFlag = None,
    platform: PlatformFlag = None,
    from_date: FromFlag = None,
    to_date: ToFlag = None,
    half: HalfFlag = None,
    first: FirstFlag = None,
    include_bad: IncludeBadFlag = False,
    only: Annotated[
        str | None,
        typer.Option(help="Keep what a screening marked so: hard, very-hard, or below a rate, e.g. 0.05."),
    ] = None,
    screening: Annotated[
        Path | None, typer.Option(help="The screening that --only reads (default: runs/screen).")
    ] = None,
    attempts: Annotated[int | None, typer.Option(help="Attempts of a run at most (default: 64).")] = None,
    group_size: Annotated[
        int | None, typer.Option(help="Attempts sampled between two updates (default: 16).")
    ] = None,
    tokens: Annotated[int | None, typer.Option(help="Generated tokens of a run at most.")] = None,
    wall_seconds: Annotated[float | None, typer.Option(help="Seconds of a run at most.")] = None,
    max_tokens: MaxTokensFlag = None,
    temperature: Annotated[float | None, typer.Option(help="Sampling temperature (default: 1.0).")] = None,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Spend whole budgets, also after a success.")
    ] = False,
    model: ModelFlag = None,
    engine: Annotated[str | None, typer.Option(help="hf, vllm or scripted (default: hf).")] = None,
    replies: Annotated[Path | None, typer.Option(help="Replies for --engine scripted.")] = None,
    sandbox: SandboxFlag = None,
    feedback_mode: Annotated[
        str | None,
        typer.Option(help="Tests that feedback may quote: public, paper or all (default: public)."),
    ] = None,
    language: Annotated[str | None, typer.Option(help="python or cpp (default: python).")] = None,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    thinking: Annotated[bool, typer.Option("--thinking", help="Let the model think first.")] = False,
    threads: Annotated[
        int | None,
        typer.Option(help="Processor threads of the model; equal results need equal numbers of them."),
    ] = None,
    in_flight: Annotated[
        int | None, typer.Option(help="Runs under way at once in one process (default: 2).")
    ] = None,
    merge: Annotated[
        bool,
        typer.Option(
            "--merge", help="Sample for runs without an adapter together; rounding may change tokens."
        ),
    ] = False,
    tries: Annotated[
        int | None, typer.Option(help="Times a failing run is tried, over all commands (default: 2).")
    ] = None,
    executor: Annotated[str | None, typer.Option(help="local or ray (default: local).")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Ray workers (default: one an accelerator, else one).")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster (default: RAY_ADDRESS, else one on this machine).")
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Ray workers that share no path send their files here.")
    ] = False,
    settings: SetFlag = None,
    track: Annotated[
        str | None, typer.Option(help="Trackers, comma-separated: tensorboard, wandb, trackio.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Directory of the runs (default: runs/batch-<options>).")
    ] = None,
    no_measure: Annotated[
        bool, typer.Option("--no-measure", help="Print no estimate where nothing was measured yet.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Events as JSON lines on standard output, all else on error.")
    ] = False,
) -> None:
    """Problems x methods x seeds: plan, measure, run. The same command again goes on where it stopped.

    Ctrl-C once ends after the groups under way, twice at once. Exit code 0: every run ended, 4: some failed.
    """
    from sdpo_solve import batch_command
    from sdpo_solve.config import parse_settings
    from sdpo_solve.plan import make_spec, read_toml

    flags: dict[str, Any] = {
        "sources": sources or None, "methods": methods, "seeds": seeds, "ids": ids,
        "difficulty": difficulty, "platform": platform, "from_date": from_date, "to_date": to_date,
        "half": half, "first": first, "include_bad": include_bad or None, "only": only,
        "screening": screening, "attempts": attempts, "group_size": group_size, "tokens": tokens,
        "wall_seconds": wall_seconds, "max_tokens": max_tokens, "temperature": temperature,
        "keep_going": keep_going or None, "model": model, "engine": engine, "replies": replies,
        "sandbox": sandbox, "feedback_mode": feedback_mode, "language": language, "system": system,
        "thinking": thinking or None, "threads": threads, "in_flight": in_flight,
        "merge": merge or None, "tries": tries,
        "executor": executor, "workers": workers, "address": address,
        "stream": stream or None,
        "settings": parse_settings(settings or []), "track": track, "out": out,
    }  # fmt: skip
    spec = make_spec(read_toml(file) if file else {}, flags, str(file) if file else "batch")
    asked = batch_command.Asked(spec, dry_run=dry_run, measure=not no_measure, as_json=as_json)
    console = Console(stderr=as_json, highlight=False)
    raise typer.Exit(batch_command.run(asked, console, typer.echo))


SCREEN_EPILOG = _epilog(
    "sdpo-solve screen problems --attempts 512",
    "sdpo-solve screen lcb:rows.jsonl --difficulty hard --teacher --out runs/screen-hard",
)


def screen(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE...", help=SOURCES_HELP),
    ],
    attempts: Annotated[int, typer.Option(help="Samples of one problem at most.", min=1)] = 512,
    total: Annotated[int | None, typer.Option(help="Samples of this command at most.", min=1)] = None,
    group_size: Annotated[
        int,
        typer.Option(help="Samples of one problem taken at a time at most; the first look takes 4.", min=1),
    ] = 16,
    round_size: Annotated[
        int, typer.Option(help="Samples of all problems that go through the engine together.", min=1)
    ] = 64,
    ceiling: Annotated[
        str,
        typer.Option(help="Leave a problem alone once its rate is surely above this: hard, or e.g. 0.1."),
    ] = "hard",
    teacher: Annotated[
        bool, typer.Option("--teacher", help="Also sample from the prompt that shows a failure's feedback.")
    ] = False,
    ids: IdsFlag = None,
    difficulty: DifficultyFlag = None,
    platform: PlatformFlag = None,
    from_date: FromFlag = None,
    to_date: ToFlag = None,
    half: HalfFlag = None,
    first: FirstFlag = None,
    include_bad: IncludeBadFlag = False,
    max_tokens: MaxTokensFlag = None,
    temperature: Annotated[float, typer.Option(help="Sampling temperature.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of the samples.", min=0)] = 0,
    model: ModelFlag = None,
    engine: Annotated[str, typer.Option(help="hf, vllm or scripted.")] = "hf",
    replies: Annotated[Path | None, typer.Option(help="Replies for --engine scripted.")] = None,
    sandbox: SandboxFlag = None,
    settings: SetFlag = None,
    out: Annotated[Path, typer.Option(help="Directory of the screening.")] = Path("runs/screen"),
    as_json: Annotated[bool, typer.Option("--json", help="The table as one JSON object.")] = False,
) -> None:
    """How often the base model solves each problem, with intervals; marks hard and very hard ones.

    Goes on where it stopped; Ctrl-C once ends after the samples under way. `batch --only hard` reads the
    result. The samples serve no comparison.
    """
    from sdpo_solve import screen as screening
    from sdpo_solve import screen_view
    from sdpo_solve.config import parse_settings
    from sdpo_solve.plan import make_spec
    from sdpo_solve.screening import Rule, rate_of

    flags = {
        "sources": sources, "ids": ids, "difficulty": difficulty, "platform": platform,
        "from_date": from_date, "to_date": to_date, "half": half, "first": first,
        "include_bad": include_bad or None, "attempts": attempts, "max_tokens": max_tokens,
        "temperature": temperature, "model": model, "engine": engine, "replies": replies, "sandbox": sandbox,
        "settings": parse_settings(settings or []), "methods": "best-of-k",
    }  # fmt: skip
    rule = Rule(group_size, attempts, rate_of(ceiling))
    asked = screening.Asked(make_spec({}, flags, "screen"), out, rule, round_size, total, teacher, seed)
    console = Console(stderr=as_json, highlight=False)
    ended = screening.run(asked, console)
    if as_json:
        typer.echo(json.dumps(screen_view.as_record(ended.found)))
    if ended.stopped:
        raise typer.Exit(130)


EXPORT_EPILOG = _epilog(
    "sdpo-solve export runs/lcb --format livecodebench --method sdpo > answers.json",
    "sdpo-solve export runs/lcb --format pack --out results.zip",
)


def export(
    sources: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Directories of runs, or ones that hold them.")
    ],
    format: Annotated[
        str,
        typer.Option(
            "--format",
            help="livecodebench: what its custom_evaluator reads; pack: runs without texts, for 'report'.",
        ),
    ] = "livecodebench",
    method: Annotated[str | None, typer.Option(help="The arm to write, where there are several.")] = None,
    all_attempts: Annotated[
        bool, typer.Option("--all-attempts", help="Every attempt's program, not one program a run.")
    ] = False,
    rows: Annotated[
        Path | None,
        typer.Option(help="Rows of LiveCodeBench: questions that were not run get an empty program."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File to write (default: standard output).")] = None,
) -> None:
    """Write what was found in a form that other tools read, or as one small file that 'report' reads."""
    from sdpo_solve import archive
    from sdpo_solve import export as exporting
    from sdpo_solve.runs import only_reading

    if format == "pack":
        if out is None or method or all_attempts or rows:
            raise ConfigError("--format pack needs --out FILE and takes no other option")
        with only_reading():
            typer.echo(f"{archive.pack(sources, out)} runs are in {out}")
        return
    with only_reading():
        text = exporting.render(sources, format, method=method, all_attempts=all_attempts, rows=rows)
    if out is None:
        typer.echo(text)
    else:
        exporting.write(out, text)


BENCH_EPILOG = _epilog("sdpo-solve bench batch problems --attempts 16")


def bench_batch(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE...", help=SOURCES_HELP),
    ],
    attempts: Annotated[int, typer.Option(help="Attempts of each run.", min=1)] = 16,
    group_size: Annotated[int, typer.Option(help="Attempts sampled between two updates.", min=1)] = 8,
    methods: Annotated[str, typer.Option(help="Methods, comma-separated.")] = "sdpo,best-of-k",
    in_flight: Annotated[str, typer.Option(help="Numbers of runs under way to compare.")] = "1,2",
    max_tokens: MaxTokensFlag = None,
    model: ModelFlag = None,
    engine: Annotated[str, typer.Option(help="hf, vllm or scripted.")] = "hf",
    replies: Annotated[Path | None, typer.Option(help="Replies for --engine scripted.")] = None,
    sandbox: SandboxFlag = None,
    as_json: Annotated[bool, typer.Option("--json", help="The figures as one JSON object.")] = False,
) -> None:
    """Busy share of sampling, grading and learning, and of the orchestrator itself."""
    from sdpo_solve import bench_batch as bench
    from sdpo_solve.plan import make_spec

    flags = {
        "sources": sources, "attempts": attempts, "methods": methods, "max_tokens": max_tokens,
        "group_size": group_size if set(methods.split(",")) - {"multi-turn"} else None,
        "model": model, "engine": engine, "replies": replies, "sandbox": sandbox, "keep_going": True,
    }  # fmt: skip
    rows = bench.measure_shares(make_spec({}, flags, "bench batch"), bench.parse_numbers(in_flight))
    if as_json:
        typer.echo(json.dumps(bench.as_record(rows)))
    else:
        Console(highlight=False).print(bench.table(rows))


BENCH_PLAN_EPILOG = _epilog("sdpo-solve bench plan --problems 131 --seeds 5")


def bench_plan(
    problems: Annotated[int, typer.Option(help="Problems of the largest plan.", min=4)] = 131,
    seeds: Annotated[int, typer.Option(help="Seeds of each problem and method.", min=1)] = 5,
    sandbox: SandboxFlag = None,
    as_json: Annotated[bool, typer.Option("--json", help="The figures as one JSON object.")] = False,
) -> None:
    """What a plan of many runs costs besides sampling, grading and learning: processor time and memory.

    A quarter, a half and the whole of problems x 3 methods x seeds, with scripted replies.
    """
    from sdpo_solve import bench_plan as bench

    rows = bench.measure_plans(bench.Size(problems, seeds), sandbox)
    if as_json:
        typer.echo(json.dumps(bench.as_record(rows)))
    else:
        Console(highlight=False).print(bench.table(rows))


def add_bench_to(bench_app: typer.Typer) -> None:
    """Register the commands below `bench`."""
    bench_app.command("batch", epilog=BENCH_EPILOG)(bench_batch)
    bench_app.command("plan", epilog=BENCH_PLAN_EPILOG)(bench_plan)


def add_to(app: typer.Typer) -> None:
    """Register batch, screen and export on the application."""
    app.command("batch", epilog=BATCH_EPILOG)(batch)
    app.command("screen", epilog=SCREEN_EPILOG)(screen)
    app.command("export", epilog=EXPORT_EPILOG)(export)
