"""The learner's options, their presets, and the refusal of options that would do nothing.

Imports no torch, so that a plan can be checked before anything heavy is loaded.

**The preset `paper`** is arXiv 2601.20802, Table 12, column TTT, to the letter, as far as an adapter can
follow. What differs because the paper trains all weights and we train LoRA:

| Option | Paper | Here | Why |
|---|---|---|---|
| `learner.lr` | 1e-6 | 5e-5 | adapters want one to two orders of magnitude more |
| `learner.lora_rank`, `learner.lora_alpha`, `learner.lora_targets` | - | 16, 32, all | no counterpart |
| `learner.weight_decay` | 0.01 | 0.01 | pulls the adapter's factors, and so the model, towards the base |
| `learner.grad_clip` | 1.0 | 1.0 | the norm is that of the adapter's gradient |
| `learner.ema_rate` | 0.01 | 0.01 | the average is taken of the product BA, kept at `learner.ema_rank` (64) |
| `learner.on_collapse` | - | ignore | the paper has no health rules; what they would have done is said |
| `learner.max_grad_norm` | - | 100 | the one rule that stays: AdamW would keep a step gone wrong for long |

The rest of Table 12 are options of a run: `--group-size 16 --temperature 1 --max-tokens 8192 --model
Qwen/Qwen3-8B`; no thinking, no warm-up and a constant rate are what there is. Prompts have no limit of 2048
tokens here; the caps of feedback keep the teacher's short.

**The preset `default`** rests on what two updates do to answers that the model gave itself (`sdpo-solve bench
lesson`; 2026-11-26, Qwen2.5-Coder-0.5B, float32, 8 failed attempts an update, from the base). *right* and
*wrong* are the changes in log-probability, in nats an answer, of answers that pass the tests and of those
that fail; *drift* is the KL divergence from the base in nats a token. letter-tally: 3 right answers, solved
by 6 of 64 samples of the base. day-clock: 1 right answer, by 1 of 24.

| Setting | letter-tally: right | wrong | drift | day-clock: right | wrong | drift |
|---|---|---|---|---|---|---|
| the feedback in the prompt, no update | -4.43 | -9.46 | - | -2.82 | -0.69 | - |
| **`lr` 5e-5** | **+0.75** | -3.07 | 0.062 | **+1.05** | -1.27 | 0.016 |
| `lr` 1e-4 | -0.19 | -5.80 | 0.119 | +1.30 | -3.00 | 0.031 |
| `lr` 2e-4 | -2.15 | -10.22 | 0.214 | +0.20 | -7.06 | 0.066 |
| `lr` 4e-4 | -5.53 | -16.26 | 0.347 | -3.68 | -15.25 | 0.140 |
| `lr` 1e-3 | -21.6 | -27.5 | 0.624 | -25.3 | -31.1 | 0.331 |
| `lr` 1e-4, `lora_targets` attention | +1.49 | -0.98 | 0.025 | +0.49 | -0.43 | 0.007 |
| `lr` 1e-4, `lora_rank` 4 | -0.19 | -6.03 | 0.124 | +1.13 | -2.99 | 0.031 |
| `lr` 1e-4, `lora_rank` 64 | -0.32 | -6.03 | 0.123 | +1.24 | -2.96 | 0.031 |
| `lr` 1e-4, `teacher` ema | -0.22 | -5.92 | 0.122 | +1.29 | -3.01 | 0.031 |
| `lr` 1e-4, `teacher` live | -2.64 | -12.21 | 0.255 | -1.65 | -5.37 | 0.060 |
| `lr` 1e-4, `alpha` 0 (forward) | -0.09 | -4.59 | 0.107 | +0.83 | -3.44 | 0.033 |
| `lr` 1e-4, `alpha` 0.5 | +0.03 | -4.95 | 0.101 | +1.54 | -3.38 | 0.032 |
| `lr` 1e-4, one update of 16 | +0.28 | -3.49 | 0.071 | +0.52 | -2.25 | 0.026 |

What it says: every setting makes failed answers rarer, and faster than right ones; but faster rates make
right ones rarer too (from 1e-4 on one problem, from 4e-4 on both), and a discovery needs them likelier in
absolute terms. 5e-5 is the only rate at which they gained on both problems. Rank and the averaged teacher
make no difference in two updates; a live teacher chases itself; two updates of 8 teach more than one of 16.
At 1e-4 attention alone, `alpha` 0.5 and one update of 16 gained on both as well, none of them more than 5e-5
on both; attention alone moved the model least.

What it does not say: two problems, one draw of failures each, and two updates. Over 7 updates on 29 problems
of MBPP+ (group 16; `problems/discovery/pilot`) 5e-5 moved the model by 0.014 nats a token only, since there
the teacher differed by 0.04 nats a token from its student; no rule of health had to act in 114 updates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from sdpo_solve.config import Options as BaseOptions

Teacher = Literal["frozen", "ema", "trust-region", "live", "none-negative"]

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
        "teacher": "ema",
        "ema_rate": 0.01,
        "on_collapse": "ignore",
    },
}
# Options of a preset that belong to another one: whoever sets that one chooses these as well.
_BELONGS = {
    "ema_rate": "teacher",
    "top_k": "granularity",
    "advantage_clip": "alpha",
    "tail": "top_k",
}


class Options(BaseOptions):
    """One LoRA step of self-distillation after every group."""

    preset: Literal["default", "paper"] = Field(
        "default", description="paper: Table 12 of 2601.20802; other options given beside it win"
    )
    # -- optimizer and adapter
    lr: float = Field(5e-5, gt=0, description="learning rate of AdamW, constant")
    weight_decay: float = Field(0.01, ge=0, description="decoupled weight decay of the adapter")
    grad_clip: float = Field(1.0, gt=0, description="norm that longer gradients are scaled down to")
    lora_rank: int = Field(16, ge=1, description="rank of the adapter")
    lora_alpha: float = Field(32.0, gt=0, description="the adapter's product is scaled by lora_alpha / rank")
    lora_targets: Literal["all", "attention"] = Field("all", description="which projections get an adapter")
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
        description="whose word counts under the feedback: the initial model, a running average of the "
        "weights, today's model tied to the initial one, today's; none-negative: a control without feedback",
    )
    ema_rate: float | None = Field(None, gt=0, le=1, description="share of the new weights in the average")
    ema_rank: int | None = Field(None, ge=1, description="rank that the averaged product is kept at")
    trust_rate: float | None = Field(None, gt=0, lt=1, description="share of today's model in its log-probs")
    # beta-OPSD, arXiv 2607.28582: softmax((1 - w) z_base + w z_teacher)
    teacher_mix: float = Field(
        1.0, gt=0, le=1, description="share of the teacher in its mix with the base without feedback (logits)"
    )
    negative_advantage: float | None = Field(
        None, gt=0, description="none-negative: every failed token's advantage is minus this"
    )
    # -- what has helped before the first success
    # Sources: OPSD 2601.18734, SRPO 2604.02288, PW-OPSD 2605.21606, SDPG 2606.04036 (see loss.py)
    kl_clip: float | None = Field(None, gt=0, description="a token's divergence counts at most this, nats")
    entropy_weight: float = Field(0.0, ge=0, description="weight exp(-this x the teacher's entropy in nats)")
    position_ramp_tokens: int = Field(0, ge=0, description="weights grow linearly over this many tokens")
    reference_kl: float = Field(0.0, ge=0, description="weight of KL(student || base) as an anchor")
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
    min_entropy: float = Field(0.02, ge=0, description="collapse: entropy under this, nats a token")
    # -- memory
    chunk_positions: int = Field(256, ge=1, description="positions whose logits exist at the same time")
    microbatch_tokens: int = Field(4096, ge=1, description="tokens in one pass; halves itself when too many")
    checkpoint_tokens: int = Field(
        4096,
        ge=0,
        description="passes of more tokens than this recompute activations instead of keeping them",
    )
    base_kl_attempts: int = Field(4, ge=0, description="attempts a group that the KL to the base is taken of")

    @model_validator(mode="before")
    @classmethod
    def _fill_preset(cls, given: Any) -> Any:
        if isinstance(given, Mapping):
            preset = PRESETS.get(str(given.get("preset", "default")), {})
            kept = {name: value for name, value in preset.items() if _BELONGS.get(name) not in given}
            return {**kept, **given}
        return given

    @model_validator(mode="after")
    def _refuse_what_does_nothing(self) -> Options:
        for needed, (name, reason) in _conflicts(self):
            if needed:
                raise ValueError(f"{name} would do nothing: {reason}")
        return self

    @property
    def ema_rate_used(self) -> float:
        """Table 12: 0.01."""
        return 0.01 if self.ema_rate is None else self.ema_rate

    @property
    def ema_rank_used(self) -> int:
        """Rank of the averaged product: four adapters wide, which holds the error under 1e-3."""
        return 4 * self.lora_rank if self.ema_rank is None else self.ema_rank

    @property
    def trust_rate_used(self) -> float:
        return 0.01 if self.trust_rate is None else self.trust_rate

    @property
    def negative_advantage_used(self) -> float:
        return 1.0 if self.negative_advantage is None else self.negative_advantage


def _conflicts(o: Options) -> list[tuple[bool, tuple[str, str]]]:
    """Options set away from their default that nothing would read, each with the reason.

    Looks at values alone, never at which of them were given: what a run stores are its complete options,
    and those must be readable again.
    """
    said = {name for name, info in Options.model_fields.items() if getattr(o, name) != info.default}
    distils = o.teacher != "none-negative" and o.grpo_weight < 1
    by_reward = "no teacher is asked under teacher=none-negative or grpo_weight=1"
    return [
        (o.ema_rate is not None and o.teacher != "ema", ("ema_rate", "it belongs to teacher=ema")),
        (o.ema_rank is not None and o.teacher != "ema", ("ema_rank", "it belongs to teacher=ema")),
        (o.trust_rate is not None and o.teacher != "trust-region",
         ("trust_rate", "it belongs to teacher=trust-region")),
        (o.negative_advantage is not None and o.teacher != "none-negative",
         ("negative_advantage", "it belongs to teacher=none-negative")),
        (o.teacher == "none-negative" and o.grpo_weight > 0,
         ("grpo_weight", "teacher=none-negative has an advantage of its own")),
        ("top_k" in said and o.top_k is not None and o.granularity != "logit",
         ("top_k", f"granularity={o.granularity} keeps one token a position")),
        (not o.tail and (o.top_k is None or o.granularity != "logit"),
         ("tail", "it belongs to granularity=logit with a top_k")),
        ("advantage_clip" in said and o.advantage_clip is not None and o.alpha != 1,
         ("advantage_clip", "advantages are those of the reverse KL, alpha=1")),
        (o.granularity != "logit" and o.alpha != 1,
         ("alpha", f"granularity={o.granularity} uses advantages, which are those of alpha=1")),
        (o.reference_kl > 0 and o.granularity in ("sampled_token", "sequence"),
         ("reference_kl", f"granularity={o.granularity} keeps no tokens to take it of")),
        *((not distils and name in said, (name, by_reward))
          for name in ("alpha", "top_k", "tail", "granularity", "advantage_clip")),
        ("max_base_kl" in said and o.base_kl_attempts == 0,
         ("max_base_kl", "base_kl_attempts=0 measures none")),
        (o.kl_clip is not None and not distils, ("kl_clip", by_reward)),
        (o.kl_clip is not None and o.granularity != "logit",
         ("kl_clip", f"granularity={o.granularity} has no divergence")),
        (o.entropy_weight > 0 and not distils, ("entropy_weight", by_reward)),
        (o.position_ramp_tokens > 0 and not distils, ("position_ramp_tokens", by_reward)),
        (o.position_ramp_tokens == 1, ("position_ramp_tokens", "a ramp of one token is none")),
        (o.teacher_mix < 1 and not distils, ("teacher_mix", by_reward)),
        (o.replay > 0 and o.is_clip is None, ("is_clip", "replayed attempts need the importance clip")),
    ]  # fmt: skip
