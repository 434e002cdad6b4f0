"""The command `new`: the file of a problem to fill in. `check` lists what is missing."""

from __future__ import annotations

import json
import re
import shlex
import unicodedata
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from rich.console import Console
from rich.text import Text

from sdpo_solve.cli.flags import command
from sdpo_solve.config import Flag, Options
from sdpo_solve.errors import UserError

TODO = "TODO"
_TO_WRITE = tuple(f"{TODO}: {words}" for words in ("say what", "paste the", "a program", "a function"))

_ENDING = ".json"

_HELP = """\
statement  what the model is given to read
tests      some visible, which the model may see, and some hidden
reference  your own solution; check runs it on every test"""
_STDIN: dict[str, Any] = {
    "statement": f"{TODO}: say what a program reads from standard input and what it prints.",
    "kind": "stdin",
    "tests": [
        {"input": "2 3\n", "expected": "5\n", "visible": True},
        {"input": "10 -4\n", "expected": "6\n", "visible": False},
    ],
    "reference": f"# {TODO}: a program that solves it\n",
}
_FUNCTION: dict[str, Any] = {
    "statement": f"{TODO}: say what the function returns for its arguments.",
    "kind": "function",
    "entry_point": "solve",
    "starter_code": "def solve(a, b):\n",
    "tests": [
        {"input": [2, 3], "expected": 5, "visible": True},
        {"input": [10, -4], "expected": 6, "visible": False},
    ],
    "reference": f"def solve(a, b):\n    ...  # {TODO}: a function that solves it\n",
}


class NewCommand(Options):
    name: Annotated[str, Flag(is_argument=True)] = Field(description="name of the problem, and of its file")
    kind: Literal["stdin", "function"] = Field(
        "stdin", description="a program that reads and prints, or a function"
    )


def is_unfilled(text: str) -> bool:
    """Whether a text still says what `new` or `listen` put there to be replaced."""
    return any(words in text for words in _TO_WRITE)


@command(NewCommand, "new two-sums", "new two-sums --kind function")
def new(given: NewCommand) -> None:
    """Write the file of a problem to fill in, with tests of both sorts and a place for your own solution."""
    name = Path(given.name).name
    stem = name[: -len(_ENDING)] if name.lower().endswith(_ENDING) else name
    plain = "".join(c for c in unicodedata.normalize("NFKD", stem) if not unicodedata.combining(c))
    problem_id = re.sub(r"[^a-z0-9.-]+", "-", plain.lower()).strip("-.")
    if not problem_id:
        raise UserError(f"{given.name!r} is no name for a problem; use letters, digits and -")
    path = Path(given.name).with_name(stem + _ENDING)
    content = {"id": problem_id, **(_STDIN if given.kind == "stdin" else _FUNCTION)}
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(json.dumps(content, indent=2) + "\n")
    except FileExistsError:
        raise UserError(f"{path} is there already; choose another name") from None
    except OSError as exc:
        raise UserError(f"cannot write {path}: {exc.strerror}") from None
    console = Console(highlight=False)
    console.print(Text(f"{path}: fill in what says {TODO}\n"), soft_wrap=True)
    console.print(Text(_HELP, style="dim"))
    written = shlex.quote(str(path))
    commands = f"\nsdpo-solve check {written}\nsdpo-solve run {written}"
    console.print(Text(commands, style="dim"), soft_wrap=True)
