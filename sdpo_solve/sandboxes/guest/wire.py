"""Frames between host and box, and the constants that both sides share.

Standard library only, no work at import: its source travels into the box, and the host imports it as well.
"""

from __future__ import annotations

import json
import struct
from typing import Any

KILL_FACTOR = (
    1.25  # a test is killed at this multiple of its time; a result between the two is taken again alone
)
MAX_WALL_FACTOR = 4  # of its wall time, then a test is killed that waits for a processor or a disk
EXCERPT_BYTES = 1 << 16  # what is kept of an output that went over its cap


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
