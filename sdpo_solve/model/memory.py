"""Estimates of the memory that a model takes, from its configuration alone, before anything is loaded.

Counts weights, adapters, keys and values from the model's shapes, and bounds the working memory of an update
and of vLLM from sizes. Bounds err upwards. Measures nothing that runs and knows no engine: `doctor` prints
the estimates, and the engine vllm takes its share of a GPU from them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from sdpo_solve.errors import ConfigError
from sdpo_solve.model.capability import context_tokens, empty_model, expert_parameters, read_config
from sdpo_solve.model.device import best_device

_MB = 1 << 20
_HALF = 2  # bytes of a number in bfloat16
_NF4_BYTES = 0.516  # of a number, its share of doubly quantised block sizes included (arXiv 2305.14314, 3)
_ADAPTER_BYTES = 24  # weights, gradients and two moments in float32, two slots of the adapter
_TEACHER_RANKS = 4  # an averaged teacher holds its product at this many times the adapter's rank
_HEAD_COPIES = (
    6  # float32 arrays of chunk x vocabulary alive at once: both sides' logits, log-probs, gradient
)
_CONTEXT_MB = 1024  # CUDA's own memory of one process, with its libraries; no GPU was measured
_LIBRARIES_MB = 512  # torch, transformers and peft in a process without CUDA
_PASS_TOKENS = 4096
_CPU_PASS_MB = 640  # activations of a pass with gradients on a CPU, where more tokens make no pass faster
_LEAST_PASS_TOKENS = 64
_USABLE = 0.97  # of a GPU's memory; the driver keeps some
_VLLM_MB = 2048  # vLLM's activations and compiled graphs beside keys and values; no GPU was measured


@dataclass(frozen=True, slots=True)
class ModelSize:
    """A causal LM in numbers. `linear_params`: those in frozen linear layers, the head included."""

    params: int
    linear_params: int
    layers: int
    hidden: int
    inner: int
    vocabulary: int
    context_tokens: int
    kv_numbers_per_token: int
    adapter_numbers_per_rank: int

    def cache_mb(self, tokens: int) -> int:
        """Keys and values of that many tokens in bfloat16."""
        return _mb(tokens * self.kv_numbers_per_token * _HALF)


@dataclass(frozen=True, slots=True)
class Load:
    """What is done at once. The defaults are those of the engines' and the learner's options."""

    rows: int = 16
    answer_tokens: int = 512
    prompt_tokens: int = 1024
    rank: int = 16
    microbatch_tokens: int = 4096
    checkpoint_tokens: int = 4096
    chunk_positions: int = 256
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Of weights, activations, keys and values in the learner's process."""
    quantised: bool = False
    """Whether linear layers but the head are in 4 bits there (`--quantization 4bit`)."""

    @property
    def number_bytes(self) -> int:
        return 4 if self.dtype == "float32" else _HALF

    @property
    def cached_tokens(self) -> int:
        """Tokens in the cache when all rows have their longest answer."""
        return self.rows * (self.prompt_tokens + self.answer_tokens)


