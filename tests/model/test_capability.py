"""What a model can do is read from its configuration, and what is wrong with its files is said in one line."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sdpo_solve.engines.hf import HfEngine, Options
from sdpo_solve.errors import ConfigError, EngineError
from sdpo_solve.model import capability, memory, names
from sdpo_solve.model.adapted import AdaptedModel
from sdpo_solve.model.capability import Level, adapter_targets, capability_of, empty_model, read_config
from sdpo_solve.types import Message, Policy, Prompt, SamplingSpec
from tests.helpers.architectures import ARCHITECTURES, config_of
from tests.helpers.tiny_model import save_tiny_model


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_the_level_of_an_architecture(name: str, tmp_path: Path) -> None:
    """Its memory is estimated as well, from the configuration alone."""
    config = config_of(name)
    can = capability_of(config)
    assert (can.level, can.reason) == (Level.LEARNS, "")
    config.save_pretrained(tmp_path)
    assert memory.size_of(tmp_path).params > 0


def test_the_share_of_the_weights_that_an_adapter_reaches_is_said_where_it_is_small(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Embeddings and head count for nothing; of the rest norms, biases and routers are left."""
    for name in ("phi3-window", "glm4", "starcoder2-window", "opt", "phi", "mixtral-window", "minicpm3"):
        assert adapter_targets(empty_model(config_of(name)), "all").share > 0.97, name
        assert not any("LoRA reaches" in note for note in capability_of(config_of(name)).notes)
    config = config_of("deepseek-v3")
    assert "LoRA reaches 58% of its weights" in capability_of(config).notes
    monkeypatch.setattr(capability, "LEAST_LORA_SHARE", 0.6)
    assert capability_of(config).level is Level.SAMPLES
    assert "58%" in capability_of(config).reason


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model_type": "t5"}, "encoder-decoder"),
        ({"model_type": "vit"}, "no causal language model"),
        ({"model_type": "bert"}, "encoder"),
        ({"model_type": "rwkv"}, "no cache"),
        ({"model_type": "recurrent_gemma"}, "no cache"),
        ({"model_type": "qwen2", "quantization_config": {"quant_method": "bitsandbytes"}}, "bitsandbytes"),
        ({"model_type": "qwen2", "quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq"),
    ],
)
def test_what_is_not_supported_says_why(fields: dict[str, Any], words: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(fields))
    can = capability_of(read_config(tmp_path))
    assert can.level is Level.NONE
    assert words in can.reason
    with pytest.raises(ConfigError, match=words):
        AdaptedModel.load(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "no-such-thing"}', "{}"])
def test_an_odd_configuration_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"config\.json"):
        read_config(tmp_path)


def drop(path: Path) -> None:
    tensors = load_file(path / "model.safetensors")
    tensors.pop("model.layers.1.mlp.up_proj.weight")
    save_file(tensors, path / "model.safetensors", {"format": "pt"})


def narrow(path: Path) -> None:
    tensors = load_file(path / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"] = torch.zeros(3, 3)
    save_file(tensors, path / "model.safetensors", {"format": "pt"})


def tear(path: Path) -> None:
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def split(path: Path) -> None:
    (path / "model.safetensors").rename(path / "model-00001-of-00002.safetensors")


def no_tokenizer(path: Path) -> None:
    for file in path.glob("tokenizer*"):
        file.unlink()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (drop, r"model\.layers\.1\.mlp\.up_proj\.weight is in none of its files"),
        (narrow, "cannot be loaded: .*"),
        (tear, r"model\.safetensors is damaged"),
        (split, r"model\.safetensors is missing \(model-00001-of-00002\.safetensors is there"),
        (no_tokenizer, "no tokenizer"),
    ],
)
def test_damaged_files_are_named_in_one_line(damage: Any, words: str, tmp_path: Path) -> None:
    damage(save_tiny_model(tmp_path))
    with pytest.raises(ConfigError, match=words) as caught:
        AdaptedModel.load(names.resolve(str(tmp_path)).path)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_with_nan_is_said_to_be_read_so(tmp_path: Path) -> None:
    save_tiny_model(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.norm.weight"][3] = torch.nan
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    engine = HfEngine(AdaptedModel.load(tmp_path, "cpu", torch.float32), Options())
    with pytest.raises(EngineError, match=r"the checkpoint itself holds NaN .* in model\.norm\.weight"):
        engine.sample([Prompt((Message("user", "a"),))], [0], Policy("base", 0), SamplingSpec(4))
