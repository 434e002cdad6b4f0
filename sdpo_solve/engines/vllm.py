"""`vllm`: sampling with vLLM, which has its own copy of the base weights and the adapters of some policies.

vLLM is started by this process (`_vllm_process.py`) or runs as a server (`_vllm_server.py`). Every policy
gets a LoRA name and number that were never used before. At the start, for each policy that it comes to hold,
and after a sleep a probe compares log-probs of a fixed text with the learner's: wrong weights, a damaged and
a stale adapter end the run. Requests of several policies share a call. One vLLM serves all of a batch.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sdpo_solve.engines import EngineParts, EnginePlugin
from sdpo_solve.engines._answers import answer_text, encode_all, eos_ids, room_tokens
from sdpo_solve.engines._probe import SwapProbe
from sdpo_solve.engines._vllm_backend import (
    Adapter,
    Answer,
    Backend,
    Options,
    Request,
    lora_rank,
    sampling_arguments,
)
from sdpo_solve.engines._vllm_process import Process
from sdpo_solve.engines._vllm_server import Server
from sdpo_solve.errors import EngineError
from sdpo_solve.protocols import MixingEngine, PolicyHost, TokenProgress
from sdpo_solve.types import Policy, Prompt, Sample, SamplingSpec

_BASE = "base"  # no policy's key: those hold an @
_MOST_ADAPTERS = 8  # each takes memory, and more policies than that seldom wait at the same time


class VllmEngine(MixingEngine, EnginePlugin):
    """A vLLM and the policies that it holds. `host` gives the learner's weights, for the probe alone."""

    options_type = Options

    @classmethod
    def build(cls, options: Options, parts: EngineParts) -> VllmEngine:
        """vLLM on the model, started here or at a server.

        Raises PrerequisiteError where vLLM, the server or the weights are missing, ConfigError for options
        that cannot be honoured.
        """
        rank = lora_rank(max(options.max_lora_rank, parts.lora_rank))
        n_adapters = min(parts.n_policies, _MOST_ADAPTERS)
        model_dir = parts.model_dir()
        backend: Backend
        if options.server is not None:
            backend = Server(model_dir, parts.model_name, options, rank, n_adapters)
        else:
            options = options.model_copy(update={"max_lora_rank": rank})
            backend = Process(model_dir, options, learner=parts.host is not None, n_adapters=n_adapters)
        return cls(model_dir, options, backend, parts.host, parts.progress)

    def __init__(
        self,
        model_dir: Path,
        options: Options,
        backend: Backend,
        host: Callable[[], PolicyHost] | None = None,
        progress: TokenProgress | None = None,
    ) -> None:
        from transformers import AutoTokenizer

        self._options = options
        self.backend = backend
        self._host = host
        self._progress = progress
        self.tokenizer = AutoTokenizer.from_pretrained(model_dir, local_files_only=True)
        self.eos = eos_ids(_generation_config(model_dir), self.tokenizer)
        self._probe = SwapProbe(self.tokenizer, options.probe_tolerance)
        self._names = f"{uuid.uuid4().hex[:8]}-"  # others may load adapters into the same server
        self._n_loads = 0
        self._held: dict[str, Adapter] = {}
        """By policy key, the one used longest ago first."""
        self._base_checked = False

    def sample_mixed(
        self,
        prompts_G: Sequence[Prompt],
        seeds_G: Sequence[int],
        policies_G: Sequence[Policy],
        spec: SamplingSpec,
    ) -> list[Sample]:
        """One sample a prompt, in order, each from its policy; those of several policies go through together.

        Raises EngineError for a prompt that leaves no room for an answer, for an adapter that vLLM refuses
        or that fails the probe, and where vLLM has ended.
        """
        ids = encode_all(self.tokenizer, prompts_G)
        context = self.backend.context_tokens
        rooms_G = [room_tokens(ids[prompt], spec.max_tokens, context) for prompt in prompts_G]
        shared = sampling_arguments(spec.temperature, self.eos, self._options.stop)
        answers: dict[int, Answer] = {}
        try:
            woken = self.backend.wake()
            for policies in _chunks(policies_G, self.backend.n_adapters):
                adapters = self._hold(policies, woken=woken)
                own = [g for g, policy in enumerate(policies_G) if _key(policy) in adapters]
                requests_G = [
                    Request(ids[prompts_G[g]], rooms_G[g], seeds_G[g], adapters[_key(policies_G[g])])
                    for g in own
                ]
                progress = _onward(self._progress, answers)
                answers |= zip(own, self.backend.generate(requests_G, shared, progress), strict=True)
                woken = False
            self.backend.rest()
        except EngineError:
            self._forget()
            raise
        return [
            self._sample(prompt, ids[prompt], answers[g], policy)
            for g, (prompt, policy) in enumerate(zip(prompts_G, policies_G, strict=True))
        ]

    @property
    def context_tokens(self) -> int:
        """As vLLM was started."""
        return self.backend.context_tokens

    def probe(self) -> None:
        """Raises EngineError where vLLM is gone."""
        self.backend.held()

    def identity(self) -> str:
        return f"vllm:{self.backend.identity()}"

    def close(self) -> None:
        """End vLLM's processes, or leave the server without our adapters. Safe to call twice."""
        self._held.clear()
        self.backend.close()

    def _sample(self, prompt: Prompt, prompt_ids: tuple[int, ...], answer: Answer, policy: Policy) -> Sample:
        return Sample(
            prompt=prompt,
            prompt_ids=prompt_ids,
            token_ids_T=answer.token_ids_T,
            logprobs_T=answer.logprobs_T,
            text=answer_text(self.tokenizer, answer.token_ids_T, self.eos),
            finish=answer.finish,
            policy=policy,
        )

    # -- policies ------------------------------------------------------------------------------------------

    def _hold(self, policies: Sequence[Policy], *, woken: bool) -> dict[str, Adapter | None]:
        """Have vLLM hold these policies at least; each is compared when it comes, and all after a sleep.

        The base counts as a policy: where vLLM's copy is not the learner's, every attempt before the first
        update is wrong. Raises EngineError where a comparison fails.
        """
        if woken:
            self._held.clear()
            self._base_checked = False
        elif not {adapter.name for adapter in self._held.values()} <= self.backend.held():
            self._forget()  # it was started again
        wanted = {_key(policy): policy for policy in policies}
        adapters: dict[str, Adapter | None] = {
            key: self._hold_adapter(policy, policy.adapter_dir, wanted)
            for key, policy in wanted.items()
            if policy.adapter_dir is not None
        }
        if (base := wanted.get(_BASE)) is not None:
            self._check_base(base)
            adapters[_BASE] = None
        return adapters

    def _check_base(self, policy: Policy) -> None:
        if not self._base_checked and self._host is not None:
            with self._host().policy_active(policy) as model:
                self._probe.check(policy.key, self.backend.score(self._probe.ids, None), model)
        self._base_checked = True

    def _hold_adapter(self, policy: Policy, adapter_dir: Path, wanted: Collection[str]) -> Adapter:
        held = self._held.pop(policy.key, None)
        if held is not None and held.directory != adapter_dir:
            self.backend.unload(held)
            held = None
        if held is None:
            if self._host is None:
                raise EngineError(f"there is no learner to compare policy {policy.key} with")
            for key in [key for key in self._held if key not in wanted]:
                if len(self._held) >= self.backend.n_adapters:
                    self.backend.unload(self._held.pop(key))
            self._probe.check_adapter(policy, self._host(), self._score_with)
            held = self._load(adapter_dir)
            with self._host().policy_active(policy) as model:
                self._probe.check(policy.key, self.backend.score(self._probe.ids, held), model)
        self._held[policy.key] = held
        return held

    def _load(self, adapter_dir: Path) -> Adapter:
        self._n_loads += 1
        adapter = Adapter(f"sdpo-{self._names}{self._n_loads}", self._n_loads, adapter_dir)
        self.backend.load(adapter)
        self._base_checked = False
        return adapter

    def _score_with(self, adapter_dir: Path | None) -> list[float]:
        """Log-probs of the probe's text with the adapter of a directory, then let go, or without any."""
        if adapter_dir is None:
            return self.backend.score(self._probe.ids, None)
        adapter = self._load(adapter_dir)
        try:
            return self.backend.score(self._probe.ids, adapter)
        finally:
            self.backend.unload(adapter)

    def _forget(self) -> None:
        """Hold no policy, so that each is loaded and compared again."""
        with suppress(EngineError):  # vLLM may be gone
            for adapter in self._held.values():
                self.backend.unload(adapter)
        self._held.clear()
        self._base_checked = False


def _onward(progress: TokenProgress | None, answers: Mapping[int, Answer]) -> TokenProgress | None:
    """The progress of a call beside answers that are there already."""
    if progress is None:
        return None
    n_answers = len(answers)
    n_tokens = sum(len(answer.token_ids_T) for answer in answers.values())
    return lambda tokens, done: progress(n_tokens + tokens, n_answers + done)


def _key(policy: Policy) -> str:
    return _BASE if policy.adapter_dir is None else policy.key


def _chunks(policies_G: Sequence[Policy], n: int) -> list[list[Policy]]:
    """The distinct policies as they share calls: at most `n` with an adapter; all bases are one, by itself.

    vLLM 0.32 on a CPU gives rows without an adapter the adapter of another row of the batch.
    """
    by_key = {_key(policy): policy for policy in policies_G}
    base = [[by_key.pop(_BASE)]] if _BASE in by_key else []
    adapted = list(by_key.values())
    return base + [adapted[start : start + n] for start in range(0, len(adapted), n)]


def _generation_config(model_dir: Path) -> Any:
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(model_dir)
    except OSError:  # a model need not have one
        return None


PLUGIN = VllmEngine
