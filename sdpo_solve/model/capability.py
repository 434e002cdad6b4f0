"""What can be done with a model, read from its configuration alone, before any weights are pulled or loaded.

A configuration says which architecture it is, how long its context is and how its layers attend; the modules
are made without storage to see which share of the weights LoRA reaches. That sampling and learning agree with
the model's own forward pass is checked when the weights are there (engine and learner do).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from sdpo_solve.errors import ConfigError, one_line

LEAST_LORA_SHARE = 0.5
"""Of a model's weights, embeddings and head left out: what LoRA must reach."""
_USUAL_SHARE = 0.95  # norms, biases and routers are the rest
# PEFT puts no adapter on `out_proj` of these: their kernels read its weight past the layer.
_MAMBA = frozenset({"falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h"})
# PEFT takes these names for experts that are one tensor, also where layers beside them are called so.
_EXPERT_NAMES = frozenset({"gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"})
_CONTEXT_NAMES = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "max_sequence_length",
)
_UNBOUNDED_CONTEXT = 1 << 20  # state-space models and relative positions have no longest context
_EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
# Tried with transformers 5 on 2026-11-29: what they keep between tokens cannot be taken up again.
_NO_CACHE = frozenset({"recurrent_gemma", "rwkv", "xlstm"})
_LENGTH_ROPES = frozenset({"dynamic", "longrope"})


class Level(Enum):
    """How much of this program a model can be used with."""

    LEARNS = "samples and learns"
    SAMPLES = "samples only (best-of-k, multi-turn, screen)"
    NONE = "not supported"


@dataclass(frozen=True, slots=True)
class Targets:
    """What of a model gets an adapter, by last names: linear layers, and parameters that hold experts.

    `share`: of the weights, embeddings and head left out.
    """

    modules: tuple[str, ...]
    parameters: tuple[str, ...]
    share: float


@dataclass(frozen=True, slots=True)
class Capability:
    """The level of a model with the reason where it is not the highest; `notes`: what a user should know."""

    level: Level
    reason: str = ""
    notes: tuple[str, ...] = ()


def read_config(model_dir: Path) -> Any:
    """The configuration of a model directory.

    Raises ConfigError where it cannot be read or names an architecture that transformers does not know.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(model_dir, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ConfigError(f"{model_dir / 'config.json'} cannot be read: {one_line(exc)}") from None


def auto_class(config: Any) -> Any:
    """The class that loads the model: of causal LMs, or of multimodal models that wrap one; None: neither."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    classes: tuple[Any, ...] = (AutoModelForCausalLM, AutoModelForImageTextToText)
    return next((x for x in classes if type(config) in x._model_mapping), None)


def empty_model(config: Any) -> Any:
    """The modules of a model without storage.

    Raises ConfigError where transformers has no causal language model for the configuration.
    """
    import torch

    loader = auto_class(config)
    if loader is None:
        raise ConfigError(_no_class(config))
    try:
        with torch.device("meta"):
            return loader.from_config(config)
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
        AssertionError,
        RuntimeError,
        ImportError,
    ) as exc:
        raise ConfigError(f"no model can be made of {_kind(config)}: {one_line(exc)}") from None


def refusal_of(config: Any) -> str | None:
    """Why no model of this configuration can be sampled from; None where nothing is known against it."""
    quantized = getattr(config, "quantization_config", None)
    if quantized is not None:
        fields = quantized if isinstance(quantized, dict) else vars(quantized)
        method = getattr(fields.get("quant_method"), "value", fields.get("quant_method"))
        return f"its weights are quantised ({method}); choose the model as it was before that"
    if getattr(config, "is_encoder_decoder", False):
        return f"{_kind(config)} is an encoder-decoder, not a causal language model"
    if _is_encoder(config):
        return f"{_kind(config)} is an encoder (its is_decoder is off), not a causal language model"
    if config.model_type in _NO_CACHE:
        return f"{_kind(config)} keeps no cache that one token at a time can be added to"
    return _no_class(config) if auto_class(config) is None else None


def capability_of(config: Any) -> Capability:
    """What a model of this configuration can do here."""
    if (refusal := refusal_of(config)) is not None:
        return Capability(Level.NONE, refusal)
    try:
        model = empty_model(config)
    except ConfigError as exc:
        return Capability(Level.NONE, str(exc))
    try:
        share = adapter_targets(model, "all").share
    except ConfigError as exc:
        return Capability(Level.SAMPLES, str(exc))
    notes = []
    if (length := rope_limit(config)) is not None:
        notes.append(f"its context is limited to {length} tokens: beyond, its rope depends on the length")
    if share < LEAST_LORA_SHARE:
        reason = f"LoRA reaches {share:.0%} of its weights only (the rest is no linear layer)"
        return Capability(Level.SAMPLES, reason, tuple(notes))
    if (layers := odd_layers(config)) is not None:
        notes.append(f"it learns by its own forward pass, which is slower ({layers})")
    if share < _USUAL_SHARE:
        notes.append(f"LoRA reaches {share:.0%} of its weights")
    return Capability(Level.LEARNS, notes=tuple(notes))


