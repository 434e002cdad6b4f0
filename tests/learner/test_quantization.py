"""4-bit base weights: what is sampled is what is learned, the record says it, and a run goes to its end."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from sdpo_solve.engines.hf import HfEngine
from sdpo_solve.engines.hf import Options as EngineOptions
from sdpo_solve.errors import PrerequisiteError
from sdpo_solve.learner.learner import LoraLearner
from sdpo_solve.learner.options import Options
from sdpo_solve.model import names
from sdpo_solve.model.adapted import AdaptedModel
from sdpo_solve.types import Example, Message, Policy, Prompt, SamplingSpec
from tests.helpers.architectures import config_of, save_architecture
from tests.helpers.command import Place
from tests.helpers.tiny_model import save_tiny_model

SPEC = SamplingSpec(10)
RUN = (
    *("--sandbox", "bubblewrap", "--attempts", "6", "--group-size", "2", "--max-tokens", "8", "--out", "out"),
    *("--set", "sdpo.preset=paper", "--set", "learner.min_gap=0"),  # an update after each group
)
needs_package = pytest.mark.skipif(
    find_spec("bitsandbytes") is None, reason="needs bitsandbytes: the extra dev"
)


def ask(text: str) -> Prompt:
    return Prompt((Message("user", text),))


def test_other_weights_have_another_identity(tmp_path: Path) -> None:
    model = names.resolve(str(save_tiny_model(tmp_path)))
    assert model.held_as(None) == model
    assert model.held_as("4bit").identity == f"{model.identity}+4bit"


def test_without_the_package_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PrerequisiteError, match=r"pip install 'sdpo-solve\[quantization\]'"):
        AdaptedModel.load(save_tiny_model(tmp_path), "cpu", quantization="4bit")


def test_an_engine_with_weights_of_its_own_is_refused(tmp_path: Path) -> None:
    done = Place(tmp_path)("run", "inc.json", "--engine", "vllm", "--quantization", "4bit")
    assert done.returncode == 2
    assert "--engine hf" in done.stderr


@needs_package
@pytest.mark.parametrize("name", ["qwen2", "gemma3", "mixtral-window"])
def test_what_is_sampled_is_what_is_learned(name: str, tmp_path: Path) -> None:
    path = save_architecture(tmp_path / "model", config_of(name))
    host = AdaptedModel.load(path, "cpu", torch.float32, quantization="4bit")
    whole = AdaptedModel.load(path, "cpu", torch.float32)
    held = sum(p.numel() * p.element_size() for p in host.model.parameters())
    assert held < 0.95 * sum(p.numel() * p.element_size() for p in whole.model.parameters())
    learner = LoraLearner(host, Options(preset="paper", lora_rank=4, lr=1e-2))
    policy = learner.start("run", tmp_path / "policies", 0)
    engine = HfEngine(host, EngineOptions())
    for seed in range(2):
        samples = engine.sample([ask("a" * 9)] * 2, [seed, seed + 9], policy, SPEC)
        update = learner.learn([Example(x, ask(f"a\n{n} no"), 0.0) for n, x in enumerate(samples)], SPEC)
        assert update.metrics["logprob_gap"] < 1e-4
        assert update.metrics["grad_norm"] > 0
        policy = update.policy
    mixed = engine.sample_mixed([ask("a")] * 2, [0, 1], [policy, Policy("base", 0)], SPEC)
    alone = engine.sample([ask("a")], [0], policy, SPEC)
    assert mixed[0].token_ids_T == alone[0].token_ids_T


@needs_package
def test_a_run_goes_to_its_end_and_goes_on_in_4_bits_only(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model")
    place, command = Place(tmp_path), ("run", "inc.json", "--model", str(model), *RUN)
    done = place(*command, "--quantization", "4bit")
    assert done.returncode == 1, done.stderr
    run_dir = next((tmp_path / "out").rglob("journal.jsonl")).parent
    config = json.loads((run_dir / "config.json").read_text())
    assert config["model"].endswith("+4bit")
    assert config["options"]["quantization"] == "4bit"
    assert len(list((run_dir / "policies").glob("0*"))) >= 2
    other = place(*command)
    assert other.returncode == 2
    assert "+4bit" in other.stderr
