"""Decoding of many rows at a time: their caches, and one draw a row and step.

Knows tensors, not prompts or policies. `RowBatch` is what the forms of a batch share; `Batch`, right-aligned
in one cache, is the one for a CPU. Imports torch: import it late. Axes: `_B` rows of the batch, `_V`
vocabulary, `_L` cache columns.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import DynamicCache

from sdpo_solve.engines._cache import beginning, crop, place, selected, stacked
from sdpo_solve.engines._scoring import cache_argument, last_logits
from sdpo_solve.model.chat import common_beginning
from sdpo_solve.model.device import float64_device
from sdpo_solve.types import Finish

_BLOCK = 512


class NotFiniteError(ArithmeticError):
    """A distribution with NaN or infinite log-probs."""


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

    @property
    def newest(self) -> int:
        """The token whose successor is drawn next."""
        return self.token_ids[-1] if self.token_ids else self.prompt_ids[-1]

    @property
    def n_cached(self) -> int:
        """Tokens whose keys and values are in the cache: all but the newest."""
        return len(self.prompt_ids) + len(self.token_ids) - 1


class Decoder:
    """The model that decodes a batch. `choose` sets for each pass which policy each row uses; None: one."""

    def __init__(
        self,
        model: Any,
        device: torch.device,
        temperature: float,
        choose: Callable[[Tensor], None] | None = None,
    ) -> None:
        self.model, self.device, self.temperature, self.choose = model, device, temperature, choose
        self._cache_argument = cache_argument(model)
        self._last_only = last_logits(model, 1)
        self.draws_on = float64_device(device)

    def choose_for(self, rows: Sequence[Row]) -> None:
        """Let each row of the next pass use its own policy."""
        if self.choose is not None:
            self.choose(torch.tensor([row.policy for row in rows], device=self.device))

    def logits(self, ids_BL: Tensor, cache: Any, **inputs: Any) -> Tensor:
        """Logits [B, V] after the last token of each row; `cache` grows by L columns."""
        cached = {self._cache_argument: cache}
        output = self.model(input_ids=ids_BL, **cached, use_cache=True, **self._last_only, **inputs)
        logits_BV: Tensor = output.logits[:, -1]
        return logits_BV

    def own_cache(self, ids: Sequence[int]) -> Any:
        """The cache that the model makes for itself on a pass over `ids`."""
        ids_1L = torch.tensor([ids], device=self.device)
        return self.model(input_ids=ids_1L, use_cache=True, **self._last_only)[self._cache_argument]

    def draw(self, logits_BV: Tensor, uniforms_B: Tensor) -> Tensor:
        """[2, B] in float64: a token id for each row, and its log-prob. Makes no copy to the host where the
        device has float64."""
        logits_BV = logits_BV.to(self.draws_on)
        scaled_BV = logits_BV.float() if self.temperature == 1 else logits_BV.float() / self.temperature
        logprobs_BV = torch.log_softmax(scaled_BV, dim=-1)
        ids_B = drawn_ids(logprobs_BV, uniforms_B)
        return torch.stack([ids_B.double(), logprobs_BV.gather(-1, ids_B[:, None])[:, 0].double()])


class RowBatch(ABC):
    """Rows that are decoded together.

    A distinct prompt is prefilled once in the life of a batch, and what it begins with as another one does is
    taken from that one's cache: prompts with feedback share the question.
    """

    refills: ClassVar[bool] = True
    """Whether rows that enter while others are under way cost no pass of their own."""

    def __init__(self, decoder: Decoder) -> None:
        self.rows: list[Row] = []
        self._decoder, self._device = decoder, decoder.device
        self._prefilled: dict[tuple[int, tuple[int, ...]], Any] = {}

    @abstractmethod
    def exchange(self, rows: Sequence[Row]) -> None:
        """Take ended rows out of the batch, and put `rows` in."""

    @abstractmethod
    def step(self) -> None:
        """Draw one token for each row.

        Raises NotFiniteError where the model's output is not finite.
        """

    def _enter(self, row: Row) -> Any:
        """Draw the row's random numbers; gives the cache of its prompt, all tokens but the last."""
        generator = torch.Generator().manual_seed(row.seed)
        row.uniforms = torch.rand(row.max_tokens, generator=generator, dtype=torch.float64).tolist()
        key = (row.policy, row.prompt_ids)
        if key not in self._prefilled:
            self._decoder.choose_for([row])
            self._prefilled[key] = self._prefill(row.prompt_ids[:-1], row.policy)
        return self._prefilled[key]

    def _prefill(self, ids: Sequence[int], policy: int) -> Any:
        """The cache of `ids` under a policy."""
        others = [key for key in self._prefilled if key[0] == policy]
        n_alike = [len(common_beginning([ids, prompt_ids[:-1]])) for _, prompt_ids in others]
        n_shared = max(n_alike, default=0)
        cache = DynamicCache()
        if n_shared:
            cache = beginning(self._prefilled[others[n_alike.index(n_shared)]], n_shared)
        if n_shared < len(ids):
            self._decoder.logits(torch.tensor([ids[n_shared:]], device=self._device), cache)
        return cache

    def _draw(self, rows: Sequence[Row], logits_BV: Tensor) -> None:
        """Draw the next token of each row."""
        uniforms = [row.uniforms[len(row.token_ids)] for row in rows]
        uniforms_B = torch.tensor(uniforms, dtype=torch.float64, device=self._decoder.draws_on)
        drawn = self._decoder.draw(logits_BV, uniforms_B).tolist()
        for row, token_id, logprob in zip(rows, *drawn, strict=True):
            self._append(row, token_id, logprob)

    @staticmethod
    def _append(row: Row, token_id: float, logprob: float) -> None:
        if not math.isfinite(logprob):
            raise NotFiniteError
        row.token_ids.append(int(token_id))
        row.logprobs.append(logprob)


