"""The self-teachers against plain forward passes, and the running average in the space of weights."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sdpo_solve.learner import teacher as teachers
from sdpo_solve.learner.examples import TokenizedExample
from sdpo_solve.learner.head import Head
from sdpo_solve.learner.options import Options
from sdpo_solve.learner.packing import PackedPasses, PassLimits, PromptCompletion
from sdpo_solve.model.adapted import TARGETS, AdaptedModel, AdapterShape
from tests.helpers.tiny_model import save_tiny_model
from tests.helpers.updates import SPEC, group, learner, run_updates

STUDENT, TEACHER, ANSWER = (5, 6, 7), (5, 6, 8, 9), (70, 71, 72, 73)
EXAMPLE = TokenizedExample(PromptCompletion(STUDENT, ANSWER), PromptCompletion(TEACHER, ANSWER), (-1.0,) * 4)
LIMITS = PassLimits(64, 4096, 256)


def passes(host: AdaptedModel) -> PackedPasses:
    return PackedPasses(host.model, LIMITS)


def drawn(parameters: dict[str, Any], seed: int, size: float) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: size * torch.randn(p.shape, generator=generator) for name, p in parameters.items()}


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "m")


@pytest.fixture(scope="module")
def host(model_dir: Path) -> AdaptedModel:
    return with_slots(AdaptedModel.load(model_dir, "cpu", torch.float32))


def with_slots(found: AdaptedModel, size: float = 0.2) -> AdaptedModel:
    """Today's weights in the slot `policy`, an average of others in the slot `teacher`."""
    slots: tuple[tuple[Any, int], ...] = (("policy", 4), ("teacher", 8))
    for slot, rank in slots:
        shape = AdapterShape(rank, 2.0 * rank, TARGETS["all"])
        found.put(slot, "now", shape, drawn(found.shape_adapter(slot, shape), rank, size))
    return found


def logprobs(model: Any, prompt: tuple[int, ...]) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.tensor([[*prompt, *ANSWER]])).logits[0]
    return found[len(prompt) - 1 : -1].log_softmax(-1)


def teacher_logprobs(host: AdaptedModel, **options: Any) -> torch.Tensor:
    mixture = teachers.teacher_mixture(host, Options(**options), [EXAMPLE], "now", passes(host))
    return Head(host.model, 1.0).all_logprobs(mixture)


def test_frozen_ema_and_live_are_three_models_under_the_same_prompt(host: AdaptedModel) -> None:
    with host.base_active() as model:
        torch.testing.assert_close(
            teacher_logprobs(host, teacher="frozen"), logprobs(model, TEACHER), atol=1e-4, rtol=0
        )
    with host.slot_active("teacher", "now") as model:
        torch.testing.assert_close(
            teacher_logprobs(host, teacher="ema"), logprobs(model, TEACHER), atol=1e-4, rtol=0
        )
    with host.slot_active("policy", "now") as model:
        torch.testing.assert_close(
            teacher_logprobs(host, teacher="live"), logprobs(model, TEACHER), atol=1e-4, rtol=0
        )
    assert (
        teacher_logprobs(host, teacher="live") - teacher_logprobs(host, teacher="frozen")
    ).abs().max() > 0.1


def test_trust_region_mixes_log_probs_and_renormalises(host: AdaptedModel) -> None:
    """log q = (1 - a) log q_initial + a log q_now, renormalised (2601.20802, section 3); a = 0.3."""
    with host.base_active() as model:
        initial = logprobs(model, TEACHER)
    with host.slot_active("policy", "now") as model:
        now = logprobs(model, TEACHER)
    wanted = (0.7 * initial + 0.3 * now).log_softmax(-1)
    found = teacher_logprobs(host, teacher="trust-region", trust_rate=0.3)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)
    assert found.exp().sum(-1).sub(1).abs().max() < 1e-5


def test_a_mix_with_the_base_uses_the_question_without_feedback(host: AdaptedModel) -> None:
    with host.base_active() as model:
        alone, told = logprobs(model, STUDENT), logprobs(model, TEACHER)
    wanted = (0.75 * alone + 0.25 * told).log_softmax(-1)
    found = teacher_logprobs(host, teacher="frozen", teacher_mix=0.25)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("share", [0.01, 0.3])
