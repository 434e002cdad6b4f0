"""The command line: parse, call, print. Nothing else is decided here but the exit codes.

Exit codes: 0 solved or done, 1 budget spent or not solved, 2 the user's mistake, or a damaged journal where a
command only reads it, 3 something missing on this machine, 4 the run failed, 70 a fault of this program (with
its traceback), 130 interrupted, 141 nobody reads its output any more, 143 ended by SIGTERM.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.text import Text

from sdpo_solve import __version__
from sdpo_solve.cli import batch, bench, inspect
from sdpo_solve.cli.flags import (
    SOURCES_HELP,
    AttemptsFlag,
    DifficultyFlag,
    EngineFlag,
    FeedbackModeFlag,
    FirstFlag,
    FromFlag,
    GroupSizeFlag,
    IdsFlag,
    IncludeBadFlag,
    JsonFlag,
    KeepGoingFlag,
    LanguageFlag,
    MaxTokensFlag,
    ModelFlag,
    PlatformFlag,
    ProblemArgument,
    RepliesFlag,
    RuntimeFlag,
    SandboxFlag,
    SetFlag,
    SystemFlag,
    TemperatureFlag,
    ThinkingFlag,
    ToFlag,
    TokensFlag,
    WallSecondsFlag,
    flags_of,
    selection,
    with_runtime,
)
from sdpo_solve.errors import ConfigError, PrerequisiteError, RunError, SdpoSolveError, UserError
from sdpo_solve.model.cpu import share_freed_memory
from sdpo_solve.sanitize import clean


def _examples(*lines: str) -> str:
    """An epilog whose lines stay apart."""
    return "Examples:\n\n" + "\n\n".join(lines)


app = typer.Typer(
    name="sdpo-solve",
    help="Solve hard coding problems by learning from failed attempts at test time (SDPO).",
    epilog=_examples(
        "sdpo-solve setup",
        "sdpo-solve run problems/letter-tally.json --group-size 8 --max-tokens 96",
        "sdpo-solve batch problems --methods sdpo,best-of-k --out runs/first",
        "sdpo-solve report runs/first",
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
model_app = typer.Typer(
    no_args_is_help=True,
    help="Names of models, and their weights on this disk.",
    epilog=_examples("sdpo-solve model list", "sdpo-solve model pull qwen2.5-coder-0.5b"),
)
app.add_typer(model_app, name="model")
bench_app = typer.Typer(
    no_args_is_help=True,
    help="Figures measured on this machine, as ratios in one run.",
    epilog=_examples("sdpo-solve bench update --attempts 4", "sdpo-solve bench grading"),
)
app.add_typer(bench_app, name="bench")


@app.callback(invoke_without_command=True)
def top(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        typer.echo(f"sdpo-solve {__version__}")
        raise typer.Exit


# -- run -----------------------------------------------------------------------------------------------------


@app.command(
    epilog=_examples(
        "sdpo-solve run problems/letter-tally.json",
        "sdpo-solve run problems/letter-tally.json --method best-of-k --attempts 128 --json",
        "sdpo-solve run lcb:v6 --ids abc387_f --max-tokens 8192 --wall-seconds 3600",
    )
)
def run(
    problem: ProblemArgument,
    method: Annotated[str | None, typer.Option(help="sdpo, best-of-k or multi-turn (default: sdpo).")] = None,
    arm: Annotated[
        str | None, typer.Option(help="Name to file and compare the run under (default: the method's).")
    ] = None,
    attempts: AttemptsFlag = None,
    group_size: GroupSizeFlag = None,
    tokens: TokensFlag = None,
    wall_seconds: WallSecondsFlag = None,
    max_tokens: MaxTokensFlag = None,
    temperature: TemperatureFlag = None,
    keep_going: KeepGoingFlag = False,
    seed: Annotated[int | None, typer.Option(help="Seed of every random draw (default: 0).")] = None,
    model: ModelFlag = None,
    engine: EngineFlag = None,
    replies: RepliesFlag = None,
    sandbox: SandboxFlag = "auto",
    runtime: RuntimeFlag = None,
    feedback_mode: FeedbackModeFlag = None,
    language: LanguageFlag = None,
    system: SystemFlag = None,
    thinking: ThinkingFlag = False,
    settings: SetFlag = None,
    out: Annotated[
        Path | None, typer.Option(help="Directory of the results (default: runs/<engine>-<options>).")
    ] = None,
    ids: IdsFlag = None,
    difficulty: DifficultyFlag = None,
    platform: PlatformFlag = None,
    from_date: FromFlag = None,
    to_date: ToFlag = None,
    first: FirstFlag = None,
    include_bad: IncludeBadFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Solve one problem: sample, test, learn from the failures, until solved or spent.

    The same command again goes on where the run stopped. Exit code 0: solved, 1: budget spent.
    """
    flags = flags_of(locals())
    from sdpo_solve.cli import run as commands
    from sdpo_solve.config import RunOptions, as_flag, read_options

    of_run = {key: flags[key] for key in RunOptions.model_fields if key in flags}
    options = read_options(RunOptions, of_run, "run", as_flag)
    console = Console(stderr=as_json, highlight=False)
    result = commands.run_one(problem, selection(flags), options, replies=replies, out=out, console=console)
    if as_json:
        typer.echo(json.dumps(asdict(result)))
    raise typer.Exit(0 if result.solved else 1)