@dataclass(frozen=True, slots=True)
class Sharing:
    """How vLLM stands beside the learner on a GPU."""

    learner: bool = True
    sleeps: bool = False
    quantised: bool = False
    tensor_parallel: int = 1
    n_adapters: int = 1


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that takes memory."""

    name: str
    mb: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """What parts need together on one device. `available_mb` None: there is no such device here."""

    title: str
    needs: tuple[Need, ...]
    available_mb: int | None

    @property
    def total_mb(self) -> int:
        return sum(need.mb for need in self.needs)

    @property
    def fits(self) -> bool | None:
        """None where there is nothing to fit into."""
        return None if self.available_mb is None else self.total_mb <= self.available_mb


def size_of(model_dir: Path) -> ModelSize:
    """Sizes from a model's directory; its modules are made without storage, so that nothing is loaded.

    Raises ConfigError where it is no causal language model.
    """
    import torch

    config = read_config(model_dir)
    model = empty_model(config)
    text = config.get_text_config()
    heads = _number(text, "num_attention_heads", 1)
    head_dim = _number(text, "head_dim", text.hidden_size // heads)
    linears = [(name, m) for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)]
    adapted = [m for name, m in linears if not name.endswith("lm_head")]
    return ModelSize(
        params=sum(p.numel() for p in model.parameters()),
        linear_params=sum(m.weight.numel() for _, m in linears),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        inner=_number(text, "intermediate_size", 4 * text.hidden_size),
        vocabulary=text.vocab_size,
        context_tokens=context_tokens(config),
        kv_numbers_per_token=2
        * text.num_hidden_layers
        * _number(text, "num_key_value_heads", heads)
        * head_dim,
        adapter_numbers_per_rank=sum(m.in_features + m.out_features for m in adapted)
        + sum(len(p) * sum(p.shape[1:]) for p in expert_parameters(model).values()),
    )


def _number(text: Any, name: str, default: int) -> int:
    """A number of the configuration, the largest where layers differ; `default` where it has none."""
    value = getattr(text, name, None)
    numbers = value if isinstance(value, list | tuple) else [value]
    return max((int(n) for n in numbers if isinstance(n, int) and n > 0), default=default)


# -- parts ---------------------------------------------------------------------------------------------------


def pass_tokens(config: Any, number_bytes: int, *, on_cpu: bool) -> int:
    """Tokens of a learner's pass where no option says how many."""
    text = config.get_text_config()
    inner = _number(text, "intermediate_size", 4 * text.hidden_size)
    token_bytes = text.num_hidden_layers * _layer_bytes(text.hidden_size, inner, number_bytes)
    fitting = (_CPU_PASS_MB << 20) // token_bytes
    return min(_PASS_TOKENS, max(_LEAST_PASS_TOKENS, fitting)) if on_cpu else _PASS_TOKENS


def learner_needs(size: ModelSize, load: Load) -> tuple[Need, ...]:
    """Weights, adapter and working memory of an update, in the learner's process."""
    quantised = size.linear_params - size.hidden * size.vocabulary if load.quantised else 0
    weight_bytes = (size.params - quantised) * load.number_bytes + quantised * _NF4_BYTES
    form = "4 bits" if load.quantised else load.dtype
    return (
        Need(f"learner: weights ({form})", _mb(weight_bytes)),
        Need("learner: adapter, teacher, optimizer", _adapter_mb(size, load)),
        Need(f"learner: an update, {load.microbatch_tokens} tokens a pass", _update_mb(size, load)),
    )


