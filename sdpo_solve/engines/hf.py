"""`hf`: sampling in this process from the learner's own weights, many rows at a time.

Each distinct prompt is prefilled once and its cache copied into every row that samples from it. A row that
ends leaves the batch and the next one takes its place. On a CPU all rows are right-aligned in one cache and
older columns are masked (`_decoding.py`); on CUDA they have slots and a step is a recorded graph
(`_cuda_graph.py`). Does not load or change weights: the `PolicyHost` does. Caches are transformers' own
objects with layers of ours; its continuous batching (5.19) draws all requests from one seed, so that an
answer would depend on the rows beside it.

A row's draws depend on its own seed only. Its logits come out of matrix products whose rounding may change
with the number of rows, so that at a near-tie the same seed can give another token in another batch;
log-probs are always those of the distribution that was sampled.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pydantic import Field

from sdpo_solve.config import Free
from sdpo_solve.config import Options as BaseOptions
from sdpo_solve.engines import EngineParts, EnginePlugin
from sdpo_solve.engines._answers import answer_text, encode_all, eos_ids, room_tokens
from sdpo_solve.errors import ConfigError, EngineError
from sdpo_solve.model.capability import context_tokens
from sdpo_solve.model.cpu import is_out_of_memory, threads_by_load
from sdpo_solve.protocols import MixingEngine, PolicyHost, PolicyMix, TokenProgress
from sdpo_solve.types import Finish, Policy, Prompt, Sample, SamplingSpec

if TYPE_CHECKING:
    from pathlib import Path

    from sdpo_solve.engines._decoding import Decoder, Row, RowBatch


class Options(BaseOptions):
    """How the in-process engine samples."""

    batch_rows: Free[int] = Field(
        16, ge=1, description="answers sampled at the same time at most; halved where memory runs out"
    )
    stop: str | None = Field(None, min_length=1, description="a text that ends an answer; it is kept in it")


class HfEngine(MixingEngine, EnginePlugin):
    """Samples from the weights of `host`. `batch_type`: the form of a batch; None: chosen at first."""

    options_type = Options
    shares_weights = True

    @classmethod
    def build(cls, options: Options, parts: EngineParts) -> HfEngine:
        """Raises ConfigError without a model, PrerequisiteError where its weights are not on disk."""
        if parts.host is None:
            raise ConfigError("the engine hf needs a model; name one with --model")
        path: Path = parts.model_dir()
        return cls(parts.host(), options, parts.progress, name=path.name)

    def __init__(
        self,
        host: PolicyHost,
        options: Options,
        progress: TokenProgress | None = None,
        name: str = "model",
        batch_type: Callable[[Decoder], RowBatch] | None = None,
    ) -> None:
        self._host = host
        self._options = options
        self._progress = progress
        self._name = name
        self._rows_at_once = options.batch_rows
        self._eos: frozenset[int] = frozenset()
        self._batch_type = batch_type

    def sample_mixed(
        self,
        prompts_G: Sequence[Prompt],
        seeds_G: Sequence[int],
        policies_G: Sequence[Policy],
        spec: SamplingSpec,
    ) -> list[Sample]:
        """One sample a prompt, in order, each from its policy: rows of different ones share a batch.

        Raises EngineError for a policy that is not held, a prompt that leaves no room for an answer, and a
        model whose cache cannot be shared out by rows.
        """
        from sdpo_solve.engines._decoding import NotFiniteError, Row

        if not len(prompts_G) == len(seeds_G) == len(policies_G):
            counts = f"{len(prompts_G)} prompts came with {len(seeds_G)} seeds"
            raise EngineError(f"{counts} and {len(policies_G)} policies")
        ids = encode_all(self._host.tokenizer, prompts_G)
        policies = {policy.adapter_dir: policy for policy in policies_G}  # all bases are one
        numbers = {adapter_dir: number for number, adapter_dir in enumerate(policies)}
        rows = [
            Row(ids[prompt], seed, 0, numbers[policy.adapter_dir])
            for prompt, seed, policy in zip(prompts_G, seeds_G, policies_G, strict=True)
        ]
        try:
            if len(policies) <= 1 or self._host.can_mix:
                self._sample_rows(list(policies.values()), rows, spec)
            else:
                for number, policy in enumerate(policies.values()):
                    self._sample_rows([policy], [row for row in rows if row.policy == number], spec)
        except RuntimeError as exc:
            if not is_out_of_memory(exc):
                raise
            raise EngineError("out of memory while sampling") from None
        except NotFiniteError:
            raise EngineError(f"the model's output is not finite: {self._damage()}") from None
        answers = zip(prompts_G, rows, policies_G, strict=True)
        return [self._sample(prompt, row, policy) for prompt, row, policy in answers]

    def _sample_rows(self, policies_K: Sequence[Policy], rows: Sequence[Row], spec: SamplingSpec) -> None:
        """Sample every row to its end, as many at a time as fit."""
        import torch

        from sdpo_solve.engines._batch_choice import batch_type
        from sdpo_solve.engines._decoding import Decoder

        if not rows:
            return
        with self._active(policies_K) as mix, torch.no_grad():
            if self._batch_type is None:
                self._batch_type = batch_type(mix.model, self._host.device, self._host.tokenizer)
            context = context_tokens(mix.model.config)
            self._eos = eos_ids(mix.model.generation_config, self._host.tokenizer)
            for row in rows:
                row.max_tokens = room_tokens(row.prompt_ids, spec.max_tokens, context)
            choose = mix.choose if len(policies_K) > 1 else None
            decoder = Decoder(mix.model, self._host.device, spec.temperature, choose)
            n_rows = min(self._rows_at_once, len(rows))
            while not self._filled(decoder, rows, n_rows):
                n_rows = self._fewer(n_rows, rows)
        # What others took of the memory may be free again.
        more = self._rows_at_once + max(1, self._rows_at_once // 4)
        self._rows_at_once = min(self._options.batch_rows, more)

    def _damage(self) -> str:
        """Where numbers that are not finite come from."""
        from sdpo_solve.model.lean import named_weights

        with self._host.policy_active(Policy("base", 0)) as model:
            for name, weight in named_weights(model):
                if not bool(weight.isfinite().all()):
                    return f"the checkpoint itself holds NaN or infinite numbers in {name}"
        return "an update has damaged the adapter; lower learner.lr"

    def identity(self) -> str:
        return f"hf:{self._name}"

    def close(self) -> None:
        """Nothing to close: the weights are the host's."""

    @contextmanager
    def _active(self, policies_K: Sequence[Policy]) -> Iterator[PolicyMix]:
        """The weights of all; those of one policy alone as the learner trains them."""
        if len(policies_K) > 1:
            with self._host.policies_active(policies_K) as mix:
                yield mix
        else:
            with self._host.policy_active(policies_K[0]) as model:
                yield PolicyMix(model, lambda policy_B: None)

    def _filled(self, decoder: Decoder, rows: Sequence[Row], n_rows: int) -> bool:
        """Sample the rows that have not ended, `n_rows` at a time; false where memory ran out.

        After that, each `n_rows` rows get a batch of their own, which keeps no prompts of those before.
        """
        from sdpo_solve.model.device import release_memory

        left = [row for row in rows if row.finish is None]
        is_tight = n_rows < min(self._options.batch_rows, len(rows))
        n_each = n_rows if is_tight else len(left)
        assert self._batch_type is not None
        try:
            for start in range(0, len(left), n_each):
                self._fill(self._batch_type(decoder), rows, left[start : start + n_each], n_rows)
        except RuntimeError as exc:
            if not is_out_of_memory(exc):
                raise
        else:
            return True
        release_memory()
        return False

    def _fewer(self, n_rows: int, rows: Sequence[Row]) -> int:
        """Half as many rows at a time, also in the next calls; those that have not ended start over.

        Raises EngineError where one was too many.
        """
        if n_rows == 1:
            self._rows_at_once = self._options.batch_rows
            raise EngineError("out of memory while sampling a single answer")
        for row in rows:
            row.start_over()
        self._rows_at_once = max(1, min(n_rows, sum(row.finish is None for row in rows)) // 2)
        return self._rows_at_once

    def _fill(self, batch: RowBatch, rows: Sequence[Row], own: Sequence[Row], n_rows: int) -> None:
        """Sample `own`, some of `rows`, to their ends, at most `n_rows` at a time."""
        waiting, is_end = deque(own), self._is_end(self._eos)
        n_tokens = sum(len(row.token_ids) for row in rows)
        n_done = sum(row.finish is not None for row in rows)
        with threads_by_load() as look:
            while True:
                n_left = sum(row.finish is None for row in batch.rows)
                n_free = n_rows - n_left if batch.refills or not n_left else 0
                batch.exchange([waiting.popleft() for _ in range(min(n_free, len(waiting)))])
                if not batch.rows:
                    break
                n_tokens += len(batch.rows)
                batch.step()
                for row in batch.rows:
                    row.finish = _finish_of(row, is_end)
                    n_done += row.finish is not None
                if self._progress is not None:
                    self._progress(n_tokens, n_done)
                look()

    def _is_end(self, eos: frozenset[int]) -> Callable[[Row], bool]:
        """Whether the row's newest token ends its answer."""
        stop, tokenizer = self._options.stop, self._host.tokenizer
        if stop is None:
            return lambda row: row.token_ids[-1] in eos
        tail = len(stop.encode()) + 8  # a token is a byte at least; some more for one cut inside a character
        return lambda row: row.token_ids[-1] in eos or stop in tokenizer.decode(row.token_ids[-tail:])

    def _sample(self, prompt: Prompt, row: Row, policy: Policy) -> Sample:
        assert row.finish is not None
        return Sample(
            prompt=prompt,
            prompt_ids=row.prompt_ids,
            token_ids_T=tuple(row.token_ids),
            logprobs_T=tuple(row.logprobs),
            text=answer_text(self._host.tokenizer, row.token_ids, self._eos),
            finish=row.finish,
            policy=policy,
        )


def _finish_of(row: Row, is_end: Callable[[Row], bool]) -> Finish | None:
    if is_end(row):
        return Finish.STOP
    return Finish.LENGTH if len(row.token_ids) == row.max_tokens else None


PLUGIN = HfEngine
