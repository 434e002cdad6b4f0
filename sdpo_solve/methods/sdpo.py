"""sdpo: after every group one LoRA step towards the same model conditioned on the feedback.

Here are the prompts of a group, and of each attempt the teacher's prompt and the reward. The loss, the
teacher's weights and the optimizer are the learner's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from sdpo_solve.config import Options as BaseOptions
from sdpo_solve.errors import ConfigError
from sdpo_solve.learner.options import Options as LearnerOptions
from sdpo_solve.methods import MethodParts, MethodPlugin
from sdpo_solve.methods._shuffled import foreign_feedback
from sdpo_solve.methods.prompts import Prompter
from sdpo_solve.protocols import Learner
from sdpo_solve.types import Attempt, Example, Policy, Problem, Prompt, SamplingSpec, Status, Update, Verdict


class Options(BaseOptions):
    """What is sampled, and what the teacher's prompt holds (arXiv 2601.20802, Tables 2 and 12: TTT)."""

    renamed: ClassVar = {"told_attempts": "feedback_attempts"}

    group_size: int = Field(16, ge=1, description="attempts sampled between two updates (paper: 16)")
    teacher: Literal["feedback", "solution", "both", "shuffled"] = Field(
        "feedback",
        description="what the teacher's prompt holds; a solution exists after a success only; shuffled: a "
        "control, the feedback of another problem",
    )
    feedback_attempts: int = Field(
        0,
        ge=0,
        description="attempts of a group that are sampled with the feedback of an earlier failure in the "
        "prompt, as the teacher has it; they count as any attempt and nothing is learned from them",
    )
    attempt_in_prompt: bool = Field(
        False, description="paste the failed program into the teacher's prompt (an ablation; harmful)"
    )
    reward: Literal["solved", "visible-share"] = Field(
        "solved",
        description="1 for a success, else 0; visible-share: else the share of visible tests passed, which "
        "is GAMEABLE: a program that knows the quoted answers earns it",
    )


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

    options_type = Options
    learns = True
    learning_options = frozenset({"teacher", "attempt_in_prompt", "reward"})

    @classmethod
    def check(cls, options: Options, learner: LearnerOptions, *, stops_at_first: bool) -> None:
        """Refuse what could never act: raises ConfigError naming the option and the reason."""
        if options.feedback_attempts >= options.group_size:
            raise ConfigError(
                f"sdpo.feedback_attempts={options.feedback_attempts} leaves none of {options.group_size} "
                "attempts to learn from; choose fewer"
            )
        before_success = not stops_at_first or options.reward == "visible-share"
        way_out = "add --keep-going, or sdpo.reward=visible-share (gameable)"
        if options.teacher in ("solution", "both") and not before_success:
            raise ConfigError(
                f"sdpo.teacher={options.teacher} needs a success to show, and the run stops at the first "
                f"one; {way_out}"
            )
        if learner.grpo_weight > 0 and not before_success:
            raise ConfigError(
                "learner.grpo_weight compares rewards, and all are 0 until the success that ends the run; "
                f"{way_out}"
            )
        if learner.teacher == "none-negative" or learner.grpo_weight == 1:
            idle = "learner.teacher=none-negative" if learner.grpo_weight < 1 else "learner.grpo_weight=1"
            for name in ("teacher", "attempt_in_prompt"):
                if getattr(options, name) != Options.model_fields[name].default:
                    raise ConfigError(f"sdpo.{name} would do nothing: there is no teacher under {idle}")
        reads_reward = options.teacher in ("solution", "both") or learner.grpo_weight > 0
        if (
            options.reward == "visible-share"
            and not reads_reward
            and learner.on_collapse in ("freeze", "ignore")
        ):
            raise ConfigError(
                "sdpo.reward=visible-share would do nothing: it belongs to sdpo.teacher=solution or both, to "
                "learner.grpo_weight, and to the choice of the version that a roll-back goes to"
            )

    @classmethod
    def build(cls, options: Options, parts: MethodParts) -> Sdpo:
        return cls(
            parts.prompter, parts.spec, parts.run, parts.policies_dir, parts.seed, options, parts.learner
        )

    def start(self, problem: Problem, resume_from: Policy | None) -> Policy:
        """Raises ConfigError where the reward counts visible tests and there are none."""
        if self.options.reward == "visible-share" and not any(test.visible for test in problem.tests):
            raise ConfigError(
                f"{problem.id} has no visible tests; sdpo.reward=visible-share would do nothing"
            )
        if self.learner is None:
            return Policy(self.run, 0)
        if resume_from is None:
            return self.learner.start(self.run, self.policies_dir, self.seed)
        return self.learner.resume(self.run, self.policies_dir, self.seed, resume_from.version)

    def propose(self, problem: Problem, history: Sequence[Attempt], n: int) -> list[Prompt]:
        """The question as it is, then (once something has failed) the told ones, newest feedback first."""
        size = min(n, self.options.group_size)
        said = dict.fromkeys(a.feedback for a in reversed(history) if not a.verdict.solved)
        told = [self.prompter.teacher(problem, feedback=text) for text in said]
        n_told = min(self.options.feedback_attempts, size - 1) if told else 0
        asked = [told[i % len(told)] for i in range(n_told)]
        return [self.prompter.student(problem)] * (size - n_told) + asked

    def learn(self, problem: Problem, history: Sequence[Attempt], group: Sequence[Attempt]) -> Update | None:
        """One step over the group's attempts at the plain question; None where there are no weights."""
        if self.learner is None:
            return None
        first = next((attempt for attempt in history if attempt.verdict.solved), None)
        if first is not None and first in group:
            self.learner.keep(first.sample.policy)
        question = self.prompter.student(problem)
        own = [attempt for attempt in group if attempt.sample.prompt == question]
        return self.learner.learn([self.example(problem, attempt, history) for attempt in own], self.spec)

    def example(self, problem: Problem, attempt: Attempt, history: Sequence[Attempt]) -> Example:
        """The attempt with its teacher's prompt, None where that would hold nothing new.

        The solution that is shown is the first success in `history`. An attempt's own text is never shown to
        it; the reference code leaves it out as well. Before the first success the reward
        `visible-share` shows the program that earned most, where that is more than the attempt itself did.
        """
        solved = attempt.verdict.solved
        solution = partial = None
        if self.options.teacher in ("solution", "both"):
            first = next((a for a in history if a.verdict.solved), None)
            solution = first.code if first is not None and first is not attempt else None
            partial = self._partial(attempt, history) if first is None else None
        feedback = None if solved else self._feedback(problem, attempt)
        prompt = None
        if solution is not None or partial is not None or feedback is not None:
            failed = attempt.code if self.options.attempt_in_prompt and not solved else None
            prompt = self.prompter.teacher(
                problem, feedback=feedback, solution=solution, attempt=failed, partial=partial
            )
        return Example(attempt.sample, prompt, reward(attempt.verdict, self.options))

    def _feedback(self, problem: Problem, attempt: Attempt) -> str | None:
        """The feedback in the teacher's prompt of a failed attempt."""
        if self.options.teacher == "solution":
            return None
        if self.options.teacher == "shuffled":
            return foreign_feedback(problem.id, self.seed, attempt.index)
        return attempt.feedback

    def _partial(self, attempt: Attempt, history: Sequence[Attempt]) -> str | None:
        """The program of the attempt that earned most, the earliest of equals, if that beats `attempt`."""
        best = max(history, key=lambda a: (reward(a.verdict, self.options), -a.index))
        more = reward(best.verdict, self.options) > reward(attempt.verdict, self.options)
        return best.code if more else None


def reward(verdict: Verdict, options: Options) -> float:
    """1 for a success. Else 0, or by `visible-share` p / (n + 1) for p of n visible tests passed: the whole
    reward is left to a success, so that a program which fails hidden tests only still falls short of it."""
    if verdict.solved or options.reward == "solved":
        return float(verdict.solved)
    visible = [case.status is Status.ACCEPTED for case in verdict.cases if case.visible]
    return sum(visible) / (len(visible) + 1)


PLUGIN = Sdpo
