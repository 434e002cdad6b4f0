"""One test while it runs inside a box: its pipes, its use of the machine, when it is killed, its status.

Standard library only, no work at import: its source travels into the box.
"""

from __future__ import annotations

import os
import signal
import time

from sdpo_solve.sandboxes.guest.proc import Process, memory_mb
from sdpo_solve.sandboxes.guest.slots import Allowed, Slot
from sdpo_solve.sandboxes.guest.wire import EXCERPT_BYTES, KILL_FACTOR, MAX_WALL_FACTOR

TICK_S = 0.02
CHUNK = 1 << 16
MAX_FILES = 2000
SPARE_THREADS = 4  # those that hold a test in its namespace
STDERR_BYTES = 1 << 16  # the newest part is kept: tracebacks stand at the end


class Test:
    """One process under test: its pipes, what it wrote, what it used."""

    def __init__(self, index: int, slot: Slot, allowed: Allowed, output_bytes: int) -> None:
        self.index = index
        self.slot = slot
        self.allowed = allowed
        self.output_bytes = output_bytes
        self.alone = False
        self.n_calls = 0
        self.pid = 0
        self.started = self.watched = time.monotonic()
        self.idle_s = 0.0
        self.held_up = False
        self.fds: dict[int, str] = {}
        self.written = {name: bytearray() for name in ("stdout", "stderr", "values", "setup", *slot.pipes)}
        self.killed_for: str | None = None
        """What it had too much of: output, memory, processes, cpu, wall (sleep), waiting."""
        self.cpu_s = 0.0
        self.peak_mb = 0.0

    def drain(self, fd: int) -> bool:
        """Take what a pipe holds, keep no more than the cap, close it at its end. False: nothing left."""
        name = self.fds[fd]
        kept = self.written[name]
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self.close(fd)
            return False
        self.held_up = self.held_up or len(data) > CHUNK // 2  # a full pipe: it waited for us
        kept += data
        if name == "stderr":
            del kept[:-STDERR_BYTES]
        elif len(kept) > self.output_bytes or self.killed_for == "output":
            self.killed_for = self.killed_for or "output"
            del kept[EXCERPT_BYTES:]
            return False
        return True

    def drain_to_end(self, fd: int) -> None:
        """The same when every writer is gone."""
        while self.drain(fd):
            pass
        if fd in self.fds:
            self.close(fd)

    def pids(self) -> list[int]:
        """The processes whose end is the test's, as far as they are known."""
        return self.slot.pids(self.pid, b"".join(self.written[name] for name in self.slot.pipes))

    def close(self, fd: int) -> None:
        os.close(fd)
        del self.fds[fd]

    def watch(self, own: list[Process]) -> None:
        """Take note of what it uses now, and decide whether it must go.

        Wall time is the processor time it had and the time in which all of it slept. Waiting for a processor,
        a disk or a reader of its output does not count, up to a point: a loaded machine is not its fault.
        """
        now, cpu_before_s = time.monotonic(), self.cpu_s
        since_s, self.watched = min(now - self.watched, 2 * TICK_S), now
        self.cpu_s = max(self.cpu_s, sum(process.cpu_s for process in own))
        self.peak_mb = max(self.peak_mb, memory_mb(own))
        asleep = self.cpu_s == cpu_before_s and all(process.sleeps() for process in own)
        if asleep and not self.held_up:
            self.idle_s += since_s
        self.held_up = False
        self.killed_for = self.killed_for or self._excess(own, now - self.started)

    def _excess(self, own: list[Process], elapsed_s: float) -> str | None:
        """What it had too much of."""
        allowed = self.allowed
        if self.peak_mb > allowed.memory_mb:
            return "memory"
        if sum(process.n_threads for process in own) > allowed.n_processes + SPARE_THREADS:
            return "processes"  # gVisor's kernel keeps no limit of its own
        if self.slot.n_files() > MAX_FILES:  # where the file system has no limit of its own
            return "output"
        if self.cpu_s > allowed.time_s * KILL_FACTOR:
            return "cpu"
        if self.idle_s + self.cpu_s > allowed.wall_s:
            return "wall"
        return "waiting" if elapsed_s > MAX_WALL_FACTOR * allowed.wall_s else None

    def status(self, exit_code: int, *, compiled: bool, n_values: int) -> tuple[str, bool]:
        """What became of it (`types.ExecutionStatus`), and whether it is to be repeated alone.

        `exit_code` is negative for a signal.
        """
        reason, first_try = self.killed_for, not self.alone
        if reason == "output":
            return "output_limit", False
        if reason == "memory" or self.peak_mb > self.allowed.memory_mb:
            return "memory_limit", False
        if reason == "cpu":
            return "time_limit", False
        if reason == "processes":
            return "runtime_error", False
        if reason == "wall":  # a sleeper is too slow, a starved one gets another chance
            return "time_limit", first_try and self.cpu_s > self.allowed.time_s / 2
        if reason == "waiting" or self.cpu_s > self.allowed.time_s:  # the machine's fault, or a neighbour's
            return "time_limit", first_try
        if not compiled:
            return "compile_error", False
        if exit_code == -signal.SIGKILL and first_try:  # not by us: out of memory, maybe a neighbour's
            return "runtime_error", True
        if exit_code != 0 or n_values != self.n_calls:
            return "runtime_error", False
        return "ok", False
