"""The model's head without whole logits: the scores that a loss needs of a few positions, and the way back.

Logits of one chunk at a time, in the head's precision; sums over the vocabulary are taken in float32 over
buffers that are used again and again. The loss sees `Scores` only, so autograd never holds anything of the
vocabulary's size; the gradient by the logits is put together here by hand: softmax times the slope of the
log-sum-exp, plus the slopes of the kept and the sampled logits at their ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdpo_solve.learner import loss as losses
from sdpo_solve.learner.loss import LossSettings, Scores

# Rows worked on at a time: their buffers stay in a CPU's cache, and a GPU has enough to do in one call.
_BLOCK = {"cpu": 16}
_BLOCK_ELSEWHERE = 64


@dataclass(frozen=True, slots=True)
class Mixture:
    """Other models' word at N positions: hidden states [N, d] of each, and its share; the shares sum to one.

    Log-probs mixed and renormalised are logits mixed, and the head is linear; yet hidden states must not be
    mixed before it: in bfloat16 what a share of a hundredth moves is below their rounding, and the mixture
    would be its largest part alone. So each part goes through the head, a chunk at a time, and logits are
    mixed in float32.
    """

    hidden_Nd: tuple[Tensor, ...]
    shares: tuple[float, ...] = (1.0,)

    @classmethod
    def of(cls, hidden_Nd: Tensor) -> Mixture:
        """One model alone."""
        return cls((hidden_Nd,))

    def with_share(self, other: Mixture, share: float) -> Mixture:
        """(1 - share) of this and `share` of `other`."""
        shares = [(1 - share) * own for own in self.shares] + [share * own for own in other.shares]
        return Mixture(self.hidden_Nd + other.hidden_Nd, tuple(shares))

    def map(self, change: Callable[[Tensor], Tensor]) -> Mixture:
        """The same change of the positions of every part."""
        return Mixture(tuple(change(part_Nd) for part_Nd in self.hidden_Nd), self.shares)

    def __getitem__(self, span: slice) -> Mixture:
        return self.map(lambda part_Nd: part_Nd[span])

    def __len__(self) -> int:
        return len(self.hidden_Nd[0])

    def split(self, chunk: int) -> list[Mixture]:
        """Runs of `chunk` positions, the last one shorter."""
        return [self[start : start + chunk] for start in range(0, len(self), chunk)]


@dataclass(frozen=True, slots=True)
class _Logits:
    """Logits [C, V] of the parts of a mixture, in the head's precision."""

    parts_CV: Sequence[Tensor]
    shares: Sequence[float]

    def mixed(self, pick: Callable[[Tensor], Tensor]) -> Tensor:
        """A float32 copy of what `pick` takes of the mixture, however it was rounded in its parts."""
        found = pick(self.parts_CV[0]).to(torch.float32, copy=True)
        if len(self.parts_CV) > 1:
            found.mul_(self.shares[0])
            for part_CV, share in zip(self.parts_CV[1:], self.shares[1:], strict=True):
                found.add_(pick(part_CV), alpha=share)
        return found


class Head:
    """The output embedding of `model`, its logits divided by `temperature`."""

    def __init__(self, model: Any, temperature: float) -> None:
        self._linear = model.get_output_embeddings()
        self._temperature = temperature
        self._block = _BLOCK.get(self._linear.weight.device.type, _BLOCK_ELSEWHERE)

    @torch.no_grad()
    def logprobs(self, models: Mixture, token_ids_N: Tensor, chunk: int) -> Tensor:
        """Log-probabilities of given tokens, float32 [N]."""
        parts = []
        for models_C, ids_C in zip(models.split(chunk), token_ids_N.split(chunk), strict=True):
            found = self._scores(self._logits(models_C), ids_C[:, None], ids_C, False)
            parts.append(found.sampled_N - found.lse_N)
        return torch.cat(parts)

    @torch.no_grad()
    def scores(
        self, models_C: Mixture, ids_CK: Tensor | None, token_ids_C: Tensor, *, entropy: bool = False
    ) -> Scores:
        """The scores of other models at the student's kept tokens."""
        return self._scores(self._logits(models_C), ids_CK, token_ids_C, entropy)

    @torch.no_grad()
    def all_logprobs(self, models_C: Mixture) -> Tensor:
        """Log-probabilities of the whole vocabulary, float32 [C, V]: for a few positions at a time."""
        wide_CV = self._logits(models_C).mixed(lambda part_CV: part_CV)
        return wide_CV.div_(self._temperature).log_softmax(-1)

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
        logits = _Logits([logits_CV], [1.0])
        found = self._scores(logits, ids_CK, token_ids_C, True)
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
            wide = self._wide(logits, rows)
            wide.sub_(found.lse_N.detach()[rows, None]).exp_().mul_(at_lse_C[rows, None])
            if ids_CK is None:
                wide.add_(at_kept_CK[rows])
            else:
                wide.scatter_add_(1, ids_CK[rows], at_kept_CK[rows])
            wide.scatter_add_(1, token_ids_C[rows, None], at_sampled_C[rows, None])
            logits_CV[rows] = wide.div_(self._temperature)  # the logits are not needed any more
        return torch.mm(logits_CV, self._linear.weight)

    def _logits(self, models_C: Mixture) -> _Logits:
        return _Logits([self._linear(part_Cd) for part_Cd in models_C.hidden_Nd], models_C.shares)

    def _scores(self, logits: _Logits, ids_CK: Tensor | None, token_ids_C: Tensor, entropy: bool) -> Scores:
        lse_C = token_ids_C.new_empty(len(token_ids_C), dtype=torch.float32)
        entropy_C = torch.empty_like(lse_C) if entropy else None
        for start in range(0, len(lse_C), self._block):
            rows = slice(start, start + self._block)
            wide = self._wide(logits, rows)
            top_C1 = wide.amax(-1, keepdim=True)
            wide.sub_(top_C1)
            weights = wide.exp() if entropy else wide.exp_()
            mass_C = weights.sum(-1)
            lse_C[rows] = mass_C.log() + top_C1[:, 0]
            if entropy_C is not None:
                mean_C = torch.bmm(weights[:, None, :], wide[:, :, None])[:, 0, 0] / mass_C
                entropy_C[rows] = mass_C.log() - mean_C
        kept_CK = logits.mixed(lambda part_CV: part_CV if ids_CK is None else part_CV.gather(-1, ids_CK))
        sampled_C = logits.mixed(lambda part_CV: part_CV.gather(-1, token_ids_C[:, None])[:, 0])
        return Scores(lse_C, kept_CK.div_(self._temperature), sampled_C.div_(self._temperature), entropy_C)

    def _wide(self, logits: _Logits, rows: slice) -> Tensor:
        """A float32 copy of a block of rows, divided by the temperature."""
        wide = logits.mixed(lambda part_CV: part_CV[rows])
        return wide if self._temperature == 1 else wide.div_(self._temperature)
