"""What a shell offers for an argument or option: names of methods, models and sources, and runs on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path

from sdpo_solve import engines, methods, sandboxes
from sdpo_solve.datasets import load
from sdpo_solve.model import names as model_names
from sdpo_solve.run.events import FILE_NAME
from sdpo_solve.sandboxes import languages

_MOST_JOURNALS = 20_000


def offered(key: str, choices: Sequence[str], incomplete: str) -> list[str]:
    """What is offered for an option, by its name and its choices; nothing where a shell does best itself."""
    names: Callable[[], Iterable[str]] = {
        "method": methods.REGISTRY.names,
        "methods": methods.REGISTRY.names,
        "engine": engines.REGISTRY.names,
        "engines": engines.REGISTRY.names,
        "sandbox": sandboxes.REGISTRY.names,
        "backend": sandboxes.REGISTRY.names,
        "language": languages.REGISTRY.names,
        "model": model_names.known_names,
        "problem": _problems,
        "problems": _problems,
        "sources": _problems,
    }.get(key, lambda: choices)
    before, comma, begun = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in names() if name.startswith(begun)]


def _problems() -> list[str]:
    """Problem files and folders near here, and the schemes of benchmarks."""
    schemes = [f"{scheme}:" for form in load.formats() for scheme in form.schemes]
    files = [*Path().glob("*.json"), *Path().glob("*/*.json")]
    return [*schemes, *sorted({*map(str, files), *(str(file.parent) for file in files)} - {"."})]


def runs(incomplete: str) -> list[str]:
    """Directories of runs, by their path level by level, or by any part of it: a problem, an arm, a seed.

    Looked for below `runs` and below the directory that is begun.
    """
    begun = Path(incomplete if incomplete.endswith("/") else incomplete.rpartition("/")[0] or "runs")
    journals = (path for root in {Path("runs"), begun} for path in root.glob(f"**/{FILE_NAME}"))
    found: set[str] = set()
    for journal in islice(journals, _MOST_JOURNALS):
        parts = journal.parent.parts
        for depth in range(1, len(parts) + 1):
            path = str(Path(*parts[:depth]))
            if path.startswith(incomplete) or (
                "/" not in incomplete and parts[depth - 1].startswith(incomplete)
            ):
                found.add(path)
                break
    if found == {incomplete.rstrip("/")}:  # all of it is written: what lies in it
        return [*found, *(f"{incomplete.rstrip('/')}/{name}" for name in _below(Path(incomplete)))]
    return sorted(found)


def _below(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir() if next(one.glob(f"**/{FILE_NAME}"), None))
