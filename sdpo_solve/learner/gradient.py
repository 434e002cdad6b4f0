"""The gradient of one step: examples -> rows -> passes -> loss -> gradient, and what was seen on the way.

Student rows go through the model in micro-batches behind their common prefix. The logits of a chunk of
positions exist only while that chunk's loss is taken, so peak memory grows with the chunk and not with the
answers. Steps no weights and reads no files (see `learner.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from sdpo_solve.learner.attention import KeysValues
from sdpo_solve.learner.examples import TokenizedExample
from sdpo_solve.learner.head import Mixture
from sdpo_solve.learner.loss import (
    LossSettings,
    Positions,
    TokenLosses,
    kept_ids,
    score_gradients,
    token_losses,
)
from sdpo_solve.learner.packing import (
    MicroBatches,
    PackedPasses,
    PromptCompletion,
    question_fits,
    token_ids,
)
from sdpo_solve.model.device import release_memory


@dataclass(slots=True)
class Sums:
    """Sums over `n` positions, `n_taught` with a teacher; `logprob_gap`: of |log-prob now - as sampled|."""

    n: int = 0
    n_taught: int = 0
    objective: float = 0.0
    entropy: float = 0.0
    divergence: float = 0.0
    importance_ratio: float = 0.0
    importance_clipped_share: float = 0.0
    logprob_gap: float = 0.0

    def add(self, other: Sums) -> None:
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))

    def means(self) -> dict[str, float]:
        """Every sum a position; the divergence a position with a teacher, left out where there is none."""
        names = [one.name for one in fields(self) if one.name not in ("n", "n_taught", "divergence")]
        means = {name: getattr(self, name) / max(1, self.n) for name in names}
        return means | ({"divergence": self.divergence / self.n_taught} if self.n_taught else {})


@dataclass(slots=True)
class Step:
    """The gradient of the mean loss by parameter name, and sums over the positions."""

    gradients: dict[str, Tensor]
    sums: Sums = field(default_factory=Sums)


@dataclass(frozen=True, slots=True)
class MicroBatchGradients:
    """Gradients of a micro-batch's summed loss by the parameters and by the prefix's keys and values."""

    parameters: Sequence[Tensor | None]
    prefix: Sequence[Tensor | None]
    sums: Sums


@dataclass(frozen=True, slots=True)
class StudentPasses:
    """The student's passes of one step: everything that does not change between micro-batches."""

    passes: PackedPasses
    parameters: dict[str, torch.nn.Parameter]
    settings: LossSettings
    temperature: float

    def gradient(self, examples: Sequence[TokenizedExample], teacher: Mixture | None) -> Step:
        """The exact gradient of the mean token loss over all examples, under the weights that are on.

        `teacher`: at the N positions of all examples, in their order; None where only rewards count. Raises
        LearnerError where not even a single attempt fits into memory.
        """
        rows = [example.student for example in examples]
        prefix_ids = self.passes.common_prefix(rows)
        lengths = [len(row.own_ids(len(prefix_ids))) for row in rows]
        offsets = torch.tensor([0, *(row.n_targets for row in rows)]).cumsum(0).tolist()
        at = self._positions(examples, teacher)
        step = Step({name: torch.zeros_like(p) for name, p in self.parameters.items()})
        batches = MicroBatches(lengths, self.passes.limits)
        longest = max(len(prefix_ids), batches.most_tokens)
        checkpoint = longest > self.passes.limits.checkpoint_tokens
        with torch.enable_grad(), self.passes.active(checkpoint=checkpoint):
            with question_fits():
                prefix = self.passes.prefix(prefix_ids)
            leaves = [tensor.detach().requires_grad_() for tensor in prefix]
            grad_prefix = [torch.zeros_like(leaf) for leaf in leaves]
            for batch in batches:
                span = slice(offsets[batch.start], offsets[batch.stop])
                part_rows = [rows[i] for i in batch]
                part_teacher = None if teacher is None else teacher[span]
                grads = None
                try:
                    grads = self._micro_batch(part_rows, len(prefix_ids), leaves, at[span], part_teacher)
                except RuntimeError as exc:
                    batches.halve(batch, exc)
                if grads is None:  # only now is what the failed pass held let go, with its traceback
                    release_memory()
                    continue
                self._add(step, grads.parameters, offsets[-1])
                for total, grad in zip(grad_prefix, grads.prefix, strict=True):
                    if grad is not None:
                        total += grad
                step.sums.add(grads.sums)
            with question_fits():
                self._prefix_backward(step, prefix, grad_prefix)
        return step

    def _positions(self, examples: Sequence[TokenizedExample], teacher: Mixture | None) -> Positions:
        device, settings = self.passes.model.device, self.settings
        n_targets = torch.tensor([example.student.n_targets for example in examples])

        def by_position(values: Sequence[float]) -> Tensor:
            return torch.tensor(values).repeat_interleave(n_targets).to(device)

        sequence_advantage_N = None
        if settings.granularity == "sequence" and settings.grpo_weight < 1:
            # Without a teacher their weight is zero, whatever they are.
            sequence_advantage_N = torch.zeros(int(n_targets.sum()), device=device)
            if teacher is not None:
                sequence_advantage_N = self._sequence_advantages(examples, teacher)
        old = [logprob for example in examples for logprob in example.old_logprobs_T]
        return Positions(
            old_logprobs_N=torch.tensor(old, device=device),
            advantage_N=by_position([example.advantage for example in examples]),
            sequence_advantage_N=sequence_advantage_N,
            has_teacher_N=by_position([float(example.teacher is not None) for example in examples]),
        )

    def _sequence_advantages(self, examples: Sequence[TokenizedExample], teacher: Mixture) -> Tensor:
        """The mean over each sequence of log q - log pi at the sampled tokens, one value a position [N]."""
        rows, passes = [example.student for example in examples], self.passes
        ids_N = token_ids(rows, passes.model.device)
        log_pi_N = passes.logprobs(rows, self.temperature)
        log_q_N = passes.head(self.temperature).logprobs(teacher, ids_N, passes.limits.chunk_positions)
        parts = (log_q_N - log_pi_N).split([row.n_targets for row in rows])
        return torch.cat([part.mean().expand(len(part)) for part in parts])

    def _micro_batch(
        self,
        rows: Sequence[PromptCompletion],
        prefix_tokens: int,
        prefix: KeysValues,
        at: Positions,
        teacher: Mixture | None,
    ) -> MicroBatchGradients:
        hidden_Nd = self.passes.rows(rows, prefix_tokens, prefix)
        grad_hidden_Nd, sums = torch.empty_like(hidden_Nd), Sums()
        ids_N = token_ids(rows, hidden_Nd.device)
        chunk = self.passes.limits.chunk_positions
        for start in range(0, len(hidden_Nd), chunk):
            span = slice(start, start + chunk)
            part_teacher = None if teacher is None else teacher[span]
            grad_hidden_Nd[span] = self._chunk(hidden_Nd[span], ids_N[span], at[span], part_teacher, sums)
        parameters = list(self.parameters.values())
        grads = torch.autograd.grad(hidden_Nd, [*parameters, *prefix], grad_hidden_Nd, allow_unused=True)
        return MicroBatchGradients(grads[: len(parameters)], grads[len(parameters) :], sums)

    def _chunk(
        self, hidden_Cd: Tensor, ids_C: Tensor, at: Positions, teacher: Mixture | None, sums: Sums
    ) -> Tensor:
        """The gradient of a chunk's summed loss by its hidden states [C, d]; adds what was seen to `sums`."""
        head, hidden_Cd = self.passes.head(self.temperature), hidden_Cd.detach().requires_grad_()
        logits_CV = head.logits(hidden_Cd)
        kept_ids_CK = kept_ids(logits_CV.detach(), self.settings)
        student, entropy_C = head.student_scores(logits_CV, kept_ids_CK, ids_C)
        # Without a teacher the divergence has weight zero, whatever it is taken from.
        target = student if teacher is None else head.scores(teacher, kept_ids_CK, ids_C)
        losses = token_losses(student, target, at, self.settings)
        loss = losses.loss_N.sum()
        grads = score_gradients(loss, student)
        sums.add(self._observed(loss, losses, entropy_C, at))
        return head.backward(hidden_Cd, logits_CV, student, grads, kept_ids_CK, ids_C)

    def _observed(self, loss: Tensor, losses: TokenLosses, entropy_C: Tensor, at: Positions) -> Sums:
        clip, clipped, gap = self.settings.is_clip, 0.0, 0.0
        if clip is not None:
            clipped = (losses.ratio_N >= clip).sum().item()
        if at.old_logprobs_N is not None:
            gap = (losses.logprob_N - at.old_logprobs_N).abs().sum().item()
        return Sums(
            n=len(losses.loss_N),
            n_taught=len(losses.loss_N) if at.has_teacher_N is None else int(at.has_teacher_N.sum()),
            objective=loss.item(),
            entropy=entropy_C.sum().item(),
            divergence=losses.divergence_N.sum().item(),
            importance_ratio=losses.ratio_N.sum().item(),
            importance_clipped_share=clipped,
            logprob_gap=gap,
        )

    def _prefix_backward(self, step: Step, prefix: KeysValues, grad_prefix: KeysValues) -> None:
        """From the gradient by the prefix's keys and values to the one by the parameters."""
        pairs = [(t, grad) for t, grad in zip(prefix, grad_prefix, strict=True) if t.requires_grad]
        if pairs:
            outputs, grads = zip(*pairs, strict=True)
            parameters = list(self.parameters.values())
            self._add(step, torch.autograd.grad(outputs, parameters, grads, allow_unused=True), step.sums.n)

    def _add(self, step: Step, grads: Sequence[Tensor | None], n_positions: int) -> None:
        for name, grad in zip(self.parameters, grads, strict=True):
            if grad is not None:
                step.gradients[name] += grad / max(1, n_positions)
