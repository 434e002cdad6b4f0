"""Linear layers with a second copy of their weights in oneDNN's own layout, for sampling on a CPU.

torch lays bfloat16 weights out anew for every product; with few rows that costs as much as the product. In
float32 its products with few rows take about twice as long as oneDNN's. The layout and the product on it are
the operators that torch's own compiler uses when it freezes a model for the CPU
(torch/_inductor/fx_passes/mkldnn_fusion.py). They are chosen by capability: elsewhere nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeGuard

import torch

from sdpo_solve.model.memory import free_memory_mb

_ROWS = 16


class PackedLinears:
    """Packed copies of a model's frozen linear weights, made once and used inside `applied`."""

    def __init__(self) -> None:
        self._packed: dict[torch.Tensor, _Packed] = {}

    @contextmanager
    def applied(self, model: torch.nn.Module) -> Iterator[None]:
        """Within, the model's packable layers use their packed weights; afterwards they are as before."""
        layers = [x for name, x in model.named_modules() if "lora_" not in name and _packable(x)]
        stale = {x.weight for x in layers if not self._is_fresh(x.weight)}
        if not _fits(stale):
            layers, stale = [], set()
        for weight in stale:
            packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _ROWS)
            self._packed[weight] = _Packed(packed, weight._version)
        try:
            for layer in layers:
                vars(layer)["forward"] = self._forward(layer)
            yield
        finally:
            for layer in layers:
                del vars(layer)["forward"]

    def _is_fresh(self, weight: torch.Tensor) -> bool:
        """Whether there is a copy, made since the weight was last written to."""
        return weight in self._packed and self._packed[weight].version == weight._version

    def _forward(self, layer: torch.nn.Linear) -> Callable[[torch.Tensor], torch.Tensor]:
        packed, bias = self._packed[layer.weight].weight, layer.bias

        def forward(x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
            return y

        return forward


@dataclass(frozen=True, slots=True)
class _Packed:
    weight: torch.Tensor
    version: int
    """What torch counted as the original's version when the copy was made."""


def _packable(layer: torch.nn.Module) -> TypeGuard[torch.nn.Linear]:
    """A plain linear layer on the CPU that no training changes, with nobody else's `forward`."""
    return (
        type(layer) is torch.nn.Linear
        and _capable(layer.weight.dtype)
        and layer.weight.device.type == "cpu"
        and not layer.weight.requires_grad
        and "forward" not in vars(layer)
    )


def _capable(dtype: torch.dtype) -> bool:
    """Whether this torch has the operators, and oneDNN multiplies that precision on this processor."""
    operators = torch.ops.mkldnn
    return (
        dtype in (torch.bfloat16, torch.float32)
        and torch.backends.mkldnn.is_available()
        and hasattr(operators, "_reorder_linear_weight")
        and hasattr(operators, "_linear_pointwise")
        and (dtype is torch.float32 or bool(operators._is_mkldnn_bf16_supported()))
    )


def _fits(weights: set[torch.Tensor]) -> bool:
    """Whether the copies leave as much memory free as they take."""
    wanted_bytes = sum(weight.numel() * weight.element_size() for weight in weights)
    return 2 * wanted_bytes <= free_memory_mb() << 20
