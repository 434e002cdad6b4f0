"""The packed passes give the gradient of the plain form: padded rows, whole logits, one backward pass."""

from typing import Any

import pytest
import torch

from sdpo_solve.errors import LearnerError
from sdpo_solve.learner.examples import TokenizedExample
from sdpo_solve.learner.gradient import Step, StudentPasses
from sdpo_solve.learner.head import Mixture
from sdpo_solve.learner.loss import LossSettings
from sdpo_solve.learner.packing import (
    MicroBatches,
    PackedPasses,
    PassLimits,
    PromptCompletion,
)
from sdpo_solve.learner.plain import PlainPasses, plain_gradient
from sdpo_solve.model.adapted import TARGETS, AdaptedModel, AdapterShape
from tests.helpers.tiny_model import save_tiny_model

SHAPE = AdapterShape(4, 8.0, TARGETS["all"])


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> AdaptedModel:
    """With an adapter that is not zero, so that every parameter has a gradient."""
    found = AdaptedModel.load(save_tiny_model(tmp_path_factory.mktemp("tiny") / "m"), "cpu", torch.float32)
    generator = torch.Generator().manual_seed(1)
    weights = {
        name: 0.1 * torch.randn(p.shape, generator=generator)
        for name, p in found.shape_adapter("policy", SHAPE).items()
    }
    found.put("policy", "key", SHAPE, weights)
    return found


def attempts(seed: int = 0) -> list[TokenizedExample]:
    """Five answers of different lengths to one question; feedbacks of different lengths behind it."""
    generator = torch.Generator().manual_seed(seed)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(0, 256, (n,), generator=generator).tolist())

    question, made = ids(20), []
    for n in (7, 1, 12, 5, 9):
        answer = ids(n)
        old = tuple((-5 * torch.rand(n, generator=generator)).tolist())
        student = PromptCompletion(question, answer)
        teacher = PromptCompletion(question[:15] + ids(4 + n), answer)
        made.append(TokenizedExample(student, teacher, old))
    return made


def longer(example: TokenizedExample) -> TokenizedExample:
    """The answer six times over."""
    answer = 6 * example.student.completion_ids_T
    assert example.teacher is not None
    teacher = PromptCompletion(example.teacher.prompt_ids, answer)
    student = PromptCompletion(example.student.prompt_ids, answer)
    return TokenizedExample(student, teacher, 6 * example.old_logprobs_T)


def packed(
    host: AdaptedModel,
    given: list[TokenizedExample],
    settings: LossSettings,
    temperature: float = 1.0,
    **sizes: int,
) -> Step:
    defaults = {"microbatch_tokens": 4096, "checkpoint_tokens": 4096, "chunk_positions": 8}
    return with_limits(host, given, settings, PassLimits(**{**defaults, **sizes}), temperature)


def with_limits(
    host: AdaptedModel,
    given: list[TokenizedExample],
    settings: LossSettings,
    limits: PassLimits,
    temperature: float = 1.0,
    passes: type[PackedPasses] = PackedPasses,
) -> Step:
    rows = [example.teacher for example in given if example.teacher]
    with host.base_active():
        teacher = Mixture.of(passes(host.model, PassLimits(64, 4096, 8)).hidden_states(rows))
    with host.slot_active("policy", "key"):
        parameters = host.parameters("policy")
        student = StudentPasses(passes(host.model, limits), parameters, settings, temperature)
        return student.gradient(given, teacher)


