"""Decoding on CUDA: rows in slots of fixed memory, and a step that is recorded as a CUDA graph and replayed.

A step is a thousand small kernels, and starting them from Python takes several times as long as running them.
So everything that a step reads and writes stays at one address (transformers' own caches move or have one
length for all rows), and one small copy a step brings tokens and log-probs back. A row fills its slot's
columns from the left. Slots of ended rows stay and are given to rows that wait; only when half of the slots
are empty are they made anew. Where recording fails, the same step is run from Python. Runs on any device; the
graph is CUDA's. Axes: `_B` slots, `_W` columns of a slot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, DynamicCache
from transformers.cache_utils import DynamicLayer

from sdpo_solve.engines._cache import states
from sdpo_solve.engines._decoding import Decoder, Row, RowBatch

_ATTENTION = "sdpo_slots"
_BLOCK_COLUMNS = 256


class SlotBatch(RowBatch):
    """Rows in slots of a recorded step."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__(decoder)
        self._slots: list[Row | None] = []
        self._step = _Step(decoder)

    def exchange(self, rows: Sequence[Row]) -> None:
        """Free the slots of ended rows; put `rows` into free ones, else into new ones."""
        self._free_ended()
        if not rows:
            return
        prefilled = [self._enter(row) for row in rows]
        free = [index for index, row in enumerate(self._slots) if row is None]
        if len(free) < len(rows) or not self._step.fits(max(row.n_cached for row in rows)):
            self._rearrange(n_more=len(rows), n_columns=max(row.n_cached for row in [*self.rows, *rows]))
            free = [index for index, row in enumerate(self._slots) if row is None]
        for index, row, cache in zip(free, rows, prefilled, strict=False):
            self._slots[index] = row
            self._step.place(index, cache)
        self.rows += rows
        self._step.write_rows(self._slots)

    def step(self) -> None:
        n_columns = max(row.n_cached for row in self.rows)
        if not self._step.fits(n_columns):
            self._rearrange(n_more=0, n_columns=n_columns)
            self._step.write_rows(self._slots)
        uniforms = [0.0 if row is None else row.uniforms[len(row.token_ids)] for row in self._slots]
        for row, token_id, logprob in zip(self._slots, *self._step.run(uniforms), strict=True):
            if row is not None:
                self._append(row, token_id, logprob)

    def _free_ended(self) -> None:
        """Free the slots of ended rows; make the slots anew where half of them are empty."""
        rows = [row for row in self.rows if row.finish is None]
        if len(rows) == len(self.rows):
            return
        self.rows = rows
        self._slots = [row if row is not None and row.finish is None else None for row in self._slots]
        if 2 * len(rows) <= len(self._slots):
            self._rearrange(n_more=0, n_columns=max((row.n_cached for row in rows), default=0))
        self._step.write_rows(self._slots)

    def _rearrange(self, *, n_more: int, n_columns: int) -> None:
        """New slots for the rows under way and `n_more`, with room behind `n_columns`."""
        kept = [index for index, row in enumerate(self._slots) if row is not None]
        self._step.remake(kept, len(kept) + n_more, n_columns)
        self._slots = [self._slots[index] for index in kept] + [None] * n_more


