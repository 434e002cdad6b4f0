"""Settings of this machine: fast precision, threads beside other load, what malloc keeps, out of memory.

Knows no model and no engine. Imports torch late.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sdpo_solve.errors import SdpoSolveError

_LOOK_S = 0.5


def cpu_dtype(model_dir: Path | None = None) -> Literal["bfloat16", "float32"]:
    """The precision that this CPU multiplies faster; without instructions for bfloat16 float32, by far.

    AVX-512's instruction for bfloat16 doubles the rate on AMD's processors. On Intel's (Sapphire Rapids whose
    AMX a virtual machine hides) products of 64 rows take 1.6 times as long as in float32, of 16 as long, of
    one 0.7 times. Such a processor takes bfloat16 for a model whose weights would fill half of the memory.
    """
    import torch

    can: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    if can.get("amx_bf16"):
        return "bfloat16"
    if not can.get("avx512_bf16"):
        return "float32"
    is_slow_form = str(can.get("cpu_name", "")).startswith("Intel")
    return "float32" if is_slow_form and _fits_in_float32(model_dir) else "bfloat16"


def _fits_in_float32(model_dir: Path | None) -> bool:
    """Whether the weights, stored in 16 bits a number, would leave half of the memory free; None: they do."""
    import psutil

    files = [] if model_dir is None else model_dir.glob("*.safetensors")
    total: int = psutil.virtual_memory().total
    return 2 * sum(file.stat().st_size for file in files) <= total / 2


@contextmanager
def threads_by_load() -> Iterator[Callable[[], None]]:
    """Gives a function to call between steps: torch gets as many threads as other processes leave cores.

    OpenMP's threads wait for each other by spinning: where another process has displaced one of them, the
    others burn the time in which it could have come back. Afterwards torch has the threads it had before.
    """
    import torch

    n_most, last = torch.get_num_threads(), _Times.now()

    def look() -> None:
        nonlocal last
        if n_most == 1 or time.monotonic() - last.at_s < _LOOK_S:
            return
        now = _Times.now()
        n_free = now.n_cores - (now.others_s - last.others_s) / (now.at_s - last.at_s)
        n, last = max(1, min(n_most, round(n_free))), now
        if n != torch.get_num_threads():
            torch.set_num_threads(n)

    try:
        yield look
    finally:
        torch.set_num_threads(n_most)


@dataclass(frozen=True, slots=True)
class _Times:
    """The cores that this process may use, and the seconds that others have kept them busy."""

    at_s: float
    n_cores: int
    others_s: float

    @classmethod
    def now(cls) -> _Times:
        import psutil

        cores = psutil.cpu_times(percpu=True)
        own = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(cores))
        used = [core for number, core in enumerate(cores) if number in own]
        busy_s = sum(sum(core) - core.idle - getattr(core, "iowait", 0.0) for core in used)
        # Linux counts the time of guests a second time.
        busy_s -= sum(getattr(core, "guest", 0.0) + getattr(core, "guest_nice", 0.0) for core in used)
        return cls(time.monotonic(), len(used), busy_s - time.process_time())


# From glibc's malloc.h. Elsewhere there is no such switch, and the functions below do nothing.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8


def share_freed_memory() -> None:
    """Let all threads share what malloc keeps of freed memory. Call it before libraries start threads.

    With an arena each, every run of a batch would keep gigabytes of its own.
    """
    _set_malloc(_ARENA_MAX, 1)


def keep_freed_memory() -> None:
    """Let the C library keep what tensors free, instead of asking the kernel for zeroed pages every time.

    Activations come and go by the gigabyte; page faults cost an update about a seventh of its time on a CPU.
    """
    share_freed_memory()
    _set_malloc(_MMAP_THRESHOLD, 32 << 20)
    _set_malloc(_TRIM_THRESHOLD, (1 << 31) - 1)
    _set_malloc(_TOP_PAD, 256 << 20)


def hand_back_freed_memory() -> None:
    """Give the kernel what the C library keeps of freed memory now, also from between what is in use."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _set_malloc(what: int, value: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(what, value)


@contextmanager
def memory_errors(error: type[SdpoSolveError], message: str) -> Iterator[None]:
    """Raises `error` where memory runs out within; every other exception stays as it is."""
    try:
        yield
    except (RuntimeError, MemoryError) as exc:  # safetensors raises the second
        if isinstance(exc, RuntimeError) and not is_out_of_memory(exc):
            raise
        raise error(message) from None


def is_out_of_memory(exc: RuntimeError) -> bool:
    """Whether memory ran out. CUDA has a type for it; the others, and cuBLAS, only a message."""
    import torch

    signs = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "MPS backend out of memory")
    return isinstance(exc, torch.OutOfMemoryError) or any(sign in str(exc) for sign in signs)
