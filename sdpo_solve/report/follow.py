"""Journals read while something else writes them: each poll gives what has been closed since the last one.

Folds the events of every run into a `Progress`. Reads only; whether a process still writes a journal is asked
of the kernel's list of locks, without taking a lock. Draws nothing (see `watch.py`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdpo_solve.report.progress import Progress
from sdpo_solve.run.events import FILE_NAME, not_of_this_version, read_events

_CLOSING = {"run_started", "group", "update", "run_failed", "run_finished"}
_LOCKS = Path("/proc/locks")


@dataclass
class Follower:
    """One run's journal from its beginning on. `failed` holds the error of a run that broke off."""

    run_dir: Path
    progress: Progress = field(default_factory=Progress)
    failed: str | None = None
    offset: int = 0
    n_lines: int = 0
    """Lines before `offset`."""

    @property
    def ended(self) -> bool:
        return self.progress.finished is not None or self.failed is not None

    def poll(self) -> list[dict[str, Any]]:
        """The events closed since the last poll, folded in already.

        Raises JournalError for a damaged journal; what was closed before the damage is folded in by then.
        What is closed is never taken back by a resume, so that reading on from there is always right.
        """
        new, held, n_lines = [], [], self.n_lines
        events = read_events(self.run_dir / FILE_NAME, self.offset, n_before=n_lines)
        for number, (event, after) in enumerate(events, start=n_lines + 1):
            held.append(event)
            if event["event"] in _CLOSING:
                self._fold(held)
                new += held
                held, self.offset, self.n_lines = [], after, number
        return new

    def _fold(self, events: list[dict[str, Any]]) -> None:
        """Fold in the lines that follow the last closed one."""
        for number, event in enumerate(events, start=self.n_lines + 1):
            try:
                self.progress.apply(event)
                self.failed = str(event["error"]) if event["event"] == "run_failed" else None
            except (KeyError, TypeError, ValueError) as exc:
                raise not_of_this_version(self.run_dir / FILE_NAME, number, exc) from None


def being_written(paths: list[Path]) -> set[Path] | None:
    """Those of the journals that a process of this machine holds open for writing; None where unknown."""
    try:
        lines = _LOCKS.read_text().splitlines()
    except OSError:
        return None
    locked = set()
    for line in lines:  # 1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF
        parts = line.split()
        if "FLOCK" in parts and "WRITE" in parts and len(parts) >= 6:
            locked.add(int(parts[5].rpartition(":")[2]))
    found = set()
    for path in paths:
        try:
            inode = os.stat(path).st_ino
        except OSError:
            continue
        if inode in locked:
            found.add(path)
    return found
