"""What the runner inside a box needs and both sides share: frames, and what became of a test.

Standard library only, no work at import: its source travels into the box.
"""

from __future__ import annotations

import json
import signal
import struct
from typing import Any

GRACE = 1.25  # a test is killed at this multiple of its time; a result between the two is taken again alone
PATIENCE = 4  # times its wall time at most, if it spends the rest waiting for a processor or a disk
EXCERPT_BYTES = 1 << 16  # what is kept of an output that went over its cap


def classify(
    *,
    killed_for: str | None,
    exit_code: int,
    compiled: bool,
    cpu_s: float,
    peak_mb: float,
    n_values: int,
    n_calls: int,
    time_s: float,
    memory_mb: float,
    alone: bool,
) -> tuple[str, bool]:
    """The status of one test, and whether it should be run again alone before it is believed.

    `killed_for` is what the runner killed it for: "output", "memory", "processes", "cpu", "wall" (it
    slept), "patience" (it did not get the processor) or None. `exit_code` is negative for a signal.
    """
    if killed_for == "output":
        return "output_limit", False
    if killed_for == "memory" or peak_mb > memory_mb:
        return "memory_limit", False
    if killed_for == "cpu":
        return "time_limit", False
    if killed_for == "processes":
        return "runtime_error", False
    if killed_for == "wall":
        return "time_limit", not alone and cpu_s > time_s / 2
    if killed_for == "patience":  # the machine is at fault, or a neighbour
        return "time_limit", not alone
    if cpu_s > time_s:
        return "time_limit", not alone
    if not compiled:
        return "compile_error", False
    if exit_code == -signal.SIGKILL and not alone:  # not by us: the box is out of memory, maybe a neighbour's
        return "runtime_error", True
    if exit_code != 0 or n_values != n_calls:
        return "runtime_error", False
    return "ok", False


def pack(head: dict[str, Any], payload: bytes = b"") -> bytes:
    """One frame: two 4-byte big-endian lengths, JSON, raw bytes."""
    text = json.dumps(head).encode()
    return struct.pack(">II", len(text), len(payload)) + text + payload


class Unpacker:
    """Bytes in, whole frames out."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> None:
        self._data += data

    def next(self) -> tuple[dict[str, Any], bytes] | None:
        if len(self._data) < 8:
            return None
        n_head, n_payload = struct.unpack_from(">II", self._data)
        end = 8 + n_head + n_payload
        if len(self._data) < end:
            return None
        head = json.loads(bytes(self._data[8 : 8 + n_head]))
        payload = bytes(self._data[8 + n_head : end])
        del self._data[:end]
        return head, payload
