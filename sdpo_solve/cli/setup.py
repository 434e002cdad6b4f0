"""The command `setup`: the sandbox and the model, made ready side by side."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Literal

from pydantic import Field
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from sdpo_solve.cli.flags import command
from sdpo_solve.cli.live_view import Waiting
from sdpo_solve.config import Options
from sdpo_solve.errors import ConfigError, PrerequisiteError, SdpoSolveError
from sdpo_solve.model import names
from sdpo_solve.sandboxes import install, languages
from sdpo_solve.sanitize import clean

Steps = Callable[[str, str], None]
"""Called with a part (sandbox, model) and one line about the step it is at."""

_ERROR = "sdpo-solve: "
"""Begins the line of a command that failed."""


class SetupCommand(Options):
    model: str | None = Field(
        None, description="model to fetch (default: the small embedded one; with CUDA Qwen/Qwen3-8B)"
    )
    no_model: bool = Field(False, description="leave the model out")
    language: tuple[str, ...] = Field(
        (), description="also make the sandbox image of this language: cpp (repeatable)"
    )
    image: Literal["default", "full"] = Field(
        "default",
        description="full: also the Python image with scipy, networkx, sympy, more-itertools, bitarray, and "
        "for each --language its fuller image: cpp with the AtCoder library",
    )


@command(
    SetupCommand,
    "setup",
    "setup --no-model",
    "setup --language cpp",
    "setup --image full",
    "setup --language cpp --image full",
)
def setup(given: SetupCommand) -> None:
    """Make this machine ready: the Docker engine, the sandbox image, the model. Safe to repeat.

    Sandbox and model are made side by side; where one of them fails the other is kept.
    """
    console = Console(highlight=False)
    default = languages.DEFAULT
    names_of = (default, *given.language)
    fuller = () if given.image == "default" else tuple(f"{name}-{given.image}" for name in names_of)
    images = dict.fromkeys((*names_of, *fuller))
    model = None if given.no_model else given.model or names.default_name()
    with _steps(console) as show, _pulling(model, show) as pulled:
        failures: list[SdpoSolveError] = []
        try:
            install.ensure_sandbox(lambda line: show("sandbox", line), images)
        except PrerequisiteError as exc:
            show("sandbox", f"failed: {exc}")
            failures.append(exc)
        try:
            pulled()
        except (ConfigError, PrerequisiteError) as exc:
            failures.append(exc)
    if failures:
        raise failures[0]
    console.print("ready")


@contextmanager
def _pulling(model: str | None, show: Steps) -> Iterator[Callable[[], None]]:
    """A process that pulls the model; what it prints is shown. Gives a function that waits for its end.

    The function raises ConfigError or PrerequisiteError where the pull has failed. The process ends with this
    context.
    """
    if model is None:
        yield lambda: None
        return
    pull = [sys.executable, "-m", "sdpo_solve.cli.main", "model", "pull", model]
    with subprocess.Popen(
        pull, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        lines: list[str] = []

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line.strip())
                show("model", re.sub(f"^{_ERROR}", "failed: ", lines[-1]))

        reader = Thread(target=read, daemon=True)
        reader.start()

        def wait() -> None:
            reader.join()
            if code := process.wait():
                last = lines[-1] if lines else "no reason given"
                raise (ConfigError if code == 2 else PrerequisiteError)(last.removeprefix(_ERROR))

        try:
            yield wait
        finally:
            process.terminate()


@contextmanager
def _steps(console: Console) -> Iterator[Steps]:
    """A line a part that says what it does and for how long; where nobody watches, a line a step."""
    if not console.is_terminal:
        with Waiting(console, "setting up") as view:
            yield lambda part, line: view.print_line(f"{part}: {line}")
        return
    columns = (SpinnerColumn(), TextColumn("{task.fields[part]:<8}"), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.description}"), console=console) as progress:
        tasks = {}

        def show(part: str, line: str) -> None:
            if part not in tasks:
                tasks[part] = progress.add_task("", part=part, total=None)
            progress.update(tasks[part], description=clean(line))

        yield show
