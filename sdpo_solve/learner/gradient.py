"""From attempts to the gradient of one step, and what was seen on the way.

Student rows go through the model in micro-batches behind their common prefix. The logits of a chunk of
positions exist only while that chunk's loss is taken, so peak memory grows with the chunk and not with the
answers. Steps no weights and reads no files (see `lora.py`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from sdpo_solve.errors import LearnerError
from sdpo_solve.learner import loss as losses
from sdpo_solve.learner.attention import KeysValues
from sdpo_solve.learner.head import Head, Mixture
from sdpo_solve.learner.loss import LossSettings, Positions, Scores
from sdpo_solve.learner.packing import (
    Row,
    common_prefix,
    hidden_states,
    micro_batches,
    packed_attention,
    prefix_pass,
    rows_pass,
)
from sdpo_solve.model.cpu import is_out_of_memory

FoundT = TypeVar("FoundT")

OUT_OF_MEMORY = "out of memory with a single attempt: lower --max-tokens or learner.chunk_positions"


@dataclass(frozen=True, slots=True)
class Lesson:
    """One attempt to learn from. `teacher` is None where only its reward counts.

    `advantage`: what the reward says of all its tokens; only the hybrid with GRPO reads it.
    """

    student: Row
    teacher: Row | None
    old_logprobs_T: tuple[float, ...]
    advantage: float = 0.0


@dataclass(slots=True)
class Sizes:
    """How much goes through the model at once. `microbatch_tokens` shrinks when memory runs out."""

    microbatch_tokens: int
    checkpoint_tokens: int
    chunk_positions: int


@dataclass(frozen=True, slots=True)
class Targets:
    """What other models have to say at the student's N positions, in the order of the lessons."""

    teacher: Mixture | None
    reference: Mixture | None = None


@dataclass(slots=True)
class Sums:
    """Sums over positions; means are taken at the end."""

    n: int = 0
    loss: float = 0.0
    entropy: float = 0.0
    divergence: float = 0.0
    ratio: float = 0.0
    gap: float = 0.0
    clipped: float = 0.0


@dataclass(slots=True)
class Step:
    """The gradient of the mean loss by parameter name, and sums over the positions."""

    gradients: dict[str, Tensor]
    sums: Sums = field(default_factory=Sums)


