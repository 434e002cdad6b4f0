"""Hidden states of many rows that begin alike: the common prefix once, the rest packed without padding.

A row is a prompt and a completion. The tokens that all prompts share (matched by id) go through the model
once and leave their keys and values behind; then the rows' own tokens go through as one long sequence in
which each row attends to the prefix and to itself. Linear layers see no padding and attention sees no other
row. Gradients are exact: those that reach the prefix's keys and values are summed over micro-batches, and one
backward pass through the prefix follows (`gradient.py`).

Knows causal LMs that take transformers' attention interface, and no losses. Whether they do is checked first
(`passes_choice.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as checkpoint_layer

from sdpo_solve.errors import LearnerError
from sdpo_solve.learner.attention import KeysValues, Pass, attend
from sdpo_solve.learner.head import Head, Mixture
from sdpo_solve.model.chat import common_beginning
from sdpo_solve.model.cpu import is_out_of_memory, memory_errors
from sdpo_solve.model.device import release_memory

_ATTENTION = "sdpo_packed"


@dataclass(frozen=True, slots=True)
class PromptCompletion:
    """Token ids of a prompt and of the completion that is scored under it."""

    prompt_ids: tuple[int, ...]
    completion_ids_T: tuple[int, ...]

    @property
    def n_targets(self) -> int:
        return len(self.completion_ids_T)

    def own_ids(self, prefix_tokens: int) -> tuple[int, ...]:
        """What goes through the model behind the prefix; the last completion token predicts nothing."""
        return self.prompt_ids[prefix_tokens:] + self.completion_ids_T[:-1]


@dataclass(slots=True)
class PassLimits:
    """How much goes through the model at once. `microbatch_tokens` shrinks when memory runs out.

    `checkpoint_tokens`: longer passes recompute activations; `chunk_positions`: logits alive at a time.
    """

    microbatch_tokens: int
    checkpoint_tokens: int
    chunk_positions: int


class MicroBatches:
    """Consecutive rows of `limits.microbatch_tokens` tokens together at most, one row at least, in order.

    Iteration yields ranges of rows; `halve` takes one back that did not fit into memory.
    """

    def __init__(self, lengths: Sequence[int], limits: PassLimits) -> None:
        self._lengths, self._limits = lengths, limits
        self._next = 0
        self.most_tokens = max(sum(lengths[i] for i in batch) for batch in self)
        self._next = 0

    def __iter__(self) -> Iterator[range]:
        while self._next < len(self._lengths):
            start, total = self._next, 0
            for i in range(start, len(self._lengths)):
                total += self._lengths[i]
                if i > start and total > self._limits.microbatch_tokens:
                    break
                self._next = i + 1
            yield range(start, self._next)

    def halve(self, batch: range, exc: RuntimeError) -> None:
        """Try its rows again in micro-batches of half its tokens; later ones stay that small.

        Raises `exc` where it is no lack of memory, and LearnerError where one row alone does not fit.
        """
        if not is_out_of_memory(exc):
            raise exc
        if len(batch) == 1:
            raise LearnerError(
                "out of memory with a single attempt: lower --max-tokens or learner.chunk_positions"
            ) from None
        self._limits.microbatch_tokens = max(1, sum(self._lengths[i] for i in batch) // 2)
        self._next = batch.start


def token_ids(rows: Sequence[PromptCompletion], device: torch.device) -> Tensor:
    """The completions' token ids, row after row: [N]."""
    return torch.tensor([token for row in rows for token in row.completion_ids_T], device=device)


def body_of(model: Any) -> Any:
    """The model without its head. Llama4's text model names itself as its decoder."""
    decoder = model.get_decoder()
    return model.model if decoder is model else decoder


