"""A key-value cache for rows that come and go, whose columns are written in place.

transformers' dynamic cache copies itself for every token; its static cache has one length for the whole batch
and cannot change its rows. Imports transformers: import it late.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from sdpo_solve.errors import EngineError

_ROOM_COLUMNS = 64
_KeysValues = tuple[torch.Tensor, torch.Tensor]  # of one layer


class RoomyLayer(DynamicLayer):
    """Keys and values [B, heads, columns, head_dim] as views of storage with room for more columns."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(keys, values)
        self._storage = (keys, values)
        self._view(keys.shape[-2])

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add columns; a copy only where the room is used up."""
        start = self.get_seq_length()
        stop = start + key_states.shape[-2]
        if stop > self._storage[0].shape[-2]:
            keys, values = self._storage
            self._storage = (_widened(keys, stop + _ROOM_COLUMNS), _widened(values, stop + _ROOM_COLUMNS))
        for storage, states in zip(self._storage, (key_states, value_states), strict=True):
            storage[:, :, start:stop] = states
        return self._view(stop)

    def place(self, row: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Write the keys and values [1, heads, n, head_dim] of a row into its last n columns."""
        stop = self.get_seq_length()
        for storage, given in zip(self._storage, (keys, values), strict=True):
            storage[row, :, stop - given.shape[-2] : stop] = given[0]

    def crop(self, n_columns: int) -> None:
        """Let go of all but the last columns; nothing is copied."""
        start = self.get_seq_length() - n_columns
        keys, values = self._storage
        self._storage = (keys[:, :, start:], values[:, :, start:])
        self._view(n_columns)

    def _view(self, n_columns: int) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = self._storage
        self.keys, self.values = keys[:, :, :n_columns], values[:, :, :n_columns]
        return self.keys, self.values


def stacked(caches: Sequence[DynamicCache], width: int) -> DynamicCache:
    """One cache over the rows of all, each with its last `width` columns, zeros on the left where short.

    Raises EngineError where a layer keeps something other than keys and values.
    """

    def joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
        # A negative padding crops.
        return torch.cat([torch.nn.functional.pad(x, (0, 0, width - x.shape[-2], 0)) for x in parts])

    layers = zip(*map(_layers, caches), strict=True)
    return _cache_of(
        (joined([keys for keys, _ in own]), joined([values for _, values in own])) for own in layers
    )


def beginning(cache: DynamicCache, n_columns: int) -> DynamicCache:
    """A cache with the first columns of `cache`; what is added to it leaves that one alone."""
    return _cache_of((keys[:, :, :n_columns], values[:, :, :n_columns]) for keys, values in _layers(cache))


def selected(cache: DynamicCache, rows: Sequence[int], width: int) -> DynamicCache:
    """The cache of some rows, with the last `width` columns."""
    own = list(rows)
    return _cache_of((keys[own, :, -width:], values[own, :, -width:]) for keys, values in _layers(cache))


def place(cache: DynamicCache, row: int, prompt: DynamicCache) -> None:
    """Let a row of `cache`, as `stacked` makes it, be that of a prompt, which must not have more columns."""
    for layer, (keys, values) in zip(cache.layers, _layers(prompt), strict=True):
        cast(RoomyLayer, layer).place(row, keys, values)


def crop(cache: DynamicCache, width: int) -> None:
    """Let `cache`, as `stacked` makes it, have the last `width` columns."""
    for layer in cache.layers:
        cast(RoomyLayer, layer).crop(width)


def _cache_of(layers: Iterable[_KeysValues]) -> DynamicCache:
    result = DynamicCache()
    result.layers.extend(RoomyLayer(keys, values) for keys, values in layers)
    return result


def _layers(cache: DynamicCache) -> list[_KeysValues]:
    return [states(cache, index) for index in range(len(cache.layers))]


def states(cache: DynamicCache, index: int) -> _KeysValues:
    """Keys and values of a layer.

    Raises EngineError where it keeps something else.
    """
    layer: Any = cache.layers[index]
    if getattr(layer, "keys", None) is None:
        raise EngineError("this model keeps a state other than keys and values; use the engine vllm")
    return layer.keys, layer.values


def _widened(states: torch.Tensor, width: int) -> torch.Tensor:
    rows, heads, columns, head_dim = states.shape
    wide = states.new_empty(rows, heads, width, head_dim)
    wide[:, :, :columns] = states
    return wide
