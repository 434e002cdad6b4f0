"""What the READMEs say is so: commands parse, links lead somewhere, the pictures of the rooms are the house."""

import importlib
import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from sdpo_solve.cli.main import app
from sdpo_solve.methods.prompts import Prompter
from sdpo_solve.types import Kind, Policy, Problem, TestCase
from tests.helpers.journals import Made, attempt
from tests.helpers.readmes import READMES, ROOT, blocks, commands
from tests.helpers.rooms import GROUND, ROOMS

GROUPS = ("model", "bench")
ALL = [(path, line) for path in READMES for line in commands(path)]


@pytest.mark.parametrize(("path", "line"), ALL, ids=[f"{path.parent.name}: {line}" for path, line in ALL])
def test_every_command_in_a_readme_can_be_parsed(path: Path, line: str) -> None:
    words = shlex.split(line)[1:]
    command = get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    assert not hasattr(command, "commands"), f"{line} names no command"
    if words:  # raises for an option that does not exist, or a value of the wrong form
        command.make_context(line, words)


def test_every_command_is_in_a_readme() -> None:
    written = " ".join(line for _, line in ALL)
    top = get_command(app).commands
    names = {f"sdpo-solve {name}" for name in top if name not in GROUPS}
    names |= {f"sdpo-solve {group} {name}" for group in GROUPS for name in top[group].commands}
    assert [name for name in sorted(names) if name not in written] == []


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_file(path: Path) -> None:
    text = path.read_text("utf-8")
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)]+)\)", text)]
    missing = [t for t in targets if t and "://" not in t and not (path.parent / t).exists()]
    assert missing == []


def test_the_first_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 170


def test_the_picture_of_the_rooms_is_the_table() -> None:
    text = (ROOT / "sdpo_solve" / "README.md").read_text("utf-8")
    picture = next(block for block in blocks(text, "") if block.startswith("cli "))
    drawn = set(re.findall(r"[a-z]+", picture))
    assert {name for name in ROOMS if name not in drawn} == set()
    ground = set(next(line for line in picture.splitlines() if line.startswith("the ground")).split()[2:])
    assert ground == GROUND


def test_the_method_of_the_packages_readme_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "sdpo_solve" / "README.md").read_text("utf-8")
    (tmp_path / "every_other.py").write_text(next(iter(blocks(text, "python"))))
    monkeypatch.syspath_prepend(str(tmp_path))
    plugin = importlib.import_module("every_other").PLUGIN
    problem = Problem("p", "Say three.", Kind.STDIN, tests=(TestCase("", "3\n", True),))
    method = plugin(Prompter(), "r")
    assert method.start(problem, None) == Policy("r", 0)
    assert [len(method.propose(problem, [], n)) for n in (1, 4)] == [1, 1]
    failed = attempt(Made(), 1, 0)
    plain, with_feedback = method.propose(problem, [failed], 4)
    assert failed.feedback in with_feedback.messages[-1].content
    assert failed.feedback not in plain.messages[-1].content
