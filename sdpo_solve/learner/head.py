"""The model's head without whole logits: the scores that a loss needs of a few positions, and the way back.

Logits of one chunk at a time, in the head's precision; sums over the vocabulary are taken in float32 over
buffers that are used again and again. The loss sees `Scores` only, so autograd never holds anything of the
vocabulary's size; the gradient by the logits is put together here by hand: softmax times the slope of the
log-sum-exp, plus the slopes of the kept and the sampled logits at their ids.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sdpo_solve.learner import loss as losses
from sdpo_solve.learner.loss import LossSettings, Scores

# Rows worked on at a time: their buffers stay in a CPU's cache, and a GPU has enough to do in one call.
_BLOCK = {"cpu": 16}
_BLOCK_ELSEWHERE = 64


class Head:
    """The output embedding of `model`, its logits divided by `temperature`."""

    def __init__(self, model: Any, temperature: float) -> None:
        self._linear = model.get_output_embeddings()
        self._temperature = temperature
        self._block = _BLOCK.get(self._linear.weight.device.type, _BLOCK_ELSEWHERE)

    @torch.no_grad()
    def logprobs(self, hidden_Nd: Tensor, token_ids_N: Tensor, chunk: int) -> Tensor:
        """Log-probabilities of given tokens, float32 [N]."""
        parts = []
        for hidden_Cd, ids_C in zip(hidden_Nd.split(chunk), token_ids_N.split(chunk), strict=True):
            found = self._scores(self._linear(hidden_Cd), ids_C[:, None], ids_C, False)
            parts.append(found.sampled_N - found.lse_N)
        return torch.cat(parts)

    @torch.no_grad()
    def scores(
        self, hidden_Cd: Tensor, ids_CK: Tensor | None, token_ids_C: Tensor, *, entropy: bool = False
    ) -> Scores:
        """The scores of another model's hidden states at the student's kept tokens."""
        return self._scores(self._linear(hidden_Cd), ids_CK, token_ids_C, entropy)

    @torch.no_grad()
    def slope(
        self,
        hidden_Cd: Tensor,
        token_ids_C: Tensor,
        settings: LossSettings,
        loss: Callable[[Scores, Tensor | None], Tensor],
    ) -> Tensor:
        """The gradient of a loss by the hidden states of a chunk [C, d].

        `loss` turns the student's scores and the kept ids into a scalar; called once, with gradients on.
        """
        logits_CV = self._linear(hidden_Cd)
        ids_CK = losses.kept_ids(logits_CV, settings)
        found = self._scores(logits_CV, ids_CK, token_ids_C, True)
        leaves = [t.requires_grad_() for t in (found.lse_N, found.kept_NK, found.sampled_N)]
        with torch.enable_grad():
            total = loss(found, ids_CK)
            slopes = torch.autograd.grad(total, leaves, allow_unused=True)
        at_lse_C, at_kept_CK, at_sampled_C = (
            torch.zeros_like(leaf) if slope is None else slope
            for leaf, slope in zip(leaves, slopes, strict=True)
        )
        for start in range(0, len(logits_CV), self._block):
            rows = slice(start, start + self._block)
            wide = self._wide(logits_CV[rows])
            wide.sub_(found.lse_N.detach()[rows, None]).exp_().mul_(at_lse_C[rows, None])
            if ids_CK is None:
                wide.add_(at_kept_CK[rows])
            else:
                wide.scatter_add_(1, ids_CK[rows], at_kept_CK[rows])
            wide.scatter_add_(1, token_ids_C[rows, None], at_sampled_C[rows, None])
            logits_CV[rows] = wide.div_(self._temperature)  # the logits are not needed any more
        return torch.mm(logits_CV, self._linear.weight)

    def _scores(self, logits_CV: Tensor, ids_CK: Tensor | None, token_ids_C: Tensor, entropy: bool) -> Scores:
        lse_C = logits_CV.new_empty(len(logits_CV), dtype=torch.float32)
        entropy_C = torch.empty_like(lse_C) if entropy else None
        for start in range(0, len(logits_CV), self._block):
            rows = slice(start, start + self._block)
            wide = self._wide(logits_CV[rows])
            top_C1 = wide.amax(-1, keepdim=True)
            wide.sub_(top_C1)
            weights = wide.exp() if entropy else wide.exp_()
            mass_C = weights.sum(-1)
            lse_C[rows] = mass_C.log() + top_C1[:, 0]
            if entropy_C is not None:
                mean_C = torch.bmm(weights[:, None, :], wide[:, :, None])[:, 0, 0] / mass_C
                entropy_C[rows] = mass_C.log() - mean_C
        kept_CK = logits_CV if ids_CK is None else logits_CV.gather(-1, ids_CK)
        sampled_C = logits_CV.gather(-1, token_ids_C[:, None])[:, 0]
        return Scores(
            lse_C, kept_CK.float() / self._temperature, sampled_C.float() / self._temperature, entropy_C
        )

    def _wide(self, logits_RV: Tensor) -> Tensor:
        """A float32 copy of a block of rows, divided by the temperature."""
        wide: Tensor = logits_RV.to(torch.float32, copy=True)
        return wide if self._temperature == 1 else wide.div_(self._temperature)
