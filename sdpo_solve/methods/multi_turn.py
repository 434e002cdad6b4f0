"""multi-turn: one attempt after the other, the prompt holding the feedback of the earlier ones.

Learns nothing. The window is first in, first out: the oldest turns go when their tokens no longer fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from sdpo_solve.config import Options as BaseOptions
from sdpo_solve.methods import MethodParts, MethodPlugin
from sdpo_solve.methods._room import Room
from sdpo_solve.methods.prompts import Prompter
from sdpo_solve.types import Attempt, Policy, Problem, Prompt


class Options(BaseOptions):
    """What a turn holds, and how much of them is kept. There is no group: each turn needs the one before."""

    window_tokens: int = Field(
        32768,
        ge=1,
        description="tokens of earlier turns kept (paper: 32k); at most what question and --max-tokens leave "
        "of the context, or a quarter of what the question leaves; with --engine openai three bytes are one",
    )
    attempts: bool = Field(False, description="keep the programs too; clearly worse in the paper")


@dataclass(frozen=True, slots=True)
class MultiTurn(MethodPlugin):
    """The sequential baseline (arXiv 2601.20802, section 5, baselines)."""

    prompter: Prompter
    run: str
    options: Options
    room: Room

    options_type = Options

    @classmethod
    def build(cls, options: Options, parts: MethodParts) -> MultiTurn:
        room = Room(parts.count_tokens, parts.context_tokens, parts.spec.max_tokens)
        return cls(parts.prompter, parts.run, options, room)

    def start(self, problem: Problem, resume_from: Policy | None) -> Policy:
        return Policy(self.run, 0)

    def propose(self, problem: Problem, history: Sequence[Attempt], n: int) -> list[Prompt]:
        return [self.prompter.multi_turn(problem, self.window(problem, history))]

    def window(self, problem: Problem, history: Sequence[Attempt]) -> list[str]:
        """The newest turns that fit into the window, oldest first."""
        limit = min(self.options.window_tokens, self.room.for_feedback(self.prompter, problem))
        turns = (
            self.prompter.turn(attempt.feedback, attempt.code if self.options.attempts else None)
            for attempt in reversed(history)
        )
        return self.room.first_together(turns, limit)[::-1]


PLUGIN = MultiTurn
