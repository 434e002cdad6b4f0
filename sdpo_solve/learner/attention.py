"""Attention of packed rows: each row sees the prefix and its own past, no other row.

Long rows and CUDA use the kernels that torch ships; on CUDA rows of similar length go through them in one
call, since the calls are what costs there. For short rows on a CPU, where those kernels' backward is slow,
there is a plain form that shares each key-value head among its query heads without copying it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

# Up to this many scores (heads x queries x keys) the plain form is the faster one on a CPU.
_SHORT_SCORES = 1 << 22
# A mask costs its size in float32, and more time than it saves where it is larger than this (queries x keys).
_MASK_SCORES = 1 << 19
# Where rows are padded and attend in one call, unless that would more than double their tokens.
_TOGETHER_ON = frozenset({"cuda"})
_MOST_PADDING = 2

KeysValues = list[Tensor]
"""Keys and values of every layer in turn: k_0, v_0, k_1, v_1, ... each [1, heads, P, head_dim]."""


@dataclass(slots=True)
class Pass:
    """What attention must know of the pass it is called in. `lengths`: tokens of each row, in order.

    With `store` the keys and values of every layer are kept in `stored`, to serve as a later pass's prefix.
    """

    prefix: KeysValues | None
    lengths: Sequence[int]
    store: bool = False
    stored: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    masks: dict[int, Tensor] = field(default_factory=dict)
    _places: Tensor | None = None

    @property
    def width(self) -> int:
        return max(self.lengths)

    def places(self, device: torch.device) -> Tensor:
        """Where each token stands when the rows are padded to `width` and laid end to end: [S]."""
        if self._places is None:
            starts = range(0, len(self.lengths) * self.width, self.width)
            at = [start + t for start, n in zip(starts, self.lengths, strict=True) for t in range(n)]
            self._places = torch.tensor(at, device=device)
        return self._places


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
) -> tuple[Tensor, None]:
    """In transformers' attention interface: [1, heads, S, head_dim] in, [1, S, heads, head_dim] out."""
    current: Pass | None = kwargs.get("packed")
    if current is None:
        raise TypeError("its attention passes no arguments on")
    scale = float(kwargs["scaling"])
    if current.store and module.layer_idx not in current.stored:  # recomputation must not store a second time
        current.stored[module.layer_idx] = (key, value)
    before = (
        None if current.prefix is None else current.prefix[2 * module.layer_idx : 2 * module.layer_idx + 2]
    )
    if _attends_together(current, query.device):
        return _together(current, query, key, value, before, scale), None
    spans = zip(*(tensor.split(list(current.lengths), dim=2) for tensor in (query, key, value)), strict=True)
    outs = []
    for q, k, v in spans:
        if before is not None:
            k, v = torch.cat([before[0], k], dim=2), torch.cat([before[1], v], dim=2)
        outs.append(_row(current, q, k, v, scale))
    return torch.cat(outs, dim=2).transpose(1, 2), None


def _attends_together(current: Pass, device: torch.device) -> bool:
    n_rows = len(current.lengths)
    fits = n_rows * current.width <= _MOST_PADDING * sum(current.lengths)
    return n_rows > 1 and fits and device.type in _TOGETHER_ON


def _together(
    current: Pass, query: Tensor, key: Tensor, value: Tensor, before: KeysValues | None, scale: float
) -> Tensor:
    """All rows in one call [1, S, heads, head_dim], padded behind their ends, where no token looks."""
    n_rows, places = len(current.lengths), current.places(query.device)

    def padded(packed: Tensor) -> Tensor:
        rows = packed.new_zeros(n_rows * current.width, packed.shape[1], packed.shape[3])
        rows = rows.index_copy(0, places, packed[0].transpose(0, 1))
        return rows.view(n_rows, current.width, *rows.shape[1:]).transpose(1, 2)

    q, k, v = padded(query), padded(key), padded(value)
    if before is not None:
        k, v = (
            torch.cat([t.expand(n_rows, -1, -1, -1), own], dim=2)
            for t, own in zip(before, (k, v), strict=True)
        )
    out = _torch_attention(current, q, k, v, scale).transpose(1, 2)
    return out.reshape(n_rows * current.width, *out.shape[2:]).index_select(0, places)[None]