class _Step:
    """One decoding step over B slots of W columns: its tensors, and the graph that replays it."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder, self._device = decoder, decoder.device
        self._cache = DynamicCache()
        self._layers: list[_SlotLayer] = []
        self._graph: Any = None
        self._stream = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None
        self._can_record = self._stream is not None
        self._is_warm = False
        self.remake([], 0, 0)

    def fits(self, n_cached: int) -> bool:
        """Whether a slot has room for a token behind `n_cached` others."""
        return n_cached < self._n_columns

    def remake(self, kept: Sequence[int], n_slots: int, n_columns: int) -> None:
        """Copy the `kept` slots into the first of `n_slots` new ones."""
        self._graph, self._is_warm = None, False
        room = n_columns + max(_BLOCK_COLUMNS, n_columns // 4)
        self._n_columns = -(-room // _BLOCK_COLUMNS) * _BLOCK_COLUMNS
        index = torch.tensor(kept, dtype=torch.long, device=self._device)
        for layer in self._layers:
            layer.remake(index, n_slots, self._n_columns)

        def zeros(*shape: int, dtype: torch.dtype = torch.long) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=self._device)

        self._newest_B1, self._position_B1, self._is_used_B1 = (zeros(n_slots, 1) for _ in range(3))
        self._policy_B = zeros(n_slots)
        self._uniforms_B = zeros(n_slots, dtype=torch.float64)
        self._drawn_2B = zeros(2, n_slots, dtype=torch.float64)
        self._columns_W = torch.arange(self._n_columns, device=self._device)
        self._n_slots = n_slots

    def place(self, slot: int, prefilled: DynamicCache) -> None:
        """A prompt's keys and values into a slot."""
        for index in range(len(prefilled.layers)):
            keys, values = states(prefilled, index)
            if index == len(self._layers):
                self._layers.append(_SlotLayer(keys, values, self._n_slots, self._n_columns))
                self._cache.layers.append(self._layers[index])
            for storage, given in zip(self._layers[index].storage, (keys, values), strict=True):
                storage[slot, :, : given.shape[-2]] = given[0]

    def write_rows(self, slots: Sequence[Row | None]) -> None:
        """Write each slot's newest token, its position and its policy; an empty slot stands still."""
        lines = [(0, 0, 0, 0) if row is None else (row.newest, row.n_cached, 1, row.policy) for row in slots]
        inputs_B4 = torch.tensor(lines, dtype=torch.long).view(-1, 4).to(self._device)
        self._newest_B1.copy_(inputs_B4[:, :1])
        self._position_B1.copy_(inputs_B4[:, 1:2])
        self._is_used_B1.copy_(inputs_B4[:, 2:3])
        self._policy_B.copy_(inputs_B4[:, 3])

    def run(self, uniforms: Sequence[float]) -> list[list[float]]:
        """Token ids and log-probs of all slots; the device is ready for the next step afterwards."""
        self._uniforms_B.copy_(torch.tensor(uniforms, dtype=torch.float64))
        if self._stream is None:
            self._advance()
        else:
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
            with torch.cuda.stream(self._stream):
                self._run_on_cuda()
            torch.cuda.current_stream(self._device).wait_stream(self._stream)
        drawn: list[list[float]] = self._drawn_2B.tolist()
        return drawn

    def _run_on_cuda(self) -> None:
        if self._is_warm and self._graph is None and self._can_record:
            self._record()
        if self._graph is not None:
            self._graph.replay()
        else:
            self._advance()  # also warms up what must not happen while recording
            self._is_warm = True

    def _record(self) -> None:
        """Nothing runs while a graph records, so a recording that fails has changed nothing."""
        graph = torch.cuda.CUDAGraph()
        try:
            graph.capture_begin(capture_error_mode="thread_local")
            try:
                self._advance()
            finally:
                graph.capture_end()
        except RuntimeError:  # a model that asks the host in its forward pass, or memory
            self._can_record = False
        else:
            self._graph = graph

    def _advance(self) -> None:
        for layer in self._layers:
            layer.position_B = self._position_B1[:, 0]
        mask_BW = torch.zeros(
            self._n_slots, self._n_columns, dtype=self._layers[0].storage[0].dtype, device=self._device
        )
        mask_BW.masked_fill_(self._columns_W > self._position_B1, -torch.inf)
        if self._decoder.choose is not None:
            self._decoder.choose(self._policy_B)
        with _slot_attention(self._decoder.model), _kernels(self._device):
            logits_BV = self._decoder.logits(
                self._newest_B1,
                self._cache,
                position_ids=self._position_B1,
                slot_mask=mask_BW[:, None, None],
            )
        self._drawn_2B.copy_(self._decoder.draw(logits_BV, self._uniforms_B))
        self._newest_B1.copy_(self._drawn_2B[0, :, None])
        self._position_B1 += self._is_used_B1


class _SlotLayer(DynamicLayer):
    """Keys and values [B, heads, W, head_dim]; each slot is written at its own `position_B`."""

    def __init__(self, keys: Tensor, values: Tensor, n_slots: int, n_columns: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(keys, values)
        self.storage = (_empty(keys, n_slots, n_columns), _empty(values, n_slots, n_columns))
        self.position_B = torch.zeros(n_slots, dtype=torch.long, device=keys.device)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write one column a slot; all columns come back."""
        slots_B = torch.arange(len(self.position_B), device=self.position_B.device)
        for storage, states_B1 in zip(self.storage, (key_states, value_states), strict=True):
            storage[slots_B, :, self.position_B] = states_B1[:, :, 0]
        return self.storage

    def remake(self, kept: Tensor, n_slots: int, n_columns: int) -> None:
        """Copy the `kept` slots to the front of new storage."""
        keys, values = self.storage
        self.storage = (_remade(keys, kept, n_slots, n_columns), _remade(values, kept, n_slots, n_columns))


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
) -> tuple[Tensor, None]:
    """Attention of one query a slot, in transformers' interface: [B, heads, 1, D] in, [B, 1, heads, D] out.

    Query heads that share a key-value head take the place of queries, so that nothing is copied.
    """
    n_slots, n_heads, _, head_dim = query.shape
    grouped = query.reshape(n_slots, key.shape[1], -1, head_dim)
    out = torch.nn.functional.scaled_dot_product_attention(
        grouped, key, value, attn_mask=kwargs["slot_mask"], scale=float(kwargs["scaling"])
    )
    return out.reshape(n_slots, 1, n_heads, head_dim), None


@contextmanager
def _slot_attention(model: Any) -> Iterator[None]:
    AttentionInterface.register(_ATTENTION, attend)
    before = model.config._attn_implementation
    try:
        model.set_attn_implementation(_ATTENTION)
        yield
    finally:
        model.set_attn_implementation(before)


def _kernels(device: torch.device) -> Any:
    """On CUDA the kernel that takes a mask; cuDNN's would be planned anew for every shape."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    if device.type != "cuda":
        return nullcontext()
    return sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])


def _remade(old: Tensor, kept: Tensor, n_slots: int, n_columns: int) -> Tensor:
    new, n_copied = _empty(old, n_slots, n_columns), min(n_columns, old.shape[-2])
    new[: len(kept), :, :n_copied] = old[kept, :, :n_copied]
    return new


def _empty(like: Tensor, n_slots: int, n_columns: int) -> Tensor:
    """Zeros, as a masked column may hold no NaN."""
    return like.new_zeros(n_slots, like.shape[1], n_columns, like.shape[-1])
