"""LoRA on experts that are one tensor: products are those with the sum, and bfloat16 loses no early update."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from sdpo_solve.model.adapted import AdaptedModel, AdapterShape
from sdpo_solve.model.capability import adapter_targets
from sdpo_solve.model.lora_experts import LowRankSum, ParamWrapper
from tests.helpers.architectures import config_of, save_architecture

E, M, N, RANK, ROWS = 4, 8, 16, 3, 10
OFFSETS = torch.tensor([2, 5, 5, 10], dtype=torch.int32)
CHOSEN = torch.arange(ROWS) % E


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


X, Y = drawn(ROWS, M), drawn(ROWS, N)
PRODUCTS: dict[str, Callable[[Any], Any]] = {
    "grouped": lambda w: functional.grouped_mm(X, w, offs=OFFSETS),
    "grouped transposed": lambda w: functional.grouped_mm(Y, w.transpose(-2, -1), offs=OFFSETS),
    "linear": lambda w: functional.linear(Y, w[1]),
    "linear with bias": lambda w: functional.linear(Y, w[1], torch.ones(M)),
    "operator": lambda w: X @ w[2],
    "batched": lambda w: torch.bmm(X[:, None], w[CHOSEN]),
    "batched from the left": lambda w: torch.bmm(w[CHOSEN], Y[:, :, None]),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_is_that_with_the_sum(name: str) -> None:
    weight, left, right = drawn(E, M, N), drawn(E, M, RANK), drawn(E, RANK, N)
    got = PRODUCTS[name](LowRankSum.of(weight, left, right))
    torch.testing.assert_close(got, PRODUCTS[name](weight + left @ right), atol=1e-4, rtol=1e-4)


def test_what_is_no_product_is_an_error() -> None:
    stand_in = LowRankSum.of(drawn(E, M, N), drawn(E, M, RANK), drawn(E, RANK, N))
    with pytest.raises(TypeError):
        torch.exp(stand_in)  # type: ignore[call-overload]


def test_an_early_update_of_experts_is_not_rounded_away() -> None:
    """A weight of 1 in bfloat16 takes no 0.001, and yet its product moves by it."""
    weight = torch.ones(1, 2, 1, dtype=torch.bfloat16)
    left, right = torch.tensor([[[1e-3], [-1e-3]]]).bfloat16(), torch.ones(1, 1, 1).bfloat16()
    assert torch.equal(weight + left @ right, weight), "as PEFT would add it"
    x = torch.tensor([[1.0, -1.0]]).bfloat16()
    assert float(x @ LowRankSum.of(weight, left, right)[0]) == pytest.approx(2e-3, rel=1e-2)


def test_experts_of_both_slots_have_this_wrapper(tmp_path: Path) -> None:
    host = AdaptedModel.load(save_architecture(tmp_path, config_of("mixtral-window")), "cpu", torch.float32)
    found = adapter_targets(host.model, "all")
    for slot, rank in (("policy", 2), ("teacher", 8), ("policy", 4)):
        host.shape_adapter(slot, AdapterShape(rank, 8.0, found.modules, found.parameters))  # type: ignore[arg-type]
    wrappers = [x for x in host.model.modules() if "ParamWrapper" in type(x).__name__]
    assert [type(x) for x in wrappers] == [ParamWrapper] * 4
    assert adapter_targets(host.model, "all") == found