class PackedPasses:
    """Passes of `model` over packed rows, under whatever weights are on. `limits` shrink with memory.

    `plain.py` has the same passes by the model's own forward, for models that these do not follow.
    """

    def __init__(self, model: Any, limits: PassLimits) -> None:
        self.model = model
        self.limits = limits

    def common_prefix(self, rows: Sequence[PromptCompletion]) -> tuple[int, ...]:
        """The ids that all prompts begin with; each keeps its last token for itself, to predict from."""
        return tuple(common_beginning(row.prompt_ids[:-1] for row in rows))

    def prefix(self, prefix_ids: Sequence[int]) -> KeysValues:
        """Keys and values of the prefix, with the graph that leads to them where gradients are on."""
        if not prefix_ids:
            return []
        current = Pass(None, (len(prefix_ids),), store=True)
        self._run(prefix_ids, range(len(prefix_ids)), current)
        return [tensor for layer in sorted(current.stored) for tensor in current.stored[layer]]

    def rows(self, rows: Sequence[PromptCompletion], prefix_tokens: int, prefix: KeysValues) -> Tensor:
        """Hidden states [N, d] of the positions that predict the rows' completions, row after row."""
        own = [row.own_ids(prefix_tokens) for row in rows]
        ids = [token for ids in own for token in ids]
        positions = [prefix_tokens + i for ids in own for i in range(len(ids))]
        hidden_1Sd = self._run(ids, positions, Pass(prefix or None, [len(ids) for ids in own]))
        ends = torch.tensor([len(ids) for ids in own]).cumsum(0).tolist()
        wanted = [i for end, row in zip(ends, rows, strict=True) for i in range(end - row.n_targets, end)]
        return hidden_1Sd[0, torch.tensor(wanted, device=hidden_1Sd.device)]

    @torch.no_grad()
    def hidden_states(self, rows: Sequence[PromptCompletion]) -> Tensor:
        """Hidden states [N, d] of all rows without gradients, in micro-batches.

        Raises LearnerError where not even a single row fits into memory.
        """
        parts = []
        with self.active():
            prefix_ids = self.common_prefix(rows)
            with question_fits():
                prefix = self.prefix(prefix_ids)
            batches = MicroBatches([len(row.own_ids(len(prefix_ids))) for row in rows], self.limits)
            for batch in batches:
                part_Nd = None
                try:
                    part_Nd = self.rows([rows[i] for i in batch], len(prefix_ids), prefix)
                except RuntimeError as exc:
                    batches.halve(batch, exc)
                if part_Nd is None:  # only now is what the failed pass held let go, with its traceback
                    release_memory()
                else:
                    parts.append(part_Nd)
        return torch.cat(parts)

    def logprobs(self, rows: Sequence[PromptCompletion], temperature: float) -> Tensor:
        """Log-probs of the rows' completions, float32 [N], without gradients."""
        models = Mixture.of(self.hidden_states(rows))
        ids_N = token_ids(rows, self.model.device)
        return self.head(temperature).logprobs(models, ids_N, self.limits.chunk_positions)

    def head(self, temperature: float) -> Head:
        return Head(self.model, temperature)

    @contextmanager
    def active(self, *, checkpoint: bool = False) -> Iterator[None]:
        """The layers attend as packed rows; with `checkpoint` they recompute their activations."""
        from transformers import AttentionInterface

        AttentionInterface.register(_ATTENTION, attend)
        before = self.model.config._attn_implementation
        try:
            self.model.set_attn_implementation(_ATTENTION)
            with recomputed_layers(self.model if checkpoint else None):
                yield
        finally:
            self.model.set_attn_implementation(before)

    def _run(self, ids: Sequence[int], positions: Sequence[int], current: Pass) -> Tensor:
        """The model's body, without its head: [1, S, d]."""
        device = self.model.device
        hidden: Tensor = body_of(self.model)(
            input_ids=torch.tensor([ids], device=device),
            position_ids=torch.tensor([list(positions)], device=device),
            use_cache=False,
            packed=current,
        ).last_hidden_state
        return hidden


@contextmanager
def recomputed_layers(model: Any | None) -> Iterator[None]:
    """The model's layers keep their inputs only and run again in the backward pass; None: nothing changes."""
    layers = list(getattr(body_of(model), "layers", [])) if model is not None else []
    for layer in layers:
        layer.forward = partial(
            checkpoint_layer, layer.forward, use_reentrant=False, preserve_rng_state=False
        )
    try:
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)  # the class's own shows again


@contextmanager
def question_fits() -> Iterator[None]:
    """Raises LearnerError where memory runs out in a pass over the prefix, which cannot be halved."""
    with memory_errors(LearnerError, "out of memory in the pass over the question itself"):
        yield