class Batch(RowBatch):
    """Rows right-aligned in one cache: row r uses its last `n_cached` columns, older ones are masked.

    A row that enters takes the place of one that has ended, so that the cache is copied only where the batch
    grows or shrinks.
    """

    def __init__(self, decoder: Decoder) -> None:
        super().__init__(decoder)
        self._cache: Any = None
        # One masked column keeps a mask alive where all rows are of one length: on a CPU transformers then
        # shares key-value heads without copies, ten times as fast as torch's own sharing without a mask.
        self._spare = 1 if self._device.type == "cpu" else 0

    def exchange(self, rows: Sequence[Row]) -> None:
        ended = deque(index for index, row in enumerate(self.rows) if row.finish is not None)
        if not rows and not ended:
            return
        width = 0 if self._cache is None else self._cache.get_seq_length()
        others = []
        for row in rows:
            prompt = self._enter(row)
            if ended and row.n_cached + self._spare <= width:
                self.rows[ended[0]] = row
                place(self._cache, ended.popleft(), prompt)
            else:
                others.append((row, prompt))
        self._resize(others)

    def _resize(self, entering: Sequence[tuple[Row, Any]]) -> None:
        """Copy the cache where it has other rows than before, else only let old columns go."""
        kept = [index for index, row in enumerate(self.rows) if row.finish is None]
        n_rows = len(self.rows)
        self.rows = [self.rows[index] for index in kept] + [row for row, _ in entering]
        if not self.rows:
            self._cache = None
            return
        width = self._width()
        if len(kept) < n_rows:
            own = min(width, self._cache.get_seq_length())
            self._cache = selected(self._cache, kept, own) if kept else None
        if entering:
            caches = [prompt for _, prompt in entering]
            self._cache = stacked(caches if self._cache is None else [self._cache, *caches], width)
        elif self._cache.get_seq_length() > width:
            crop(self._cache, width)

    def step(self) -> None:
        cached_B = torch.tensor([row.n_cached for row in self.rows], device=self._device)
        width = self._cache.get_seq_length() + 1
        columns_L = torch.arange(width, device=self._device)
        mask_BL = (columns_L >= width - 1 - cached_B[:, None]).long()
        newest_B1 = torch.tensor([[row.newest] for row in self.rows], device=self._device)
        self._decoder.choose_for(self.rows)
        logits_BV = self._decoder.logits(
            newest_B1, self._cache, attention_mask=mask_BL, position_ids=cached_B[:, None]
        )
        self._draw(self.rows, logits_BV)

    def _width(self) -> int:
        """Columns that the cache must have for the rows now in the batch."""
        return max(row.n_cached for row in self.rows) + self._spare


