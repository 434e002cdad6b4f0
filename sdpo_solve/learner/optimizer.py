"""AdamW over an adapter's weights, with a state that goes to disk as plain tensors and comes back exactly."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class AdapterOptimizer:
    """Owns float32 weights by name and steps them; betas and epsilon are torch's (as in 2601.20802)."""

    def __init__(self, weights: Mapping[str, Tensor], lr: float, weight_decay: float) -> None:
        self._parameters = {
            name: torch.nn.Parameter(t.detach().clone().float()) for name, t in weights.items()
        }
        self._adamw = torch.optim.AdamW(
            list(self._parameters.values()), lr=lr, weight_decay=weight_decay, foreach=False
        )

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights themselves, not copies."""
        return {name: parameter.detach() for name, parameter in self._parameters.items()}

    def step(self, gradients: Mapping[str, Tensor], scale: float) -> None:
        """One step along `scale` times the gradients."""
        for name, parameter in self._parameters.items():
            parameter.grad = gradients[name] * scale
        self._adamw.step()
        self._adamw.zero_grad(set_to_none=True)

    def moments(self) -> dict[str, Tensor]:
        """AdamW's state by `moment:name`; empty before the first step."""
        return {
            f"{moment}:{name}": state[moment]
            for name, parameter in self._parameters.items()
            if (state := self._adamw.state.get(parameter))
            for moment in _MOMENTS
        }

    def restore(self, moments: Mapping[str, Tensor]) -> None:
        """Go on from what `moments` gave. Raises KeyError where one is missing."""
        for name, parameter in self._parameters.items() if moments else ():
            state = {moment: moments[f"{moment}:{name}"] for moment in _MOMENTS}
            self._adamw.state[parameter] = {
                moment: t.clone() if moment == "step" else t.to(parameter.device)
                for moment, t in state.items()
            }
