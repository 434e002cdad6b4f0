"""The house keeps its shape: imports point strictly down, files and functions stay small, nothing prints."""

import ast
from pathlib import Path

import pytest

import sdpo_solve

ROOT = Path(sdpo_solve.__file__).parent

# The picture in the README's architecture section. A module may import only from lower layers.
LAYERS: dict[str, int] = {
    "types": 0, "errors": 0, "values": 0,
    "protocols": 1, "config": 1, "untrusted": 1, "expressions": 1,
    "prompts": 2, "events": 2, "identity": 2, "progress": 2, "asserts": 2, "checkers": 2, "images": 2, "memory": 2, "processor": 2, "selection": 2,
    "engines": 3, "sandboxes": 3, "learner": 3, "formats": 3, "judge": 3, "feedback": 3, "journal": 3,
    "models": 3, "ui": 3, "_gguf": 2, "embedded": 2,
    "methods": 4, "sheets": 4, "sharing": 4,
    "statistics": 3, "runs": 3, "follow": 3, "pages": 4, "archive": 4, "story": 5, "solve": 5, "report": 5, "explain": 5, "watch": 5, "setup": 5,
    "trials": 5, "bench_sampling": 5, "bench_grading": 5, "bench_update": 5,
    "plan": 5, "sources": 5, "parts": 5, "merging": 5, "batch_view": 5, "trackers": 5, "screening": 5,
    "screening_file": 6, "screen_view": 7, "mirror": 5, "bench_plan": 8,
    "broadcast": 6, "estimate": 6,
    "build": 6, "crew": 6,
    "batch": 7, "explaining": 7, "sandbox_trial": 7, "commands": 7, "screen": 8, "export": 7,
    "cluster": 8, "bench_batch": 8, "bench_forgetting": 8, "bench_lesson": 8,
    "batch_command": 9, "cli_flags": 9,
    "cli_batch": 10, "cli_bench": 10, "cli_seeing": 10,
    "cli": 11,
}  # fmt: skip
PLUGIN_FOLDERS = {"engines", "sandboxes", "formats", "methods"}
# Folders that are one room: their files may import each other.
ROOM_FOLDERS = {"learner", "report", "explain"}

FILES = sorted(path for path in ROOT.rglob("*.py") if "_data" not in path.parts)


def room(path: Path) -> str:
    """The entry of the table that a file belongs to: its folder, or its own name."""
    relative = path.relative_to(ROOT)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imported(path: Path) -> list[tuple[str, int]]:
    """Dotted names inside the package that a file imports, with the line, type-only imports included."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "sdpo_solve":
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names]
                if node.module == "sdpo_solve"
                else [node.module]
            )
            found += [(name, node.lineno) for name in names]
        elif isinstance(node, ast.Import):
            found += [(a.name, node.lineno) for a in node.names if a.name.split(".")[0] == "sdpo_solve"]
    return [(name.removeprefix("sdpo_solve."), line) for name, line in found]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_strictly_down(path: Path) -> None:
    if path.name == "__init__.py" and path.parent == ROOT:
        return
    here = room(path)
    assert here in LAYERS, f"{here} has no layer; put it into the table and into the README's picture"
    for name, line in imported(path):
        target = name.split(".")[0]
        if target == "__version__":
            continue
        if target == here and here in ROOM_FOLDERS:
            continue
        if target == here and here in PLUGIN_FOLDERS:
            if name == here:  # the folder's shared parts
                continue
            inside = name.split(".")[1]
            assert inside.startswith("_"), f"{path}:{line}: plug-ins never import each other ({name})"
            continue
        assert LAYERS[target] < LAYERS[here], f"{path}:{line}: {here} must not import {target}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400, "a room that wants a wall"
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "a module says what it does and what it does not"
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno:
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = node.end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= 60, f"{path}:{node.lineno}: {node.name} has {lines} lines"


def test_every_room_of_the_table_exists() -> None:
    rooms = {room(path) for path in FILES} - {"__init__"}
    assert rooms <= set(LAYERS)


def test_importing_the_command_line_is_light() -> None:
    """`--help` must not wait for torch, Docker or transformers."""
    import subprocess
    import sys

    code = (
        "import sys, sdpo_solve.cli;"
        "heavy = {'torch', 'docker', 'transformers', 'peft', 'vllm', 'ray', 'matplotlib'} & set(sys.modules);"
        "sys.exit(f'heavy imports: {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
