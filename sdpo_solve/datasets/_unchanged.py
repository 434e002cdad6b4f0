"""A file as it was when its problems were listed: they are read again when they are graded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sdpo_solve.errors import RunError


@dataclass(frozen=True, slots=True)
class Stamp:
    """Size in bytes, and time of the last change in nanoseconds."""

    n_bytes: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """Raises OSError."""
        stat = path.stat()
        return cls(stat.st_size, stat.st_mtime_ns)

    def check(self, path: Path) -> None:
        """Raises RunError where the file is not as it was, OSError where it is gone."""
        if Stamp.of(path) != self:
            raise RunError(f"{path} has changed since its problems were listed; repeat the command")
