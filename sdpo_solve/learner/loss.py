"""The SDPO loss as pure tensor functions: divergences, kept tokens, importance weights, the hybrid with GRPO.

`distillation_loss` is the plain reference form over whole logits; `token_losses` is the same computation for
any number of positions at once, which the learner calls chunk by chunk. Nothing here knows models, prompts or
optimizers. Source: arXiv 2601.20802, section 3 and appendix.

Axes: `_B` sequences, `_T` completion tokens, `_N` positions in any order, `_V` vocabulary, `_K` kept buckets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Granularity = Literal["logit", "token", "sequence", "sampled_token"]

_MAX_LOG_MASS = -1e-7
"""Kept mass is taken as at most exp(-1e-7): a tail of exactly zero has no logarithm."""
_MAX_LOG_RATIO = 20.0


@dataclass(frozen=True, slots=True)
class LossSettings:
    """What decides a token's loss. The learner's `Options` explains each and refuses what has no effect."""

    alpha: float = 1.0
    top_k: int | None = 20
    tail: bool = True
    is_clip: float | None = 2.0
    advantage_clip: float | None = None
    granularity: Granularity = "logit"
    grpo_weight: float = 0.0


@dataclass(frozen=True, slots=True)
class Positions:
    """What is known of N positions besides their logits; None stands for what the settings do not need.

    `advantage_N`: the reward's advantage of the position's sequence. `sequence_advantage_N`: the mean
    self-distillation advantage of its sequence. `has_teacher_N`: 1 where the teacher's logits count, else 0.
    """

    old_logprobs_N: Tensor | None = None
    advantage_N: Tensor | None = None
    sequence_advantage_N: Tensor | None = None
    has_teacher_N: Tensor | None = None

    def __getitem__(self, span: slice) -> Positions:
        parts = (self.old_logprobs_N, self.advantage_N, self.sequence_advantage_N, self.has_teacher_N)
        return Positions(*(None if part_N is None else part_N[span] for part_N in parts))


@dataclass(frozen=True, slots=True)
class Scores:
    """All that the loss needs of the logits at N positions; its gradient by the logits flows through these.

    `kept_NK`: logits of the kept tokens, all of them for the full vocabulary, none for sampled advantages.
    """

    lse_N: Tensor
    kept_NK: Tensor
    sampled_N: Tensor


@dataclass(frozen=True, slots=True)
class ScoreGradients:
    """The gradient of a loss by each field of `Scores`."""

    grad_lse_N: Tensor
    grad_kept_NK: Tensor
    grad_sampled_N: Tensor


@dataclass(frozen=True, slots=True)
class TokenLosses:
    """Loss of each position (with gradient) and what was seen there (without).

    `divergence_N`: KL(student || teacher) in nats, whatever is differentiated; 0 without a teacher. That of
    the buckets where the granularity is "logit", else an estimate: log pi - log q at the sampled token.
    """

    loss_N: Tensor
    logprob_N: Tensor
    divergence_N: Tensor
    ratio_N: Tensor


def distillation_loss(
    student_logits_BTV: Tensor,
    teacher_logits_BTV: Tensor,
    token_ids_BT: Tensor,
    response_mask_BT: Tensor,
    *,
    example_mask_B: Tensor | None = None,
    old_logprobs_BT: Tensor | None = None,
    alpha: float = 1.0,
    top_k: int | None = 20,
    tail: bool = True,
    is_clip: float | None = 2.0,
    advantage_clip: float | None = None,
    granularity: Granularity = "logit",
) -> Tensor:
    """The loss of a padded batch: the mean over tokens with response_mask * example_mask, a scalar.

    `top_k` None: the full vocabulary. `is_clip` acts only where `old_logprobs_BT` is given. The teacher's
    logits get no gradient. Zero (with a gradient of zero) where no token counts.
    """
    settings = LossSettings(alpha, top_k, tail, is_clip, advantage_clip, granularity)
    mask_BT = response_mask_BT.to(student_logits_BTV.dtype)
    if example_mask_B is not None:
        mask_BT = mask_BT * example_mask_B.to(mask_BT.dtype)[:, None]
    teacher_logits_BTV = teacher_logits_BTV.detach()
    sequence_advantage_N = None
    if granularity == "sequence":
        with torch.no_grad():
            log_q_BT = sampled_logprobs(teacher_logits_BTV, token_ids_BT)
            log_pi_BT = sampled_logprobs(student_logits_BTV, token_ids_BT)
            mean_B = ((log_q_BT - log_pi_BT) * mask_BT).sum(1) / mask_BT.sum(1).clamp(min=1)
        sequence_advantage_N = mean_B[:, None].expand_as(mask_BT).reshape(-1)
    student_NV, token_ids_N = student_logits_BTV.flatten(0, 1), token_ids_BT.flatten()
    ids_NK = kept_ids(student_NV.detach(), settings)
    losses = token_losses(
        scores(student_NV, ids_NK, token_ids_N),
        scores(teacher_logits_BTV.flatten(0, 1), ids_NK, token_ids_N),
        Positions(
            old_logprobs_N=None if old_logprobs_BT is None else old_logprobs_BT.flatten(),
            sequence_advantage_N=sequence_advantage_N,
        ),
        settings,
    )
    mask_N = mask_BT.flatten()
    return (losses.loss_N * mask_N).sum() / mask_N.sum().clamp(min=1)


def token_losses(student: Scores, teacher: Scores, at: Positions, settings: LossSettings) -> TokenLosses:
    """Losses of N positions, each with its weights applied; the mean is the caller's business.

    Scores are those of the distribution sampled (logits divided by the temperature). The teacher's get no
    gradient. Raises ValueError for settings that contradict each other.
    """
    check_settings(settings)
    log_pi_N = student.sampled_N - student.lse_N
    if settings.granularity in ("sampled_token", "sequence"):
        distil_N = _sampled_loss(log_pi_N, teacher, at, settings)
    else:
        student_NK = bucket_logprobs(student, settings)
        teacher_NK = bucket_logprobs(teacher, settings).detach()
        distil_N = _distillation(student_NK, teacher_NK, settings)
    if settings.granularity == "logit":
        divergence_N = _kl(student_NK.detach(), teacher_NK)
    else:
        divergence_N = (log_pi_N - (teacher.sampled_N - teacher.lse_N)).detach()
    if at.has_teacher_N is not None:
        distil_N, divergence_N = at.has_teacher_N * distil_N, at.has_teacher_N * divergence_N
    ratio_N = importance_ratio(log_pi_N, at.old_logprobs_N, settings.is_clip)
    loss_N = (1 - settings.grpo_weight) * distil_N
    if settings.grpo_weight:
        assert at.advantage_N is not None
        # Equation 3: the reward's advantage acts on the token that was sampled.
        loss_N = loss_N - settings.grpo_weight * at.advantage_N * log_pi_N
    return TokenLosses(ratio_N * loss_N, log_pi_N.detach(), divergence_N, ratio_N)


def score_gradients(loss: Tensor, student: Scores) -> ScoreGradients:
    """The gradient of a scalar `loss` by the student's scores, which must be leaves; zero where unused."""
    leaves = (student.lse_N, student.kept_NK, student.sampled_N)
    grads = torch.autograd.grad(loss, leaves, allow_unused=True)
    return ScoreGradients(
        *(torch.zeros_like(x) if grad is None else grad for x, grad in zip(leaves, grads, strict=True))
    )


