"""best-of-k: independent samples from the base model. Learns nothing and remembers nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from sdpo_solve.config import Options as BaseOptions
from sdpo_solve.methods import MethodParts, MethodPlugin
from sdpo_solve.methods.prompts import Prompter
from sdpo_solve.types import Attempt, Policy, Problem, Prompt


class Options(BaseOptions):
    """best-of-k has one choice: how many attempts are sampled at a time."""

    group_size: int = Field(16, ge=1, description="attempts sampled together; changes speed, not results")


@dataclass(frozen=True, slots=True)
class BestOfK(MethodPlugin):
    """The baseline whose discovery@k equals pass@k (arXiv 2601.20802, section 5)."""

    prompter: Prompter
    run: str
    options: Options

    options_type = Options
    independent = True

    @classmethod
    def build(cls, options: Options, parts: MethodParts) -> BestOfK:
        return cls(parts.prompter, parts.run, options)

    def start(self, problem: Problem, resume_from: Policy | None) -> Policy:
        return Policy(self.run, 0)

    def propose(self, problem: Problem, history: Sequence[Attempt], n: int) -> list[Prompt]:
        return [self.prompter.student(problem)] * min(n, self.options.group_size)


PLUGIN = BestOfK