def relative_error(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    assert found.keys() == wanted.keys()
    gap = sum(float((found[name] - wanted[name]).square().sum()) for name in wanted)
    return (gap / sum(float(t.square().sum()) for t in wanted.values())) ** 0.5


@pytest.mark.parametrize(
    "settings",
    [
        LossSettings(),
        LossSettings(top_k=5, tail=False),
        LossSettings(top_k=None),
        LossSettings(alpha=0.0),
        LossSettings(alpha=0.5, is_clip=None),
        LossSettings(advantage_clip=0.5),
        LossSettings(granularity="token"),
        LossSettings(granularity="sequence"),
        LossSettings(granularity="sampled_token"),
    ],
    ids=lambda s: f"{s.granularity}-alpha{s.alpha}-top{s.top_k}-{s.advantage_clip}",
)
def test_both_kinds_of_passes_equal_the_plain_form(host: AdaptedModel, settings: LossSettings) -> None:
    given = attempts()
    wanted = plain_gradient(host, "key", given, settings, 0.7)
    for passes in (PackedPasses, PlainPasses):
        step = with_limits(host, given, settings, PassLimits(64, 4096, 8), 0.7, passes)
        assert relative_error(step.gradients, wanted) < 1e-4


@pytest.mark.parametrize(
    "sizes",
    [{"microbatch_tokens": 1}, {"microbatch_tokens": 15}, {"checkpoint_tokens": 0}, {"chunk_positions": 1}],
    ids=str,
)
def test_sizes_change_nothing(host: AdaptedModel, sizes: dict[str, int]) -> None:
    whole, other = (packed(host, attempts(), LossSettings(), **given) for given in ({}, sizes))
    assert relative_error(other.gradients, whole.gradients) < 1e-5
    assert other.sums.objective == pytest.approx(whole.sums.objective, rel=1e-5)
    assert other.sums.n == whole.sums.n == 34


@pytest.mark.parametrize("mask_scores", [0, 1 << 19])
def test_long_rows_take_torchs_kernels_to_the_same_gradient(
    host: AdaptedModel, mask_scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers both shorter and longer than the question: behind a mask, and as a square without one."""
    from sdpo_solve.learner import attention

    short = packed(host, attempts(), LossSettings())
    monkeypatch.setattr(attention, "_SHORT_SCORES", 0)
    monkeypatch.setattr(attention, "_MASK_SCORES", mask_scores)
    assert relative_error(packed(host, attempts(), LossSettings()).gradients, short.gradients) < 1e-5
    long = [longer(example) for example in attempts()]
    wanted = plain_gradient(host, "key", long, LossSettings(), 1.0)
    assert relative_error(packed(host, long, LossSettings()).gradients, wanted) < 1e-4


@pytest.mark.parametrize("most_padding", [0, 1, 9])
def test_rows_that_attend_in_one_call_have_the_same_gradient(
    host: AdaptedModel, most_padding: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers of 1 to 12 tokens in one call, padded, where that is allowed."""
    from sdpo_solve.learner import attention

    apart = packed(host, attempts(), LossSettings())
    monkeypatch.setattr(attention, "_TOGETHER_ON", {"cpu"})
    monkeypatch.setattr(attention, "_MOST_PADDING", most_padding)
    for given in (attempts(), [*attempts(0)[:2], *attempts(1)[:2]]):  # the second: no common prefix
        wanted = (
            apart.gradients
            if given == attempts()
            else plain_gradient(host, "key", given, LossSettings(), 1.0)
        )
        assert relative_error(packed(host, given, LossSettings()).gradients, wanted) < 1e-4


def test_attempts_that_share_nothing(host: AdaptedModel) -> None:
    first, second = attempts(0)[:1], attempts(1)[:1]
    wanted = plain_gradient(host, "key", first + second, LossSettings(), 1.0)
    assert relative_error(packed(host, first + second, LossSettings()).gradients, wanted) < 1e-4


def test_the_prefix_is_matched_by_ids_and_leaves_a_token_to_predict_from() -> None:
    rows = [PromptCompletion((1, 2, 3, 4), (9,)), PromptCompletion((1, 2, 3, 5, 6), (9,))]
    common_prefix = PackedPasses(None, PassLimits(1, 1, 1)).common_prefix
    assert common_prefix(rows) == (1, 2, 3)
    assert common_prefix(rows[:1]) == (1, 2, 3)
    assert common_prefix([*rows, PromptCompletion((7, 2, 3), (9,))]) == ()


def test_micro_batches_are_filled_in_order() -> None:
    batches = MicroBatches([3, 3, 5, 9, 1], PassLimits(6, 0, 1))
    assert batches.most_tokens == 9
    assert list(batches) == [range(2), range(2, 3), range(3, 4), range(4, 5)]


def test_one_size_that_does_not_fit_costs_one_half() -> None:
    """64 rows of 512 tokens, where 4 rows fit and 8 do not: one failure, and the rest at 4."""
    limits, failed, fitted = PassLimits(4096, 0, 1), [], []
    batches = MicroBatches([512] * 64, limits)
    for batch in batches:
        if len(batch) > 4:
            batches.halve(batch, torch.OutOfMemoryError("CUDA out of memory"))
        (failed if len(batch) > 4 else fitted).append(batch)
    assert failed == [range(8)]
    assert fitted == [range(i, i + 4) for i in range(0, 64, 4)]
    assert limits.microbatch_tokens == 2048


def test_halves_itself_when_memory_runs_out_and_stays_halved(
    host: AdaptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that holds two attempts at a time, by its own word."""
    whole = packed(host, attempts(), LossSettings())
    micro_batch, tried = StudentPasses._micro_batch, []

    def small(self: StudentPasses, rows: list[PromptCompletion], *rest: Any) -> Any:
        tried.append(len(rows))
        if len(rows) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return micro_batch(self, rows, *rest)

    monkeypatch.setattr(StudentPasses, "_micro_batch", small)
    limits = PassLimits(microbatch_tokens=64, checkpoint_tokens=4096, chunk_positions=8)
    step = with_limits(host, attempts(), LossSettings(), limits)
    assert tried == [5, 2, 2, 1]
    assert limits.microbatch_tokens == 17, "half of the 35 tokens that did not fit"
    assert relative_error(step.gradients, whole.gradients) < 1e-5


def test_a_single_attempt_that_does_not_fit_is_a_clear_error(
    host: AdaptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(StudentPasses, "_micro_batch", full)
    with pytest.raises(LearnerError, match="out of memory with a single attempt"):
        packed(host, attempts(), LossSettings())


def test_other_errors_are_not_taken_for_a_lack_of_memory(
    host: AdaptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(StudentPasses, "_micro_batch", broken)
    with pytest.raises(RuntimeError, match="mat1"):
        packed(host, attempts(), LossSettings())
