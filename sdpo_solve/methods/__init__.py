"""Methods: how to start, what to sample next, what to learn.

May import `learner`, `sandboxes`, `model` and the ground. Read `prompts.py` (every prompt of a run), then
`sdpo.py`; `best_of_k.py` and `multi_turn.py` are the baselines.

A method is one file: its `Options`, a class below `MethodPlugin` and `PLUGIN = TheClass`. The module's
name, with `-` for `_`, is the option name. This file holds what every method is built from, and
no method but those that other rooms default to.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sdpo_solve.config import Options
from sdpo_solve.methods.prompts import Prompter
from sdpo_solve.protocols import Learner, Method
from sdpo_solve.registry import Registry
from sdpo_solve.types import Attempt, Example, Policy, Problem, Prompt, SamplingSpec, Update

PLAIN_SAMPLING = "best-of-k"
"""The method whose attempts are independent samples of the base: what is used where nothing is searched."""
PAPER_ARMS = ("sdpo", PLAIN_SAMPLING, "multi-turn")
"""What arXiv 2601.20802 compares on hard problems."""


@dataclass(frozen=True, slots=True)
class MethodParts:
    """What a method may be built from."""

    prompter: Prompter
    spec: SamplingSpec
    run: str
    """The name of the run, part of every policy's key."""
    policies_dir: Path
    seed: int
    learner: Learner | None
    """None where the method does not learn, or the engine samples from no weights (scripted replies)."""
    count_tokens: Callable[[str], int]
    context_tokens: int
    """Tokens that prompt and answer may take together."""


class MethodPlugin(Method, ABC):
    """Base of the methods that `REGISTRY` hands out, with the facts that other rooms ask for."""

    options_type: ClassVar[type[Options]]
    """The options of the method: its part of `--set` and of a batch file."""
    learns: ClassVar[bool] = False
    """Whether it makes updates; the part `learner` belongs to its runs then."""
    learning_options: ClassVar[frozenset[str]] = frozenset()
    """Its options that nothing but an update reads."""
    independent: ClassVar[bool] = False
    """Whether the attempts of a run are independent draws from one policy, as pass@k assumes."""

    @classmethod
    def samples_groups(cls) -> bool:
        """Whether `--group-size` means something to it."""
        return "group_size" in cls.options_type.model_fields

    @classmethod
    def first_update_after(cls, options: Any) -> int:
        """Of a run without a success the attempts before the first update, where it makes any."""
        return int(getattr(options, "group_size", 1))

    @classmethod
    def check(cls, options: Any, learner: Any, *, stops_at_first: bool) -> None:
        """Raise ConfigError for options that could never act, or not together.

        `options` is of `options_type`; `learner` of the learner's, None where the method does not learn.
        """

    @classmethod
    @abstractmethod
    def build(cls, options: Any, parts: MethodParts) -> MethodPlugin:
        """The method of one run; `options` is of `options_type`."""

    def policies(
        self, history: Sequence[Attempt], policy: Policy, prompts_G: Sequence[Prompt]
    ) -> list[Policy]:
        """The newest policy for all of them."""
        return [policy] * len(prompts_G)

    def example(self, problem: Problem, attempt: Attempt, history: Sequence[Attempt]) -> Example:
        """The attempt as the learner sees it, for `learn` and for `explain`.

        Without a teacher, unless a method overrides it: one that learns does.
        """
        return Example(attempt.sample, None, float(attempt.verdict.solved))

    def learn(self, problem: Problem, history: Sequence[Attempt], group: Sequence[Attempt]) -> Update | None:
        """Nothing: overridden by methods that learn."""
        return None


REGISTRY: Registry[type[MethodPlugin]] = Registry("method", __name__, frozenset({"prompts"}))