def _row(current: Pass, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    n_heads, n_queries, n_keys = q.shape[1], q.shape[2], k.shape[2]
    short = n_heads * n_queries * n_keys <= _SHORT_SCORES
    if q.device.type == "cpu" and short and torch.is_grad_enabled():
        out: Tensor = _ShortAttention.apply(q, k, v, scale)  # type: ignore[no-untyped-call]
        return out
    return _torch_attention(current, q, k, v, scale)


def _torch_attention(current: Pass, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """By torch's kernels, with the lower-right causal mask."""
    n_queries, n_keys = q.shape[2], k.shape[2]
    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    attention = torch.nn.functional.scaled_dot_product_attention
    before = n_keys - n_queries
    if before == 0:
        return attention(q, k, v, is_causal=True, scale=scale)
    if q.device.type == "cpu" and before <= n_queries and n_queries * n_keys > _MASK_SCORES:
        # Long answers have no room for a mask. Padded queries, in the prefix's places, make it the
        # square that needs none.
        square = torch.nn.functional.pad(q, (0, 0, before, 0))
        return attention(square, k, v, is_causal=True, scale=scale)[:, :, before:]
    mask = _mask(current, n_queries, n_keys, q.device)
    return attention(q, k, v, attn_mask=mask, scale=scale)


def _mask(current: Pass, n_queries: int, n_keys: int, device: torch.device) -> Any:
    """The last query sees every key, the one before it all but one, and so on."""
    if device.type == "cuda":
        from torch.nn.attention.bias import causal_lower_right

        return causal_lower_right(n_queries, n_keys)  # lets the flash kernel skip what is masked
    if n_queries not in current.masks:
        ones = torch.ones(n_queries, n_keys, dtype=torch.bool, device=device)
        current.masks[n_queries] = ones.tril(diagonal=n_keys - n_queries)
    return current.masks[n_queries]


class _ShortAttention(torch.autograd.Function):
    """softmax(scale q k^T) v with the lower-right causal mask; q [1, H, T, D], k and v [1, K, S, D]."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        n_queries, n_keys = q.shape[2], k.shape[2]
        q_KnD = _by_key_head(q, k)
        scores = torch.bmm(q_KnD, k[0].transpose(1, 2)).float()
        own = scores.view(-1, n_queries, n_keys)[:, :, n_keys - n_queries :]
        own.masked_fill_(torch.ones(n_queries, n_queries, dtype=torch.bool).triu(1), -torch.inf)
        weights = scores.mul_(scale).softmax(-1).to(q.dtype)
        ctx.save_for_backward(q_KnD, k, v, weights)
        ctx.scale = scale
        return torch.bmm(weights, v[0]).view_as(q)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q_KnD, k, v, weights = ctx.saved_tensors
        (grad_out,) = grads
        grad_out_KnD = _by_key_head(grad_out, k)
        grad_v = torch.bmm(weights.transpose(1, 2), grad_out_KnD)[None]
        grad_weights = torch.bmm(grad_out_KnD, v[0].transpose(1, 2)).float()
        wide = weights.float()
        grad_weights.mul_(wide)
        grad_scores = (
            grad_weights.sub_(wide.mul_(grad_weights.sum(-1, keepdim=True))).mul_(ctx.scale).to(q_KnD.dtype)
        )
        grad_q = torch.bmm(grad_scores, k[0]).view_as(grad_out)
        grad_k = torch.bmm(grad_scores.transpose(1, 2), q_KnD)[None]
        return grad_q, grad_k, grad_v, None


def _by_key_head(q: Tensor, k: Tensor) -> Tensor:
    """Query heads side by side under the key-value head they share: [K, H / K * T, D]."""
    return q.reshape(k.shape[1], -1, q.shape[-1])
