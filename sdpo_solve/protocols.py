"""The interfaces of the parts of a run: sandbox, engine, learner, grader, method.

No behaviour: implementations are in the rooms, and `run/build.py` puts them together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from sdpo_solve.types import (
    Attempt,
    BoxInput,
    Example,
    Execution,
    Extracted,
    Limits,
    Policy,
    Problem,
    Program,
    Prompt,
    Sample,
    SamplingSpec,
    Update,
    Verdict,
)

if TYPE_CHECKING:
    import torch

StopAfter = Callable[[int, Execution], bool]
"""Called with (input index, its result), in input order; true means: the rest need not run."""

OnVerdict = Callable[[int, Verdict], None]
"""Called with (place in the group, its verdict) while a group is being graded."""

TokenProgress = Callable[[int, int], None]
"""Called with (tokens sampled so far, samples finished so far) while a group is being sampled."""


class Sandbox(Protocol):
    """Runs one program on inputs, each in a fresh process of a fresh box, and returns what came out.

    It never sees an expected output. Safe to call from several threads: each call takes a box of its own.
    """

    def run(
        self,
        program: Program,
        inputs: Sequence[BoxInput],
        limits: Limits,
        stop_after: StopAfter | None = None,
    ) -> list[Execution]:
        """One result an input, in order; NOT_RUN for those left out after `stop_after` said true.

        Raises SandboxError when the box (not the program) failed.
        """

    def identity(self) -> str:
        """What ran the programs, for the record: backend, image id, language versions."""

    def close(self) -> None:
        """Remove every box that is left. Safe to call twice."""


class Sampler(Protocol):
    """Turns prompts into samples."""

    def sample(
        self, prompts_G: Sequence[Prompt], seeds_G: Sequence[int], policy: Policy, spec: SamplingSpec
    ) -> list[Sample]:
        """One sample a prompt, in order, from exactly `policy`.

        Raises EngineError for an unknown policy or a prompt that leaves no room for an answer.
        """


class Engine(Sampler, Protocol):
    """A sampler that holds weights or processes."""

    def identity(self) -> str:
        """Engine and model, for the record."""

    def close(self) -> None:
        """Free weights and processes. Safe to call twice."""


@dataclass(frozen=True, slots=True)
class PolicyMix:
    """The causal LM with K policies side by side; `choose` sets which of them each row of a pass uses.

    `choose` takes a tensor of B policy numbers, and holds until it is called again.
    """

    model: Any
    choose: Callable[[torch.Tensor], None]


@runtime_checkable
class MixingEngine(Sampler, Protocol):
    """An engine whose samples of one call may come from different policies."""

    def sample(
        self, prompts_G: Sequence[Prompt], seeds_G: Sequence[int], policy: Policy, spec: SamplingSpec
    ) -> list[Sample]:
        """As `sample_mixed`, from one policy."""
        return self.sample_mixed(prompts_G, seeds_G, [policy] * len(prompts_G), spec)

    def sample_mixed(
        self,
        prompts_G: Sequence[Prompt],
        seeds_G: Sequence[int],
        policies_G: Sequence[Policy],
        spec: SamplingSpec,
    ) -> list[Sample]:
        """One sample a prompt, in order, each from exactly its policy.

        Raises EngineError as `sample` does.
        """


class PolicyHost(Protocol):
    """The base weights in this process with their adapters, shared by the learner and `engines/hf.py`."""

    @property
    def tokenizer(self) -> Any:
        """The Hugging Face tokenizer."""

    @property
    def device(self) -> torch.device: ...

    @property
    def context_tokens(self) -> int:
        """Tokens that prompt and answer may take together."""

    def policy_active(self, policy: Policy) -> AbstractContextManager[Any]:
        """The causal LM (logits as `model(...).logits`) with exactly that policy's weights, in eval mode.

        Raises EngineError where the policy is not held.
        """

    @property
    def can_mix(self) -> bool:
        """Whether rows of several policies can share a pass."""

    def policies_active(self, policies_K: Sequence[Policy]) -> AbstractContextManager[PolicyMix]:
        """The causal LM with the weights of several policies side by side, for sampling.

        Raises EngineError where one of them is not held.
        """


class Learner(Protocol):
    """Per-run LoRA updates. Independent of methods."""

    @property
    def rests(self) -> bool:
        """Whether no further update would change this run's policy."""

    def start(self, run: str, policies_dir: Path, seed: int) -> Policy:
        """A fresh adapter for one run; version 0 equals the base model."""

    def resume(self, run: str, policies_dir: Path, seed: int, version: int) -> Policy:
        """Back to the state after `version`, from `policies_dir`; later directories are orphans and go."""

    def learn(self, examples: Sequence[Example], spec: SamplingSpec) -> Update:
        """One step from the newest policy; the new version is on disk, whole, when this returns.

        Raises LearnerError for examples whose policy it cannot account for.
        """

    def keep(self, policy: Policy) -> None:
        """Never prune this version."""

    def close(self) -> None:
        """Free the adapters of this run; the files stay."""


class Grader(Protocol):
    """Finds the programs in answers, and gives verdicts on programs."""

    def extract(self, problem: Problem, sample: Sample) -> Extracted:
        """The program in a sample's answer."""

    def grade(
        self,
        problem: Problem,
        codes_G: Sequence[str | None],
        *,
        thorough: bool = False,
        on_verdict: OnVerdict | None = None,
    ) -> list[Verdict]:
        """One verdict a code; None stands for an answer without one.

        `thorough` runs every test; otherwise only what the verdict needs. `on_verdict` is called with each as
        soon as it is known, in any order and from other threads; again where an outage has it repeated.

        Raises SandboxError when a box failed again on retry.
        """


class Method(Protocol):
    """Three answers: how to start, what to sample next, what to learn."""

    @property
    def learns(self) -> bool:
        """Whether it ever makes an update."""

    def start(self, problem: Problem, resume_from: Policy | None) -> Policy:
        """The policy to sample from first; `resume_from` is the last committed one of a resumed run."""

    def propose(self, problem: Problem, history: Sequence[Attempt], n: int) -> list[Prompt]:
        """The prompts of the next group: at least one, at most `n`."""

    def policies(
        self, history: Sequence[Attempt], policy: Policy, prompts_G: Sequence[Prompt]
    ) -> list[Policy]:
        """The policy that each attempt of the group is sampled from; `policy` is the newest."""

    def learn(self, problem: Problem, history: Sequence[Attempt], group: Sequence[Attempt]) -> Update | None:
        """Learn from the group just graded, the last part of `history`; None where nothing is learned."""
