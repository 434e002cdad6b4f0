"""Weights kept once compute what plain ones do, forward and back, and are not there a second time."""

import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from sdpo_solve.model import lean
from sdpo_solve.model.adapted import AdaptedModel
from tests.helpers.tiny_model import save_tiny_model

CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(
    not lean.is_fast(CPU, torch.float32), reason="this torch has no products on packed weights"
)


def test_a_lean_model_is_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits, and the gradient by what was looked up, of a model saved in bfloat16; layers in several parts."""
    monkeypatch.setattr(lean, "_PART_NUMBERS", 5000)
    AutoModelForCausalLM.from_pretrained(
        save_tiny_model(tmp_path / "a"), dtype=torch.bfloat16
    ).save_pretrained(tmp_path / "b")
    save_tiny_model(tmp_path / "c")
    (tmp_path / "c" / "model.safetensors").replace(tmp_path / "unused")
    for name in ("model.safetensors", "config.json"):
        (tmp_path / "b" / name).replace(tmp_path / "c" / name)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "c", dtype=torch.float32)
    host = AdaptedModel.load(tmp_path / "c", CPU, torch.float32)
    assert host.dtype is torch.float32
    assert any(isinstance(x, lean.NarrowEmbedding) for x in host.model.modules())
    layers = [x for x in host.model.modules() if isinstance(x, lean.PackedLinear)]
    assert len(layers) == 15
    assert max(len(layer.parts) for layer in layers) > 1
    ids = torch.arange(12).view(1, 12)
    torch.testing.assert_close(host.model(ids).logits, plain(ids).logits, rtol=1e-4, atol=1e-4)
    grads = []
    for model in (plain, host.model):
        embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
        model(inputs_embeds=embedded).logits.square().sum().backward()
        grads.append(embedded.grad)
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-3, atol=1e-3)


def test_every_weight_is_there_once(tmp_path: Path) -> None:
    path = save_tiny_model(tmp_path)
    host = AdaptedModel.load(path, CPU, torch.float32)
    plain = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    found: dict[str, list[torch.Tensor]] = {}
    for name, weight in lean.named_weights(host.model):
        found.setdefault(name, []).append(weight)
    assert found.keys() == dict(plain.named_parameters()).keys()
    for name, parameter in plain.named_parameters():
        assert torch.equal(torch.cat(found[name]), parameter)
    kept = sum(p.untyped_storage().nbytes() for p in host.model.parameters())
    assert kept < 0.5 * sum(p.numel() * 4 for p in plain.parameters())


def test_a_reader_of_a_packed_weight_is_noticed(tmp_path: Path) -> None:
    host = AdaptedModel.load(save_tiny_model(tmp_path), CPU, torch.float32)
    weight = host.model.get_output_embeddings().weight
    assert weight.shape == (320, 64)
    assert bool(weight.isnan().all())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_file_of_the_weights_is_let_go(tmp_path: Path) -> None:
    host = AdaptedModel.load(save_tiny_model(tmp_path / "let-go"), CPU, torch.float32)
    assert any(isinstance(x, lean.PackedLinear) for x in host.model.modules())
    assert "let-go" not in Path("/proc/self/maps").read_text()
