"""The device that models run on, and what it can do: read from torch, never taken from the device's name.

AMD's torch calls its devices `cuda`; Apple's are `mps`, which has no float64. Imports torch late.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sdpo_solve.model.cpu import cpu_dtype

if TYPE_CHECKING:
    import torch


def best_device() -> torch.device:
    """torch's accelerator of this machine, else the processor."""
    import torch

    found = torch.accelerator.current_accelerator(check_available=True)
    return found or torch.device("cpu")


def fast_dtype(device: torch.device, model_dir: Path | None = None) -> torch.dtype:
    """bfloat16 where the device multiplies it itself, and a CPU faster than float32; else float32."""
    import torch

    if device.type == "cpu":
        return torch.bfloat16 if cpu_dtype(model_dir) == "bfloat16" else torch.float32
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float32
    return torch.bfloat16 if _can(device, torch.bfloat16) else torch.float32


def float64_device(device: torch.device) -> torch.device:
    """Where sums in float64 are taken of what is on `device`: there, or on the processor."""
    import torch

    return device if device.type in ("cpu", "cuda") or _can(device, torch.float64) else torch.device("cpu")


def release_memory() -> None:
    """Hand what torch keeps for later back to the accelerator, so that smaller pieces find room."""
    import torch

    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()


def _can(device: torch.device, dtype: torch.dtype) -> bool:
    import torch

    try:
        ones = torch.ones(2, 2, dtype=dtype, device=device)
        return bool(((ones @ ones) == 2).all())
    except (RuntimeError, TypeError, NotImplementedError):
        return False
