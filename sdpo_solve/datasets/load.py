"""Problems from sources: `SCHEME:REST` for a format by name, else problem files of this program.

Which of a source's problems are taken is decided in `selection.py`, how they are read in the formats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path

from sdpo_solve.datasets import REGISTRY, Format
from sdpo_solve.datasets.selection import Candidate, Selected, Selection, select
from sdpo_solve.errors import ConfigError, ProblemError
from sdpo_solve.protocols import Sandbox
from sdpo_solve.types import Problem

# Endings of files that hold rows of a benchmark and not a problem of this program.
_ROWS = (".jsonl", ".gz", ".parquet")


def formats() -> list[type[Format]]:
    """Every benchmark's format, those that installed packages add included."""
    return [REGISTRY.load(name) for name in REGISTRY.names()]


def known_sources() -> str:
    """What a source may be, for messages."""
    named = [example for form in formats() for example in form.schemes.values()]
    return ", ".join(["a problem file", "a folder of them", *named])


def candidates(source: str, sandbox: Callable[[], Sandbox]) -> Iterator[Candidate]:
    """The problems of one source, not made yet.

    Raises ProblemError where it cannot be read, ConfigError for an unknown kind of source, PrerequisiteError
    where a release cannot be fetched.
    """
    scheme, colon, rest = source.partition(":")
    path = Path(source)
    if colon and not path.exists():
        form = next((form for form in formats() if scheme in form.schemes), None)
        if form is not None and rest.strip():
            return form.candidates(rest, sandbox)
        fault = f"unknown source {source!r}" if form is None else f"source {source!r} names no file"
        raise ConfigError(f"{fault}; write {known_sources()}")
    form = _recognised(path) if path.is_file() else None
    if form is not None:
        return form.candidates(source, sandbox)
    found: Iterator[Candidate] = import_module("sdpo_solve.datasets.problem_json").candidates(path)
    return found


def _recognised(path: Path) -> type[Format] | None:
    """The format whose columns the first row of a file has; None for one that may be a problem file.

    Raises ConfigError that lists the columns and the known formats for rows of no known form.
    """
    is_json = path.name.removesuffix(".gz").endswith(".json")
    if not is_json and path.suffix not in _ROWS:
        return None
    rows = import_module("sdpo_solve.datasets._rows")  # with what reads files: not every command does
    try:
        columns = set(next(rows.sound_rows(path)).data)
    except (StopIteration, ProblemError):
        return None  # read again as a problem file, which says what is wrong
    if is_json and "kind" in columns:
        return None
    fitting = [form for form in formats() if form.columns and form.columns <= columns]
    if fitting:
        return max(fitting, key=lambda form: len(form.columns))
    if is_json:
        return None
    seen = ", ".join(sorted(columns)[:12])
    raise ConfigError(f"{path}: rows of no known form (columns: {seen}); write {known_sources()}")


def load(
    sources: Sequence[str],
    selection: Selection,
    sandbox: Callable[[], Sandbox],
    *,
    among: frozenset[str] | None = None,
    on_made: Callable[[Problem], None] | None = None,
    on_broken: Callable[[ProblemError], None] | None = None,
) -> Selected:
    """The problems that `selection` takes from all sources together, in their order.

    `among`, `on_made` and `on_broken`: see `selection.select`; a source that cannot be read is one broken
    problem. Raises as `candidates` and `select` do.
    """

    def all_candidates() -> Iterator[Candidate]:
        for source in sources:
            try:
                yield from candidates(source, sandbox)
            except ProblemError as exc:
                if on_broken is None:
                    raise
                on_broken(exc)

    return select(
        all_candidates(), selection, _names(sources), among=among, on_made=on_made, on_broken=on_broken
    )


def load_one(source: str, selection: Selection, sandbox: Callable[[], Sandbox]) -> Problem:
    """The one problem that a source and the filters name.

    Raises ConfigError where they leave several, and as `load` does.
    """
    problems = load([source], selection, sandbox).problems
    if len(problems) != 1:
        raise ConfigError(
            f"{source} holds {len(problems)} problems and this command takes one; name it, for example "
            f"--ids {problems.ids[0]}"
        )
    return problems[0]


def _names(sources: Sequence[str], most: int = 3) -> str:
    shown = ", ".join(sources[:most])
    return f"{shown} and {len(sources) - most} more" if len(sources) > most else shown
