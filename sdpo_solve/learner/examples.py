"""From a group's examples to token ids: which attempts teach something, and earlier ones drawn again.

Renders the teacher's prompts to ids, counts who had no teacher and why, and turns rewards into advantages.
Runs no model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from sdpo_solve.learner.options import Options
from sdpo_solve.learner.packing import PromptCompletion
from sdpo_solve.types import Example, Finish, Message, Policy, Prompt, Sample

_MAX_REMEMBERED = 256

Encode = Callable[[Prompt], Sequence[int]]


@dataclass(frozen=True, slots=True)
class TokenizedExample:
    """One attempt to learn from, as token ids. `teacher` is None where only its reward counts.

    `advantage`: what the reward says of all its tokens; only the hybrid with GRPO reads it.
    """

    student: PromptCompletion
    teacher: PromptCompletion | None
    old_logprobs_T: tuple[float, ...]
    advantage: float = 0.0

    @classmethod
    def of(cls, example: Example, advantage: float = 0.0) -> TokenizedExample:
        """The student's side alone."""
        sample = example.sample
        student = PromptCompletion(sample.prompt_ids, sample.token_ids_T)
        return cls(student, None, sample.logprobs_T, advantage)


@dataclass(frozen=True, slots=True)
class TokenizedGroup:
    """The examples of one step that teach something, and counts of why others do not."""

    examples: list[TokenizedExample]
    metrics: dict[str, float]

    @property
    def n_tokens(self) -> int:
        return sum(example.student.n_targets for example in self.examples)


def tokenize(
    group: Sequence[Example],
    replayed: Sequence[Example],
    options: Options,
    *,
    encode: Encode,
    context_tokens: int,
) -> TokenizedGroup:
    """The group's examples, then the replayed ones.

    An attempt without tokens teaches nothing; one without a teacher (it solved the problem, or its teacher's
    prompt leaves no room for its tokens) only by its reward, where the options weigh rewards.
    """
    counts = {"n_empty": 0.0, "n_without_teacher": 0.0, "n_teacher_too_long": 0.0}
    advantages = reward_advantages(group, options) + reward_advantages(replayed, options)
    if not options.has_teacher:
        counts["n_without_advantage"] = 0.0
    ids: dict[Prompt, tuple[int, ...]] = {}
    examples = []
    for example, advantage in zip([*group, *replayed], advantages, strict=True):
        plain = TokenizedExample.of(example, advantage)
        completion_ids_T = plain.student.completion_ids_T
        if not completion_ids_T:
            counts["n_empty"] += 1
            continue
        if not options.has_teacher:
            if advantage:
                examples.append(plain)
            else:
                counts["n_without_advantage"] += 1
            continue
        prompt = example.teacher_prompt
        if prompt is not None:
            ids.setdefault(prompt, tuple(encode(prompt)))
            if len(ids[prompt]) + len(completion_ids_T) > context_tokens:
                counts["n_teacher_too_long"] += 1
                prompt = None
        if prompt is not None:
            teacher = PromptCompletion(ids[prompt], completion_ids_T)
            examples.append(TokenizedExample(plain.student, teacher, plain.old_logprobs_T, advantage))
            continue
        counts["n_without_teacher"] += 1
        if options.grpo_weight and advantage:
            examples.append(plain)
    if replayed:
        counts["n_replayed"] = float(len(replayed))
    return TokenizedGroup(examples, counts)


def reward_advantages(examples: Sequence[Example], options: Options) -> list[float]:
    """r_i - mean r (2601.20802, eq. 3). The controls without feedback have constants instead.

    Minus one, or what the option says, on failed attempts; or one on all of them: the loss of fine-tuning on
    the model's own answers, right or wrong (arXiv 2604.01193).
    """
    if options.teacher == "own-answers":
        return [1.0] * len(examples)
    if options.is_without_feedback:
        return [-(options.negative_advantage or 1.0) if e.reward < 1 else 0.0 for e in examples]
    mean = sum(example.reward for example in examples) / max(1, len(examples))
    return [example.reward - mean for example in examples]


@dataclass(slots=True)
class Replay:
    """Earlier attempts of the run, newest last; today's teacher scores them when they are drawn."""

    examples: list[Example] = field(default_factory=list)

    def draw(self, n: int, generator: torch.Generator) -> list[Example]:
        """`n` distinct earlier attempts at random, fewer where there are not so many."""
        if not n or not self.examples:
            return []
        order = torch.randperm(len(self.examples), generator=generator)[:n].tolist()
        return [self.examples[i] for i in order]

    def add(self, examples: Sequence[Example]) -> None:
        self.examples = [*self.examples, *(e for e in examples if e.teacher_prompt)][-_MAX_REMEMBERED:]

    def facts(self) -> list[dict[str, Any]]:
        """JSON data that `from_facts` reads back; texts of answers are not needed."""
        return [_to_facts(example) for example in self.examples]

    @classmethod
    def from_facts(cls, facts: Sequence[Mapping[str, Any]]) -> Replay:
        return cls([_from_facts(fact) for fact in facts])


def _to_facts(example: Example) -> dict[str, Any]:
    sample, teacher = example.sample, example.teacher_prompt
    return {
        "prompt_ids": list(sample.prompt_ids),
        "token_ids": list(sample.token_ids_T),
        "logprobs": list(sample.logprobs_T),
        "finish": sample.finish.value,
        "run": sample.policy.run,
        "version": sample.policy.version,
        "teacher": None if teacher is None else asdict(teacher),
        "reward": example.reward,
    }


def _from_facts(fact: Mapping[str, Any]) -> Example:
    teacher = None
    if fact["teacher"] is not None:
        turns = tuple(Message(**turn) for turn in fact["teacher"]["messages"])
        teacher = Prompt(turns, fact["teacher"]["thinking"])
    sample = Sample(
        Prompt(()),
        tuple(fact["prompt_ids"]),
        tuple(fact["token_ids"]),
        tuple(fact["logprobs"]),
        "",
        Finish(fact["finish"]),
        Policy(fact["run"], fact["version"]),
    )
    return Example(sample, teacher, fact["reward"])
