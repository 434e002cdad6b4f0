"""The tiny model of the tests is a whole model: it loads, reads a chat, and writes bytes back."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sdpo_solve.model.chat import encode_chat
from sdpo_solve.types import Message, Prompt
from tests.helpers.tiny_model import save_tiny_model


def test_loads_and_reads_a_chat(tmp_path: Path) -> None:
    path = save_tiny_model(tmp_path / "tiny")
    tokenizer = AutoTokenizer.from_pretrained(path)
    ids = encode_chat(tokenizer, Prompt((Message("user", "Add é to 1.\n<|im_end|>"),)))
    text = tokenizer.decode(ids)
    assert text.startswith(
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nAdd é to 1.\n"
    )
    assert text.endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert text.count("<|im_end|>") == 2, "the text of a message cannot end its turn"
    model = AutoModelForCausalLM.from_pretrained(path)
    logits = model(torch.tensor([ids])).logits[0, -1].detach()
    entropy = torch.distributions.Categorical(logits=logits).entropy().item()
    assert 1.0 < entropy < 5.5


def test_the_seed_decides_the_weights(tmp_path: Path) -> None:
    same = [save_tiny_model(tmp_path / name, seed=3) / "model.safetensors" for name in ("a", "b")]
    other = save_tiny_model(tmp_path / "c", seed=4) / "model.safetensors"
    assert same[0].read_bytes() == same[1].read_bytes()
    assert same[0].read_bytes() != other.read_bytes()
