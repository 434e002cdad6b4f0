"""`SwapProbe`: after a swap of weights, compares log-probs of a fixed text by engine and by learner.

Two comparisons. The text's mean log-prob tells wrong weights. What an adapter adds, token by token, tells one
that is loaded in part: an early update moves log-probs by less than rounding does, so both sides compute it
with the adapter's product scaled until it moves them by about a nat.
"""

from __future__ import annotations

import math
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdpo_solve.engines._scoring import forced_logprobs
from sdpo_solve.errors import EngineError, one_line
from sdpo_solve.model.chat import encode_chat
from sdpo_solve.model.cpu import memory_errors
from sdpo_solve.protocols import PolicyHost
from sdpo_solve.types import Message, Policy, Prompt

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
_SCALED_NATS = 1.0
_MOST_FACTOR = 1e5
_LEAST_NATS = 1e-7  # of an adapter that adds anything
_SHARE_OFF = 0.08  # of what the adapter adds; a projection halved is off by about 0.2
_TIMES_ROUNDING = 1.5  # of what the two differ by without it: two such readings are subtracted


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
        now = _Reading(tuple(engine_logprobs[-n:]), self.logprobs(model))
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

    @memory_errors(EngineError, "out of memory in the learner's check of vLLM: lower engine.memory_share")
    def logprobs(self, model: Any) -> tuple[float, ...]:
        """Of the answer's tokens, by the learner's model."""
        return forced_logprobs(model, self.ids[: -self._n_answer], self.ids[-self._n_answer :], 1.0)

    def check_adapter(
        self, policy: Policy, host: PolicyHost, score: Callable[[Path | None], Sequence[float]]
    ) -> None:
        """Compare what an adapter adds to the base in the engine with what it adds in the learner.

        `score`: the engine's log-probs of `ids` with the adapter of a directory, or without any. Raises
        EngineError where the engine's adapter adds something else.
        """
        assert policy.adapter_dir is not None
        with host.policy_active(Policy(policy.run, 0)) as model:
            off_T = self.logprobs(model)
        with host.policy_active(policy) as model:
            added = _root_mean_square(_differences(self.logprobs(model), off_T))
            if added < _LEAST_NATS:
                return
            factor = min(_MOST_FACTOR, _SCALED_NATS / added)
            with _scaled(model, factor):
                learner_T = _differences(self.logprobs(model), off_T)
        n = self._n_answer
        with _scaled_copy(policy.adapter_dir, factor) as folder:
            on_T = score(folder)[-n:]
        engine_off_T = score(None)[-n:]
        engine_T = _differences(on_T, engine_off_T)
        off, added = (_root_mean_square(x) for x in (_differences(engine_T, learner_T), learner_T))
        rounding = _root_mean_square(_differences(engine_off_T, off_T))
        if not off <= max(_SHARE_OFF * added, _TIMES_ROUNDING * rounding, self._tolerance):
            raise EngineError(
                f"the engine does not hold the whole adapter of policy {policy.key}: scaled by {factor:.3g} "
                f"it moves the learner's log-probs by {added:.3f} nats a token, and the engine's by "
                f"{off:.3f} differently"
            )


@contextmanager
def _scaled(model: Any, factor: float) -> Iterator[None]:
    """Within, every LoRA product of `model` is `factor` times as large."""
    layers = [m for m in model.modules() if isinstance(getattr(m, "scaling", None), dict)]
    before = [dict(layer.scaling) for layer in layers]
    try:
        for layer in layers:
            layer.scaling.update({name: factor * scaling for name, scaling in layer.scaling.items()})
        yield
    finally:
        for layer, scaling in zip(layers, before, strict=True):
            layer.scaling.update(scaling)


@contextmanager
def _scaled_copy(adapter_dir: Path, factor: float) -> Iterator[Path]:
    """A PEFT directory like `adapter_dir`, with a product `factor` times as large, removed at the end.

    It lies beside the other, where a server can read it as well, under a name that the learner clears away.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    name = "adapter_model.safetensors"
    copy = adapter_dir.with_name(f".writing-probe-{uuid.uuid4().hex[:8]}")
    try:
        copy.mkdir()
        shutil.copyfile(adapter_dir / "adapter_config.json", copy / "adapter_config.json")
        tensors = load_file(adapter_dir / name)
        larger = {key: t * factor if key.endswith("lora_B.weight") else t for key, t in tensors.items()}
        save_file(larger, copy / name, {"format": "pt"})
        yield copy
    except (OSError, SafetensorError) as exc:
        raise EngineError(f"cannot copy the adapter {adapter_dir} for the probe: {one_line(exc)}") from None
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def _differences(a_T: Sequence[float], b_T: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(a_T, b_T, strict=True)]


def _root_mean_square(values_T: Sequence[float]) -> float:
    return math.sqrt(sum(x * x for x in values_T) / len(values_T))
