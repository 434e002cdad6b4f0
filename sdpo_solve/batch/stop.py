"""The stop signal of a batch: runs end between two groups, by Ctrl-C, SIGTERM or a call."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(Exception):
    """A run ends between two groups because the batch does. Not an error: its journal goes on from there."""


class StopSignal:
    """Set once; runs check it before each group and before each update."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    @property
    def is_set(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        """Raises Stopped once the signal is set."""
        if self._event.is_set():
            raise Stopped

    def sleep(self, seconds: float) -> None:
        """Wait, and raise Stopped as soon as the signal is set."""
        if self._event.wait(seconds):
            raise Stopped


@contextmanager
def stop_on_signals(stop: StopSignal, notify: Callable[[str], None]) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) sets the stop signal, the second raises KeyboardInterrupt.

    Outside the main thread signals cannot be caught, and nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set:
            raise KeyboardInterrupt
        stop.set()
        # Not from here: the thread that was interrupted may hold the lock of the display.
        text = "ending after the groups under way; Ctrl-C again ends at once"
        threading.Thread(target=notify, args=(text,), daemon=True).start()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
