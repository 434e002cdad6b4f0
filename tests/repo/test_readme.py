"""What the README says is so: its commands exist, its options parse, its picture is the house."""

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from sdpo_solve.cli.main import app

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
GROUPS = ("model", "bench")


def blocks(language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return [text for said, text in fenced if said == language]


def commands() -> list[str]:
    """Every `sdpo-solve ...` of the shell blocks and of the transcripts, without what a shell does around it."""
    lines = [line.removeprefix("$ ") for block in [*blocks("sh"), *blocks("")] for line in block.split("\n")]
    joined = "\n".join(lines).replace("\\\n", " ")
    found = re.findall(r"(?:^|&& )(?:\.venv/bin/)?(sdpo-solve [^&|>#\n]+)", joined, re.MULTILINE)
    return sorted({command.strip() for command in found})


def all_commands() -> set[str]:
    top = get_command(app)
    names = {f"sdpo-solve {name}" for name in top.commands if name not in GROUPS}
    return names | {f"sdpo-solve {group} {name}" for group in GROUPS for name in top.commands[group].commands}


@pytest.mark.parametrize("line", commands())
def test_every_command_in_the_readme_can_be_parsed(line: str) -> None:
    words = shlex.split(line)[1:]
    command = get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    assert not hasattr(command, "commands"), f"{line} names no command"
    command.make_context(
        line, words
    )  # raises for an option that does not exist, or a value of the wrong form


def test_every_command_is_in_the_readme() -> None:
    said = " ".join(commands())
    assert [name for name in sorted(all_commands()) if name not in said] == []
