"""Journals read while something else writes them: each poll gives what has been closed since the last one.

Folds the records of every run into a `Progress`. Reads only; whether a process still writes a journal comes
from the kernel's list of locks, without taking one. Draws nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from sdpo_solve.report.progress import Progress
from sdpo_solve.run.events import FILE_NAME, read_records
from sdpo_solve.run.records import CLOSING, Record, RunFailed

_LOCKS = Path("/proc/locks")


@dataclass
class Follower:
    """One run's journal from its beginning on. `error` is that of a run that broke off."""

    run_dir: Path
    progress: Progress = field(default_factory=Progress)
    error: str | None = None
    offset: int = 0
    n_lines: int = 0
    """Lines before `offset`."""

    def poll(self) -> list[Record]:
        """The records closed since the last poll, folded in already.

        Raises JournalError for a damaged journal; what was closed before the damage is folded in by then.
        What is closed is never taken back by a resume, so that reading on from there is always right.
        """
        new = []
        for line in read_records(self.run_dir / FILE_NAME, self.offset, n_before=self.n_lines):
            self.progress.apply(line.record)
            self.error = line.record.error if isinstance(line.record, RunFailed) else None
            new.append(line.record)
            if isinstance(line.record, CLOSING):
                self.offset, self.n_lines = line.end, line.number
        return new


def locked(paths: Iterable[Path]) -> set[Path] | None:
    """Those of the files that a process of this machine holds a lock on; None where unknown.

    Journals are locked while a run writes them, the log of a batch while the batch goes on.
    """
    try:
        lines = _LOCKS.read_text().splitlines()
    except OSError:
        return None
    inodes = set()
    for line in lines:  # 1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF
        parts = line.split()
        if "FLOCK" in parts and "->" not in parts and len(parts) >= 6:  # an arrow: it waits for the lock
            inodes.add(int(parts[5].rpartition(":")[2]))
    return {path for path in paths if _inode(path) in inodes}


def _inode(path: Path) -> int | None:
    try:
        return os.stat(path).st_ino
    except OSError:
        return None
