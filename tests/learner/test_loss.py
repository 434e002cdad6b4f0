"""The loss by worked numbers: two or three tokens, figures that a reader can check by hand."""

import math
from typing import Any

import pytest
import torch

from sdpo_solve.learner import loss as losses
from sdpo_solve.learner.loss import LossSettings, Positions, distillation_loss, token_losses

P = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)  # student
Q = torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64)  # teacher
KL = 0.25 * math.log(2)  # 0.5 ln 2 - 0.25 ln 2, in both directions


def one(student: torch.Tensor = P, teacher: torch.Tensor = Q, token: int = 0, **options: Any) -> torch.Tensor:
    """The loss of a single position whose student and teacher have the given probabilities."""
    return distillation_loss(
        student.log()[None, None],
        teacher.log()[None, None],
        torch.tensor([[token]]),
        torch.ones(1, 1),
        **options,
    )


def gradient(**options: Any) -> torch.Tensor:
    logits_V = P.log().requires_grad_()
    distillation_loss(
        logits_V[None, None], Q.log()[None, None], torch.tensor([[0]]), torch.ones(1, 1), **options
    ).backward()
    assert logits_V.grad is not None
    return logits_V.grad


def test_forward_and_reverse_are_told_apart() -> None:
    student = torch.tensor([0.75, 0.25], dtype=torch.float64)
    teacher = torch.tensor([0.5, 0.5], dtype=torch.float64)
    reverse = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    forward = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(2)
    assert one(student, teacher, alpha=1.0, top_k=None).item() == pytest.approx(reverse)
    assert one(student, teacher, alpha=0.0, top_k=None).item() == pytest.approx(forward)
    assert reverse != pytest.approx(forward, rel=0.05)


def test_jensen_shannon_weighs_student_and_teacher() -> None:
    """alpha 0.25: m = 0.75 pi + 0.25 q, loss 0.75 KL(pi||m) + 0.25 KL(q||m)."""
    m = 0.75 * P + 0.25 * Q
    expected = 0.75 * (P * (P / m).log()).sum() + 0.25 * (Q * (Q / m).log()).sum()
    assert one(alpha=0.25, top_k=None).item() == pytest.approx(expected.item())


@pytest.mark.parametrize(
    "options", [{}, {"alpha": 0.0}, {"alpha": 0.5}, {"advantage_clip": 0.1}, {"granularity": "token"},
                {"granularity": "sampled_token"}, {"granularity": "sequence"}],
)  # fmt: skip
def test_the_divergence_seen_is_that_of_student_and_teacher_whatever_is_differentiated(
    options: dict[str, Any],
) -> None:
    """Student (1/2, 1/2), teacher (1/4, 3/4), each token drawn once: 1/2 ln 2 + 1/2 ln 2/3 a token."""
    student, teacher = (torch.tensor([p] * 2, dtype=torch.float64).log() for p in ([0.5, 0.5], [0.25, 0.75]))
    settings = LossSettings(top_k=None, **options)
    ids = torch.tensor([0, 1])
    kept = losses.kept_ids(student, settings)
    at = Positions(sequence_advantage_N=torch.zeros(2), has_teacher_N=torch.tensor([1.0, 1.0]))
    sides = [losses.scores(side, kept, ids) for side in (student, teacher)]
    seen = token_losses(*sides, at, settings).divergence_N
    assert seen.mean().item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    alone = Positions(sequence_advantage_N=torch.zeros(2), has_teacher_N=torch.tensor([1.0, 0.0]))
    assert token_losses(*sides, alone, settings).divergence_N.tolist() == [seen[0].item(), 0.0]


def test_no_loss_and_no_gradient_where_student_and_teacher_agree() -> None:
    for alpha in (0.0, 0.5, 1.0):
        assert one(P, P, alpha=alpha, top_k=2).item() == pytest.approx(0, abs=1e-12)