def vllm_needs(size: ModelSize, load: Load, sharing: Sharing) -> tuple[Need, ...]:
    """vLLM's own copy of the weights, its adapters, keys and values of all rows; on each of its GPUs."""
    weights_mb = _mb(size.params * (1 if sharing.quantised else _HALF))
    adapter_mb = _mb(load.rank * size.adapter_numbers_per_rank * _HALF)
    n = sharing.tensor_parallel
    return (
        Need("vLLM: weights" + (", quantised" if sharing.quantised else ""), -(-weights_mb // n)),
        Need("vLLM: adapters", sharing.n_adapters * adapter_mb),
        Need(
            f"vLLM: keys and values, {load.cached_tokens} tokens", -(-size.cache_mb(load.cached_tokens) // n)
        ),
        Need("vLLM: activations, graphs, CUDA", _VLLM_MB + _CONTEXT_MB),
    )


def shared_gpu(size: ModelSize, load: Load, gpu_mb: int | None) -> Estimate:
    """One GPU for vLLM and the learner, each with its own copy of the weights.

    vLLM must have room for one answer that fills the context; with more room it samples more at a time.
    """
    context = Need("learner: CUDA", _CONTEXT_MB)
    least = full_length(size, load)
    needs = (*learner_needs(size, load), context, *vllm_needs(size, least, Sharing()))
    return Estimate("one GPU for vLLM and the learner", needs, gpu_mb)


def full_length(size: ModelSize, load: Load, context_tokens: int | None = None) -> Load:
    """`load` with one answer that fills the context, the least that vLLM starts with."""
    return replace(load, rows=1, prompt_tokens=0, answer_tokens=context_tokens or size.context_tokens)


def in_process(size: ModelSize, load: Load, available_mb: int | None, *, on_cpu: bool) -> Estimate:
    """The engine hf, which samples from the learner's own weights.

    Sampling and updates take turns: what the larger of the two works with is there, not both.
    """
    weights, adapter, update = learner_needs(size, load)
    if on_cpu and not load.quantised:  # see `lean.py`: embeddings stay as they are on disk
        wide, narrow = size.linear_params, size.params - size.linear_params
        weights = Need(weights.name, _mb(wide * load.number_bytes + narrow * _HALF))
    cache_mb = _mb(2 * load.cached_tokens * size.kv_numbers_per_token * load.number_bytes)
    cache = Need(f"hf: keys and values, {load.rows} answers", cache_mb)
    rest = Need("libraries", _LIBRARIES_MB) if on_cpu else Need("CUDA", _CONTEXT_MB)
    needs = (weights, adapter, max(update, cache, key=lambda need: need.mb), rest)
    title = "this machine's memory, engine hf" if on_cpu else "one GPU, engine hf"
    return Estimate(title, needs, available_mb)


def quantised(size: ModelSize, load: Load, available_mb: int | None, *, on_cpu: bool) -> Estimate:
    """The engine hf with 4-bit base weights, and what else makes a model of 8B fit into 24 GB."""
    small = replace(
        load, quantised=True, rows=4, answer_tokens=min(load.answer_tokens, 2048), microbatch_tokens=1024
    )
    found = in_process(size, small, available_mb, on_cpu=on_cpu)
    return replace(
        found,
        title=f"{found.title}, --quantization 4bit, --max-tokens {small.answer_tokens}, "
        f"--set engine.batch_rows={small.rows}, --set learner.microbatch_tokens={small.microbatch_tokens}",
    )


def vllm_share(size: ModelSize, load: Load, sharing: Sharing, gpu_mb: int) -> float:
    """The share of a GPU that vLLM may take: what the learner leaves.

    Raises ConfigError where that is less than vLLM needs for `load`.
    """
    needs = learner_needs(size, load)
    beside_mb = 0
    if sharing.learner:
        # While vLLM sleeps the learner has its memory too; its weights and its adapter stay where they are.
        beside_mb = sum(need.mb for need in (needs[:2] if sharing.sleeps else needs)) + _CONTEXT_MB
    least_mb = sum(need.mb for need in vllm_needs(size, load, sharing))
    left_mb = int(_USABLE * gpu_mb) - beside_mb
    if left_mb < least_mb:
        raise ConfigError(
            f"vLLM needs about {least_mb} MB and the learner {beside_mb} MB; the GPU has {gpu_mb} MB. Take a "
            "smaller model or --engine hf, lower engine.max_model_len, or set engine.memory_share yourself"
        )
    return left_mb / gpu_mb


def free_memory_mb() -> int:
    """What this machine's processes can still take without swapping."""
    import psutil

    return int(psutil.virtual_memory().available) // _MB


def gpu_memory_mb() -> int | None:
    """All memory of the current accelerator; None without one."""
    import torch

    device = best_device()
    if device.type == "cpu":
        return None
    if device.type == "mps":  # a part of the machine's own
        return int(torch.mps.recommended_max_memory()) // _MB
    return int(torch.accelerator.get_memory_info(device)[1]) // _MB


# -- sizes ---------------------------------------------------------------------------------------------------


def _adapter_mb(size: ModelSize, load: Load) -> int:
    own = load.rank * size.adapter_numbers_per_rank
    return _mb(own * _ADAPTER_BYTES + _TEACHER_RANKS * own * 4)


def _layer_bytes(hidden: int, inner: int, number_bytes: int) -> int:
    """Kept for each token and layer: eight arrays as wide as the model, four as wide as its inner layer."""
    return (8 * hidden + 4 * inner) * number_bytes


def _update_mb(size: ModelSize, load: Load) -> int:
    """Activations of one pass with gradients, and the head's logits for some positions.

    Where passes are recomputed only the layers' inputs are kept, and one layer's arrays.
    """
    layer_bytes = _layer_bytes(size.hidden, size.inner, load.number_bytes)
    token_bytes = size.layers * layer_bytes
    if load.microbatch_tokens > load.checkpoint_tokens:
        token_bytes = size.layers * size.hidden * load.number_bytes + layer_bytes
    head_bytes = load.chunk_positions * size.vocabulary * 4 * _HEAD_COPIES
    return _mb(load.microbatch_tokens * token_bytes + head_bytes)


def _mb(n_bytes: float) -> int:
    return math.ceil(n_bytes / _MB)
