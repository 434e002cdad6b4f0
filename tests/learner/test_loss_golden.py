"""The plain form of the loss agrees with an independent implementation: 19 cases, loss and gradient."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sdpo_solve.learner.loss import distillation_loss

CASES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "golden" / "sdpo_loss_cases.json").read_text()
)


def name(case: dict[str, Any]) -> str:
    return f"{case.get('mode', 'logit')}-alpha{case['alpha']}-top{case['top_k']}-tail{case['tail']}-is{case['is_clip']}"


@pytest.mark.parametrize("case", CASES, ids=name)
def test_loss_and_gradient(case: dict[str, Any]) -> None:
    def floats(key: str) -> torch.Tensor:
        return torch.tensor(case[key], dtype=torch.float64)

    student_logits_BTV = floats("student_logits").requires_grad_()
    loss = distillation_loss(
        student_logits_BTV,
        floats("teacher_logits"),
        torch.tensor(case["token_ids"]),
        floats("response_mask"),
        example_mask_B=floats("example_mask"),
        old_logprobs_BT=floats("old_log_probs"),
        alpha=case["alpha"],
        top_k=case["top_k"],
        tail=bool(case["tail"]),
        is_clip=case["is_clip"],
        granularity=case.get("mode", "logit"),
    )
    loss.backward()
    assert loss.item() == pytest.approx(case["loss"], abs=1e-8)
    assert student_logits_BTV.grad is not None
    torch.testing.assert_close(student_logits_BTV.grad, floats("grad_student_logits"), rtol=0, atol=1e-8)


def test_there_are_all_nineteen() -> None:
    assert len(CASES) == len({name(case) for case in CASES}) == 19
