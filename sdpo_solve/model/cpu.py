"""Settings of this machine's processor: the precision it multiplies fast, what malloc keeps, out of memory.

Knows no model and no engine. Imports torch late.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any, Literal


def cpu_dtype() -> Literal["bfloat16", "float32"]:
    """The precision for this CPU: bfloat16 where it has instructions for it, else it is many times slower."""
    import torch

    can: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return "bfloat16" if can.get("avx512_bf16") or can.get("amx_bf16") else "float32"


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


def _set_malloc(what: int, value: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(what, value)


def is_out_of_memory(exc: RuntimeError) -> bool:
    """Whether memory ran out. CUDA has a type for it; the CPU's allocator and cuBLAS only a message."""
    import torch

    signs = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(exc, torch.OutOfMemoryError) or any(sign in str(exc) for sign in signs)
