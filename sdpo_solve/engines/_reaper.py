"""`Reaper`: ends the processes that a library started for us when this process ends, however it ends.

They are recognised by a mark in the environment they were started with, so that the reaper (a process of its
own, woken by the end of a pipe) finds them also when their parents are gone. Those of multiprocessing get a
session of their own, out of reach of Ctrl-C, which this process handles. Imports nothing of this package: the
reaper runs this file as a script.
"""

from __future__ import annotations

import multiprocessing
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from pathlib import Path

import psutil

_VARIABLE = "SDPO_SOLVE_REAPED"
_QUIET_ROUNDS = 3


class Reaper:
    """A process that ends those started inside `marking` when this one has ended, or by `close`."""

    def __init__(self) -> None:
        self._mark = uuid.uuid4().hex
        self._process = subprocess.Popen(
            [sys.executable, "-I", __file__, self._mark],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for us, not for the reaper
        )

    @contextmanager
    def marking(self) -> Iterator[None]:
        """Mark what is started within. Stay within until it runs."""
        # Python's own helper is ours, not the engine's: it must outlive what is marked.
        resource_tracker.ensure_running()
        os.environ[_VARIABLE] = self._mark
        try:
            with _own_sessions():
                yield
        finally:
            os.environ.pop(_VARIABLE, None)

    def pids(self) -> list[int]:
        """The marked processes that run now."""
        return marked_pids(self._mark)

    def close(self) -> None:
        """End every marked process; returns when none is left. Safe to call twice."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
        self._process.wait()


@contextmanager
def _own_sessions() -> Iterator[None]:
    """What multiprocessing spawns within starts in a new session, where util-linux has `setsid`."""
    setsid = shutil.which("setsid")
    with tempfile.TemporaryDirectory(prefix="sdpo-solve-") as folder:
        python = Path(folder) / "python"
        python.write_text(f'#!/bin/sh\nexec {shlex.quote(str(setsid))} {shlex.quote(sys.executable)} "$@"\n')
        python.chmod(0o700)
        if setsid is None or not os.access(python, os.X_OK):  # a file system may be mounted noexec
            yield
            return
        multiprocessing.set_executable(str(python))
        try:
            yield
        finally:
            multiprocessing.set_executable(sys.executable)


def marked_pids(mark: str) -> list[int]:
    """Processes that were started with the mark in their environment, zombies left out."""
    pids = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # ended meanwhile, or another user's
            if process.environ().get(_VARIABLE) == mark:
                pids.append(process.pid)
    return pids


def _reap(mark: str) -> None:
    """Wait until standard input ends, then kill until nothing with the mark has been seen for a while."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.stdin.buffer.read()
    quiet = 0
    while quiet < _QUIET_ROUNDS:
        pids = marked_pids(mark)
        quiet = 0 if pids else quiet + 1
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


if __name__ == "__main__":
    _reap(sys.argv[1])
