"""`SwapProbe`: after a swap of weights, compares log-probs of a fixed text by engine and by learner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sdpo_solve.engines._scoring import forced_logprobs
from sdpo_solve.errors import EngineError
from sdpo_solve.model.chat import encode_chat
from sdpo_solve.types import Message, Prompt

_QUESTION = "Write a Python function `longest(words)` that returns the longest word, the first one on a tie."
_ANSWER = """```python
def longest(words):
    best = ""
    for word in words:
        if len(word) > len(best):
            best = word
    return best
```"""
_NOTICEABLE = 0.01


@dataclass(frozen=True, slots=True)
class _Reading:
    engine_T: tuple[float, ...]
    learner_T: tuple[float, ...]


class SwapProbe:
    """The comparison of an engine with the learner, swap after swap.

    Single tokens may differ by a tenth of a nat in bfloat16; the mean over the text may not. A small update
    moves the mean by less than the tolerance, so a stale adapter is found by another sign: the engine repeats
    itself to the bit while the learner has moved.
    """

    def __init__(self, tokenizer: Any, tolerance: float) -> None:
        prompt_ids = encode_chat(tokenizer, Prompt((Message("user", _QUESTION),)))
        answer_ids = tokenizer(_ANSWER, add_special_tokens=False)["input_ids"]
        self.ids = (*prompt_ids, *answer_ids)
        self._n_answer = len(answer_ids)
        self._tolerance = tolerance
        self._last: _Reading | None = None

    def check(self, policy_key: str, engine_logprobs: Sequence[float], model: Any) -> None:
        """`engine_logprobs`: of the tokens of `ids` from the second on, or of the last of them.

        Raises EngineError where the engine's weights are not `model`'s.
        """
        n = self._n_answer
        now = _Reading(tuple(engine_logprobs[-n:]), forced_logprobs(model, self.ids[:-n], self.ids[-n:], 1.0))
        off = abs(sum(now.engine_T) - sum(now.learner_T)) / n
        if not off <= self._tolerance:  # also where it is not a number
            raise EngineError(
                f"the engine does not hold the weights of policy {policy_key}: its log-probs of a fixed text "
                f"differ from the learner's by {off:.3f} nats on average, more than {self._tolerance}"
            )
        last = self._last
        if last is not None and last.engine_T == now.engine_T:
            moved = max(abs(a - b) for a, b in zip(last.learner_T, now.learner_T, strict=True))
            if moved > _NOTICEABLE:
                raise EngineError(
                    f"the engine still samples from the policy before {policy_key}: the learner's log-probs "
                    f"of a fixed text moved by {moved:.3f} nats, the engine's did not"
                )
        self._last = now  # only what was accepted is a measure
