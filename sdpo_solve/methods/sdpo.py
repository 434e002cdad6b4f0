"""sdpo: LoRA steps towards the same model conditioned on the feedback, from attempts that failed.

Here are the prompts of a group (how many of which kind: `_schedule.py`), and of each attempt the teacher's
prompt and the reward. The loss, the teacher's weights and the optimizer are the learner's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from sdpo_solve.config import OptionsWithPresets
from sdpo_solve.errors import ConfigError
from sdpo_solve.learner.options import Options as LearnerOptions
from sdpo_solve.methods import MethodParts, MethodPlugin, _schedule
from sdpo_solve.methods._room import Room
from sdpo_solve.methods._shuffled import foreign_feedback
from sdpo_solve.methods.prompts import Prompter, is_question_alone
from sdpo_solve.protocols import Learner
from sdpo_solve.types import Attempt, Example, Policy, Problem, Prompt, SamplingSpec, Update

# Every group of one size and from the question alone, an update after each (arXiv 2601.20802, Algorithm 1).
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "paper": {
        "first_group": None,
        "feedback_share": 0.0,
        "feedback_floor": None,
        "learn_after": 0,
        "base_share": 0.0,
    },
}

_FIRST_GROUPS = {"constant": None, "doubling": 1}  # of `growth`, an option of an earlier version


class Options(OptionsWithPresets):
    """What is sampled, and what the teacher's prompt holds (arXiv 2601.20802, Tables 2 and 12: TTT)."""

    presets = PRESETS
    removed: ClassVar = {"reward": "solved", "feedback_attempts": 0, "told_attempts": 0}
    before_the_option: ClassVar = {**PRESETS["paper"], "preset": "paper"}

    preset: Literal["default", "paper"] = Field(
        "default", description="paper: the schedule of 2601.20802; other options given beside it win"
    )
    group_size: int = Field(16, ge=1, description="attempts sampled together at most (paper: 16)")
    first_group: int | None = Field(
        4,
        ge=1,
        description="attempts of the first group; the next are as large as all before, 4, 8 and so on up "
        "to group_size; none: group_size from the beginning",
    )
    # -- reading feedback
    feedback_share: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="share of a group that is sampled with the feedback of an earlier failure in the prompt, "
        "as the teacher has it",
    )
    feedback_floor: float | None = Field(
        0.25,
        gt=0,
        le=0.5,
        description="feedback_share follows which form passes more visible tests with new programs, and "
        "neither form gets less than this; none: it stays as it is",
    )
    feedback_window: int = Field(
        1,
        ge=1,
        description="every second of these attempts reads so many distinct texts of feedback, the newest, "
        "instead of one",
    )
    # -- learning
    learn_after: int = Field(
        32, ge=0, description="failures before the first update, which then learns from all of them at once"
    )
    base_share: float = Field(
        0.25, ge=0, lt=1, description="share of each group sampled from the base model once updates were made"
    )
    learn_from_feedback: bool = Field(
        False, description="learn from attempts that were sampled with feedback as well"
    )
    teacher: Literal["feedback", "solution", "both", "shuffled"] = Field(
        "feedback",
        description="what the teacher's prompt holds; a solution exists after a success only; shuffled: a "
        "control, the feedback of another problem",
    )
    attempt_in_prompt: bool = Field(
        False, description="paste the failed program into the teacher's prompt (an ablation; harmful)"
    )

    @classmethod
    def current(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """As of all options, and `growth` as the first group that it stood for."""
        current = super().current(given)
        growth = current.pop("growth", None)
        if growth is None:
            return current
        return {
            "first_group": _FIRST_GROUPS.get(growth, growth) if isinstance(growth, str) else growth,
            **current,
        }


@dataclass(frozen=True, slots=True)
class Sdpo(MethodPlugin):
    """Self-distillation policy optimisation at test time (arXiv 2601.20802, section 5)."""

    prompter: Prompter
    spec: SamplingSpec
    run: str
    policies_dir: Path
    seed: int
    options: Options
    learner: Learner | None
    room: Room = field(default_factory=Room)

    options_type = Options
    learns = True
    learning_options = frozenset(
        {"teacher", "attempt_in_prompt", "learn_after", "base_share", "learn_from_feedback"}
    )

    @classmethod
    def first_update_after(cls, options: Options) -> int:
        """Whole groups, until there are `learn_after` failures."""
        n = 0
        while not n or n < options.learn_after:
            n += _schedule.group_size(n, options.first_group, options.group_size)
        return n

    @classmethod
    def check(cls, options: Options, learner: LearnerOptions, *, stops_at_first: bool) -> None:
        """Refuse what could never act: raises ConfigError naming the option and the reason."""
        for name in ("feedback_floor", "feedback_window", "learn_from_feedback"):
            is_set = getattr(options, name) not in (None, Options.model_fields[name].default)
            _refuse_where(
                is_set and not options.feedback_share,
                f"sdpo.{name} would do nothing without sdpo.feedback_share",
            )
        _refuse_where(
            stops_at_first and options.teacher in ("solution", "both"),
            f"sdpo.teacher={options.teacher} needs a success to show, and the run stops at the first one; "
            "add --keep-going",
        )
        _refuse_where(
            stops_at_first and learner.grpo_weight > 0,
            "learner.grpo_weight compares rewards, and all are 0 until the success that ends the run; "
            "add --keep-going",
        )
        if not learner.has_teacher:
            idle = "learner.grpo_weight=1"
            if learner.is_without_feedback:
                idle = f"learner.teacher={learner.teacher}"
            for name in ("teacher", "attempt_in_prompt"):
                unused = getattr(options, name) != Options.model_fields[name].default
                _refuse_where(unused, f"sdpo.{name} would do nothing: there is no teacher under {idle}")

    @classmethod
    def build(cls, options: Options, parts: MethodParts) -> Sdpo:
        return cls(
            *(parts.prompter, parts.spec, parts.run, parts.policies_dir, parts.seed, options, parts.learner),
            Room(parts.count_tokens, parts.context_tokens, parts.spec.max_tokens),
        )

    def start(self, problem: Problem, resume_from: Policy | None) -> Policy:
        if self.learner is None:
            return Policy(self.run, 0)
        if resume_from is None:
            return self.learner.start(self.run, self.policies_dir, self.seed)
        return self.learner.resume(self.run, self.policies_dir, self.seed, resume_from.version)

    def propose(self, problem: Problem, history: Sequence[Attempt], n: int) -> list[Prompt]:
        """Prompts of the question alone, then those with feedback: distinct texts, the newest first.

        A text that leaves no room for an answer is passed over.
        """
        size = min(n, _schedule.group_size(len(history), self.options.first_group, self.options.group_size))
        n_with = self._n_with_feedback(history, size)
        with_feedback = self._with_feedback(problem, history, n_with) if n_with else []
        return [self.prompter.student(problem)] * (size - len(with_feedback)) + with_feedback

    def _with_feedback(self, problem: Problem, history: Sequence[Attempt], n: int) -> list[Prompt]:
        """`n` prompts with earlier feedback; none where no text of it fits."""
        limit = self.room.for_feedback(self.prompter, problem)
        distinct = dict.fromkeys(a.feedback for a in reversed(history) if not a.verdict.solved)
        n_window = self.options.feedback_window
        texts = list(islice(self.room.that_fit(distinct, limit), max(n, n_window)))
        if not texts:
            return []
        window = self.room.first_together(texts[:n_window], limit)
        prompts = []
        for i in range(n):
            if len(window) > 1 and i % 2:
                prompts.append(self.prompter.multi_turn(problem, window[::-1]))
            else:
                which = i // 2 if n_window > 1 else i
                prompts.append(self.prompter.teacher(problem, feedback=texts[which % len(texts)]))
        return prompts

    def _n_with_feedback(self, history: Sequence[Attempt], size: int) -> int:
        start, floor = self.options.feedback_share, self.options.feedback_floor
        return _schedule.split(_schedule.feedback_share(history, start, floor), size) if start else 0

    def policies(
        self, history: Sequence[Attempt], policy: Policy, prompts_G: Sequence[Prompt]
    ) -> list[Policy]:
        """The base model for every k-th attempt of the group, so that it gets its share of both forms.

        The first attempt, from the question alone, is the newest policy's: there is something to learn from.
        """
        size = len(prompts_G)
        n_base = min(_schedule.split(self.options.base_share, size), size - 1) if policy.version else 0
        base = {1 + int((i + 0.5) * (size - 1) / n_base) for i in range(n_base)}
        return [Policy(self.run, 0) if g in base else policy for g in range(size)]

    def learn(self, problem: Problem, history: Sequence[Attempt], group: Sequence[Attempt]) -> Update | None:
        """One step over what the newest policy answered to the question alone in this group.

        The first step is over all groups until then. None where there is nothing to learn from, too few
        failures, or no weights.
        """
        if self.learner is None:
            return None
        first = next((attempt for attempt in history if attempt.verdict.solved), None)
        if first is not None and first in group:
            self.learner.keep(first.sample.policy)
        n_failed = sum(not attempt.verdict.solved for attempt in history)
        if n_failed < self.options.learn_after or self.learner.rests:
            return None
        n_failed_before = n_failed - sum(not attempt.verdict.solved for attempt in group)
        fresh = history if n_failed_before < self.options.learn_after else group
        newest = max(attempt.sample.policy.version for attempt in fresh)
        examples = [
            self.example(problem, attempt, history)
            for attempt in fresh
            if attempt.sample.policy.version == newest
            and (is_question_alone(attempt.sample.prompt) or self.options.learn_from_feedback)
        ]
        return self.learner.learn(examples, self.spec) if examples else None

    def example(self, problem: Problem, attempt: Attempt, history: Sequence[Attempt]) -> Example:
        """The attempt with its teacher's prompt, None where that would hold nothing new.

        The solution that is shown is the first success in `history`. An attempt's own text is never shown to
        it; the reference code leaves it out as well.
        """
        solved = attempt.verdict.solved
        solution = None
        if self.options.teacher in ("solution", "both"):
            first = next((a for a in history if a.verdict.solved), None)
            solution = first.code if first is not None and first is not attempt else None
        feedback = None if solved else self._feedback(problem, attempt)
        prompt = None
        if solution is not None or feedback is not None:
            failed = attempt.code if self.options.attempt_in_prompt and not solved else None
            prompt = self.prompter.teacher(problem, feedback=feedback, solution=solution, attempt=failed)
        return Example(attempt.sample, prompt, float(solved))

    def _feedback(self, problem: Problem, attempt: Attempt) -> str | None:
        """The feedback in the teacher's prompt of a failed attempt."""
        if self.options.teacher == "solution":
            return None
        if self.options.teacher == "shuffled":
            return foreign_feedback(problem.id, self.seed, attempt.index)
        return attempt.feedback


def _refuse_where(holds: object, reason: str) -> None:
    if holds:
        raise ConfigError(reason)


PLUGIN = Sdpo
