"""The self-teachers, and the running average of weights behind one of them.

A teacher is the student's own model under a longer prompt; it generates nothing and gets no gradient. The
running average is taken of the weights, that is of the product BA and never of the factors apart: the average
of two products is a product of concatenated factors, brought back to a fixed rank by QR and SVD.
Source: arXiv 2601.20802, section 3 ("regularised teacher").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sdpo_solve.learner.examples import TokenizedExample
from sdpo_solve.learner.head import Mixture
from sdpo_solve.learner.options import TRUST_RATE, Options
from sdpo_solve.learner.packing import PackedPasses, PromptCompletion
from sdpo_solve.model.adapted import AdaptedModel, AdapterShape
from sdpo_solve.model.device import float64_device

A, B = ".lora_A.weight", ".lora_B.weight"

MAX_ERROR = 1e-3
"""Relative error that bringing the average back to its rank may have; an update with more has a notice."""


def teacher_mixture(
    host: AdaptedModel,
    options: Options,
    examples: Sequence[TokenizedExample],
    key: str,
    passes: PackedPasses,
) -> Mixture:
    """The teacher at the student's N positions, zero where an example has no teacher.

    `key`: the version, under which the slots `policy` and (for the average) `teacher` must stand.
    """
    rows = [example.teacher for example in examples if example.teacher is not None]
    mixture = _regularised(host, options, rows, key, passes)
    if options.teacher_mix < 1:
        # beta-OPSD (arXiv 2607.28582): logits mixed with those of the question alone.
        students = [example.student for example in examples if example.teacher is not None]
        with host.base_active():
            base = Mixture.of(passes.hidden_states(students))
        mixture = base.with_share(mixture, options.teacher_mix)
    if len(rows) == len(examples):
        return mixture
    return mixture.map(lambda part_Md: _at_all_positions(part_Md, examples))


def _regularised(
    host: AdaptedModel, options: Options, rows: Sequence[PromptCompletion], key: str, passes: PackedPasses
) -> Mixture:
    if options.teacher == "ema":
        with host.slot_active("teacher", key):
            return Mixture.of(passes.hidden_states(rows))
    if options.teacher == "live":
        with host.slot_active("policy", key):
            return Mixture.of(passes.hidden_states(rows))
    with host.base_active():
        initial = Mixture.of(passes.hidden_states(rows))
    if options.teacher == "frozen":
        return initial
    if options.teacher != "trust-region":
        raise ValueError(f"teacher {options.teacher} has no weights of its own")
    with host.slot_active("policy", key):
        current = Mixture.of(passes.hidden_states(rows))
    return initial.with_share(current, options.trust_rate or TRUST_RATE)


def _at_all_positions(hidden_Md: Tensor, examples: Sequence[TokenizedExample]) -> Tensor:
    """[M, d] at the positions that have a teacher -> [N, d] at all, zero elsewhere."""
    parts = iter(hidden_Md.split([example.teacher.n_targets for example in examples if example.teacher]))
    zero_1d = hidden_Md.new_zeros(1, hidden_Md.shape[1])
    return torch.cat(
        [
            next(parts) if example.teacher else zero_1d.expand(example.student.n_targets, -1)
            for example in examples
        ]
    )


# -- the running average -------------------------------------------------------------------------------------


def average_shape(options: Options, shape: AdapterShape) -> AdapterShape:
    """That of the average of adapters of `shape`: four ranks wide by default, which holds `MAX_ERROR`."""
    rank = options.ema_rank or 4 * shape.rank
    return replace(shape, rank=rank, alpha=shape.scaling * rank)


def averaged(
    average: Mapping[str, Tensor], weights: Mapping[str, Tensor], rate: float, rank: int
) -> tuple[dict[str, Tensor], float]:
    """(1 - rate) * average + rate * weights, as products, at `rank`, that of `average`.

    Also the largest relative error (Frobenius) that keeping to that rank brought into one product.
    """
    result: dict[str, Tensor] = {}
    worst, where = 0.0, float64_device(next(iter(weights.values())).device)
    for name in average:
        if not name.endswith(A):
            continue
        module = name.removesuffix(A)
        n_experts = len(average[name]) // rank
        old, new = (
            by_expert(factors[name].to(where), factors[module + B].to(where), n_experts)
            for factors in (average, weights)
        )
        down_Eri, up_Eor, error = average_product(old, new, rate)
        result[name] = down_Eri.flatten(0, 1)
        result[module + B] = up_Eor.permute(1, 2, 0).flatten(1).contiguous()
        worst = max(worst, error)
    return {name: result[name] for name in average}, worst


def by_expert(down: Tensor, up: Tensor, n_experts: int) -> tuple[Tensor, Tensor]:
    """PEFT's factors of a layer as A [E, rank, in] and B [E, out, rank]; a linear layer is one expert."""
    return down.unflatten(0, (n_experts, -1)), up.unflatten(1, (-1, n_experts)).permute(2, 0, 1)


def average_product(
    old: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor], rate: float
) -> tuple[Tensor, Tensor, float]:
    """The factors (A [E, rank, in], B [E, out, rank]) of (1 - rate) B_old A_old + rate B_new A_new, at old's
    rank, and the largest relative error of what was cut off."""
    rank = old[0].shape[-2]
    down = torch.cat([old[0], new[0]], dim=-2).double()
    up = torch.cat([(1 - rate) * old[1].double(), rate * new[1].double()], dim=-1)
    q_up, r_up = torch.linalg.qr(up)
    q_down, r_down = torch.linalg.qr(down.mT)
    u, sizes_Es, vt = torch.linalg.svd(r_up @ r_down.mT, full_matrices=False)
    cut_E, whole_E = sizes_Es[..., rank:].norm(dim=-1), sizes_Es.norm(dim=-1)
    error = float((cut_E / whole_E.clamp(min=torch.finfo(torch.float64).tiny)).max())
    kept = min(rank, sizes_Es.shape[-1])
    root_Es = sizes_Es[..., :kept].sqrt()
    new_down, new_up = torch.zeros_like(old[0]), torch.zeros_like(old[1])
    new_down[..., :kept, :] = (root_Es[..., None] * (vt[..., :kept, :] @ q_down.mT)).to(new_down.dtype)
    new_up[..., :kept] = (q_up @ (u[..., :kept] * root_Es[..., None, :])).to(new_up.dtype)
    return new_down, new_up, error
