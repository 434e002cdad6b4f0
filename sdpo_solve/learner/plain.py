"""The same passes by the model's own forward, without packing: slower, and right for any causal LM.

Rows go through side by side, padded behind their ends, where no token of a causal model looks. The head is
the model's own as well (scaled or capped logits, for example): its forward runs with the body replaced by
given hidden states, a chunk of positions at a time, and autograd takes it back. `plain_gradient` is the
yardstick of both: whole logits and one backward, for tests and `sdpo-solve bench update`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from sdpo_solve.learner.attention import KeysValues
from sdpo_solve.learner.examples import TokenizedExample
from sdpo_solve.learner.head import Head
from sdpo_solve.learner.loss import LossSettings, ScoreGradients, Scores, distillation_loss, scores
from sdpo_solve.learner.packing import PackedPasses, PromptCompletion, body_of, recomputed_layers
from sdpo_solve.model.adapted import AdaptedModel


class PlainPasses(PackedPasses):
    """Passes of `model` by its own forward; no prefix is shared."""

    def common_prefix(self, rows: Sequence[PromptCompletion]) -> tuple[int, ...]:
        return ()

    def rows(self, rows: Sequence[PromptCompletion], prefix_tokens: int, prefix: KeysValues) -> Tensor:
        own = [row.own_ids(0) for row in rows]
        ids_BS = _padded(own, max(map(len, own)), 0).to(self.model.device)
        hidden_BSd = body_of(self.model)(input_ids=ids_BS, use_cache=False).last_hidden_state
        parts = zip(hidden_BSd, own, rows, strict=True)
        return torch.cat([h_Sd[len(ids) - row.n_targets : len(ids)] for h_Sd, ids, row in parts])

    def head(self, temperature: float) -> Head:
        return OwnHead(self.model, temperature)

    @contextmanager
    def active(self, *, checkpoint: bool = False) -> Iterator[None]:
        with recomputed_layers(self.model if checkpoint else None):
            yield


class _BodyOutput(BaseModelOutput):
    """What a model's body returns, nothing but hidden states in it."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


class OwnHead(Head):
    """Whatever the model's forward makes of its body's hidden states."""

    def __init__(self, model: Any, temperature: float) -> None:
        super().__init__(model, temperature)
        self._model = model

    def logits(self, hidden_Cd: Tensor) -> Tensor:
        """Logits [C, V] with the graph from `hidden_Cd`, where gradients are on."""
        decoder = body_of(self._model)
        decoder.forward = lambda *_, **__: _BodyOutput(last_hidden_state=hidden_Cd[None])
        try:
            ids_1C = torch.zeros(1, len(hidden_Cd), dtype=torch.long, device=hidden_Cd.device)
            logits_CV: Tensor = self._model(input_ids=ids_1C, use_cache=False).logits[0]
            return logits_CV
        finally:
            del decoder.forward  # the class's own shows again

    def backward(
        self,
        hidden_Cd: Tensor,
        logits_CV: Tensor,
        student: Scores,
        grads: ScoreGradients,
        kept_ids_CK: Tensor | None,
        token_ids_C: Tensor,
    ) -> Tensor:
        own = scores(logits_CV.float() / self._temperature, kept_ids_CK, token_ids_C)
        outputs = (own.lse_N, own.kept_NK, own.sampled_N)
        by_output = (grads.grad_lse_N, grads.grad_kept_NK, grads.grad_sampled_N)
        return torch.autograd.grad(outputs, hidden_Cd, by_output)[0]


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
