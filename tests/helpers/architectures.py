"""Tiny models of many architectures with random weights, as Hugging Face directories."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, GenerationConfig

from sdpo_solve.model.capability import auto_class
from tests.helpers.tiny_model import SPECIAL, VOCAB_SIZE, make_tokenizer

SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "initializer_range": 0.15,
}
MOE: dict[str, Any] = {
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
}
LINEAR_ATTENTION: dict[str, Any] = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "layer_types": ["linear_attention", "full_attention"],
}
OLD: dict[str, Any] = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512, "n_inner": 128}

# By name: the model type, and what its configuration needs besides SHAPE.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2": ("qwen2", {}),
    "llama": ("llama", {}),
    "qwen3": ("qwen3", {}),
    "mistral-window": ("mistral", {"sliding_window": 8}),
    "mixtral-window": ("mixtral", {**MOE, "sliding_window": 8}),
    "phi3-window": ("phi3", {"sliding_window": 8, "pad_token_id": 0}),
    "starcoder2-window": ("starcoder2", {"sliding_window": 8}),
    "gemma": ("gemma", {}),
    "gemma2": ("gemma2", {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}),
    "gemma3": ("gemma3_text", {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}),
    "granite": ("granite", {"logits_scaling": 8.0, "embedding_multiplier": 2.0}),
    "cohere": ("cohere", {"logit_scale": 0.25}),
    "cohere2": ("cohere2", {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}),
    "diffllama": ("diffllama", {}),
    "nanochat": ("nanochat", {}),
    "nemotron": ("nemotron", {}),
    "stablelm": ("stablelm", {}),
    "glm4": ("glm4", {"pad_token_id": 0}),
    "olmo2": ("olmo2", {}),
    "phi": ("phi", {}),
    "opt": ("opt", {"ffn_dim": 128, "word_embed_proj_dim": 64}),
    "gpt2": ("gpt2", OLD),
    "gpt-neox": ("gpt_neox", {}),
    "falcon": ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2, "head_dim": None}),
    "bloom": ("bloom", {**OLD, "hidden_size": 64}),
    "mpt": ("mpt", {"d_model": 64, "n_heads": 4, "n_layers": 2, "expansion_ratio": 2, "max_seq_len": 512}),
    "qwen3-moe": ("qwen3_moe", MOE),
    "olmoe": ("olmoe", MOE),
    "gpt-oss": ("gpt_oss", {**MOE, "sliding_window": 8}),
    "qwen3-next": ("qwen3_next", {**MOE, **LINEAR_ATTENTION, "shared_expert_intermediate_size": 32}),
    "qwen3.5": ("qwen3_5_text", LINEAR_ATTENTION),
    "lfm2": ("lfm2", {"layer_types": ["conv", "full_attention"]}),
    "falcon-h1": (
        "falcon_h1",
        {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 16},
    ),
    "smollm3": ("smollm3", {"pad_token_id": 0}),
    "exaone4": ("exaone4", {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}),
    "minicpm3": (
        "minicpm3",
        {
            "num_key_value_heads": 4,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 8,
            "v_head_dim": 16,
        },
    ),
    "deepseek-v3": (
        "deepseek_v3",
        {
            **MOE,
            "n_routed_experts": 4,
            "n_group": 1,
            "topk_group": 1,
            "num_key_value_heads": 4,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 8,
            "head_dim": 8,
            "v_head_dim": 16,
            "first_k_dense_replace": 1,
        },
    ),
    "phimoe": ("phimoe", MOE),  # its router derives from a linear layer
    "llama4": ("llama4_text", {**MOE, "intermediate_size_mlp": 128, "head_dim": 16}),
    "mamba2": ("mamba2", {"state_size": 16, "num_heads": 8, "head_dim": 16, "n_groups": 1}),
}


def config_of(name: str, **fields: Any) -> Any:
    """The configuration of a tiny model by its name in `ARCHITECTURES`."""
    kind, own = ARCHITECTURES[name]
    eos = make_tokenizer().convert_tokens_to_ids("<|im_end|>")
    given = {**SHAPE, "bos_token_id": None, "eos_token_id": eos, **own, **fields}
    given = {name: value for name, value in given.items() if (name, value) != ("head_dim", None)}
    return AutoConfig.for_model(kind, **given)


def save_architecture(path: Path, config: Any, seed: int = 0) -> Path:
    """Write a model of `config` with tokenizer and generation config; returns `path`."""
    tokenizer = make_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = auto_class(config).from_config(config)
    ids = [tokenizer.convert_tokens_to_ids(token) for token in SPECIAL]
    model.generation_config = GenerationConfig(eos_token_id=[ids[2], ids[0]], pad_token_id=ids[0])
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path
