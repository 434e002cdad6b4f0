"""Which modules of the package import which, read from their text."""

import ast
from pathlib import Path

import sdpo_solve

ROOT = Path(sdpo_solve.__file__).parent
FILES = sorted(path for path in ROOT.rglob("*.py") if not {"_data", "programs"} & set(path.parts))


def name_of(path: Path) -> str:
    """The dotted name of a file inside the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name_of(path): path for path in FILES}


def room(name: str) -> str:
    return name.split(".")[0]


def imports(path: Path) -> set[str]:
    """The modules of the package that a file imports, type-only and late imports included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and room(node.module or "") == "sdpo_solve":
            origin = str(node.module).removeprefix("sdpo_solve").removeprefix(".")
            for alias in node.names:
                below = f"{origin}.{alias.name}".removeprefix(".")
                found.add(below if below in NAMES else origin)
        elif isinstance(node, ast.Import):
            names = (alias.name for alias in node.names)
            found |= {name.removeprefix("sdpo_solve.") for name in names if room(name) == "sdpo_solve"}
    return found - {""}


def reached_from(name: str) -> set[str]:
    """Every module that a module's imports lead to, itself included."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current not in seen and current in NAMES:
            seen.add(current)
            waiting += imports(NAMES[current])
    return {module for module in seen if NAMES[module].name != "__init__.py"}
