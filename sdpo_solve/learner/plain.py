"""One update in its plain form, the yardstick of the packed one: padded rows, whole logits, one backward.

For tests (equal gradients) and for `sdpo-solve bench update` (time and memory); no run uses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sdpo_solve.learner.examples import TokenizedExample
from sdpo_solve.learner.loss import LossSettings, distillation_loss
from sdpo_solve.learner.packing import PromptCompletion
from sdpo_solve.model.adapted import AdaptedModel


def plain_gradient(
    host: AdaptedModel,
    key: str,
    examples: Sequence[TokenizedExample],
    settings: LossSettings,
    temperature: float,
) -> dict[str, Tensor]:
    """The gradient of the mean loss against the frozen teacher, by parameter of the `policy` slot."""
    parameters: Mapping[str, torch.nn.Parameter] = host.parameters("policy")
    width = max(example.student.n_targets for example in examples)
    with host.base_active() as model, torch.no_grad():
        teachers = [example.teacher for example in examples if example.teacher is not None]
        teacher_BTV = _logits(model, teachers, width) / temperature
    with host.slot_active("policy", key) as model, torch.enable_grad():
        student_BTV = _logits(model, [example.student for example in examples], width) / temperature
        loss = distillation_loss(
            student_BTV,
            teacher_BTV,
            _padded([example.student.completion_ids_T for example in examples], width, 0).to(host.device),
            _padded([[1] * example.student.n_targets for example in examples], width, 0).to(host.device),
            old_logprobs_BT=_padded([example.old_logprobs_T for example in examples], width, 0.0).to(
                host.device
            ),
            alpha=settings.alpha,
            top_k=settings.top_k,
            tail=settings.tail,
            is_clip=settings.is_clip,
            advantage_clip=settings.advantage_clip,
            granularity=settings.granularity,
        )
        gradients = torch.autograd.grad(loss, list(parameters.values()))
    return dict(zip(parameters, gradients, strict=True))


def _logits(model: Any, rows: Sequence[PromptCompletion], width: int) -> Tensor:
    """Logits [B, T, V] at the positions that predict the completions, float32; rubbish behind a row's end."""
    ids = [row.prompt_ids + row.completion_ids_T for row in rows]
    longest = max(len(row_ids) for row_ids in ids)
    batch = _padded(ids, longest, 0).to(model.device)
    mask = _padded([[1] * len(row_ids) for row_ids in ids], longest, 0).to(model.device)
    logits_BSV = model(input_ids=batch, attention_mask=mask, use_cache=False).logits
    starts = [len(row.prompt_ids) - 1 for row in rows]
    at = torch.tensor([[min(start + t, longest - 1) for t in range(width)] for start in starts])
    rows_B1 = torch.arange(len(rows))[:, None]
    wanted: Tensor = logits_BSV[rows_B1, at].float()
    return wanted


def _padded(rows: Sequence[Sequence[float]], width: int, fill: float) -> Tensor:
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows])
