"""The rows that `hf.py` decodes together: their cache, and one draw a row and step.

Knows tensors, not prompts or policies. Axes: `_B` rows of the batch, `_V` vocabulary, `_L` cache columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sdpo_solve.engines._scoring import cache_argument
from sdpo_solve.errors import EngineError
from sdpo_solve.types import Finish

if TYPE_CHECKING:
    import torch

_BLOCK = 512


@dataclass(slots=True)
class Row:
    """One answer in the making. `finish` is set once it has ended."""

    prompt_ids: tuple[int, ...]
    seed: int
    max_tokens: int
    policy: int = 0
    """Which of the policies of the batch it is sampled from."""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: Finish | None = None
    uniforms: list[float] = field(default_factory=list)
    """One number in [0, 1) for each token, drawn from the row's own seed when it enters a batch."""

    def start_over(self) -> None:
        """Forget what a row that has not ended has drawn; its seed draws the same again."""
        if self.finish is None:
            self.token_ids, self.logprobs = [], []

    def draw_uniforms(self) -> None:
        import torch

        generator = torch.Generator().manual_seed(self.seed)
        self.uniforms = torch.rand(self.max_tokens, generator=generator, dtype=torch.float64).tolist()

    @property
    def newest(self) -> int:
        """The token whose successor is drawn next."""
        return self.token_ids[-1] if self.token_ids else self.prompt_ids[-1]

    @property
    def n_cached(self) -> int:
        """Tokens whose keys and values are in the cache: all but the newest."""
        return len(self.prompt_ids) + len(self.token_ids) - 1


@dataclass(frozen=True, slots=True)
class Decoder:
    """What decodes a batch. `choose` hears before each pass which policy each row uses; None: one for all."""

    model: Any
    device: torch.device
    temperature: float
    choose: Callable[[torch.Tensor], None] | None = None

    def choose_for(self, rows: Sequence[Row]) -> None:
        """Let each row of the next pass use its own policy."""
        import torch

        if self.choose is not None:
            self.choose(torch.tensor([row.policy for row in rows], device=self.device))


