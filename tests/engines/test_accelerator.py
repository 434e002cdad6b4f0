"""What only a CUDA device can show: recorded sampling steps, the learner in bfloat16, and memory that runs out.

Skipped where there is none. Needs no model on disk: tiny ones are made here.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from sdpo_solve.bench import update as bench_update
from sdpo_solve.engines import hf
from sdpo_solve.engines._cuda_graph import SlotBatch
from sdpo_solve.engines._decoding import Batch
from sdpo_solve.engines._scoring import forced_logprobs
from sdpo_solve.learner import attention
from sdpo_solve.learner.examples import TokenizedExample
from sdpo_solve.learner.gradient import Step, StudentPasses
from sdpo_solve.learner.head import Mixture
from sdpo_solve.learner.learner import LoraLearner, Options
from sdpo_solve.learner.loss import LossSettings
from sdpo_solve.learner.packing import PackedPasses, PassLimits, PromptCompletion
from sdpo_solve.learner.plain import plain_gradient
from sdpo_solve.model.adapted import TARGETS, AdaptedModel, AdapterShape
from sdpo_solve.types import Example, Message, Policy, Prompt, SamplingSpec
from tests.helpers.hosts import save_adapter
from tests.helpers.tiny_model import make_tokenizer, save_tiny_model

pytestmark = [
    pytest.mark.accelerator,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

SHAPE = AdapterShape(4, 8.0, TARGETS["all"])
QUESTION = Prompt((Message("user", "Reverse a list."),))


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(autouse=True)
def whole_memory() -> Iterator[None]:
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def adapted(host: AdaptedModel) -> AdaptedModel:
    """With an adapter that is not zero, so that every parameter has a gradient."""
    generator = torch.Generator().manual_seed(1)
    weights = {
        name: 0.1 * torch.randn(p.shape, generator=generator)
        for name, p in host.shape_adapter("policy", SHAPE).items()
    }
    host.put("policy", "key", SHAPE, weights)
    return host


def load(model_dir: Path, dtype: torch.dtype) -> AdaptedModel:
    return adapted(AdaptedModel.load(model_dir, "cuda", dtype))


def attempts(lengths: tuple[int, ...] = (7, 1, 12, 5, 9), vocab: int = 256) -> list[TokenizedExample]:
    """Answers of these lengths to one question, each with a feedback of a length of its own behind it."""
    generator = torch.Generator().manual_seed(0)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(0, vocab, (n,), generator=generator).tolist())

    question, made = ids(20), []
    for n in lengths:
        answer = ids(n)
        old = tuple((-5 * torch.rand(n, generator=generator)).tolist())
        student = PromptCompletion(question, answer)
        teacher = PromptCompletion(question[:15] + ids(4 + n % 40), answer)
        made.append(TokenizedExample(student, teacher, old))
    return made


def packed(
    host: AdaptedModel, given: list[TokenizedExample], settings: LossSettings | None = None, **sizes: int
) -> tuple[Step, PassLimits]:
    limits = PassLimits(
        **{"microbatch_tokens": 1 << 20, "checkpoint_tokens": 1 << 20, "chunk_positions": 64, **sizes}
    )
    rows = [example.teacher for example in given if example.teacher]
    passes = PackedPasses(host.model, limits)
    with host.base_active():
        teacher = Mixture.of(passes.hidden_states(rows))
    with host.slot_active("policy", "key"):
        student = StudentPasses(passes, host.parameters("policy"), settings or LossSettings(), 1.0)
        return student.gradient(given, teacher), limits


def relative_error(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    assert found.keys() == wanted.keys()
    gap = sum(float((found[name].double() - wanted[name].double()).square().sum()) for name in wanted)
    return (gap / sum(float(t.double().square().sum()) for t in wanted.values())) ** 0.5


# -- gradients ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("together", [True, False], ids=["one call", "row by row"])
@pytest.mark.parametrize(
    "settings", [LossSettings(), LossSettings(alpha=0.0), LossSettings(top_k=None)], ids=str
)
def test_float32_equals_the_plain_form(
    model_dir: Path, settings: LossSettings, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not together:
        monkeypatch.setattr(attention, "_TOGETHER_ON", frozenset())
    host = load(model_dir, torch.float32)
    found, _ = packed(host, attempts(), settings)
    assert relative_error(found.gradients, plain_gradient(host, "key", attempts(), settings, 1.0)) < 1e-4


def test_bfloat16_is_as_near_to_float32_as_the_plain_form_is(model_dir: Path) -> None:
    """Rounding differs between the forms, so each is held against the plain form in float32."""
    wanted = plain_gradient(load(model_dir, torch.float32), "key", attempts(), LossSettings(), 1.0)
    host = load(model_dir, torch.bfloat16)
    assert {p.dtype for p in host.parameters("policy").values()} == {torch.float32}
    plain = relative_error(plain_gradient(host, "key", attempts(), LossSettings(), 1.0), wanted)
    found, _ = packed(host, attempts())
    error = relative_error(found.gradients, wanted)
    assert error < max(0.1, 2 * plain)
    assert {t.dtype for t in found.gradients.values()} == {torch.float32}
    cosine = torch.nn.functional.cosine_similarity(
        *(torch.cat([t[name].flatten() for name in wanted]) for t in (found.gradients, wanted)), dim=0
    )
    assert cosine > 0.98


@pytest.mark.parametrize(
    "lengths", [(40, 33, 37), (300, 5, 9, 11)], ids=["alike", "of very different length"]
)
def test_attention_needs_no_kernel_but_the_flash_one(model_dir: Path, lengths: tuple[int, ...]) -> None:
    """With every other kernel switched off the same gradient comes out."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    host = load(model_dir, torch.bfloat16)
    free, _ = packed(host, attempts(lengths))
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        flash, _ = packed(host, attempts(lengths))
    assert relative_error(flash.gradients, free.gradients) < 1e-2