def test_gradient_moves_mass_to_what_the_teacher_likes_more() -> None:
    for alpha in (0.0, 0.5, 1.0):
        step = -gradient(alpha=alpha, top_k=None)
        assert step[1] > 0 > step[0], "token 1 is liked more by the teacher, token 0 less"
        assert step.sum().item() == pytest.approx(0, abs=1e-12)


def test_reverse_gradient_by_hand() -> None:
    """d/dz_v KL(pi||q) = pi_v (log pi_v - log q_v - KL)."""
    expected = P * (P.log() - Q.log() - KL)
    torch.testing.assert_close(gradient(alpha=1.0, top_k=None), expected)


def test_top_one_with_tail_is_a_divergence_of_two_buckets() -> None:
    """Student 0.5 against 0.5 for the rest, teacher 0.25 against 0.75."""
    expected = 0.5 * math.log(2) + 0.5 * math.log(0.5 / 0.75)
    assert one(top_k=1, tail=True).item() == pytest.approx(expected)


def test_renormalised_top_two() -> None:
    """Of the ties at 0.25 either may be kept; with a lower third token both sides become (2/3, 1/3), (1/3, 2/3)."""
    student = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    teacher = torch.tensor([0.3, 0.6, 0.1], dtype=torch.float64)
    expected = 2 / 3 * math.log(2) - 1 / 3 * math.log(2)
    assert one(student, teacher, top_k=2, tail=False).item() == pytest.approx(expected)


def test_a_tail_without_mass_is_not_nan() -> None:
    logits_V = torch.tensor([40.0, 0.0, 0.0], requires_grad=True)
    teacher_V = torch.tensor([0.0, 40.0, 0.0])
    value = distillation_loss(
        logits_V[None, None], teacher_V[None, None], torch.tensor([[0]]), torch.ones(1, 1), top_k=1
    )
    value.backward()
    assert math.isfinite(value.item())
    assert logits_V.grad is not None
    assert logits_V.grad.isfinite().all()


def test_masked_tokens_and_examples_count_for_nothing() -> None:
    student_BTV = P.log().expand(2, 2, 3).clone().requires_grad_()
    teacher_BTV = Q.log().expand(2, 2, 3)
    value = distillation_loss(
        student_BTV,
        teacher_BTV,
        torch.zeros(2, 2, dtype=torch.long),
        torch.tensor([[1, 0], [1, 1]]),
        example_mask_B=torch.tensor([1, 0]),
        top_k=None,
    )
    assert value.item() == pytest.approx(KL), "the mean over the one token that counts"
    value.backward()
    assert student_BTV.grad is not None
    assert student_BTV.grad[0, 0].abs().sum() > 0
    assert student_BTV.grad[0, 1].abs().sum() == student_BTV.grad[1].abs().sum() == 0


def test_nothing_to_learn_is_zero_not_nan() -> None:
    value = one(top_k=None, example_mask_B=torch.zeros(1))
    assert value.item() == 0


@pytest.mark.parametrize(
    ("rollout", "weight"),
    [(0.5, 1.0), (0.4, 1.25), (0.1, 2.0), (1e-30, 2.0), (1.0, 0.5)],
    ids=["on-policy", "likelier now", "clipped at 2", "no overflow", "unlikelier now"],
)
def test_importance_weight(rollout: float, weight: float) -> None:
    old = torch.tensor([[math.log(rollout)]], dtype=torch.float64)
    assert one(top_k=None, old_logprobs_BT=old).item() == pytest.approx(weight * KL)


def test_importance_weight_carries_no_gradient() -> None:
    old = torch.tensor([[math.log(0.4)]], dtype=torch.float64)
    torch.testing.assert_close(
        gradient(top_k=None, old_logprobs_BT=old), 1.25 * gradient(top_k=None), rtol=1e-9, atol=0
    )


def test_teacher_gets_no_gradient() -> None:
    teacher_V = Q.log().requires_grad_()
    student_V = P.log().requires_grad_()
    distillation_loss(
        student_V[None, None], teacher_V[None, None], torch.tensor([[0]]), torch.ones(1, 1)
    ).backward()
    assert teacher_V.grad is None


