"""The commands about many runs: batch, screen, export.

Parse, call, print; `cli.py` registers them. Heavy parts are imported inside the commands.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from sdpo_solve.cli.flags import (
    SOURCES_HELP,
    AttemptsFlag,
    DifficultyFlag,
    EngineFlag,
    FeedbackModeFlag,
    FileFlag,
    FirstFlag,
    FromFlag,
    GroupSizeFlag,
    HalfFlag,
    IdsFlag,
    IncludeBadFlag,
    KeepGoingFlag,
    LanguageFlag,
    MaxTokensFlag,
    MethodsFlag,
    ModelFlag,
    PlatformFlag,
    RepliesFlag,
    RuntimeFlag,
    SetFlag,
    SystemFlag,
    TemperatureFlag,
    ThinkingFlag,
    ThreadsFlag,
    ToFlag,
    TokensFlag,
    WallSecondsFlag,
    flags_of,
)
from sdpo_solve.errors import ConfigError

Sources = Annotated[
    list[str] | None,
    typer.Argument(metavar="SOURCE...", help=SOURCES_HELP),
]
SandboxFlag = Annotated[
    str | None, typer.Option(help="docker, bubblewrap, or auto: the first that works (default: auto).")
]

INTERRUPTED = 130


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
    methods: MethodsFlag = None,
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
        typer.Option(
            help="Keep what a screening found so: hard, very-hard, below a rate, e.g. 0.05, or taught: "
            "with feedback solved at least every fourth time."
        ),
    ] = None,
    screening: Annotated[
        Path | None, typer.Option(help="The screening that --only reads (default: runs/screen).")
    ] = None,
    attempts: AttemptsFlag = None,
    group_size: GroupSizeFlag = None,
    tokens: TokensFlag = None,
    wall_seconds: WallSecondsFlag = None,
    max_tokens: MaxTokensFlag = None,
    temperature: TemperatureFlag = None,
    keep_going: KeepGoingFlag = False,
    model: ModelFlag = None,
    engine: EngineFlag = None,
    replies: RepliesFlag = None,
    sandbox: SandboxFlag = None,
    runtime: RuntimeFlag = None,
    feedback_mode: FeedbackModeFlag = None,
    language: LanguageFlag = None,
    system: SystemFlag = None,
    thinking: ThinkingFlag = False,
    threads: ThreadsFlag = None,
    in_flight: Annotated[
        int | None, typer.Option(help="Runs under way at once in one process (default: 2).")
    ] = None,
    merge: Annotated[
        bool,
        typer.Option("--merge", help="Sample for the runs in flight together; rounding may change tokens."),
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
    flags = flags_of(locals(), without=("file", "no_measure", "dry_run", "as_json"))
    from sdpo_solve.batch.spec import make_spec, read_toml
    from sdpo_solve.cli import batch_run

    spec = make_spec(read_toml(file) if file else {}, flags, str(file) if file else "batch")
    asked = batch_run.Asked(spec, dry_run=dry_run, measure=not no_measure, as_json=as_json)
    console = Console(stderr=as_json, highlight=False)
    code = batch_run.run(asked, console, typer.echo)
    if code == INTERRUPTED:
        raise SystemExit(code)  # it has said the way on
    raise typer.Exit(code)


# Flags of `screen` that are no options of a batch.
_OF_THE_SCREENING = (
    "file", "attempts", "total", "group_size", "round_size", "ceiling", "teacher", "seed", "as_json",
)  # fmt: skip
SCREEN_EPILOG = _epilog(
    "sdpo-solve screen problems --attempts 512",
    "sdpo-solve screen lcb:rows.jsonl --difficulty hard --teacher --out runs/screen-hard",
    "sdpo-solve screen --file batch.toml",
)


def screen(
    sources: Sources = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="TOML file of a batch: problems and sampling as there; flags win."),
    ] = None,
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
    temperature: TemperatureFlag = None,
    seed: Annotated[int, typer.Option(help="Seed of the samples.", min=0)] = 0,
    model: ModelFlag = None,
    engine: EngineFlag = None,
    replies: RepliesFlag = None,
    sandbox: SandboxFlag = None,
    runtime: RuntimeFlag = None,
    feedback_mode: FeedbackModeFlag = None,
    language: LanguageFlag = None,
    system: SystemFlag = None,
    thinking: ThinkingFlag = False,
    threads: ThreadsFlag = None,
    settings: SetFlag = None,
    out: Annotated[
        Path | None, typer.Option(help="Directory of the screening (default: the file's, or runs/screen).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The table as one JSON object.")] = False,
) -> None:
    """How often the base model solves each problem, with intervals; marks hard and very hard ones.

    Goes on where it stopped; Ctrl-C once ends after the samples under way. `batch --only hard` reads the
    result, and wants the same model and sampling. The samples serve no comparison.
    """
    flags = flags_of(locals(), without=_OF_THE_SCREENING)
    from sdpo_solve.batch import screening
    from sdpo_solve.batch.difficulty import Rule, rate_of
    from sdpo_solve.batch.spec import make_screen_spec, read_toml
    from sdpo_solve.cli import live_screening

    spec = make_screen_spec(read_toml(file) if file else {}, flags, str(file) if file else "screen")
    rule = Rule(group_size, attempts, rate_of(ceiling))
    asked = screening.Asked(spec, spec.batch.screening, rule, round_size, total, teacher, seed)
    console = Console(stderr=as_json, highlight=False)
    with live_screening.make_screen_view(console, live_screening.ScreenProgress(rule)) as view:
        ended = screening.run(asked, view)
    live_screening.print_table(console, ended.problems, asked.out, stopped=ended.stopped)
    if as_json:
        typer.echo(json.dumps(live_screening.as_record(ended.screening)))
    if ended.stopped:
        raise SystemExit(INTERRUPTED)  # it has said the way on


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
    from sdpo_solve.report import archive
    from sdpo_solve.report import export as exporting
    from sdpo_solve.report.runs import only_reading

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


def add_to(app: typer.Typer) -> None:
    """Register batch, screen and export on the application."""
    app.command("batch", epilog=BATCH_EPILOG)(batch)
    app.command("screen", epilog=SCREEN_EPILOG)(screen)
    app.command("export", epilog=EXPORT_EPILOG)(export)