@dataclass(frozen=True, slots=True)
class Passes:
    """The student's passes of one step: everything that does not change between micro-batches."""

    model: Any
    parameters: dict[str, torch.nn.Parameter]
    settings: LossSettings
    sizes: Sizes
    temperature: float

    def gradient(self, lessons: Sequence[Lesson], targets: Targets) -> Step:
        """The exact gradient of the mean token loss over all lessons, under the weights that are on.

        Raises LearnerError where not even a single attempt fits into memory.
        """
        rows = [lesson.student for lesson in lessons]
        prefix_ids = common_prefix(rows)
        lengths = [len(row.own_ids(len(prefix_ids))) for row in rows]
        offsets = torch.tensor([0, *(row.n_targets for row in rows)]).cumsum(0).tolist()
        at = self._positions(lessons, targets)
        step = Step({name: torch.zeros_like(p) for name, p in self.parameters.items()})
        longest = max([len(prefix_ids), *(sum(lengths[i] for i in b) for b in self._batches(lengths))])
        checkpoint = longest > self.sizes.checkpoint_tokens
        with torch.enable_grad(), packed_attention(self.model, checkpoint=checkpoint):
            prefix = prefix_pass(self.model, prefix_ids)
            leaves = None if prefix is None else [t.detach().requires_grad_() for t in prefix]
            at_prefix = None if leaves is None else [torch.zeros_like(leaf) for leaf in leaves]
            waiting = deque(self._batches(lengths))
            while waiting:
                batch = waiting.popleft()
                span = slice(offsets[batch.start], offsets[batch.stop])
                found: tuple[Sequence[Tensor | None], Sums] | None
                try:
                    found = self._micro_batch(
                        [rows[i] for i in batch], len(prefix_ids), leaves, _cut(at, span), _cut(targets, span)
                    )
                except RuntimeError as exc:
                    waiting.extendleft(reversed(self._halve(batch, exc)))
                    found = None
                if found is None:  # only now is what the failed pass held let go, with its traceback
                    give_back_memory()
                    continue
                _add(step, self.parameters, at_prefix, found, offsets[-1])
            if prefix is not None and at_prefix is not None:
                self._prefix_backward(step, prefix, at_prefix)
        return step

    def sequence_advantages(self, lessons: Sequence[Lesson], targets: Targets) -> Tensor:
        """The mean over each sequence of log q - log pi at the sampled tokens, one value a position [N]."""
        rows = [lesson.student for lesson in lessons]
        student_Nd = fitting(self.sizes, lambda size: hidden_states(self.model, rows, size))
        assert targets.teacher is not None
        ids_N = _token_ids(rows, student_Nd.device)
        chunk = self.sizes.chunk_positions
        gap_N = self.head.logprobs(targets.teacher, ids_N, chunk) - self.head.logprobs(
            Mixture.of(student_Nd), ids_N, chunk
        )
        parts = gap_N.split([row.n_targets for row in rows])
        return torch.cat([part.mean().expand(len(part)) for part in parts])

    @property
    def head(self) -> Head:
        return Head(self.model, self.temperature)

    # -- parts ---------------------------------------------------------------------------------------------

    def _batches(self, lengths: Sequence[int]) -> list[range]:
        return micro_batches(lengths, self.sizes.microbatch_tokens)

    def _positions(self, lessons: Sequence[Lesson], targets: Targets) -> Positions:
        rows = [lesson.student for lesson in lessons]
        device, settings = self.model.device, self.settings

        def spread(values: Sequence[float]) -> Tensor:
            counts = torch.tensor([row.n_targets for row in rows])
            return torch.tensor(values).repeat_interleave(counts).to(device)

        old = [logprob for lesson in lessons for logprob in lesson.old_logprobs_T]
        sequence = None
        if settings.granularity == "sequence" and settings.grpo_weight < 1:
            sequence = self.sequence_advantages(lessons, targets)
        return Positions(
            old_logprobs_N=torch.tensor(old, device=device),
            index_N=torch.cat([torch.arange(row.n_targets) for row in rows]).to(device),
            advantage_N=spread([lesson.advantage for lesson in lessons]),
            sequence_advantage_N=sequence,
            has_teacher_N=spread([float(lesson.teacher is not None) for lesson in lessons]),
        )

    def _micro_batch(
        self,
        rows: Sequence[Row],
        prefix_tokens: int,
        leaves: KeysValues | None,
        at: Positions,
        targets: Targets,
    ) -> tuple[Sequence[Tensor | None], Sums]:
        """Gradients by the parameters and then by the prefix's keys and values, of the *sum* of losses."""
        hidden_Nd = rows_pass(self.model, rows, prefix_tokens, leaves)
        sums, slope_Nd = Sums(), torch.empty_like(hidden_Nd)
        ids_N = _token_ids(rows, hidden_Nd.device)
        for start in range(0, len(hidden_Nd), self.sizes.chunk_positions):
            span = slice(start, start + self.sizes.chunk_positions)
            chunk = self._chunk_loss(ids_N[span], _cut(at, span), _cut(targets, span), sums)
            slope_Nd[span] = self.head.slope(hidden_Nd[span].detach(), ids_N[span], self.settings, chunk)
        inputs = [*self.parameters.values(), *(leaves or [])]
        return torch.autograd.grad(hidden_Nd, inputs, slope_Nd, allow_unused=True), sums

    def _chunk_loss(
        self, ids_C: Tensor, at: Positions, targets: Targets, sums: Sums
    ) -> Callable[[Scores, Tensor | None], Tensor]:
        """The summed loss of a chunk as a function of the student's scores; calling it adds to `sums`."""

        def loss(student: Scores, kept_CK: Tensor | None) -> Tensor:
            teacher = student
            if targets.teacher is not None:
                weighs = self.settings.entropy_weight > 0
                teacher = self.head.scores(targets.teacher, kept_CK, ids_C, entropy=weighs)
            found = losses.token_losses(student, teacher, at, self.settings)
            loss_C = found.loss_N
            if targets.reference is not None:
                reference = self.head.scores(targets.reference, kept_CK, ids_C)
                anchor_C = losses.reference_divergence(student, reference, self.settings)
                loss_C = loss_C + self.settings.reference_kl * anchor_C
            total = loss_C.sum()
            _observe(sums, found, total, student, at, self.settings)
            return total

        return loss

    def _halve(self, batch: range, exc: RuntimeError) -> list[range]:
        """Two halves of a micro-batch that did not fit; later ones stay that small."""
        if not is_out_of_memory(exc):
            raise exc
        if len(batch) == 1:
            raise LearnerError(OUT_OF_MEMORY) from None
        self.sizes.microbatch_tokens = max(1, self.sizes.microbatch_tokens // 2)
        middle = (batch.start + batch.stop) // 2
        return [range(batch.start, middle), range(middle, batch.stop)]

    def _prefix_backward(self, step: Step, prefix: KeysValues, at_prefix: KeysValues) -> None:
        """Send what the rows asked of the prefix's keys and values on to the parameters."""
        reached = [(t, g) for t, g in zip(prefix, at_prefix, strict=True) if t.requires_grad]
        if not reached:
            return
        outputs, slopes = [t for t, _ in reached], [g for _, g in reached]
        n = max(1, step.sums.n)
        gradients = torch.autograd.grad(outputs, list(self.parameters.values()), slopes, allow_unused=True)
        for name, gradient in zip(self.parameters, gradients, strict=True):
            if gradient is not None:
                step.gradients[name] += gradient / n


def fitting(sizes: Sizes, work: Callable[[int], FoundT]) -> FoundT:
    """`work` with a size of micro-batches, halved until it fits; later ones stay that small.

    Raises LearnerError where not even a single attempt fits.
    """
    while True:
        try:
            return work(sizes.microbatch_tokens)
        except RuntimeError as exc:
            if not is_out_of_memory(exc):
                raise
        if sizes.microbatch_tokens == 1:
            raise LearnerError(OUT_OF_MEMORY)
        sizes.microbatch_tokens //= 2
        give_back_memory()


def give_back_memory() -> None:
    """Hand what torch keeps for later back to the accelerator, so that smaller pieces find room."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _add(
    step: Step,
    parameters: dict[str, torch.nn.Parameter],
    at_prefix: KeysValues | None,
    found: tuple[Sequence[Tensor | None], Sums],
    n_positions: int,
) -> None:
    gradients, sums = found
    for name, gradient in zip(parameters, gradients[: len(parameters)], strict=True):
        if gradient is not None:
            step.gradients[name] += gradient / n_positions
    for total, gradient in zip(at_prefix or [], gradients[len(parameters) :], strict=True):
        if gradient is not None:
            total += gradient
    for name in Sums.__slots__:
        setattr(step.sums, name, getattr(step.sums, name) + getattr(sums, name))


def _observe(
    sums: Sums,
    found: losses.TokenLosses,
    total: Tensor,
    student: Scores,
    at: Positions,
    settings: LossSettings,
) -> None:
    sums.n += len(found.loss_N)
    sums.loss += total.item()
    sums.entropy += student.entropy_N.sum().item() if student.entropy_N is not None else 0.0
    sums.divergence += found.divergence_N.sum().item()
    sums.ratio += found.ratio_N.sum().item()
    if settings.is_clip is not None:
        sums.clipped += (found.ratio_N >= settings.is_clip).sum().item()
    if at.old_logprobs_N is not None:
        sums.gap += (found.logprob_N - at.old_logprobs_N).abs().sum().item()


def _token_ids(rows: Sequence[Row], device: torch.device) -> Tensor:
    return torch.tensor([token for row in rows for token in row.completion_ids_T], device=device)


def _cut(record: Any, span: slice) -> Any:
    """The same record with every field cut to a span of positions."""
    fields = {name: getattr(record, name) for name in record.__slots__}
    return type(record)(**{name: None if f is None else f[span] for name, f in fields.items()})
