"""What a model takes in memory, with worked numbers; the sizes that are assumed are the options' own."""

from pathlib import Path

import pytest
from transformers import Qwen2Config

from sdpo_solve.engines import hf
from sdpo_solve.errors import ConfigError
from sdpo_solve.learner.options import Options as LearnerOptions
from sdpo_solve.model import memory
from sdpo_solve.model.memory import Load, ModelSize, Need, Sharing
from tests.helpers.tiny_model import save_tiny_model

# Qwen3-8B: its parameters in numbers.
EIGHT = ModelSize(
    params=8_190_735_360,
    linear_params=7_568_097_280,
    layers=36,
    hidden=4096,
    inner=12288,
    vocabulary=151_936,
    context_tokens=40_960,
    kv_numbers_per_token=2 * 36 * 8 * 128,
    adapter_numbers_per_rank=2_727_936,
)
FULL = memory.full_length(EIGHT, Load())


def total(needs: tuple[Need, ...]) -> int:
    return sum(need.mb for need in needs)


def test_sizes_are_counted_from_the_configuration_alone(tmp_path: Path) -> None:
    """Two layers 64 wide, inner 128, 4 heads of 16 with 2 for keys and values, 320 tokens, head not tied.

    A layer: q 64x64+64, k and v 64x32+32, o 64x64, three of 64x128, two norms of 64.
    """
    path = save_tiny_model(tmp_path)
    (path / "model.safetensors").unlink()
    size = memory.size_of(path)
    layer = (64 * 64 + 64) + 2 * (64 * 32 + 32) + 64 * 64 + 3 * 64 * 128 + 2 * 64
    assert size.params == 2 * layer + 2 * 320 * 64 + 64
    assert size.linear_params == 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128) + 320 * 64
    assert size.kv_numbers_per_token == 2 * 2 * 2 * 16
    assert size.adapter_numbers_per_rank == 2 * (2 * (64 + 64) + 2 * (64 + 32) + 3 * (64 + 128))
    assert size.context_tokens == 2048


def test_no_model_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json cannot be read"):
        memory.size_of(tmp_path)


def test_weights_and_cache_of_a_known_model() -> None:
    """8.19 billion numbers of two bytes; 73 728 numbers a token, so 40 960 tokens take 5760 MiB."""
    assert memory.learner_needs(EIGHT, Load())[0] == Need("learner: weights (bfloat16)", 15_623)
    assert EIGHT.cache_mb(40_960) == 5760


def test_in_4_bits_eight_billion_fit_into_24_gb() -> None:
    """6.95 billion numbers of 0.516 bytes and 1.24 of two; the rest is bounded from above."""
    found = memory.quantised(EIGHT, Load(answer_tokens=8192), 24_000, on_cpu=False)
    assert found.needs[0].mb == pytest.approx((6_945_767_424 * 0.516 + 1_244_967_936 * 2) / 2**20, abs=1)
    assert found.fits
    assert not memory.in_process(EIGHT, Load(answer_tokens=8192), 24_000, on_cpu=False).fits


def test_a_processor_that_computes_in_float32_needs_twice_the_numbers() -> None:
    """Of linear layers; embeddings are as on disk, and the adapter is float32 in any case."""
    half, whole = (
        {
            need.name.split(" (")[0]: need.mb
            for need in memory.in_process(EIGHT, load, None, on_cpu=True).needs
        }
        for load in (Load(), Load(dtype="float32"))
    )
    assert half.keys() == whole.keys()
    assert whole["learner: weights"] - half["learner: weights"] == pytest.approx(
        2 * EIGHT.linear_params / 2**20, abs=1
    )
    assert whole["learner: adapter, teacher, optimizer"] == half["learner: adapter, teacher, optimizer"]


def test_vllm_takes_what_the_learner_leaves() -> None:
    """On a card of 80 GB less than half; more where vLLM sleeps during an update; all where nobody learns."""
    split, asleep, alone = (
        memory.vllm_share(EIGHT, FULL, sharing, 81_559)
        for sharing in (Sharing(), Sharing(sleeps=True), Sharing(learner=False))
    )
    assert split == pytest.approx(0.45, abs=0.01)
    assert split < asleep < alone == pytest.approx(0.97, abs=0.001)
    taken = split * 81_559 + total(memory.learner_needs(EIGHT, FULL))
    assert taken <= 81_559


def test_what_does_not_fit_is_an_error_before_anything_is_loaded() -> None:
    with pytest.raises(ConfigError, match="the GPU has 24000 MB"):
        memory.vllm_share(EIGHT, FULL, Sharing(), 24_000)


def test_quantised_and_split_copies_are_smaller() -> None:
    plain = total(memory.vllm_needs(EIGHT, FULL, Sharing()))
    assert total(memory.vllm_needs(EIGHT, FULL, Sharing(quantised=True))) == pytest.approx(
        plain - 7811, abs=2
    )
    halves = total(memory.vllm_needs(EIGHT, FULL, Sharing(tensor_parallel=2)))
    assert halves == pytest.approx(plain - (15_623 + 5760) / 2, abs=2)


def test_recomputed_passes_take_less() -> None:
    kept = total(memory.learner_needs(EIGHT, Load()))
    recomputed = total(memory.learner_needs(EIGHT, Load(checkpoint_tokens=0)))
    assert recomputed < kept - 15_000


def test_an_estimate_says_whether_it_fits() -> None:
    for gpu_mb, fits in ((None, None), (81_559, True), (24_000, False)):
        assert memory.shared_gpu(EIGHT, Load(), gpu_mb).fits is fits


def test_the_assumed_sizes_are_the_options_defaults() -> None:
    learner, load = LearnerOptions(), Load()
    assert load.rank == learner.lora_rank
    assert learner.microbatch_tokens is None  # chosen for the machine
    assert load.checkpoint_tokens == learner.checkpoint_tokens
    assert load.chunk_positions == learner.chunk_positions
    assert load.rows == hf.Options().batch_rows


def test_a_pass_on_a_cpu_is_small() -> None:
    """640 MiB of activations, two layers of (8 * 4096 + 4 * 8192) * 4 bytes a token; elsewhere 4096 tokens."""
    config = Qwen2Config(hidden_size=4096, intermediate_size=8192, num_hidden_layers=2)
    assert memory.pass_tokens(config, 4, on_cpu=True) == (640 << 20) // (2 * 4 * (8 * 4096 + 4 * 8192))
    assert memory.pass_tokens(config, 4, on_cpu=False) == Load().microbatch_tokens
