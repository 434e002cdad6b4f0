"""Rows of different policies in one batch: each comes from exactly its own, and an odd one is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from sdpo_solve.engines._cuda_graph import SlotBatch
from sdpo_solve.engines._decoding import Batch
from sdpo_solve.engines._scoring import forced_logprobs
from sdpo_solve.engines.hf import HfEngine, Options
from sdpo_solve.errors import EngineError
from sdpo_solve.model.adapted import AdaptedModel
from sdpo_solve.protocols import MixingEngine
from sdpo_solve.types import Message, Policy, Prompt, Sample, SamplingSpec
from tests.helpers.architectures import config_of, save_architecture
from tests.helpers.tiny_model import save_tiny_model

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft's own

BASE = Policy("base", 0)
SPEC = SamplingSpec(20)


def save(model_dir: Path, out: Path, seed: int, rank: int, targets: list[str]) -> Policy:
    """An adapter far from the base, of its own rank, scaling and targets."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    config = LoraConfig(r=rank, lora_alpha=3 * rank, target_modules=targets, task_type="CAUSAL_LM")
    adapted = get_peft_model(model, config)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape) * 0.2
    adapted.save_pretrained(out)
    return Policy(f"run {seed}", seed, out)


class Model:
    """A tiny model with two adapters on disk that share neither rank nor all targets."""

    def __init__(self, folder: Path) -> None:
        self.dir = save_tiny_model(folder / "model")
        self.host = AdaptedModel.load(self.dir, "cpu", torch.float32)
        self.first = save(self.dir, folder / "1", 1, 4, ["q_proj", "v_proj"])
        self.second = save(self.dir, folder / "2", 2, 8, ["q_proj", "down_proj", "k_proj", "o_proj"])

    def mixed(self, policies: list[Policy], kind: Any = Batch, rows: int = 16) -> list[Sample]:
        engine = HfEngine(self.host, Options(batch_rows=rows), batch_type=kind)
        prompts = [Prompt((Message("user", "abc"[n % 3] * (1 + 9 * (n % 3))),)) for n in range(len(policies))]
        return engine.sample_mixed(prompts, range(len(policies)), policies, SPEC)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(tmp_path_factory.mktemp("mixed"))


@pytest.mark.parametrize("kind", [Batch, SlotBatch])
@pytest.mark.parametrize("rows", [2, 5, 16])
def test_each_row_comes_from_its_own_policy(model: Model, kind: Any, rows: int) -> None:
    """The same prompts under several policies, refills, ends at all times."""
    policies = [BASE, model.first, model.second, model.first, BASE] * 3
    samples = model.mixed(policies, kind, rows)
    assert [sample.policy for sample in samples] == policies
    for sample in samples:
        for policy in (BASE, model.first, model.second):
            with model.host.policy_active(policy) as weights:
                forced = forced_logprobs(weights, sample.prompt_ids, sample.token_ids_T, 1.0)
            off = max(abs(a - b) for a, b in zip(sample.logprobs_T, forced, strict=True))
            assert (off < 1e-4) == (policy == sample.policy)


def test_a_row_draws_the_same_alone_and_beside_other_policies(model: Model) -> None:
    policies = [model.second, BASE, model.first, model.second]
    alone = [model.mixed([policies[0]] * 4)[0], model.mixed([BASE] * 4)[1], model.mixed([model.first] * 4)[2]]
    assert [s.token_ids_T for s in model.mixed(policies)[:3]] == [s.token_ids_T for s in alone]


def test_afterwards_the_model_is_as_it_was(model: Model) -> None:
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        with model.host.base_active() as weights:
            base = weights(ids).logits
        with model.host.policy_active(model.first) as weights:
            first = weights(ids).logits
        model.mixed([model.first, model.second, BASE])
        with model.host.base_active() as weights:
            assert torch.equal(weights(ids).logits, base)
        with model.host.policy_active(model.first) as weights:
            assert torch.equal(weights(ids).logits, first)
        with pytest.raises(KeyboardInterrupt), model.host.policies_active([model.first, model.second]):
            raise KeyboardInterrupt
        with model.host.policy_active(model.first) as weights:
            assert torch.equal(weights(ids).logits, first)


def test_adapters_are_found_before_any_layer_had_one(model: Model) -> None:
    fresh = AdaptedModel.load(model.dir, "cpu", torch.float32)
    engine = HfEngine(fresh, Options())
    prompts = [Prompt((Message("user", "a"),))] * 2
    samples = engine.sample_mixed(prompts, [0, 1], [model.first, model.second], SPEC)
    with fresh.policy_active(model.second) as weights:
        forced = forced_logprobs(weights, samples[1].prompt_ids, samples[1].token_ids_T, 1.0)
    assert samples[1].logprobs_T == pytest.approx(forced, abs=1e-4)


def test_a_policy_that_is_not_there_and_one_that_does_not_fit_are_clear_errors(
    model: Model, tmp_path: Path
) -> None:
    with pytest.raises(EngineError, match="no weights for some of these policies: cannot read"):
        model.mixed([model.first, Policy("run", 7, tmp_path / "none")])
    other = save(save_tiny_model(tmp_path / "wide", hidden=256), tmp_path / "odd", 3, 4, ["q_proj"])
    with pytest.raises(EngineError, match=r"no weights for some of these policies: .* another shape"):
        model.mixed([model.first, other])
    assert len(model.mixed([model.first, model.second])) == 2


def test_the_engine_says_that_it_can(model: Model) -> None:
    assert isinstance(HfEngine(model.host, Options()), MixingEngine)


def test_where_rows_cannot_share_a_pass_each_policy_samples_by_itself(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Experts see the tokens of some rows only."""
    policies = [BASE, model.first, model.second, model.first]
    want = [sample.token_ids_T for sample in model.mixed(policies)]
    monkeypatch.setattr(model.host.model.config, "num_experts", 4, raising=False)
    monkeypatch.setattr(model.host, "policies_active", None)
    samples = model.mixed(policies)
    assert [sample.token_ids_T for sample in samples] == want
    assert [sample.policy for sample in samples] == policies


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")  # peft's own
def test_layers_that_are_no_linear_ones_sample_each_policy_by_itself(tmp_path: Path) -> None:
    """GPT-2's get PEFT's own adapter, which knows one policy."""
    model_dir = save_architecture(tmp_path / "model", config_of("gpt2"))
    policy = save(model_dir, tmp_path / "1", 1, 4, ["c_attn", "c_proj"])
    host = AdaptedModel.load(model_dir, "cpu", torch.float32)
    prompts = [Prompt((Message("user", "a"),))] * 2
    samples = HfEngine(host, Options()).sample_mixed(prompts, [0, 1], [policy, BASE], SPEC)
    for sample in samples:
        with host.policy_active(sample.policy) as weights:
            forced = forced_logprobs(weights, sample.prompt_ids, sample.token_ids_T, 1.0)
        assert sample.logprobs_T == pytest.approx(forced, abs=1e-4)
