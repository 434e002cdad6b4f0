"""The model's head without whole logits: the scores that a loss needs of a few positions, and the way back.

Logits of one chunk at a time, in the head's precision; sums over the vocabulary are taken in float32 over
buffers that are used again and again. Autograd never holds anything of the vocabulary's size: the gradient by
the logits is put together here by hand, softmax times the gradient by the log-sum-exp, plus the gradients by
the kept and the sampled logits at their ids. Knows no loss (see `loss.py`).

Axes: `_C` positions of one chunk, `_d` hidden size, `_V` vocabulary, `_K` kept tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from sdpo_solve.learner.loss import ScoreGradients, Scores
from sdpo_solve.model.lean import times_weight

# Rows worked on at a time: their buffers stay in a CPU's cache, and a GPU has enough to do in one call.
_BLOCK = {"cpu": 16}
_BLOCK_ELSEWHERE = 64


@dataclass(frozen=True, slots=True)
class Mixture:
    """One or several models at N positions: hidden states [N, d] of each, and its share; shares sum to one.

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


@dataclass(frozen=True, slots=True)
class _Logits:
    """Logits [C, V] of the parts of a mixture, in the head's precision."""

    parts_CV: Sequence[Tensor]
    shares: Sequence[float]

    def mixed(self, pick: Callable[[Tensor], Tensor]) -> Tensor:
        """A float32 copy of what `pick` takes of the mixture, however it was rounded in its parts."""
        result = pick(self.parts_CV[0]).to(torch.float32, copy=True)
        if len(self.parts_CV) > 1:
            result.mul_(self.shares[0])
            for part_CV, share in zip(self.parts_CV[1:], self.shares[1:], strict=True):
                result.add_(pick(part_CV), alpha=share)
        return result


class Head:
    """The output embedding of `model`, its logits divided by `temperature`."""

    def __init__(self, model: Any, temperature: float) -> None:
        self._linear = model.get_output_embeddings()
        self._temperature = temperature
        self._block = _BLOCK.get(self._linear.weight.device.type, _BLOCK_ELSEWHERE)

    # -- other models, without gradient --------------------------------------------------------------------

    @torch.no_grad()
    def logprobs(self, models: Mixture, token_ids_N: Tensor, chunk: int) -> Tensor:
        """Log-probabilities of given tokens, float32 [N], computed `chunk` positions at a time."""
        parts = []
        for start in range(0, len(models), chunk):
            span = slice(start, start + chunk)
            scores = self.scores(models[span], token_ids_N[span, None], token_ids_N[span])
            parts.append(scores.sampled_N - scores.lse_N)
        return torch.cat(parts)

    @torch.no_grad()
    def scores(self, models_C: Mixture, kept_ids_CK: Tensor | None, token_ids_C: Tensor) -> Scores:
        """The scores of a teacher at the student's kept tokens (None: all tokens) and the sampled ones."""
        logits = self._mixed_logits(models_C)
        lse_C = torch.empty(len(models_C), device=token_ids_C.device)
        for block, wide in self._blocks(logits):
            top_C1 = wide.amax(-1, keepdim=True)
            lse_C[block] = wide.sub_(top_C1).exp_().sum(-1).log() + top_C1[:, 0]
        return self._picked(logits, lse_C, kept_ids_CK, token_ids_C)

    @torch.no_grad()
    def all_logprobs(self, models_C: Mixture) -> Tensor:
        """Log-probabilities of the whole vocabulary, float32 [C, V]: for a few positions at a time."""
        wide_CV = self._mixed_logits(models_C).mixed(lambda part_CV: part_CV)
        return wide_CV.div_(self._temperature).log_softmax(-1)

    # -- the student, forward and back ---------------------------------------------------------------------

    def logits(self, hidden_Cd: Tensor) -> Tensor:
        """Logits [C, V] in the head's precision, not divided by the temperature; without a graph here."""
        with torch.no_grad():
            logits_CV: Tensor = self._linear(hidden_Cd)
            return logits_CV

    @torch.no_grad()
    def student_scores(
        self, logits_CV: Tensor, kept_ids_CK: Tensor | None, token_ids_C: Tensor
    ) -> tuple[Scores, Tensor]:
        """The student's scores as leaves that a loss can be differentiated by, and its entropy [C], nats."""
        logits = _Logits([logits_CV.detach()], [1.0])
        lse_C = torch.empty(len(logits_CV), device=logits_CV.device)
        entropy_C = torch.empty_like(lse_C)
        for block, wide in self._blocks(logits):
            top_C1 = wide.amax(-1, keepdim=True)
            wide.sub_(top_C1)
            weights = wide.exp()
            mass_C = weights.sum(-1)
            lse_C[block] = mass_C.log() + top_C1[:, 0]
            mean_C = torch.bmm(weights[:, None, :], wide[:, :, None])[:, 0, 0] / mass_C
            entropy_C[block] = mass_C.log() - mean_C
        scores = self._picked(logits, lse_C, kept_ids_CK, token_ids_C)
        for leaf in (scores.lse_N, scores.kept_NK, scores.sampled_N):
            leaf.requires_grad_()
        return scores, entropy_C

    @torch.no_grad()
    def backward(
        self,
        hidden_Cd: Tensor,
        logits_CV: Tensor,
        student: Scores,
        grads: ScoreGradients,
        kept_ids_CK: Tensor | None,
        token_ids_C: Tensor,
    ) -> Tensor:
        """The gradient by the hidden states [C, d], from the one by the student's scores.

        `logits_CV`: the logits of `hidden_Cd` that the scores were taken of; they are overwritten.
        """
        for block, wide in self._blocks(_Logits([logits_CV], [1.0])):
            wide.sub_(student.lse_N.detach()[block, None]).exp_().mul_(grads.grad_lse_N[block, None])
            if kept_ids_CK is None:
                wide.add_(grads.grad_kept_NK[block])
            else:
                wide.scatter_add_(1, kept_ids_CK[block], grads.grad_kept_NK[block])
            wide.scatter_add_(1, token_ids_C[block, None], grads.grad_sampled_N[block, None])
            logits_CV[block] = wide.div_(self._temperature)
        return times_weight(self._linear, logits_CV)

    # -- parts ---------------------------------------------------------------------------------------------

    def _mixed_logits(self, models_C: Mixture) -> _Logits:
        return _Logits([self.logits(part_Cd) for part_Cd in models_C.hidden_Nd], models_C.shares)

    def _blocks(self, logits: _Logits) -> Iterator[tuple[slice, Tensor]]:
        """Blocks of rows, each with a float32 copy of its logits divided by the temperature."""
        for start in range(0, len(logits.parts_CV[0]), self._block):
            block = slice(start, start + self._block)
            wide = logits.mixed(itemgetter(block))
            yield block, wide if self._temperature == 1 else wide.div_(self._temperature)

    def _picked(
        self, logits: _Logits, lse_C: Tensor, kept_ids_CK: Tensor | None, token_ids_C: Tensor
    ) -> Scores:
        """Scores with the logits of the kept and of the sampled tokens."""
        kept_CK = logits.mixed(
            lambda part_CV: part_CV if kept_ids_CK is None else part_CV.gather(-1, kept_ids_CK)
        )
        sampled_C = logits.mixed(lambda part_CV: part_CV.gather(-1, token_ids_C[:, None])[:, 0])
        return Scores(lse_C, kept_CK.div_(self._temperature), sampled_C.div_(self._temperature))
