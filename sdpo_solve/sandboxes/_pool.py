"""Boxes started ahead of need, each handed out once; and the lock that keeps a repeated test alone."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from sdpo_solve.errors import PrerequisiteError, SandboxError
from sdpo_solve.sandboxes._box import Box

_N_WORKERS = 2
_N_ENDERS = 8
_MAX_USED = 32  # boxes at rest that wait for their end while others are in use


class Pool:
    """Keeps `n_ready` boxes waiting, and hands each out once.

    Starting and ending boxes costs processor time that running tests should have. So while boxes are in use
    it starts only those that somebody waits for and one more, and ends only those in which something runs.
    """

    def __init__(self, start: Callable[[], Box], n_ready: int) -> None:
        self._start = start
        self._n_ready = n_ready
        self._ready: deque[Box] = deque()
        self._n_starting = 0
        self._n_waiting = 0
        self._in_use: set[Box] = set()
        self._used: deque[Box] = deque()
        self._failure: SandboxError | PrerequisiteError | None = None
        self._closed = False
        self._change = threading.Condition()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(_N_WORKERS)]
        for thread in self._threads:
            thread.start()

    @contextmanager
    def box(self) -> Iterator[Box]:
        """A fresh box for one use. Raises what starting one raised: SandboxError, PrerequisiteError."""
        box = self._take()
        try:
            yield box
        finally:
            with self._change:
                self._in_use.discard(box)
                (self._used.append if box.at_rest else self._used.appendleft)(box)
                self._change.notify_all()

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait until every place is filled; false when that takes longer."""
        with self._change:
            return self._change.wait_for(
                lambda: len(self._ready) >= self._n_ready and not self._used, timeout_s
            )

    def close(self) -> None:
        """End every box and refuse new ones. Safe to call twice."""
        with self._change:
            self._closed = True
            boxes = [*self._ready, *self._in_use, *self._used]
            self._ready.clear()
            self._used.clear()
            self._change.notify_all()
        _end_all(boxes)
        for thread in self._threads:
            thread.join()

    def _take(self) -> Box:
        with self._change:
            self._n_waiting += 1
            self._failure = None
            self._change.notify_all()
            try:
                while True:
                    self._change.wait_for(lambda: self._ready or self._failure or self._closed)
                    if self._closed:
                        raise SandboxError("the sandbox is closed")
                    if not self._ready:
                        assert self._failure is not None
                        raise type(self._failure)(str(self._failure))
                    box = self._ready.popleft()
                    if box.alive():
                        self._in_use.add(box)
                        return box
                    self._used.append(box)
                    self._change.notify_all()
            finally:
                self._n_waiting -= 1

    # -- the workers -----------------------------------------------------------------------------------------

    def _work(self) -> None:
        """Start and end boxes as they are wanted, until the pool is closed."""
        while True:
            with self._change:
                self._change.wait_for(lambda: self._closed or self._should_end() or self._should_start())
                if self._closed:
                    return
                used = self._used.popleft() if self._should_end() else None
                self._n_starting += used is None
            if used is None:
                self._start_one()
            else:
                with suppress(Exception):  # a worker that dies would leave callers waiting for ever
                    used.end()
                with self._change:
                    self._change.notify_all()

    def _should_end(self) -> bool:
        urgent = bool(self._used) and not self._used[0].at_rest
        return urgent or len(self._used) > (_MAX_USED if self._in_use else 0)

    def _should_start(self) -> bool:
        if self._failure:
            return False  # tried again when somebody asks
        target = max(self._n_waiting, self._n_ready)
        if self._in_use:
            target = self._n_waiting + min(1, self._n_ready)
        return len(self._ready) + self._n_starting < target

    def _start_one(self) -> None:
        box: Box | None = None
        failure: SandboxError | PrerequisiteError | None = None
        try:
            box = self._start()
        except (SandboxError, PrerequisiteError) as exc:
            failure = exc
        except Exception as exc:  # noqa: BLE001 -- a worker that dies would leave callers waiting for ever
            failure = SandboxError(f"a box cannot be started: {type(exc).__name__}: {exc}")
        with self._change:
            self._n_starting -= 1
            self._failure = failure
            closed = self._closed
            if box is not None and not closed:
                self._ready.append(box)
            self._change.notify_all()
        if box is not None and closed:
            box.end()


def _end_all(boxes: Sequence[Box]) -> None:
    """End each, several at a time where the interpreter still gives threads."""
    left = deque(boxes)

    def work() -> None:
        while True:
            try:
                box = left.popleft()
            except IndexError:
                return
            with suppress(Exception):  # a box that cannot be ended keeps no other from its end
                box.end()

    others = [threading.Thread(target=work, daemon=True) for _ in boxes[1:_N_ENDERS]]
    with suppress(RuntimeError):  # at its exit an interpreter may refuse threads; this one goes on
        for thread in others:
            thread.start()
    work()
    for thread in others:
        if thread.ident is not None:
            thread.join()


class SharedLock:
    """Many hold it; one that has to be alone waits for the others and keeps new ones waiting."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._n_running = 0
        self._n_alone = 0
        self._alone = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold a place among the many."""
        with self._change:
            self._change.wait_for(lambda: not self._n_alone)
            self._n_running += 1
        try:
            yield
        finally:
            with self._change:
                self._n_running -= 1
                self._change.notify_all()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Give up the place held, wait for quiet, and take the place again afterwards."""
        with self._change:
            self._n_running -= 1
            self._n_alone += 1
            self._change.notify_all()
            self._change.wait_for(lambda: not self._n_running and not self._alone)
            self._alone = True
        try:
            yield
        finally:
            with self._change:
                self._alone = False
                self._n_alone -= 1
                self._n_running += 1
                self._change.notify_all()
