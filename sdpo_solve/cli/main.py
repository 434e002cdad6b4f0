"""The program: its commands, and what its exit codes mean.

Exit codes: 0 solved or done, 1 unsolved, 2 the user's mistake, or a damaged journal where a
command only reads it, 3 something missing on this machine, 4 the run failed, 70 a fault of this program (with
its traceback), 130 interrupted, 141 nobody reads its output any more, 143 ended by SIGTERM.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
import traceback
from typing import Annotated, Literal

import typer

from sdpo_solve import __version__
from sdpo_solve.cli import (
    batch,
    bench,
    explain,
    export,
    grade,
    listen,
    machine,
    new,
    options,
    report,
    run,
    screen,
    setup,
    show,
)
from sdpo_solve.cli.clean import clean as clean_command
from sdpo_solve.cli.flags import PlainGroup
from sdpo_solve.cli.signals import end_at_once, end_before_teardown, end_on_signals
from sdpo_solve.errors import (
    PrerequisiteError,
    ProblemError,
    PromptError,
    RunError,
    SdpoSolveError,
    UserError,
)
from sdpo_solve.model.cpu import share_freed_memory
from sdpo_solve.sanitize import clean, look_alike

_EXAMPLES = (
    "setup",
    "run problems/letter-tally.json --group-size 8 --max-tokens 96",
    "batch problems --methods sdpo,best-of-k --out runs/first",
    "report runs/first",
)
_COMMANDS = (
    *(run.run, grade.grade, grade.check, grade.schema, new.new, listen.listen),
    *(setup.setup, machine.doctor, clean_command),
    *(batch.batch, screen.screen, report.report, show.show, explain.explain, export.export, options.options),
)
_BELOW = {
    "model": ("Names of models, and their weights on this disk.", (machine.list_models, machine.pull_model)),
    "bench": ("Figures measured on this machine, as ratios in one run.", bench.COMMANDS),
}
_ENDED = (130, 143)  # by SIGINT, by SIGTERM


def _make_app() -> typer.Typer:
    app = typer.Typer(
        name="sdpo-solve",
        cls=PlainGroup,
        help="Solve hard coding problems by learning from failed attempts at test time (SDPO).",
        epilog="\n\n".join(["Examples:", *(f"sdpo-solve {example}" for example in _EXAMPLES)]),
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_top)
    for command in _COMMANDS:
        command.add_to(app)
    for name, (text, commands) in _BELOW.items():
        group = typer.Typer(cls=PlainGroup, no_args_is_help=True, help=text)
        for command in commands:
            command.add_to(group)
        app.add_typer(group, name=name)
    return app


def _top(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        typer.echo(f"sdpo-solve {__version__}")
        raise typer.Exit


app = _make_app()


# -- the way out ---------------------------------------------------------------------------------------------


def exit_code(exc: SdpoSolveError) -> Literal[2, 3, 4]:
    """The exit code that an error stands for."""
    if isinstance(exc, UserError | PromptError):
        return 2
    return 3 if isinstance(exc, PrerequisiteError) else 4


# What the kernel answers to a write that does not fit; what writes files names the file.
_OUTPUT_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def main() -> None:
    """The console script: run the command and turn what happened into an exit code."""
    code = 1
    end_before_teardown(lambda: code)
    share_freed_memory()
    end_on_signals(_print_interrupted)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            codecs.register_error("look-alike", look_alike)  # a locale without UTF-8 lacks ✓ and ✗
            stream.reconfigure(errors="look-alike")
    try:
        code = app(standalone_mode=False) or 0
        if sys.stdout is not None:
            sys.stdout.flush()
    except SdpoSolveError as exc:
        for line in exc.mistakes if isinstance(exc, ProblemError) else [str(exc)]:
            _complain(line, failed=isinstance(exc, RunError))
        code = exit_code(exc)
    except typer.TyperException as exc:
        message = exc.format_message().rstrip(".")
        context = getattr(exc, "ctx", None)
        usage = context.command_path if context is not None else "sdpo-solve"
        if message:  # a group without a command has printed its help already
            _complain(f"{message}; see '{usage} --help'")
        code = 2
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except BrokenPipeError:  # whoever read our output has seen enough
        code = _output_closed()
    except SystemExit as exc:  # rich turns a closed pipe into exit code 1, which means "unsolved"
        if isinstance(exc.__context__, BrokenPipeError):
            code = _output_closed()
        elif exc.code is None or isinstance(exc.code, int):
            code = exc.code or 0
        else:
            raise
    except Exception as exc:  # noqa: BLE001 -- a fault of ours: its traceback, and a code that no outcome uses
        if isinstance(exc, OSError) and exc.filename is None and exc.errno in _OUTPUT_FULL:
            _output_closed()
            _complain(f"cannot write the output: {exc.strerror}")
            code = 2
        else:
            traceback.print_exc()
            _complain("this is a fault of sdpo-solve; please report it with the lines above")
            code = 70
    if code in _ENDED:  # typer turns most interrupts into the first itself
        _print_interrupted(code)
        end_at_once(code)
    sys.exit(code)


def _print_interrupted(code: int) -> None:
    keeps = sys.argv[1:2] in (["run"], ["batch"], ["screen"]) and "--dry-run" not in sys.argv
    what = "interrupted" if code == 130 else "ended by SIGTERM"
    _complain(what + "; the same command goes on from the last whole group" * keeps)


def _output_closed() -> int:
    """Exit code of a command whose output was closed (as after SIGPIPE); what follows goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141


def _complain(text: str, *, failed: bool = False) -> None:
    what = "the run failed: " if failed else ""
    line = " ".join(clean(text).split())
    print(f"sdpo-solve: {what}{line}", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    main()
