"""The package keeps its shape: imports run one way between the rooms, files and functions stay small."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.imports import FILES, NAMES, ROOT, imports, room
from tests.helpers.rooms import GROUND, ROOMS


@pytest.mark.parametrize("name", [name for name in NAMES if name])
def test_imports_run_one_way_between_the_rooms(name: str) -> None:
    here = room(name)
    assert here in ROOMS, f"{here} is no room; put it into the table and into the picture"
    for target in map(room, imports(NAMES[name])):
        assert target == here or target in ROOMS[here], f"{name}: {here} must not import {target}"


def test_the_table_of_rooms_itself_has_no_circle() -> None:
    order = list(ROOMS)
    for here, allowed in ROOMS.items():
        later = {target for target in allowed if order.index(target) >= order.index(here)}
        assert not later - GROUND, f"{here} may import {later}, which stand above it"


def test_no_circle_inside_a_room() -> None:
    done: set[str] = set()

    def follow(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join([*way[way.index(name) :], name])
        if name not in done:
            for target in sorted(imports(NAMES[name])):
                if room(target) == room(name) and target in NAMES:
                    follow(target, (*way, name))
            done.add(name)

    for name in NAMES:
        follow(name, ())


def test_every_room_says_what_it_is_for() -> None:
    for name, path in NAMES.items():
        if path.name == "__init__.py" and name:
            text = ast.get_docstring(ast.parse(path.read_text())) or ""
            assert "." in name or 4 <= text.count("\n") + 1 <= 12, f"{name}: five to ten lines"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400, "a file to split"
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "a module says what it does and what it does not"
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno:
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = node.end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= 60, f"{path}:{node.lineno}: {node.name} has {lines} lines"


def test_importing_the_command_line_is_light() -> None:
    """`--help` must not wait for torch, Docker or transformers."""
    code = (
        "import sys, sdpo_solve.cli.main;"
        "heavy = {'torch', 'docker', 'transformers', 'peft', 'vllm', 'ray', 'matplotlib'} & set(sys.modules);"
        "sys.exit(f'heavy imports: {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_test_imports_another_test_file() -> None:
    folder = Path(__file__).parents[1]
    pattern = re.compile(
        r"^\s*(from|import) (tests\.[\w.]*\.)?test_\w+|^\s*from tests\.\w+ import test_", re.MULTILINE
    )
    found = [path.name for path in folder.rglob("*.py") if pattern.search(path.read_text())]
    assert found == []
