"""Where this program keeps files of its own, and what it says where a file cannot be used."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sdpo_solve.errors import SdpoSolveError, UserError


def cache_dir() -> Path:
    """Where this program keeps files of its own: $SDPO_SOLVE_CACHE, else the user's cache directory."""
    own = os.environ.get("SDPO_SOLVE_CACHE")
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "sdpo-solve"


@contextmanager
def file_errors(kind: Callable[[str], SdpoSolveError], what: str, remedy: str = "") -> Iterator[None]:
    """An OSError within it becomes one of `kind`, in one line: `cannot WHAT: the reason; REMEDY`."""
    try:
        yield
    except OSError as exc:
        after = f"; {remedy}" if remedy else ""
        raise kind(f"cannot {what}: {exc.strerror or exc}{after}") from None


def write_text(path: Path, text: str) -> None:
    """Write a file that the user named. Raises UserError where it cannot be written."""
    with file_errors(UserError, f"write {path}"):
        path.write_text(text, encoding="utf-8")
