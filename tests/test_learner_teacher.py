"""The self-teachers against plain forward passes, and the running average in the space of weights."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_learner import SPEC, group, learner, run_updates

from sdpo_solve.learner import teacher as teachers
from sdpo_solve.learner.gradient import Lesson
from sdpo_solve.learner.host import TARGETS, AdaptedModel, AdapterShape
from sdpo_solve.learner.options import Options
from sdpo_solve.learner.packing import Row
from tests.tiny_model import save_tiny_model

STUDENT, TEACHER, ANSWER = (5, 6, 7), (5, 6, 8, 9), (70, 71, 72, 73)
LESSON = Lesson(Row(STUDENT, ANSWER), Row(TEACHER, ANSWER), (-1.0,) * 4)


def drawn(parameters: dict[str, Any], seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.2 * torch.randn(p.shape, generator=generator) for name, p in parameters.items()}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> AdaptedModel:
    """Today's weights in the slot `policy`, an average of others in the slot `teacher`."""
    found = AdaptedModel.load(save_tiny_model(tmp_path_factory.mktemp("tiny") / "m"), "cpu", torch.float32)
    slots: tuple[tuple[Any, int], ...] = (("policy", 4), ("teacher", 8))
    for slot, rank in slots:
        shape = AdapterShape(rank, 2.0 * rank, TARGETS["all"])
        found.put(slot, "now", shape, drawn(found.shape_adapter(slot, shape), rank))
    return found


def logprobs(model: Any, prompt: tuple[int, ...]) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.tensor([[*prompt, *ANSWER]])).logits[0]
    return found[len(prompt) - 1 : -1].log_softmax(-1)


def said(host: AdaptedModel, **options: Any) -> torch.Tensor:
    hidden = teachers.teacher_hidden(host, Options(**options), [LESSON], "now", 64)
    return host.model.get_output_embeddings()(hidden).log_softmax(-1).detach()


def test_frozen_ema_and_live_are_three_models_under_the_same_prompt(host: AdaptedModel) -> None:
    with host.base_active() as model:
        torch.testing.assert_close(said(host, teacher="frozen"), logprobs(model, TEACHER), atol=1e-4, rtol=0)
    with host.slot_active("teacher", "now") as model:
        torch.testing.assert_close(said(host, teacher="ema"), logprobs(model, TEACHER), atol=1e-4, rtol=0)
    with host.slot_active("policy", "now") as model:
        torch.testing.assert_close(said(host, teacher="live"), logprobs(model, TEACHER), atol=1e-4, rtol=0)
    assert (said(host, teacher="live") - said(host, teacher="frozen")).abs().max() > 0.1


def test_trust_region_mixes_log_probs_and_renormalises(host: AdaptedModel) -> None:
    """log q = (1 - a) log q_initial + a log q_now, renormalised (2601.20802, section 3); a = 0.3."""
    with host.base_active() as model:
        initial = logprobs(model, TEACHER)
    with host.slot_active("policy", "now") as model:
        now = logprobs(model, TEACHER)
    wanted = (0.7 * initial + 0.3 * now).log_softmax(-1)
    found = said(host, teacher="trust-region", trust_rate=0.3)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)
    assert found.exp().sum(-1).sub(1).abs().max() < 1e-5


def test_a_mix_with_the_base_uses_the_question_without_feedback(host: AdaptedModel) -> None:
    with host.base_active() as model:
        alone, told = logprobs(model, STUDENT), logprobs(model, TEACHER)
    wanted = (0.75 * alone + 0.25 * told).log_softmax(-1)
    found = said(host, teacher="frozen", teacher_mix=0.25)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


def test_lessons_without_a_teacher_leave_a_gap_of_their_length(host: AdaptedModel) -> None:
    silent = Lesson(Row(STUDENT, ANSWER[:3]), None, (-1.0,) * 3)
    hidden = teachers.teacher_hidden(host, Options(), [silent, LESSON, silent], "now", 64)
    assert hidden.shape[0] == 10
    assert not hidden[:3].any()
    assert not hidden[7:].any()
    alone = teachers.teacher_hidden(host, Options(), [LESSON], "now", 64)
    torch.testing.assert_close(hidden[3:7], alone, atol=1e-5, rtol=0)


# -- the running average -----------------------------------------------------------------------------------


def factors(rank: int, seed: int, n_in: int = 24, n_out: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(rank, n_in, generator=generator),
        torch.randn(n_out, rank, generator=generator),
    )


