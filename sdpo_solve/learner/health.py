"""Rules of health: vital figures of each group, and what follows when a policy has collapsed.

Collapse is the usual failure of learning at test time: answers grow, repeat, lose their variety, or leave the
base model far behind. The rules look at the group that a version sampled, before the next step is taken, so
that a collapsed version is never learned from. Plain numbers in, decisions out; no tensors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sdpo_solve.learner.options import Options
from sdpo_solve.types import Example, Finish

_NGRAM = 8
_MAX_ROLLBACKS = 3
_IDLE_GROUPS = 3

Action = Literal["step", "rollback", "freeze", "restart", "rest"]
"""What to do with a group; `rest`: learning has ended earlier."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, and where that is no ordinary step, a notice for the journal.

    `version`: the one to roll back to. `ignored`: a collapse was seen, and the options say to go on.
    """

    action: Action
    notice: str = ""
    version: int = 0
    ignored: bool = False


@dataclass(slots=True)
class Health:
    """What the rules remember of a run; `facts` are its fields as JSON data, for a resume."""

    first_length_tokens: float = 0.0
    best_version: int = 0
    best_reward: float = -1.0
    n_rollbacks: int = 0
    n_idle: int = 0
    frozen: bool = False
    is_gap_known: bool = False
    """A step was taken, or refused, by how far the teacher was (`Options.min_gap`): once a run."""
    is_near: bool = False
    """The teacher had nothing to say then."""

    @property
    def rests(self) -> bool:
        """Whether no further update is made."""
        return self.frozen or self.is_near

    def facts(self) -> dict[str, Any]:
        return asdict(self)

    def decide(self, version: int, vitals: Mapping[str, float], options: Options) -> Decision:
        """What follows for the group that `version` sampled, with the group's `vitals`."""
        if not self.first_length_tokens:
            self.first_length_tokens = vitals["mean_length_tokens"]
        if self.rests:
            return Decision("rest")
        reason = self.collapse(vitals, options)
        if not reason or version == 0:  # the base model is what it is
            if vitals["mean_reward"] >= self.best_reward:
                self.best_version, self.best_reward = version, vitals["mean_reward"]
            return Decision("step")
        if options.on_collapse == "ignore":
            notice = f"version {version} looks collapsed ({reason}); going on, by learner.on_collapse"
            return Decision("step", notice, ignored=True)
        if options.on_collapse == "freeze":
            self.frozen = True
            return Decision("freeze", f"version {version} collapsed ({reason}); no more updates")
        self.n_rollbacks += 1
        if self.n_rollbacks > _MAX_ROLLBACKS:
            self.frozen = True
            return Decision(
                "rollback",
                f"version {version} collapsed ({reason}), the {self.n_rollbacks}th time: back to version "
                f"{self.best_version}, no more updates",
                self.best_version,
            )
        if options.on_collapse == "restart":
            return Decision(
                "restart", f"version {version} collapsed ({reason}); starting again from the base"
            )
        return Decision(
            "rollback",
            f"version {version} collapsed ({reason}); back to version {self.best_version}",
            self.best_version,
        )

    def collapse(self, vitals: Mapping[str, float], options: Options) -> str:
        """Why these vitals are those of a collapsed policy; empty where they are not."""
        longest = options.max_length_ratio * self.first_length_tokens
        rules = [
            ("answers of", vitals["mean_length_tokens"], longest, "tokens"),
            ("repetition", vitals["repetition"], options.max_repetition, ""),
            ("KL to the base", vitals.get("kl_to_base", 0.0), options.max_base_kl, "nats"),
        ]
        for what, value, limit, unit in rules:
            if value > limit:
                return f"{what} {value:.3g} {unit}".strip() + f", limit {limit:.3g}"
        if vitals["entropy_sampled"] < options.min_entropy:
            return f"entropy {vitals['entropy_sampled']:.3g} nats, limit {options.min_entropy:.3g}"
        return ""

    def check_gap(self, divergence: float, options: Options) -> str:
        """Why learning ends before it has begun; empty where it goes on.

        `divergence`: KL(student || teacher) of the first step over examples with a teacher, nats a token.
        """
        if self.is_gap_known:
            return ""
        self.is_gap_known, self.is_near = True, divergence < options.min_gap
        if not self.is_near:
            return ""
        return (
            "no updates: with the feedback the model says nearly what it says without "
            f"({divergence:.3f} nats a token, learner.min_gap={options.min_gap:g})"
        )

    def check_step(self, norm: float, logprob_gap: float, max_gap: float, options: Options) -> str:
        """Why a step must not be taken; empty where it may.

        `logprob_gap`: mean |log-prob of the learner - of the sampler|, nats a token; `max_gap`: its limit.
        """
        if logprob_gap > max_gap:
            return (
                f"update skipped: sampler and learner differ by {logprob_gap:.3g} nats a token, limit "
                f"{max_gap:.3g}; what is sampled is not what is learned"
            )
        if not math.isfinite(norm):
            return "update skipped: the gradient is not finite"
        if norm > options.max_grad_norm:
            return f"update skipped: gradient norm {norm:.3g}, limit {options.max_grad_norm:.3g}"
        return ""

    def note_examples(self, n_examples: int, counts: Mapping[str, float]) -> str:
        """A sentence when nothing could be learned for some groups in a row.

        `counts`: of the newest group, as `examples.py` counts why an attempt taught nothing.
        """
        self.n_idle = 0 if n_examples else self.n_idle + 1
        if self.n_idle and self.n_idle % _IDLE_GROUPS == 0:
            return (
                f"nothing could be learned for {self.n_idle} groups; attempts of the last: {why_idle(counts)}"
            )
        return ""


def why_idle(counts: Mapping[str, float]) -> str:
    """Why attempts taught nothing, the commonest reason first: "3 empty, 1 without a teacher"."""
    too_long = counts.get("n_teacher_too_long", 0)
    reasons = {
        "empty": counts.get("n_empty", 0),
        "without a teacher": counts.get("n_without_teacher", 0) - too_long,
        "with a teacher's prompt that is too long": too_long,
        "without an advantage in reward": counts.get("n_without_advantage", 0),
    }
    common = sorted(reasons.items(), key=lambda item: -item[1])
    return ", ".join(f"{n:.0f} {reason}" for reason, n in common if n)


def group_vitals(examples: Sequence[Example]) -> dict[str, float]:
    """Figures of a group's samples. Entropy: nats a token, from the sampled log-probs."""
    samples = [example.sample for example in examples]
    n_tokens = sum(len(sample.token_ids_T) for sample in samples)
    return {
        "mean_length_tokens": n_tokens / max(1, len(samples)),
        "truncated_share": _mean([sample.finish is Finish.LENGTH for sample in samples]),
        "repetition": _mean([repetition(sample.token_ids_T) for sample in samples]),
        "distinct_share": len({sample.text.strip() for sample in samples}) / max(1, len(samples)),
        "entropy_sampled": -sum(sum(sample.logprobs_T) for sample in samples) / max(1, n_tokens),
        "mean_reward": _mean([example.reward for example in examples]),
    }


def repetition(token_ids_T: Sequence[int]) -> float:
    """The share of 8-grams that occurred before in the same answer; 0 for answers too short to have two."""
    n = len(token_ids_T) - _NGRAM + 1
    if n < 2:
        return 0.0
    return 1 - len({tuple(token_ids_T[i : i + _NGRAM]) for i in range(n)}) / n


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(1, len(values))
