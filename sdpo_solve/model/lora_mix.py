"""LoRA adapters of several policies in one model, so that rows of one batch can use different ones.

K adapters are stacked to one of the sum of their ranks, and a mask keeps each row to its own ranks: two
matrix products a layer, however many policies there are. For sampling only, without gradients. Axes: `_K`
policies, `_R` the ranks of all of them, `_B` rows of a batch, `_i` and `_o` inputs and outputs of a layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdpo_solve.errors import LearnerError


class RowChoice:
    """The choice of one of K adapters for each row of the next passes: the first, until it is called."""

    def __init__(self, ranks_K: Sequence[int], device: torch.device, dtype: torch.dtype) -> None:
        """A policy of rank 0 is the base."""
        numbers_K = torch.arange(len(ranks_K), device=device)
        owner_R = torch.repeat_interleave(numbers_K, torch.tensor(ranks_K, device=device))
        self._owns_KR = (numbers_K[:, None] == owner_R).to(dtype)
        self.uses_BR = self._owns_KR[:1]

    def __call__(self, policy_B: Tensor) -> None:
        """Row b uses adapter `policy_B[b]`. No copy to the host, so that a CUDA graph can record it."""
        self.uses_BR = self._owns_KR[policy_B]


@dataclass(frozen=True, slots=True)
class LayerAdapters:
    """The adapters of one layer; their scalings are multiplied into `up_oR`."""

    down_Ri: Tensor
    up_oR: Tensor
    choice: RowChoice

    def add(self, result: Tensor, x: Tensor) -> None:
        """result [B, T, out] += each row's own product for x [B, T, in]; B and T may be one axis."""
        uses_BR = self.choice.uses_BR
        low_NR = x.reshape(-1, x.shape[-1]) @ self.down_Ri.T
        low_NR.view(len(uses_BR), -1, low_NR.shape[-1]).mul_(uses_BR[:, None])
        result.view(-1, result.shape[-1]).addmm_(low_NR, self.up_oR.T)


@dataclass(frozen=True, slots=True)
class LoadedAdapter:
    """An adapter's weights by layer: A [rank, in] and B [out, rank], its product scaled by `scaling`."""

    rank: int
    scaling: float
    downs: Mapping[str, Tensor]
    ups: Mapping[str, Tensor]

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], rank: int, scaling: float) -> LoadedAdapter:
        """From tensors as the PEFT file format names them.

        Raises LearnerError for one that is no part of a LoRA product of that rank.
        """
        downs, ups = {}, {}
        for name, tensor in tensors.items():
            layer, _, part = name.rpartition(".lora_")
            if part == "A.weight" and tensor.shape[0] == rank:
                downs[layer] = tensor
            elif part == "B.weight" and tensor.shape[1] == rank:
                ups[layer] = tensor
            else:
                raise LearnerError(f"adapter weights do not fit this model: {name} has another shape")
        if downs.keys() != ups.keys():
            raise LearnerError("adapter weights do not fit this model: a product lacks one of its factors")
        return cls(rank, scaling, downs, ups)


BASE = LoadedAdapter(0, 1.0, {}, {})
"""The base model as one of the policies."""


def stacked_adapters(
    adapters_K: Sequence[LoadedAdapter], layers: Mapping[str, torch.nn.Linear], choice: RowChoice
) -> dict[str, LayerAdapters]:
    """What each layer must add, by its name. A policy adds nothing in a layer that it leaves alone.

    Raises LearnerError where an adapter has another shape than its layer, or a layer that is not in `layers`.
    """
    names = dict.fromkeys(name for adapter in adapters_K for name in adapter.downs)
    return {name: _in_layer(adapters_K, name, layers, choice) for name in names}


def _in_layer(
    adapters_K: Sequence[LoadedAdapter], name: str, layers: Mapping[str, torch.nn.Linear], choice: RowChoice
) -> LayerAdapters:
    if name not in layers:
        raise LearnerError(f"adapter weights do not fit this model: it has no layer {name}")
    uses, n_in, n_out = choice.uses_BR, layers[name].in_features, layers[name].out_features

    def joined(parts: Iterable[Tensor], dim: int) -> Tensor:
        return torch.cat([part.to(uses.device) for part in parts], dim).to(uses.dtype)

    downs = [x.downs.get(name, torch.zeros(x.rank, n_in)) for x in adapters_K]
    ups = [x.ups[name] * x.scaling if name in x.ups else torch.zeros(n_out, x.rank) for x in adapters_K]
    if any(down.shape[1] != n_in or up.shape[0] != n_out for down, up in zip(downs, ups, strict=True)):
        raise LearnerError(f"adapter weights do not fit this model: {name} has another shape")
    return LayerAdapters(joined(downs, 0), joined(ups, 1), choice)
