"""Expected values: what a data set's own solution returns on inputs, computed in the sandbox and cached.

The solution runs in a box like any program. A cache file is named by the hash of program and inputs, written
whole, and read as data.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sdpo_solve.paths import cache_dir
from sdpo_solve.protocols import Sandbox
from sdpo_solve.sandboxes.wire_values import Match, NotPlain, decode, encode, opaque_in
from sdpo_solve.types import BoxInput, Call, Execution, ExecutionStatus, Limits, Program

_ALL_LIMITS = Limits(time_s=120.0, memory_mb=1024)  # for every call in one process
_ONE_LIMITS = Limits(time_s=30.0, memory_mb=1024)


@dataclass(frozen=True, slots=True)
class Computed:
    """One value a call, in order."""

    values: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """The first call (0-based) that gave no value, and why."""

    index: int
    error: str


def compute(program: Program, calls: Sequence[Call], sandbox: Callable[[], Sandbox]) -> Computed | Failed:
    """What `program` returns on each of `calls`.

    All run in one process; where that does not end well, each in its own, which names the call at fault.
    Raises SandboxError.
    """
    packed = json.dumps([program.entry_point, program.code, [encode([c.args, c.kwargs]) for c in calls]])
    path = cache_dir() / "expected" / f"{hashlib.sha256(packed.encode()).hexdigest()}.json"
    texts = cached = _cached(path, len(calls))
    if texts is None:
        box = sandbox()
        (result,) = box.run(program, [BoxInput(calls=tuple(calls))], _ALL_LIMITS)
        results = [result]
        if result.status is not ExecutionStatus.OK or len(result.values) != len(calls):
            results = box.run(program, [BoxInput(calls=(call,)) for call in calls], _ONE_LIMITS)
            for index, each in enumerate(results):
                if each.status is not ExecutionStatus.OK or len(each.values) != 1:
                    return Failed(index, _reason(each))
        texts = [text for each in results for text in each.values]
    try:
        values = tuple(decode(text) for text in texts)
    except NotPlain as exc:
        return Failed(0, str(exc))
    for index, value in enumerate(values):
        opaque = opaque_in(value)
        if opaque is not None and not isinstance(value, Match):
            return Failed(index, f"it returns {opaque!r}")
    if cached is None:
        _cache(path, texts)
    return Computed(values)


def _reason(result: Execution) -> str:
    last = result.stderr.strip().splitlines()[-1:] or [result.status.value]
    return last[0][:200]


def _cached(path: Path, n: int) -> list[str] | None:
    """The texts in a cache file; None where it is missing or is not what it must be."""
    try:
        texts = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    fits = isinstance(texts, list) and len(texts) == n and all(isinstance(text, str) for text in texts)
    return texts if fits else None


def _cache(path: Path, texts: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}")
    part.write_text(json.dumps(list(texts)), "utf-8")
    part.replace(path)
