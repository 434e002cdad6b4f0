"""Processes as /proc shows them: who their parent is, and what they use of processor and memory.

Standard library only, no work at import: its source travels into the box.
"""

from __future__ import annotations

import contextlib
import os

_AWAKE = (b"R", b"D")  # states of a thread, see proc(5)


class Process:
    """One entry of /proc, as far as the runner needs it."""

    def __init__(self, pid: int, status: bytes, stat: bytes) -> None:
        """`status` and `stat` are the files of that name. Raises IndexError or ValueError for torn ones."""
        fields = stat.rpartition(b")")[2].split()
        self.pid = pid
        self.parent = int(fields[1])
        self.born = (pid, int(fields[19]))  # numbers are used again, and some programs hurry that up
        self.uid = int(entry(status, b"Uid"))
        ticks = sum(int(field) for field in fields[11:15])  # its own, and those of children it waited for
        self.cpu_s = ticks / os.sysconf("SC_CLK_TCK")
        self.n_threads = int(entry(status, b"Threads"))
        self._state = fields[0]
        self.files_mb = int(entry(status, b"RssFile")) / 1024
        self.own_mb = (int(entry(status, b"RssAnon")) + int(entry(status, b"RssShmem"))) / 1024

    def sleeps(self) -> bool:
        """Whether none of its threads could run: neither ready for a processor nor held up by a disk."""
        if self._state in _AWAKE:
            return False
        if self.n_threads > 1:
            with contextlib.suppress(OSError):  # it ended meanwhile
                return not any(
                    _state(f"/proc/{self.pid}/task/{task}") in _AWAKE
                    for task in os.listdir(f"/proc/{self.pid}/task")
                )
        return True


def _state(place: str) -> bytes:
    with open(f"{place}/stat", "rb") as stat:
        return stat.read().rpartition(b")")[2].split()[0]


def memory_mb(together: list[Process]) -> float:
    """Memory of processes that share their libraries. Pages shared after a fork count for each."""
    files_mb = max((process.files_mb for process in together), default=0.0)
    return files_mb + sum(process.own_mb for process in together)


def entry(status: bytes, name: bytes) -> bytes:
    """The first field of an entry; 0 where there is none, as for the dead."""
    _, found, rest = status.partition(b"\n" + name + b":")
    return rest.split(None, 1)[0] if found else b"0"


def processes() -> list[Process]:
    """Every process that can be seen, zombies included."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/status", "rb") as status, open(f"/proc/{name}/stat", "rb") as stat:
                found.append(Process(int(name), status.read(), stat.read()))
        except (OSError, IndexError, ValueError):
            continue  # it ended meanwhile
    return found
