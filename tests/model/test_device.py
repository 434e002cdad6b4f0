"""The device and its features are asked of torch; what only an accelerator has is replaced here."""

from pathlib import Path

import pytest
import torch

from sdpo_solve.engines import _decoding
from sdpo_solve.engines.hf import HfEngine, Options
from sdpo_solve.model import device, memory
from sdpo_solve.model.adapted import AdaptedModel
from sdpo_solve.types import Message, Policy, Prompt, SamplingSpec
from tests.helpers.tiny_model import save_tiny_model

MPS = torch.device("mps")


def test_without_an_accelerator_it_is_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: None)
    assert device.best_device() == torch.device("cpu")
    assert memory.gpu_memory_mb() is None
    assert device.float64_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda", "mps", "xpu"])
def test_the_accelerator_that_torch_finds_is_taken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = torch.device(name)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: found)
    monkeypatch.setattr(torch.accelerator, "get_memory_info", lambda device: (1 << 30, 24 << 30))
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 24 << 30)
    assert device.best_device() == found
    assert memory.gpu_memory_mb() == 24 << 10


def test_what_a_device_refuses_it_cannot_do() -> None:
    """This torch has no Apple device, so that every product on it fails."""
    assert device.fast_dtype(MPS) == torch.float32
    assert device.float64_device(MPS) == torch.device("cpu")


def test_a_gpu_without_bfloat16_of_its_own_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    assert device.fast_dtype(torch.device("cuda")) == torch.float32


def test_draws_on_the_processor_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a device without float64, on which uniforms and log-probs must not be."""
    host = AdaptedModel.load(save_tiny_model(tmp_path), "cpu", torch.float32)
    asked: list[torch.device] = []

    def float64_device(of: torch.device) -> torch.device:
        asked.append(of)
        return torch.device("cpu")

    prompts, spec = [Prompt((Message("user", "a"),))] * 3, SamplingSpec(8)
    plain = HfEngine(host, Options()).sample(prompts, range(3), Policy("base", 0), spec)
    monkeypatch.setattr(_decoding, "float64_device", float64_device)
    moved = HfEngine(host, Options()).sample(prompts, range(3), Policy("base", 0), spec)
    assert asked
    assert [x.token_ids_T for x in plain] == [x.token_ids_T for x in moved]