class Prefills:
    """The caches of prompts, all tokens but the last, which is a row's newest; each is computed once."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._cache_argument = cache_argument(decoder.model)
        self._caches: dict[tuple[int, tuple[int, ...]], Any] = {}

    def of(self, row: Row) -> Any:
        """The cache of the row's prompt under the row's policy."""
        import torch
        from transformers import DynamicCache

        key = (row.policy, row.prompt_ids)
        if key not in self._caches:
            cache = DynamicCache()
            ids = torch.tensor([row.prompt_ids[:-1]], device=self._decoder.device)
            self._decoder.choose_for([row])
            self._decoder.model(
                input_ids=ids, **{self._cache_argument: cache}, use_cache=True, logits_to_keep=1
            )
            self._caches[key] = cache
        return self._caches[key]


class Batch:
    """Rows that are decoded together, right-aligned in one cache: row r uses its last `n_cached` columns."""

    def __init__(self, decoder: Decoder) -> None:
        self.rows: list[Row] = []
        self._decoder = decoder
        self._device = decoder.device
        self._cache: Any = None
        self._cache_argument = cache_argument(decoder.model)
        self._prefills = Prefills(decoder)
        # One masked column keeps a mask alive where all rows are of one length: on a CPU transformers then
        # shares key-value heads without copies, ten times as fast as torch's own sharing without a mask.
        self._spare = 1 if decoder.device.type == "cpu" else 0

    def admit(self, rows: Sequence[Row]) -> None:
        """Put rows into the batch; each distinct prompt is prefilled once in the batch's life."""
        from sdpo_solve.engines._cache import stacked

        if not rows:
            return
        for row in rows:
            row.draw_uniforms()
        parts = [self._prefills.of(row) for row in rows]
        self.rows += rows
        self._cache = stacked(parts if self._cache is None else [self._cache, *parts], self._width())

    def step(self) -> None:
        """Draw one token for each row.

        Raises EngineError where the model's output is not finite.
        """
        import torch

        logits_BV = self._forward()
        logprobs_BV = torch.log_softmax(logits_BV.float() / self._decoder.temperature, dim=-1)
        uniforms_B = torch.tensor(
            [row.uniforms[len(row.token_ids)] for row in self.rows], dtype=torch.float64, device=self._device
        )
        ids_B = drawn_ids(logprobs_BV, uniforms_B)
        drawn = zip(ids_B.tolist(), logprobs_BV.gather(-1, ids_B[:, None])[:, 0].tolist(), strict=True)
        for row, (token_id, logprob) in zip(self.rows, drawn, strict=True):
            require_finite(logprob)
            row.token_ids.append(token_id)
            row.logprobs.append(logprob)

    def drop_finished(self) -> None:
        """Take ended rows out of the batch, and columns that no row uses out of the cache."""
        from sdpo_solve.engines._cache import selected

        kept = [index for index, row in enumerate(self.rows) if row.finish is None]
        if len(kept) == len(self.rows):
            return
        self.rows = [self.rows[index] for index in kept]
        self._cache = selected(self._cache, kept, self._width()) if kept else None

    def _width(self) -> int:
        """Columns that the cache must have for the rows now in the batch."""
        return max(row.n_cached for row in self.rows) + self._spare

    def _forward(self) -> torch.Tensor:
        """Logits after each row's newest token, [B, V]."""
        import torch

        cached_B = torch.tensor([row.n_cached for row in self.rows], device=self._device)
        width = self._cache.get_seq_length() + 1
        columns_L = torch.arange(width, device=self._device)
        mask_BL = (columns_L >= width - 1 - cached_B[:, None]).long()
        newest_B1 = torch.tensor([[row.newest] for row in self.rows], device=self._device)
        self._decoder.choose_for(self.rows)
        output = self._decoder.model(
            input_ids=newest_B1,
            attention_mask=mask_BL,
            position_ids=cached_B[:, None],
            **{self._cache_argument: self._cache},
            use_cache=True,
        )
        logits_BV: torch.Tensor = output.logits[:, -1]
        return logits_BV


def drawn_ids(logprobs_BV: torch.Tensor, uniforms_B: torch.Tensor) -> torch.Tensor:
    """One token id a row by inverting the cumulative distribution at `uniforms_B` (float64 in [0, 1)).

    One number decides a row's draw, whatever rows stand beside it. The sums run in float64, over blocks and
    then inside the block that was met, so the only error is that of float32 probabilities. Where a row's
    log-probs are not numbers, that of the token drawn is not finite. Asks nothing of the host.
    """
    import torch

    n_rows, n_vocab = logprobs_BV.shape
    probs_BKV = torch.nn.functional.pad(logprobs_BV.exp(), (0, -n_vocab % _BLOCK)).view(n_rows, -1, _BLOCK)
    upto_BK = probs_BKV.sum(-1, dtype=torch.float64).cumsum(-1)
    target_B1 = (uniforms_B * upto_BK[:, -1])[:, None]
    block_B = (upto_BK <= target_B1).sum(-1).clamp(max=upto_BK.shape[-1] - 1)
    rows_B = torch.arange(n_rows, device=logprobs_BV.device)
    before_B1 = upto_BK.gather(1, (block_B - 1).clamp(min=0)[:, None]) * (block_B > 0)[:, None]
    inside_BV = probs_BKV[rows_B, block_B].double().cumsum(-1)
    rest_B1 = torch.minimum(target_B1 - before_B1, inside_BV[:, -1:] * (1 - 2**-52))
    return block_B * _BLOCK + (inside_BV <= rest_B1).sum(-1)


def require_finite(logprob: float) -> None:
    """Raises EngineError for the log-prob of a token that came out of a broken distribution."""
    if not math.isfinite(logprob):
        raise EngineError(
            "the model's output is not finite: an update has damaged the adapter; lower learner.lr"
        )
