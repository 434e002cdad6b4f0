"""The room for feedback in a prompt: what the model's context leaves beside the question and an answer."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from sdpo_solve.methods.prompts import Prompter
from sdpo_solve.types import Problem

_LEAST_PART = (
    4  # one in so many parts of what the question leaves is for feedback, however long answers may be
)
_OF_A_MESSAGE = 16  # tokens that a chat template adds to a message, at most
_BLANK_LINE = 2  # tokens between two texts, at most


@dataclass(frozen=True, slots=True)
class Room:
    """How many tokens of earlier feedback a prompt may hold. By default there is no limit.

    `context_tokens`: what prompt and answer may take together; `max_tokens`: the longest answer.
    """

    count_tokens: Callable[[str], int] = len
    context_tokens: int = sys.maxsize
    max_tokens: int = 0

    def for_feedback(self, prompter: Prompter, problem: Problem) -> int:
        """Tokens beside the question and the longest answer, or a quarter of those beside the question."""
        question = prompter.multi_turn(problem, [""])
        taken = sum(self.count_tokens(message.content) + _OF_A_MESSAGE for message in question.messages)
        left = self.context_tokens - taken
        return max(left - self.max_tokens, left // _LEAST_PART)

    def that_fit(self, texts: Iterable[str], limit_tokens: int) -> Iterator[str]:
        """Those of the texts that fit each, in their order."""
        return (text for text in texts if self.count_tokens(text.strip()) <= limit_tokens)

    def first_together(self, texts: Iterable[str], limit_tokens: int) -> list[str]:
        """The first of the texts, as many as fit together."""
        kept: list[str] = []
        for text in texts:
            limit_tokens -= self.count_tokens(text.strip()) + _BLANK_LINE
            if limit_tokens < 0:
                break
            kept.append(text)
        return kept