# -- memory ------------------------------------------------------------------------------------------------


def reserved_mb(host: AdaptedModel, given: list[TokenizedExample], **sizes: int) -> float:
    """The most that torch had taken from the device during one gradient."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    packed(host, given, **sizes)
    return torch.cuda.max_memory_reserved() / 2**20


def test_micro_batches_halve_themselves_until_they_fit(model_dir: Path) -> None:
    """Half of what the whole group takes is all there is: torch itself refuses more."""
    host, given = load(model_dir, torch.bfloat16), attempts((400,) * 64)
    whole, _ = packed(host, given)
    most_mb, least_mb = reserved_mb(host, given), reserved_mb(host, given, microbatch_tokens=2048)
    limit_mb = (most_mb + least_mb) / 2
    assert most_mb > 2 * least_mb
    torch.cuda.empty_cache()
    total_mb = torch.cuda.get_device_properties(0).total_memory / 2**20
    torch.cuda.set_per_process_memory_fraction(limit_mb / total_mb)
    step, limits = packed(host, given)
    assert torch.cuda.max_memory_reserved() / 2**20 <= most_mb
    assert 2048 <= limits.microbatch_tokens < 1 << 20
    assert relative_error(step.gradients, whole.gradients) < 1e-2


def test_memory_grows_with_the_chunk_and_not_with_the_vocabulary_times_the_answer() -> None:
    """4,096 positions x 65,536 tokens in float32 are 1 GiB; the passes stay under a quarter of that."""
    vocab, n = 1 << 16, 4096
    config = Qwen2Config(
        vocab_size=vocab, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=8192, tie_word_embeddings=False,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).to("cuda", torch.bfloat16)
    host, given = adapted(AdaptedModel(model, make_tokenizer())), attempts((n,), vocab)
    packed(host, attempts((8,), vocab))  # cuBLAS takes its workspace
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    packed(host, given)
    assert torch.cuda.max_memory_allocated() - before < n * vocab * 4 / 4


def test_a_single_attempt_that_does_not_fit_is_a_clear_error(model_dir: Path) -> None:
    from sdpo_solve.errors import LearnerError

    host = load(model_dir, torch.bfloat16)
    packed(host, attempts((8,)))
    torch.cuda.empty_cache()
    taken = torch.cuda.memory_reserved() + (1 << 20)
    torch.cuda.set_per_process_memory_fraction(taken / torch.cuda.get_device_properties(0).total_memory)
    with pytest.raises(LearnerError, match="out of memory with a single attempt"):
        packed(host, attempts((40_000,)))


# -- sampling ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_recorded_step_samples_from_the_same_distribution(
    model_dir: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refills, ends at all times and slots made anew; nearly every step is a replay, none falls back."""
    host = load(model_dir, dtype)
    steps, recordings = [], []
    monkeypatch.setattr(SlotBatch, "step", _counted(steps, SlotBatch.step))
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", _counted(recordings, torch.cuda.CUDAGraph.replay))
    prompts = [Prompt((Message("user", "a" * n),)) for n in (1, 40, 1, 11, 300, 1)] * 3
    engine = hf.HfEngine(host, hf.Options(batch_rows=6))
    samples = engine.sample(prompts, range(18), Policy("run", 0), SamplingSpec(40, 1.5))
    assert len(recordings) > len(steps) / 2
    mean = largest = 0.0
    with host.base_active() as model:
        for sample in samples:
            right = forced_logprobs(model, sample.prompt_ids, sample.token_ids_T, 1.5)
            offs = [abs(a - b) for a, b in zip(sample.logprobs_T, right, strict=True)]
            mean, largest = mean + sum(offs) / len(offs) / len(samples), max(largest, *offs)
    assert (mean < 1e-4 and largest < 1e-3) if dtype == torch.float32 else (mean < 0.03 and largest < 0.3)
    if dtype == torch.float32:
        plain = hf.HfEngine(host, hf.Options(batch_rows=6), batch_type=Batch)
        unrecorded = plain.sample(prompts, range(18), Policy("run", 0), SamplingSpec(40, 1.5))
        assert [s.token_ids_T for s in samples] == [s.token_ids_T for s in unrecorded]


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft's own
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_recorded_steps_keep_the_policies_of_a_batch_apart(
    model_dir: Path, tmp_path: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph that was recorded for one choice of policies serves every later one, refilled slots too."""
    policies = [Policy("run", 0)]
    policies += [Policy("run", n, save_adapter(model_dir, tmp_path / str(n), n, rank=4 * n)) for n in (1, 2)]
    host = AdaptedModel.load(model_dir, "cuda", dtype)
    steps, recordings = [], []
    monkeypatch.setattr(SlotBatch, "step", _counted(steps, SlotBatch.step))
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", _counted(recordings, torch.cuda.CUDAGraph.replay))
    prompts = [Prompt((Message("user", "a" * n),)) for n in (1, 40, 11)] * 6
    asked = [policies[n // 2 % 3] for n in range(18)]
    engine = hf.HfEngine(host, hf.Options(batch_rows=6))
    samples = engine.sample_mixed(prompts, range(18), asked, SamplingSpec(40, 1.5))
    assert len(recordings) > len(steps) / 2
    for sample in samples:
        offs = {policy.key: 0.0 for policy in policies}
        for policy in policies:
            with host.policy_active(policy) as model:
                right = forced_logprobs(model, sample.prompt_ids, sample.token_ids_T, 1.5)
            pairs = zip(sample.logprobs_T, right, strict=True)
            offs[policy.key] = sum(abs(a - b) for a, b in pairs) / len(right)
        assert offs[sample.policy.key] < (1e-4 if dtype == torch.float32 else 0.05)
        assert min(offs, key=lambda key: offs[key]) == sample.policy.key


def _counted(calls: list[int], method: Any) -> Any:
    def call(*args: Any) -> Any:
        calls.append(1)
        return method(*args)

    return call


# -- a run -------------------------------------------------------------------------------------------------


def examples(host: AdaptedModel, policy: Policy, seed: int) -> list[Example]:
    """Four failed attempts, sampled by the in-process engine."""
    spec = SamplingSpec(max_tokens=24)
    engine = hf.HfEngine(host, hf.Options())
    samples = engine.sample([QUESTION] * 4, range(seed, seed + 4), policy, spec)
    told = Prompt((Message("user", "Reverse a list.\n\nWrong Answer"),))
    return [Example(sample, told, 0.0) for sample in samples]


@pytest.mark.parametrize("teacher", ["frozen", "ema", "trust-region", "live"])
def test_two_updates_and_a_resume(model_dir: Path, tmp_path: Path, teacher: Any) -> None:
    """Sampled and learned in bfloat16; a learner that resumes takes the same third step."""
    options = Options(teacher=teacher, lr=1e-3, lora_rank=4, max_base_kl=1e9, on_collapse="ignore", min_gap=0)
    host, spec = AdaptedModel.load(model_dir, "cuda"), SamplingSpec(max_tokens=24)
    assert host.dtype == torch.bfloat16
    learner = LoraLearner(host, options)
    policy = learner.start("run", tmp_path, 0)
    for seed in (0, 4):
        update = learner.learn(examples(host, policy, seed), spec)
        policy = update.policy
        assert update.metrics["grad_norm"] > 0
        assert update.metrics["logprob_gap"] < 0.1
    group = examples(host, policy, 8)
    undisturbed = learner.learn(group, spec).metrics
    learner.close()
    again = LoraLearner(host, options)
    assert again.resume("run", tmp_path, 0, policy.version).key == policy.key
    resumed = again.learn(group, spec).metrics
    for name in ("divergence", "objective", "grad_norm"):
        assert resumed[name] == pytest.approx(undisturbed[name], rel=0.02, abs=1e-3)


def test_the_bench_measures_both_forms(model_dir: Path) -> None:
    found = bench_update.run(model_dir, size=bench_update.Size(4, 40, 20, 20), n_rounds=1)
    assert found.plain is not None
    assert min(found.packed.wall_s, found.packed.peak_mb, found.plain.peak_mb, found.packed.gflop_per_s) > 0
    assert found.gradient_error is not None
    assert found.gradient_error < 1e-4