def kept_ids(student_logits_NV: Tensor, settings: LossSettings) -> Tensor | None:
    """The student's most likely tokens at each position [N, K]; None for all of them."""
    if settings.granularity in ("sampled_token", "sequence"):
        return student_logits_NV.new_zeros((len(student_logits_NV), 0), dtype=torch.long)
    if settings.granularity == "token":
        return student_logits_NV.argmax(-1, keepdim=True)
    if settings.top_k is None:
        return None
    k = min(settings.top_k, student_logits_NV.shape[-1])
    return student_logits_NV.topk(k, sorted=False).indices


def scores(logits_NV: Tensor, ids_NK: Tensor | None, token_ids_N: Tensor) -> Scores:
    """What the loss needs of whole logits, differentiably. `head.py` has a leaner way to the same."""
    return Scores(
        logits_NV.logsumexp(-1),
        logits_NV if ids_NK is None else logits_NV.gather(-1, ids_NK),
        logits_NV.gather(-1, token_ids_N[:, None])[:, 0],
    )


def bucket_logprobs(side: Scores, settings: LossSettings) -> Tensor:
    """Log-probabilities over the buckets, summing to one but at token level (section 3.2, top-K).

    The buckets are the kept tokens and, with `tail`, one that holds the rest; without it the kept ones are
    renormalised.
    """
    kept_NK = side.kept_NK - side.lse_N[:, None]
    if settings.top_k is None or settings.granularity == "token":
        return kept_NK
    if settings.tail:
        log_mass_N1 = kept_NK.logsumexp(-1, keepdim=True).clamp(max=_MAX_LOG_MASS)
        return torch.cat([kept_NK, (-torch.expm1(log_mass_N1)).log()], dim=-1)
    return kept_NK.log_softmax(-1)


