"""The probe of an adapter, at the size of an early update: what it adds must be the same on both sides."""

from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import copytree

import pytest
import torch
from safetensors.torch import load_file, save_file

from sdpo_solve.engines import EngineParts, _probe
from sdpo_solve.engines._probe import SwapProbe
from sdpo_solve.engines._vllm_backend import Options, lora_rank
from sdpo_solve.engines.vllm import VllmEngine
from sdpo_solve.errors import ConfigError, EngineError
from sdpo_solve.model.adapted import TARGETS, AdaptedModel, AdapterShape, peft_config
from sdpo_solve.types import Policy
from tests.helpers.damages import DAMAGES
from tests.helpers.tiny_model import save_tiny_model

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft's own
SHAPE = AdapterShape(4, 8.0, TARGETS["all"])


class Sides:
    """A learner in float32 with an adapter that moves log-probs by hundredths, and an engine in bfloat16."""

    def __init__(self, folder: Path) -> None:
        model_dir = save_tiny_model(folder / "model")
        self.learner = AdaptedModel.load(model_dir, "cpu", torch.float32)
        self.engine = AdaptedModel.load(model_dir, "cpu", torch.bfloat16)
        generator = torch.Generator().manual_seed(0)
        weights = {
            name: torch.randn(p.shape, generator=generator) * (0.1 if "lora_A" in name else 1e-3)
            for name, p in self.learner.shape_adapter("policy", SHAPE).items()
        }
        self.policy = Policy("run", 1, folder / "adapter")
        self.policy.adapter_dir.mkdir()
        save_file(weights, self.policy.adapter_dir / "adapter_model.safetensors", {"format": "pt"})
        peft_config(SHAPE).save_pretrained(self.policy.adapter_dir)
        self.probe = SwapProbe(self.learner.tokenizer, 0.03)
        self.n_held = 0

    def check(self, damage: Callable[[dict], None] = lambda _: None) -> None:
        """As in vLLM: each directory under a name of its own, here damaged on its way in."""

        def score(adapter_dir: Path | None) -> Sequence[float]:
            self.n_held += 1
            policy = Policy("probe", self.n_held)
            if adapter_dir is not None:
                held = copytree(adapter_dir, adapter_dir / "held")
                tensors = load_file(held / "adapter_model.safetensors")
                damage(tensors)
                save_file(tensors, held / "adapter_model.safetensors", {"format": "pt"})
                policy = Policy("probe", self.n_held, held)
            with self.engine.policy_active(policy) as model:
                return self.probe.logprobs(model)

        self.probe.check_adapter(self.policy, self.learner, score)


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Sides:
    return Sides(tmp_path_factory.mktemp("sides"))


def test_a_whole_adapter_passes_at_the_size_of_an_early_update(sides: Sides) -> None:
    probe = sides.probe
    with sides.learner.base_active() as model:
        off = probe.logprobs(model)
    with sides.learner.policy_active(sides.policy) as model:
        on = probe.logprobs(model)
    assert 1e-4 < max(abs(a - b) for a, b in zip(on, off, strict=True)) < 0.05
    sides.check()
    with sides.learner.policy_active(sides.policy) as model:
        assert probe.logprobs(model) == on, "the learner's adapter is as it was"


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_projection_that_is_damaged_stops_the_run(sides: Sides, damage: Callable[[dict], None]) -> None:
    with pytest.raises(EngineError, match="does not hold the whole adapter of policy run@1"):
        sides.check(damage)


def test_an_adapter_that_adds_nothing_needs_no_check(tmp_path: Path) -> None:
    sides = Sides(tmp_path)
    path = sides.policy.adapter_dir / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file({k: t * ("lora_A" in k) for k, t in tensors.items()}, path, {"format": "pt"})
    sides.probe.check_adapter(sides.policy, sides.learner, lambda _: pytest.fail("the engine was asked"))


@pytest.mark.parametrize(("rank", "want"), [(1, 8), (16, 16), (48, 64), (257, 320), (512, 512)])
def test_ranks_are_rounded_up_to_those_that_vllm_knows(rank: int, want: int) -> None:
    assert lora_rank(rank) == want


def test_the_rank_of_the_learner_is_what_vllm_is_started_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks = []
    monkeypatch.setattr(VllmEngine, "__init__", lambda self, *_: None)
    monkeypatch.setattr(
        "sdpo_solve.engines.vllm.Process", lambda path, options, **_: ranks.append(options.max_lora_rank)
    )
    for rank in (16, 64, 600):
        parts = EngineParts(None, lambda: tmp_path, None, 0, None, lora_rank=rank)
        if rank > 512:
            with pytest.raises(ConfigError, match="up to rank 512"):
                VllmEngine.build(Options(), parts)
        else:
            VllmEngine.build(Options(), parts)
    assert ranks == [32, 64]


def test_a_probe_that_does_not_fit_beside_vllm_is_a_clear_error(
    sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(_probe, "forced_logprobs", full)
    with pytest.raises(EngineError, match=r"out of memory.*engine\.memory_share"):
        sides.check()
