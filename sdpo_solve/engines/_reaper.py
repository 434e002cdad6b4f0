"""`Reaper`: ends the processes that a library started for us when this process ends, however it ends.

They are recognised by a mark in the environment they were started with, and by descent from those. A process
that sets its title writes over its environment, so the reaper (a process of its own, woken by the end of a
pipe) looks often while they start and keeps what it has seen. Those of multiprocessing get a session of their
own, out of reach of Ctrl-C, which this process handles. Imports nothing of this package: the reaper runs this
file as a script.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from pathlib import Path

import psutil

_VARIABLE = "SDPO_SOLVE_REAPED"
_QUIET_ROUNDS = 3
_LOOKS_EVERY_S = 0.2
Seen = Mapping[int, float]
"""Processes by id, with the time when each began: an id may be used again."""


class Reaper:
    """A process that ends those started inside `marking` when this one has ended, or by `close`."""

    def __init__(self) -> None:
        self._mark = uuid.uuid4().hex
        self._process = subprocess.Popen(
            [sys.executable, "-I", __file__, self._mark],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for us, not for the reaper
        )
        self._seen: Seen = {}

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
            self._seen = self._seen_so_far()

    def pids(self) -> list[int]:
        """What was started inside `marking` and runs now."""
        return list(family(self._mark, self._seen))

    def close(self) -> None:
        """End every such process; returns when none is left. Safe to call twice."""
        if self._process.stdin is not None and self._process.stdout is not None:
            self._process.stdin.close()
            self._process.stdout.close()
        self._process.wait()

    def _seen_so_far(self) -> Seen:
        """What the reaper has seen; it stops looking then. Nothing where it is gone."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None or stdin.closed:
            return {}
        with suppress(OSError, ValueError):
            stdin.write(b"\n")
            stdin.flush()
            return dict(json.loads(stdout.readline()))
        return {}


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


def family(mark: str, seen: Seen) -> Seen:
    """Those that run now of the processes that bear the mark, were seen, or descend from such; no zombies."""
    found: dict[int, float] = {}
    processes = psutil.process_iter(["pid", "ppid", "create_time", "status"])
    for info in sorted((process.info for process in processes), key=lambda info: info["create_time"] or 0):
        pid, began = info["pid"], info["create_time"]
        if info["status"] != psutil.STATUS_ZOMBIE and (
            seen.get(pid) == began or info["ppid"] in found or _is_marked(pid, mark)
        ):
            found[pid] = began
    return found


def _is_marked(pid: int, mark: str) -> bool:
    with suppress(psutil.Error, OSError):  # ended meanwhile, or another user's
        return bool(psutil.Process(pid).environ().get(_VARIABLE) == mark)
    return False


def _reap(mark: str) -> None:
    """Wait until standard input ends, then kill until nothing of the family has been seen for a while."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    seen: Seen = {}
    timeout: float | None = _LOOKS_EVERY_S
    while True:
        ready, _, _ = select.select([sys.stdin], [], [], timeout)
        if ready and not os.read(sys.stdin.fileno(), 1):
            break
        seen = family(mark, seen)
        if ready:
            timeout = None
            print(json.dumps(list(seen.items())), flush=True)  # noqa: T201 -- the answer to `_seen_so_far`
    quiet = 0
    while quiet < _QUIET_ROUNDS:
        seen = family(mark, seen)
        quiet = 0 if seen else quiet + 1
        for pid in seen:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


if __name__ == "__main__":
    _reap(sys.argv[1])