def adapter_targets(model: Any, which: str) -> Targets:
    """What gets an adapter. `which`: all linear layers but the head and all experts, or those of attention.

    Raises ConfigError where there is nothing.
    """
    import torch

    outside = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    if (head := model.get_output_embeddings()) is not None:
        outside.add(id(head.weight))
    is_mamba = model.config.model_type in _MAMBA
    experts = expert_parameters(model)
    names, reached = set[str](), 0
    for path, module in model.named_modules():
        path = path.removesuffix(".base_layer")  # of a layer that has had an adapter before
        if not _is_plain_linear(module) or "lora_" in path or id(module.weight) in outside:
            continue
        parent, _, name = path.rpartition(".")
        if (is_mamba and name == "out_proj") or (experts and name in _EXPERT_NAMES):
            continue
        if which == "attention" and "attn" not in parent and "attention" not in parent:
            continue
        names.add(_last_names(path))
        reached += module.weight.numel()
    if which == "attention":
        experts = {}
    if not names and not experts:
        raise ConfigError("this model has no linear layers that an adapter fits")
    reached += sum(p.numel() for p in experts.values())
    parameters = model.named_parameters()
    total = sum(p.numel() for name, p in parameters if "lora_" not in name and id(p) not in outside)
    return Targets(tuple(sorted(names)), tuple(sorted({_last_names(x, 2) for x in experts})), reached / total)


def expert_count(config: Any) -> int:
    """Experts of a layer; 0 for a model without."""
    text = config.get_text_config()
    return max((int(getattr(text, name, None) or 0) for name in _EXPERT_COUNTS), default=0)


def expert_types(model: Any) -> set[type]:
    """The classes of the modules that hold all experts of a layer."""
    parents = {path.rpartition(".")[0] for path in expert_parameters(model)}
    named = ((path.replace(".base_layer", ""), module) for path, module in model.named_modules())
    return {type(module) for path, module in named if path in parents and not hasattr(module, "base_layer")}


def expert_parameters(model: Any) -> dict[str, Any]:
    """Parameters [experts, ..., ...] by their paths."""
    n_experts = expert_count(model.config)
    named = ((path.replace(".base_layer", ""), p) for path, p in model.named_parameters())
    return {
        path: p
        for path, p in named
        if n_experts > 1 and p.dim() == 3 and len(p) == n_experts and "lora_" not in path
    }


def _last_names(path: str, n: int = 1) -> str:
    """The last `n` names of a path, more where the first of them is a number."""
    names = path.split(".")
    while n < len(names) and names[-n].isdecimal():
        n += 1
    return ".".join(names[-n:])


def _is_plain_linear(module: Any) -> bool:
    """Whether it is a linear layer and no router: those of some models derive from one and return a tuple."""
    import torch
    from transformers.pytorch_utils import Conv1D

    is_linear = isinstance(module, torch.nn.Linear | Conv1D) and not hasattr(module, "base_layer")
    return is_linear and "Router" not in type(module).__name__


def _is_encoder(config: Any) -> bool:
    from transformers import AutoModelForMaskedLM

    return type(config) in AutoModelForMaskedLM._model_mapping and not getattr(config, "is_decoder", False)


def odd_layers(config: Any) -> str | None:
    """The layers that do not attend to everything before them, in words; None where all do."""
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"]) - {"full_attention"}
    window = getattr(text, "sliding_window", None)
    if not kinds and window and getattr(text, "use_sliding_window", True):
        kinds = {"sliding_attention"}
    if not kinds and getattr(text, "attention_chunk_size", None):
        kinds = {"chunked_attention"}
    return f"{', '.join(sorted(kinds))} layers" if kinds else None


def rope_limit(config: Any) -> int | None:
    """Tokens up to which rotary embeddings do not depend on the length of the batch; None: always so."""
    text = config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    if not isinstance(rope, dict):
        return None
    forms = [form for form in (rope, *rope.values()) if isinstance(form, dict)]  # one a kind of layer
    if not any(form.get("rope_type", form.get("type")) in _LENGTH_ROPES for form in forms):
        return None
    limits = [form.get("original_max_position_embeddings") for form in forms]
    known = [int(n) for n in (*limits, getattr(text, "original_max_position_embeddings", None)) if n]
    return min(known, default=_longest(text))


def context_tokens(config: Any) -> int:
    """Tokens that prompt and answer may take together."""
    return min(_longest(config.get_text_config()), rope_limit(config) or _UNBOUNDED_CONTEXT)


def _longest(text: Any) -> int:
    named = [getattr(text, name, None) for name in _CONTEXT_NAMES]
    return next((int(n) for n in named if isinstance(n, int) and n > 0), _UNBOUNDED_CONTEXT)


def _kind(config: Any) -> str:
    return f"the architecture {getattr(config, 'model_type', None) or type(config).__name__!r}"


def _no_class(config: Any) -> str:
    import transformers

    return f"transformers {transformers.__version__} has no causal language model for {_kind(config)}"