def product(pair: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return pair[1].double() @ pair[0].double()


def test_the_average_is_that_of_products_and_not_of_factors() -> None:
    old, new = factors(8, 0), factors(2, 1)
    down, up, error = teachers.average_product(old, new, 0.25)
    wanted = 0.75 * product(old) + 0.25 * product(new)
    assert down.shape == (8, 24)
    assert up.shape == (40, 8)
    kept = (product((down, up)) - wanted).norm() / wanted.norm()
    assert float(kept) == pytest.approx(error, rel=1e-3), "the error it states is the error it makes"
    small = (factors(3, 2), factors(3, 3))
    apart = product(tuple(0.75 * o + 0.25 * n for o, n in zip(*small, strict=True)))
    wanted = 0.75 * product(small[0]) + 0.25 * product(small[1])
    assert (apart - wanted).norm() / wanted.norm() > 0.3, "averaging A and B apart is something else"


def test_two_ranks_that_fit_lose_nothing() -> None:
    old = teachers.zero_average(
        {"m.lora_A.weight": torch.ones(2, 24), "m.lora_B.weight": torch.ones(40, 2)}, 8
    )
    pair = (old["m.lora_A.weight"], old["m.lora_B.weight"])
    exact = torch.zeros(40, 24, dtype=torch.float64)
    for seed, rate in enumerate((0.01, 0.5, 1.0)):
        new = factors(2, seed)
        exact = (1 - rate) * exact + rate * product(new)
        *pair, error = teachers.average_product((pair[0], pair[1]), new, rate)
        assert error < 1e-6
        torch.testing.assert_close(product((pair[0], pair[1])), exact, atol=1e-5, rtol=1e-5)


def test_the_error_of_a_rank_that_is_too_small_is_told() -> None:
    """Two orthogonal rank-one products of equal size at rank 1: half of the squared norm is lost."""
    e1, e2 = torch.eye(4)[:1], torch.eye(4)[1:2]
    _, _, error = teachers.average_product((e1, e1.T.contiguous()), (e2, e2.T.contiguous()), 0.5)
    assert error == pytest.approx(math.sqrt(0.5))


def test_a_run_averages_exactly_says_its_error_and_keeps_it_on_disk(
    host: AdaptedModel, tmp_path: Path
) -> None:
    """Eight steps; the average on disk is that of the products of all versions, at every step."""
    rate, found = 0.2, learner(host, teacher="ema", ema_rate=0.2, lora_rank=4, lr=3e-3)
    policy = found.start("run", tmp_path / "policies", 0)
    exact: dict[str, torch.Tensor] = {}
    for step in range(8):
        update = found.learn(group(host, policy, seed=step), SPEC)
        policy = update.policy
        assert update.metrics["ema_error"] < teachers.MAX_ERROR
        assert update.notices == ()
        weights = load_file(policy.adapter_dir / "adapter_model.safetensors")
        average = load_file(policy.adapter_dir / "teacher.safetensors")
        for name in (n.removesuffix(teachers.A) for n in weights if n.endswith(teachers.A)):
            now = product((weights[name + teachers.A], weights[name + teachers.B]))
            exact[name] = (1 - rate) * exact.get(name, torch.zeros_like(now)) + rate * now
            kept = product((average[name + teachers.A], average[name + teachers.B]))
            assert (kept - exact[name]).norm() <= 2e-3 * exact[name].norm() + 1e-9, (step, name)


def test_an_average_that_loses_too_much_says_what_to_do(host: AdaptedModel, tmp_path: Path) -> None:
    found = learner(host, teacher="ema", ema_rate=0.5, ema_rank=1, lora_rank=4)
    update = found.learn(group(host, found.start("run", tmp_path, 0)), SPEC)
    assert update.metrics["ema_error"] > 1e-3
    assert "raise learner.ema_rank" in update.notices[0]


def test_the_average_follows_slowly(host: AdaptedModel, tmp_path: Path) -> None:
    """After one step from zero the average is `rate` times the adapter, not 1 - rate times (Table 12)."""
    _, chain = run_updates(host, tmp_path, 1, teacher="ema", ema_rate=0.01)
    weights = load_file(chain[1].adapter_dir / "adapter_model.safetensors")
    average = load_file(chain[1].adapter_dir / "teacher.safetensors")
    for name in (n.removesuffix(teachers.A) for n in weights if n.endswith(teachers.A)):
        wanted = 0.01 * product((weights[name + teachers.A], weights[name + teachers.B]))
        found = product((average[name + teachers.A], average[name + teachers.B]))
        torch.testing.assert_close(found, wanted, atol=1e-9, rtol=1e-4)