def test_a_small_share_is_not_lost_in_bfloat16(model_dir: Path, share: float) -> None:
    """What a hundredth of today's model moves lies under the rounding of a hidden state; it is kept whole."""
    host = with_slots(AdaptedModel.load(model_dir, "cpu", torch.bfloat16), 0.03)  # as after some updates
    initial, today = teacher_logprobs(host, teacher="frozen"), teacher_logprobs(host, teacher="live")
    wanted = ((1 - share) * initial + share * today).log_softmax(-1)
    found = teacher_logprobs(host, teacher="trust-region", trust_rate=share)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    moved, asked = found - initial, wanted - initial
    assert float((moved * asked).sum() / asked.square().sum()) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_scores_of_a_mixture_are_those_of_its_log_probs(model_dir: Path, dtype: torch.dtype) -> None:
    """What the loss takes of it, in blocks of the vocabulary: kept and sampled tokens; T = 0.7."""
    host = with_slots(AdaptedModel.load(model_dir, "cpu", dtype))
    options = Options(teacher="trust-region", trust_rate=0.2, teacher_mix=0.6)
    mixture = teachers.teacher_mixture(host, options, [EXAMPLE], "now", passes(host))
    head, ids_T = Head(host.model, 0.7), torch.tensor(ANSWER)
    logprobs_TV = head.all_logprobs(mixture)
    kept_TK = torch.tensor([[1, 2, 3]] * 4)
    found = head.scores(mixture, kept_TK, ids_T)
    lse_T1 = found.lse_N[:, None]
    close = {"atol": 1e-4, "rtol": 0}
    torch.testing.assert_close(found.kept_NK - lse_T1, logprobs_TV.gather(1, kept_TK), **close)
    sampled_T = logprobs_TV.gather(1, ids_T[:, None])[:, 0]
    torch.testing.assert_close(found.sampled_N - found.lse_N, sampled_T, **close)
    torch.testing.assert_close(head.logprobs(mixture, ids_T, 3), sampled_T, **close)


def test_examples_without_a_teacher_leave_a_gap_of_their_length(host: AdaptedModel) -> None:
    silent = TokenizedExample(PromptCompletion(STUDENT, ANSWER[:3]), None, (-1.0,) * 3)
    for options in (Options(), Options(teacher="trust-region", teacher_mix=0.5)):
        mixture = teachers.teacher_mixture(host, options, [silent, EXAMPLE, silent], "now", passes(host))
        alone = teachers.teacher_mixture(host, options, [EXAMPLE], "now", passes(host))
        assert len(mixture.hidden_Nd) == (1 if options.teacher == "frozen" else 3)
        for hidden_Nd, alone_Nd in zip(mixture.hidden_Nd, alone.hidden_Nd, strict=True):
            assert hidden_Nd.shape[0] == 10
            assert not hidden_Nd[:3].any()
            assert not hidden_Nd[7:].any()
            torch.testing.assert_close(hidden_Nd[3:7], alone_Nd, atol=1e-5, rtol=0)


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
    pair = (torch.zeros(8, 24), torch.zeros(40, 8))
    exact = torch.zeros(40, 24, dtype=torch.float64)
    for seed, rate in enumerate((0.01, 0.5, 1.0)):
        new = factors(2, seed)
        exact = (1 - rate) * exact + rate * product(new)
        *pair, error = teachers.average_product((pair[0], pair[1]), new, rate)
        assert error < 1e-6
        torch.testing.assert_close(product((pair[0], pair[1])), exact, atol=1e-5, rtol=1e-5)


def test_the_average_of_experts_is_that_of_each() -> None:
    """In PEFT's layout: A an expert after the other, B a rank after the other."""

    def packed(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> dict[str, torch.Tensor]:
        ups = torch.stack([up for _, up in pairs], -1).flatten(1)
        return {"e.lora_A.weight": torch.cat([down for down, _ in pairs]), "e.lora_B.weight": ups}

    old, new = ([factors(rank, seed + rank) for seed in range(3)] for rank in (8, 2))
    got, error = teachers.averaged(packed(old), packed(new), 0.25, 8)
    alone = [teachers.average_product(o, n, 0.25) for o, n in zip(old, new, strict=True)]
    wanted = packed([(down, up) for down, up, _ in alone])
    assert error == pytest.approx(max(each for _, _, each in alone))
    downs, ups = got["e.lora_A.weight"].view(3, 8, 24), got["e.lora_B.weight"].view(40, 8, 3)
    for n, (down, up, _) in enumerate(alone):
        torch.testing.assert_close(product((downs[n], ups[..., n])), product((down, up)))
    assert all(got[name].shape == wanted[name].shape for name in wanted)


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