def test_advantage_clip_that_binds_nowhere_leaves_the_gradient_alone() -> None:
    torch.testing.assert_close(gradient(top_k=None, advantage_clip=5.0), gradient(top_k=None))


def test_advantage_clip_by_hand() -> None:
    """Advantages are -ln 2, ln 2, 0; clipped at 0.5: loss -(0.5 * -0.5 * ln 0.5 + 0.25 * 0.5 * ln 0.25)."""
    expected = -(0.5 * -0.5 * math.log(0.5) + 0.25 * 0.5 * math.log(0.25))
    assert one(top_k=None, advantage_clip=0.5).item() == pytest.approx(expected)
    weighed = torch.tensor([-0.25, 0.125, 0.0], dtype=torch.float64)  # pi_v * clipped advantage
    torch.testing.assert_close(
        gradient(top_k=None, advantage_clip=0.5), -(weighed - P * weighed.sum()), rtol=1e-9, atol=1e-12
    )


def test_token_level_is_the_first_term_of_the_logit_level() -> None:
    """Only the student's likeliest token counts, whatever was sampled: -pi A log pi, A = -ln 2."""
    expected = -0.5 * -math.log(2) * math.log(0.5)
    assert one(granularity="token", token=2).item() == pytest.approx(expected)
    step = -gradient(granularity="token")
    assert step[0] < 0 < step[1], "the teacher likes the likeliest token less, so it falls"


def test_sampled_token_uses_what_was_sampled() -> None:
    """Token 1 was sampled, A = ln 2: loss -ln 2 * ln 0.25; token 2 has no advantage."""
    assert one(granularity="sampled_token", token=1).item() == pytest.approx(-math.log(2) * math.log(0.25))
    assert one(granularity="sampled_token", token=2).item() == pytest.approx(0)


def test_sequence_level_shares_the_mean_advantage() -> None:
    """Tokens 0 and 1 of the sequence 1, 2 have advantages ln 2 and 0: both get ln 2 / 2. A third is masked."""
    value = distillation_loss(
        P.log().expand(1, 3, 3),
        Q.log().expand(1, 3, 3),
        torch.tensor([[1, 2, 0]]),
        torch.tensor([[1, 1, 0]]),
        granularity="sequence",
    )
    assert value.item() == pytest.approx(-math.log(2) / 2 * math.log(0.25))


@pytest.mark.parametrize(
    "options", [{"alpha": 0.0, "advantage_clip": 1.0}, {"alpha": 0.5, "granularity": "token"}, {"alpha": 1.5}]
)
def test_contradictions_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="alpha"):
        one(**options)


# -- weights and additions ---------------------------------------------------------------------------------


def tokens(settings: LossSettings, **at: Any) -> losses.TokenLosses:
    """Two positions of the same student and teacher; token 1 was sampled at both."""
    student_NV, teacher_NV = P.log().expand(2, 3), Q.log().expand(2, 3)
    ids_NK, sampled_N = losses.kept_ids(student_NV, settings), torch.tensor([1, 1])
    student, teacher = (losses.scores(logits_NV, ids_NK, sampled_N) for logits_NV in (student_NV, teacher_NV))
    return token_losses(student, teacher, Positions(**at), settings)


def test_hybrid_mixes_reward_and_teacher() -> None:
    """lambda 0.5, advantage 0.75 on a token of log-prob ln 0.25 (2601.20802, equation 3)."""
    found = tokens(
        LossSettings(top_k=None, grpo_weight=0.5),
        advantage_N=torch.tensor([0.75, 0.75]),
        has_teacher_N=torch.tensor([1.0, 0.0]),
    )
    reward = -0.5 * 0.75 * math.log(0.25)
    assert found.loss_N.tolist() == pytest.approx([0.5 * KL + reward, reward])
