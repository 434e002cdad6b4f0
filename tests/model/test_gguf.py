"""A GGUF file becomes the model that it was made of: numbers, order of rows, configuration, tokenizer."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from sdpo_solve.model.gguf import convert
from tests.helpers.tiny_model import SPECIAL, make_tokenizer, save_tiny_model


def source_model(folder: Path, architecture: str) -> Any:
    if architecture == "qwen2":
        return AutoModelForCausalLM.from_pretrained(save_tiny_model(folder))
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config)


def write_gguf(path: Path, model: Any, architecture: str) -> dict[str, np.ndarray]:
    """A file as llama.cpp's converter writes it, matrices in Q8_0; gives what its numbers stand for."""
    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(5000.0)
    tokenizer = make_tokenizer()
    tokens = [tokenizer.convert_ids_to_tokens(i) or f"[PAD{i}]" for i in range(config.vocab_size)]
    tokens[-1] = "ab"
    special = [gguf.TokenType.CONTROL if token in SPECIAL else gguf.TokenType.NORMAL for token in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(special)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(tokens.index("<|endoftext|>"))
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_pad_token_id(tokens.index("<|endoftext|>"))
    writer.add_chat_template("{{ messages }}")
    kind = gguf.MODEL_ARCH.QWEN2 if architecture == "qwen2" else gguf.MODEL_ARCH.LLAMA
    names, dense = gguf.get_tensor_name_map(kind, config.num_hidden_layers), {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        module, _, suffix = name.rpartition(".")
        values = tensor.float().numpy()
        stored = values
        if architecture == "llama" and module.endswith(("q_proj", "k_proj")):
            heads = config.num_attention_heads if module.endswith("q_proj") else config.num_key_value_heads
            half = values.reshape(heads, 2, -1, values.shape[-1])
            stored = half.swapaxes(1, 2).reshape(values.shape)
        if values.ndim == 2:
            q8 = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(f"{names.get_name(module)}.{suffix}", gguf.quantize(stored, q8), raw_dtype=q8)
            values = gguf.dequantize(gguf.quantize(values, q8), q8)
        else:
            writer.add_tensor(f"{names.get_name(module)}.{suffix}", stored)
        dense[name] = values
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return dense


@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
def test_a_converted_model_is_what_the_file_holds(architecture: str, tmp_path: Path) -> None:
    source = source_model(tmp_path / "source", architecture)
    dense = write_gguf(tmp_path / "model.gguf", source, architecture)
    convert(tmp_path / "model.gguf", tmp_path / "out", ["<|im_end|>", "<|endoftext|>"])

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.bfloat16)
    weights = model.state_dict()
    for name, values in dense.items():
        assert torch.equal(weights[name], torch.from_numpy(values).bfloat16()), name
    assert model.config.tie_word_embeddings is source.config.tie_word_embeddings
    assert model.config.rms_norm_eps == pytest.approx(1e-5)
    assert model.config.rope_parameters["rope_theta"] == 5000
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    text = "def f(): return 1<|im_end|>"
    assert tokenizer(text)["input_ids"] == make_tokenizer()(text)["input_ids"]
    ends = [tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>")]
    assert model.generation_config.eos_token_id == ends
    assert tokenizer.chat_template == "{{ messages }}"


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GIF89a" + bytes(100))
    with pytest.raises(ValueError, match="no GGUF"):
        convert(tmp_path / "model.gguf", tmp_path / "out", [])