class CohortBatch(RowBatch):
    """Rows with caches of the model's own kind, for layers that keep other states than all keys and values.

    Rows that entered together from one prompt are a cohort: of one length at all times, so that nothing is
    padded or masked. A step is one pass a cohort.
    """

    refills = False

    def __init__(self, decoder: Decoder) -> None:
        super().__init__(decoder)
        self._cohorts: list[_Cohort] = []

    def exchange(self, rows: Sequence[Row]) -> None:
        self._drop_ended()
        by_prompt: dict[tuple[int, tuple[int, ...]], list[Row]] = {}
        for row in rows:
            by_prompt.setdefault((row.policy, row.prompt_ids), []).append(row)
        for members in by_prompt.values():
            caches = [self._enter(row) for row in members]
            cache = copy.deepcopy(caches[0])
            cache.reorder_cache(torch.zeros(len(members), dtype=torch.long, device=self._device))
            self._cohorts.append(_Cohort(members, cache))
        self.rows += rows

    def step(self) -> None:
        for cohort in self._cohorts:
            newest_B1 = torch.tensor([[row.newest] for row in cohort.rows], device=self._device)
            self._decoder.choose_for(cohort.rows)
            self._draw(cohort.rows, self._decoder.logits(newest_B1, cohort.cache))

    def _drop_ended(self) -> None:
        self.rows = [row for row in self.rows if row.finish is None]
        for cohort in self._cohorts:
            kept = [index for index, row in enumerate(cohort.rows) if row.finish is None]
            if len(kept) < len(cohort.rows):
                cohort.rows = [cohort.rows[index] for index in kept]
                cohort.cache.reorder_cache(torch.tensor(kept, dtype=torch.long, device=self._device))
        self._cohorts = [cohort for cohort in self._cohorts if cohort.rows]

    def _prefill(self, ids: Sequence[int], policy: int) -> Any:
        return self._decoder.own_cache(ids)


@dataclass(slots=True)
class _Cohort:
    rows: list[Row]
    cache: Any


def drawn_ids(logprobs_BV: Tensor, uniforms_B: Tensor) -> Tensor:
    """One token id a row by inverting the cumulative distribution at `uniforms_B` (float64 in [0, 1)).

    One number decides a row's draw, whatever rows stand beside it. The sums run over blocks and then inside
    the block that was hit: of a block in float32, as wide as the probabilities, then in float64 (sums
    of all in float64 take a CPU ten times as long). Where a row's log-probs are not numbers, that of
    the token drawn is not finite. Makes no copy to the host.
    """
    n_vocab, probs_BV = logprobs_BV.shape[-1], logprobs_BV.exp()
    whole_BV, rest_BV = probs_BV.tensor_split([n_vocab // _BLOCK * _BLOCK], dim=-1)
    sums_BK = whole_BV.unflatten(-1, (n_vocab // _BLOCK, _BLOCK)).sum(-1)
    if rest_BV.shape[-1]:
        sums_BK = torch.cat([sums_BK, rest_BV.sum(-1, keepdim=True)], -1)
    upto_BK = sums_BK.double().cumsum(-1)
    target_B1 = (uniforms_B * upto_BK[:, -1])[:, None]
    block_B = (upto_BK <= target_B1).sum(-1).clamp(max=upto_BK.shape[-1] - 1)
    before_B1 = upto_BK.gather(1, (block_B - 1).clamp(min=0)[:, None]) * (block_B > 0)[:, None]
    columns_BJ = block_B[:, None] * _BLOCK + torch.arange(_BLOCK, device=probs_BV.device)
    inside_BJ = probs_BV.gather(1, columns_BJ.clamp(max=n_vocab - 1)).double()
    inside_BJ = (inside_BJ * (columns_BJ < n_vocab)).cumsum(-1)
    rest_B1 = torch.minimum(target_B1 - before_B1, inside_BJ[:, -1:] * (1 - 2**-52))
    ids_B: Tensor = block_B * _BLOCK + (inside_BJ <= rest_B1).sum(-1)
    return ids_B