def sampled_logprobs(logits_xV: Tensor, token_ids_x: Tensor) -> Tensor:
    """Log-probability of the sampled token at each position, whatever the leading axes."""
    return logits_xV.gather(-1, token_ids_x[..., None])[..., 0] - logits_xV.logsumexp(-1)


def importance_ratio(log_pi_N: Tensor, old_logprob_N: Tensor | None, clip: float | None) -> Tensor:
    """min(clip, pi_now / pi_rollout) of the sampled token, detached; ones where it is not wanted."""
    if old_logprob_N is None or clip is None:
        return torch.ones_like(log_pi_N)
    log_ratio_N = (log_pi_N.detach() - old_logprob_N).clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)
    return log_ratio_N.exp().clamp(max=clip)


def check_settings(settings: LossSettings) -> None:
    """Raises ValueError where one setting leaves another without effect."""
    if settings.granularity not in ("logit", "token", "sequence", "sampled_token"):
        raise ValueError(f"unknown granularity {settings.granularity!r}")
    if not 0 <= settings.alpha <= 1:
        raise ValueError(f"alpha must lie in 0..1, got {settings.alpha}")
    if settings.advantage_clip is not None and settings.alpha != 1:
        raise ValueError("advantage_clip belongs to the reverse KL: it needs alpha=1")
    if settings.granularity != "logit" and settings.alpha != 1:
        raise ValueError(f"granularity {settings.granularity} uses advantages: it needs alpha=1")


# -- parts -------------------------------------------------------------------------------------------------


def _kl(first_NK: Tensor, second_NK: Tensor) -> Tensor:
    """KL(first || second) over the buckets, in nats."""
    return (first_NK.exp() * (first_NK - second_NK)).sum(-1)


def _distillation(student_NK: Tensor, teacher_NK: Tensor, settings: LossSettings) -> Tensor:
    """What is differentiated: the divergence, or for clipped advantages a form with their gradient."""
    clip = settings.advantage_clip
    if settings.granularity != "token" and clip is None:
        return _divergence(student_NK, teacher_NK, settings.alpha)
    advantage_NK = (teacher_NK - student_NK).detach()
    if clip is not None:
        advantage_NK = advantage_NK.clamp(-clip, clip)
    return -(student_NK.detach().exp() * advantage_NK * student_NK).sum(-1)


def _divergence(student_NK: Tensor, teacher_NK: Tensor, alpha: float) -> Tensor:
    """The divergence of each position (section 3.2): forward, reverse, or generalised Jensen-Shannon."""
    if alpha == 0:
        return _kl(teacher_NK, student_NK)
    if alpha == 1:
        return _kl(student_NK, teacher_NK)
    mixture_NK = torch.logaddexp(student_NK + math.log(1 - alpha), teacher_NK + math.log(alpha))
    return (1 - alpha) * _kl(student_NK, mixture_NK) + alpha * _kl(teacher_NK, mixture_NK)


def _sampled_loss(log_pi_N: Tensor, teacher: Scores, at: Positions, settings: LossSettings) -> Tensor:
    """Policy-gradient form: the advantage of the sampled token, or the mean one of its sequence."""
    if settings.granularity == "sequence":
        assert at.sequence_advantage_N is not None
        advantage_N = at.sequence_advantage_N
    else:
        log_q_N = teacher.sampled_N - teacher.lse_N
        advantage_N = (log_q_N - log_pi_N).detach()
    if settings.advantage_clip is not None:
        advantage_N = advantage_N.clamp(-settings.advantage_clip, settings.advantage_clip)
    return -advantage_N * log_pi_N