# -- grade and check -----------------------------------------------------------------------------------------


@app.command(
    epilog=_examples(
        "sdpo-solve grade problems/letter-tally.json answer.py",
        "sdpo-solve grade lcb:rows.jsonl answer.py --ids abc387_f --json",
    )
)
def grade(
    problem: ProblemArgument,
    program: Annotated[Path, typer.Argument(metavar="PROGRAM", help="The program to judge.")],
    sandbox: SandboxFlag = "auto",
    runtime: RuntimeFlag = None,
    settings: SetFlag = None,
    ids: IdsFlag = None,
    difficulty: DifficultyFlag = None,
    platform: PlatformFlag = None,
    from_date: FromFlag = None,
    to_date: ToFlag = None,
    first: FirstFlag = None,
    include_bad: IncludeBadFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Judge a program without a model. Exit code 0: solved, 1: not."""
    which = selection(locals())
    from sdpo_solve.cli import run as commands

    graded = commands.grade_one(
        problem, which, program, sandbox=sandbox, settings=with_runtime(settings, runtime)
    )
    if as_json:
        typer.echo(json.dumps(commands.verdict_json(graded.verdict)))
    else:
        commands.print_verdict(Console(highlight=False), graded)
    raise typer.Exit(0 if graded.verdict.solved else 1)


@app.command(
    epilog=_examples(
        "sdpo-solve check problems/*.json",
        "sdpo-solve check mbpp:MbppPlus.jsonl.gz --first 20",
    )
)
def check(
    problems: Annotated[list[str], typer.Argument(metavar="PROBLEM...", help=SOURCES_HELP)],
    sandbox: SandboxFlag = "auto",
    runtime: RuntimeFlag = None,
    settings: SetFlag = None,
    ids: IdsFlag = None,
    difficulty: DifficultyFlag = None,
    platform: PlatformFlag = None,
    from_date: FromFlag = None,
    to_date: ToFlag = None,
    first: FirstFlag = None,
    include_bad: IncludeBadFlag = False,
) -> None:
    """Validate problems, and judge each reference solution, which must be solved.

    Exit code 2: a problem cannot be read, 1: a reference fails.
    """
    which = selection(locals())
    from sdpo_solve.cli import run as commands

    console = Console(highlight=False)
    counts = commands.check_all(
        problems, which, sandbox=sandbox, settings=with_runtime(settings, runtime), console=console
    )
    raise typer.Exit(2 if counts.unreadable else 1 if counts.failing else 0)


@app.command(epilog=_examples("sdpo-solve schema > problem.schema.json"))
def schema() -> None:
    """Print the JSON Schema of a problem file."""
    from sdpo_solve.datasets import problem_json

    typer.echo(json.dumps(problem_json.schema(), indent=2))


# -- the machine ---------------------------------------------------------------------------------------------


@app.command(
    epilog=_examples("sdpo-solve setup", "sdpo-solve setup --no-model", "sdpo-solve setup --language cpp")
)
def setup(
    model: Annotated[
        str | None,
        typer.Option(help="Model to fetch (default: the small embedded one; with CUDA Qwen/Qwen3-8B)."),
    ] = None,
    no_model: Annotated[bool, typer.Option("--no-model", help="Leave the model out.")] = False,
    language: Annotated[
        list[str] | None,
        typer.Option(help="Also make the sandbox image of this language: cpp (repeatable)."),
    ] = None,
) -> None:
    """Make this machine ready: the Docker engine, the sandbox image, the model. Safe to repeat."""
    from sdpo_solve.cli import run as commands

    console = Console(highlight=False)
    commands.set_up(model=model, with_model=not no_model, languages=language or [], console=console)


@app.command(
    epilog=_examples(
        "sdpo-solve doctor",
        "sdpo-solve doctor --model qwen2.5-coder-0.5b",
        "sdpo-solve doctor --sandbox",
        "sdpo-solve doctor --sandbox --runtime runsc",
    )
)
def doctor(
    model: Annotated[str | None, typer.Option(help="Model to look for (default: the default model).")] = None,
    sandbox: Annotated[
        bool, typer.Option("--sandbox", help="Judge every honest and hostile program in the sandbox.")
    ] = False,
    backend: Annotated[
        str, typer.Option(help="With --sandbox: docker, bubblewrap, or auto: the first that works.")
    ] = "auto",
    only: Annotated[
        str | None, typer.Option(help="With --sandbox: programs named like one of these, comma-separated.")
    ] = None,
    runtime: RuntimeFlag = None,
    at_a_time: Annotated[int, typer.Option(help="With --sandbox: programs judged at a time.", min=1)] = 2,
    settings: SetFlag = None,
) -> None:
    """Look at this machine: what is missing, and what the model takes in memory. Changes nothing.

    Exit code 3: something is missing. With --sandbox, what the sandbox makes of each program; exit code 1:
    one went wrong.
    """
    console = Console(highlight=False)
    if sandbox:
        from sdpo_solve.cli.doctor_sandbox import examine_sandbox

        names = [name.strip() for name in (only or "").split(",") if name.strip()]
        good = examine_sandbox(
            backend, with_runtime(settings, runtime), at_a_time=at_a_time, only=names, console=console
        )
        raise typer.Exit(0 if good else 1)
    if settings or runtime or only or backend != "auto":
        raise ConfigError("--backend, --runtime, --only and --set go with --sandbox")
    from sdpo_solve.cli import run as commands

    raise typer.Exit(0 if commands.examine(model=model, console=console) else 3)


@model_app.command("list", epilog=_examples("sdpo-solve model list"))
def model_list() -> None:
    """List the models known by name."""
    from sdpo_solve.cli import run as commands

    commands.list_models(Console(highlight=False))


@model_app.command("pull", epilog=_examples("sdpo-solve model pull qwen2.5-coder-0.5b"))
def model_pull(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A name from 'sdpo-solve model list', or a hub id.")
    ],
) -> None:
    """Fetch the weights of a model, checked against their pinned hash. Does nothing where they are here."""
    from sdpo_solve.model import names as models

    err = Console(stderr=True, highlight=False)
    model = models.pull(name, lambda text: err.print(Text(text), soft_wrap=True))
    typer.echo(str(model.path))


# -- the commands of other files, after those above in the list of --help ------------------------------------

batch.add_to(app)
inspect.add_to(app)
bench.add_to(bench_app)


# -- the way out ---------------------------------------------------------------------------------------------


def exit_code(exc: SdpoSolveError) -> Literal[2, 3, 4]:
    """The exit code that an error stands for."""
    if isinstance(exc, UserError):
        return 2
    return 3 if isinstance(exc, PrerequisiteError) else 4


def main() -> None:
    """The console script: run the command and turn what happened into an exit code."""
    share_freed_memory()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start background jobs with it ignored
    signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        code = app(standalone_mode=False) or 0
    except SdpoSolveError as exc:
        _complain(str(exc), failed=isinstance(exc, RunError))
        code = exit_code(exc)
    except typer.TyperException as exc:
        said = exc.format_message().rstrip(".")
        context = getattr(exc, "ctx", None)
        usage = context.command_path if context is not None else "sdpo-solve"
        if said:  # a group without a command has printed its help already
            _complain(f"{said}; see '{usage} --help'")
        code = 2
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except BrokenPipeError:  # whoever read our output has seen enough
        code = _unheard()
    except SystemExit as exc:  # rich turns a closed pipe into exit code 1, which would say "not solved"
        if not isinstance(exc.__context__, BrokenPipeError):
            raise
        code = _unheard()
    except Exception:  # noqa: BLE001 -- a fault of ours: its traceback, and a code that no outcome uses
        traceback.print_exc()
        _complain("this is a fault of sdpo-solve; please report it with the lines above")
        code = 70
    if code == 130:  # typer turns most interrupts into this code itself
        keeps = sys.argv[1:2] in (["run"], ["batch"], ["screen"])
        _complain("interrupted" + "; the same command goes on from the last whole group" * keeps)
    sys.exit(code)


def _unheard() -> int:
    """Exit code of a command whose output was closed (as after SIGPIPE); what follows goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141


def _complain(text: str, *, failed: bool = False) -> None:
    what = "the run failed: " if failed else ""
    line = " ".join(clean(text).split())
    print(f"sdpo-solve: {what}{line}", file=sys.stderr)  # noqa: T201


def _on_sigterm(number: int, frame: object) -> None:
    sys.exit(128 + number)
