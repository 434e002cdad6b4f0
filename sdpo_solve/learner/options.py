"""The learner's options, their presets, and the refusal of options that would do nothing.

Imports no torch, so that a plan can be checked before anything heavy is loaded. The preset `paper` is arXiv
2601.20802, Table 12, column TTT; README.md beside this file says what differs and what the defaults rest on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from sdpo_solve.config import OptionsWithPresets
from sdpo_solve.model.capability import LEAST_LORA_SHARE

Teacher = Literal["frozen", "ema", "trust-region", "live", "none-negative", "own-answers"]

# What the options are where they are None and their teacher is chosen. Table 12: 0.01 for the average.
EMA_RATE = 0.01
TRUST_RATE = 0.01

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    # Written out in full, so that other defaults, once measured, leave it as it is.
    "paper": {
        "lr": 5e-5,
        "weight_decay": 0.01,
        "grad_clip": 1.0,
        "lora_rank": 16,
        "lora_alpha": 32.0,
        "lora_targets": "all",
        "alpha": 1.0,
        "top_k": 20,
        "tail": True,
        "granularity": "logit",
        "advantage_clip": 5.0,
        "is_clip": 2.0,
        "min_gap": 0.0,
        "teacher": "ema",
        "ema_rate": 0.01,
        "on_collapse": "ignore",
    },
}


class Options(OptionsWithPresets):
    """One LoRA step of self-distillation for each group that is learned from."""

    presets = PRESETS
    belongs_to: ClassVar = {
        "ema_rate": "teacher",
        "top_k": "granularity",
        "advantage_clip": "alpha",
        "tail": "top_k",
    }
    before_the_option: ClassVar = {"min_gap": 0.0}
    removed: ClassVar = {
        "kl_clip": None,
        "entropy_weight": 0.0,
        "position_ramp_tokens": 0,
        "reference_kl": 0.0,
    }

    preset: Literal["default", "paper"] = Field(
        "default", description="paper: Table 12 of 2601.20802; other options given beside it win"
    )
    # -- optimizer and adapter
    lr: float = Field(5e-5, gt=0, description="learning rate of AdamW, constant")
    weight_decay: float = Field(0.01, ge=0, description="decoupled weight decay of the adapter")
    grad_clip: float = Field(1.0, gt=0, description="norm that longer gradients are scaled down to")
    lora_rank: int = Field(16, ge=1, description="rank of the adapter")
    lora_alpha: float = Field(32.0, gt=0, description="the adapter's product is scaled by lora_alpha / rank")
    lora_targets: Literal["all", "attention"] = Field(
        "all", description="which linear layers get an adapter: all but the head, or those of attention"
    )
    min_lora_share: float = Field(
        LEAST_LORA_SHARE, ge=0, le=1, description="share of the weights that lora_targets=all must reach"
    )
    # -- divergence
    alpha: float = Field(1.0, ge=0, le=1, description="0 forward KL, 1 reverse KL, between Jensen-Shannon")
    top_k: int | None = Field(20, ge=1, description="tokens kept at each position; none: the vocabulary")
    tail: bool = Field(True, description="one bucket for the rest of the mass; false renormalises instead")
    granularity: Literal["logit", "token", "sequence", "sampled_token"] = Field(
        "logit", description="what an advantage is taken of: kept tokens, likeliest, sequence mean, sampled"
    )
    advantage_clip: float | None = Field(5.0, gt=0, description="per-token advantages are cut at this, nats")
    is_clip: float | None = Field(2.0, gt=0, description="importance weights are cut at this; none: unused")
    # -- teacher
    teacher: Teacher = Field(
        "frozen",
        description="the model under the feedback: the initial one, a running average of the weights, "
        "today's tied to the initial one, today's; controls without feedback: none-negative pushes failed "
        "answers down, own-answers fine-tunes on all answers as they are",
    )
    ema_rate: float | None = Field(None, gt=0, le=1, description="share of the new weights in the average")
    ema_rank: int | None = Field(None, ge=1, description="rank that the averaged product is kept at")
    trust_rate: float | None = Field(None, gt=0, lt=1, description="share of today's model in its log-probs")
    min_gap: float = Field(
        0.1,
        ge=0,
        description="no update is made where the teacher is nearer to the student than this at the first "
        "one, nats a token: it has little to teach",
    )
    # beta-OPSD, arXiv 2607.28582: softmax((1 - w) z_base + w z_teacher)
    teacher_mix: float = Field(
        1.0, gt=0, le=1, description="share of the teacher in its mix with the base without feedback (logits)"
    )
    negative_advantage: float | None = Field(
        None, gt=0, description="none-negative: every failed token's advantage is minus this"
    )
    # -- rewards and earlier attempts
    grpo_weight: float = Field(
        0.0, ge=0, le=1, description="lambda: share of the reward's advantage against the teacher's (eq. 3)"
    )
    replay: int = Field(0, ge=0, description="earlier attempts that a step learns from besides the group")
    # -- health
    on_collapse: Literal["rollback", "freeze", "restart", "ignore"] = Field(
        "rollback", description="what follows when an update has gone wrong (see health.py)"
    )
    max_grad_norm: float = Field(100.0, gt=0, description="an update with a longer gradient is skipped")
    max_base_kl: float = Field(0.5, gt=0, description="collapse: KL to the base above this, nats a token")
    max_length_ratio: float = Field(4.0, gt=1, description="collapse: answers this times the first group's")
    max_repetition: float = Field(0.5, gt=0, le=1, description="collapse: share of repeated 8-grams above it")
    max_logprob_gap: float | None = Field(
        None,
        gt=0,
        description="an update is skipped where the log-probs of sampler and learner differ by more, nats a "
        "token; none: by the weights' precision",
    )
    min_entropy: float = Field(0.02, ge=0, description="collapse: entropy under this, nats a token")
    # -- memory
    chunk_positions: int = Field(256, ge=1, description="positions whose logits exist at the same time")
    microbatch_tokens: int | None = Field(
        None, ge=1, description="tokens in one pass (default: 4096; on a CPU what 640 MB hold); halves itself"
    )
    checkpoint_tokens: int = Field(
        4096,
        ge=0,
        description="passes of more tokens than this recompute activations instead of keeping them",
    )
    base_kl_attempts: int = Field(4, ge=0, description="attempts a group that the KL to the base is taken of")

    @property
    def is_without_feedback(self) -> bool:
        """Whether this is a control: one advantage for whole answers, from no feedback."""
        return self.teacher in ("none-negative", "own-answers")

    @property
    def has_teacher(self) -> bool:
        """Whether a model under feedback is learned from, and not rewards alone."""
        return not self.is_without_feedback and self.grpo_weight < 1

    @property
    def keeps_average(self) -> bool:
        """Whether a running average of the weights is kept, as the teacher."""
        return self.teacher == "ema"

    @model_validator(mode="after")
    def _refuse_what_does_nothing(self) -> Options:
        for name, reason in _idle(self):
            raise ValueError(f"{name} would do nothing: {reason}")
        return self


def _idle(o: Options) -> Iterator[tuple[str, str]]:
    """Options set away from their default that nothing would read, each with the reason.

    Looks at values alone, never at which of them were given: what a run stores are its complete options,
    and those must be readable again.
    """
    changed = {name for name, info in Options.model_fields.items() if getattr(o, name) != info.default}
    belongs_to = (
        ("ema_rate", "ema"),
        ("ema_rank", "ema"),
        ("trust_rate", "trust-region"),
        ("negative_advantage", "none-negative"),
    )
    for name, teacher in belongs_to:
        if name in changed and o.teacher != teacher:
            yield name, f"it belongs to teacher={teacher}"
    if o.is_without_feedback and o.grpo_weight > 0:
        yield "grpo_weight", f"teacher={o.teacher} has an advantage of its own"
    if "top_k" in changed and o.top_k is not None and o.granularity != "logit":
        yield "top_k", f"granularity={o.granularity} keeps one token a position"
    if not o.tail and (o.top_k is None or o.granularity != "logit"):
        yield "tail", "it belongs to granularity=logit with a top_k"
    if "advantage_clip" in changed and o.advantage_clip is not None and o.alpha != 1:
        yield "advantage_clip", "advantages are those of the reverse KL, alpha=1"
    if o.granularity != "logit" and o.alpha != 1:
        yield "alpha", f"granularity={o.granularity} uses advantages, which are those of alpha=1"
    if not o.has_teacher:
        of_teachers = ("alpha", "top_k", "tail", "granularity", "advantage_clip", "teacher_mix", "min_gap")
        for name in of_teachers:
            if name in changed and not (name == "min_gap" and not o.min_gap):
                yield name, "no teacher acts under teacher=none-negative, own-answers or grpo_weight=1"
    if "min_lora_share" in changed and o.lora_targets != "all":
        yield "min_lora_share", "it belongs to lora_targets=all"
    if "max_base_kl" in changed and o.base_kl_attempts == 0:
        yield "max_base_kl", "base_kl_attempts=0 measures none"
    if o.replay > 0 and o.is_clip is None:
        yield "is_clip", "replayed attempts need the importance clip"
