"""The clock of one run: what `--wall-seconds` limits and journals record."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Seconds that a run has taken. Read and paused by the thread that works on the run."""

    def __init__(self, elapsed_s: float = 0.0) -> None:
        self._start_s = time.monotonic() - elapsed_s

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._start_s

    @contextmanager
    def paused(self) -> Iterator[None]:
        """It stands still: the run waits for another run's turn, or for something that is gone."""
        since_s = time.monotonic()
        try:
            yield
        finally:
            self._start_s += time.monotonic() - since_s

    def add(self, seconds: float) -> None:
        """Count what another thread did for the run in a pause."""
        self._start_s -= seconds
