"""Where this program keeps files of its own, and what it says where a file cannot be used."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sdpo_solve.errors import PrerequisiteError, SdpoSolveError, UserError

WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""What the kernel answers to `flock` where a file system has none."""

# Of folders with the short runs of `batch --measure`; a killed one leaves its own behind.
MEASURE_PREFIX = ".sdpo-solve-measure-"


def cache_dir() -> Path:
    """Where this program keeps files of its own: $SDPO_SOLVE_CACHE, else the user's cache directory.

    Raises PrerequisiteError for a user without a home, as in a container that runs under any number.
    """
    own = os.environ.get("SDPO_SOLVE_CACHE")
    if own:
        return Path(own).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "sdpo-solve"
    try:
        return Path.home() / ".cache" / "sdpo-solve"
    except RuntimeError:
        raise PrerequisiteError(
            "this user has no home directory; set SDPO_SOLVE_CACHE to a directory"
        ) from None


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
