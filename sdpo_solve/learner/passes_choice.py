"""Which passes a model learns by and which of its layers get an adapter, before anything is sampled or paid.

Packed passes compute attention and head anew; on two short rows they are held against the model's own
forward, log-probs and gradient, under an adapter of random weights. Where they differ the plain passes are
taken, and a model that even those do not follow is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdpo_solve.errors import ConfigError, LearnerError
from sdpo_solve.learner.examples import TokenizedExample
from sdpo_solve.learner.gradient import StudentPasses
from sdpo_solve.learner.head import Head
from sdpo_solve.learner.loss import LossSettings, sampled_logprobs
from sdpo_solve.learner.options import Options
from sdpo_solve.learner.packing import PackedPasses, PassLimits, PromptCompletion
from sdpo_solve.learner.plain import OwnHead, PlainPasses
from sdpo_solve.model.adapted import AdaptedModel, AdapterShape
from sdpo_solve.model.capability import adapter_targets, odd_layers
from sdpo_solve.model.cpu import is_out_of_memory, memory_errors
from sdpo_solve.model.memory import pass_tokens

# Mean difference of log-probs in nats, and relative distance of gradients; the last for bfloat16.
_LOGPROB_TOLERANCES = {torch.float64: 1e-3, torch.float32: 1e-3, torch.float16: 0.03, torch.bfloat16: 0.15}
_GRADIENT_TOLERANCES = {torch.float64: 1e-3, torch.float32: 1e-3, torch.float16: 0.1, torch.bfloat16: 0.3}
# A head that is a linear layer gives its very products; scaled or capped logits are another head.
_HEAD_ROUNDINGS = 4
_TEXT = "def add(a, b):\n    return a + b\n\nprint(add(1, 2))\n" * 2
# Attention alone is a choice that needs no words.
_USUAL_SHARE = 0.9
_PROMPT_TOKENS, _COMPLETION_TOKENS = 5, (3, 6)
OUT_OF_MEMORY = (
    "out of memory while learning: lower learner.lora_rank or --max-tokens, or take a smaller model or "
    "--quantization 4bit; what a model needs: sdpo-solve doctor --model"
)


@dataclass(frozen=True, slots=True)
class Choice:
    """How a model learns. `reason`: why not by packed passes, empty where it does; `share`: of its weights,
    embeddings and head left out, in layers with an adapter."""

    passes: type[PackedPasses]
    reason: str
    shape: AdapterShape
    share: float

    @property
    def notice(self) -> str:
        """What a user should know of it; empty where it is the usual."""
        parts = []
        if self.reason:
            parts.append(f"learns by the model's own forward pass, which is slower ({self.reason})")
        if self.share < _USUAL_SHARE:
            parts.append(f"adapter on {self.share:.0%} of the weights")
        return "; ".join(parts)


def choose(host: AdaptedModel, options: Options) -> Choice:
    """Decided once a model and shape of adapter, with the model's weights.

    Raises ConfigError for a model that cannot be trained, and where an adapter on all layers that take one
    reaches less than `min_lora_share` of the weights; LearnerError where memory runs out.
    """
    found = adapter_targets(host.model, options.lora_targets)
    shape = AdapterShape(options.lora_rank, options.lora_alpha, found.modules, found.parameters)
    if options.lora_targets == "all" and found.share < options.min_lora_share:
        raise ConfigError(
            f"an adapter reaches {found.share:.0%} of this model's weights only; to learn all the same, "
            "lower learner.min_lora_share"
        )
    if shape not in host.choices:
        with memory_errors(LearnerError, OUT_OF_MEMORY):
            host.choices[shape] = _choose_passes(host, shape, found.share)
    choice: Choice = host.choices[shape]
    return choice


def limits_of(options: Options, model: Any) -> PassLimits:
    """The options' limits; what they leave open is chosen for the model and where it is."""
    tokens = options.microbatch_tokens or pass_tokens(
        model.config, model.dtype.itemsize, on_cpu=model.device.type == "cpu"
    )
    return PassLimits(tokens, options.checkpoint_tokens, options.chunk_positions)


def passes_of(host: AdaptedModel, options: Options) -> PackedPasses:
    """The passes that `choose` finds, with the options' limits."""
    return choose(host, options).passes(host.model, limits_of(options, host.model))


# -- parts ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Result:
    logprobs_N: Tensor
    gradient_P: Tensor


def _choose_passes(host: AdaptedModel, shape: AdapterShape, share: float) -> Choice:
    generator, rows = torch.Generator().manual_seed(0), _rows(host)
    with host.turn:
        try:
            empty = host.shape_adapter("policy", shape)
            weights = {name: 0.02 * torch.randn(p.shape, generator=generator) for name, p in empty.items()}
            host.put("policy", "choice", shape, weights)
        except LearnerError as exc:
            raise ConfigError(str(exc)) from None
        try:
            with host.slot_active("policy", "choice"):
                own_N = _own_logprobs(host.model, rows)
                plain = _tried(host, PlainPasses, rows)
                if fault := _fault(host, plain, own_N):
                    raise ConfigError(f"this model cannot be trained here: {fault}")
                assert isinstance(plain, _Result)
                # A window is longer than the rows that are tried.
                reason = odd_layers(host.model.config) or _head_fault(host) or ""
                if not host.model._can_set_attn_implementation():
                    reason = reason or "it has an attention of its own"
                if not reason:
                    reason = _fault(host, _tried(host, PackedPasses, rows), own_N, plain.gradient_P)
        finally:
            host.drop("policy")
    return Choice(PlainPasses if reason else PackedPasses, reason, shape, share)


def _rows(host: AdaptedModel) -> list[PromptCompletion]:
    ids = tuple(host.tokenizer(_TEXT, add_special_tokens=False)["input_ids"])
    prompt = ids[:_PROMPT_TOKENS]
    return [PromptCompletion(prompt, ids[_PROMPT_TOKENS + n :][:n]) for n in _COMPLETION_TOKENS]


@torch.no_grad()
def _own_logprobs(model: Any, rows: Sequence[PromptCompletion]) -> Tensor:
    """Log-probs [N] of the completions by the model's own forward, a row at a time."""
    parts = []
    for row in rows:
        ids = torch.tensor([row.prompt_ids + row.completion_ids_T], device=model.device)
        logits_TV = model(input_ids=ids, use_cache=False).logits[0, len(row.prompt_ids) - 1 : -1].float()
        parts.append(sampled_logprobs(logits_TV, ids[0, len(row.prompt_ids) :]))
    return torch.cat(parts)


def _tried(host: AdaptedModel, kind: type[PackedPasses], rows: Sequence[PromptCompletion]) -> _Result | str:
    """Log-probs, and the gradient of their mean; or what went wrong."""
    passes = kind(host.model, PassLimits(4096, 4096, 4))
    settings = LossSettings(granularity="sampled_token", is_clip=None, grpo_weight=1.0)
    examples = [TokenizedExample(row, None, (0.0,) * row.n_targets, 1.0) for row in rows]
    try:
        student = StudentPasses(passes, host.parameters("policy"), settings, 1.0)
        gradients = student.gradient(examples, None).gradients
        return _Result(passes.logprobs(rows, 1.0), torch.cat([g.flatten() for g in gradients.values()]))
    except LearnerError:  # not even one of the rows fits into memory
        raise
    except Exception as exc:
        if isinstance(exc, RuntimeError) and is_out_of_memory(exc):
            raise
        return " ".join(str(exc).split())[:200] or type(exc).__name__


def _fault(host: AdaptedModel, result: _Result | str, own_N: Tensor, gradient_P: Tensor | None = None) -> str:
    """How a trial differs from the model's own forward, and from a gradient; empty where it does not."""
    if isinstance(result, str):
        return result
    gap = float((result.logprobs_N - own_N).abs().mean())
    if not gap <= _LOGPROB_TOLERANCES[host.dtype]:
        return f"log-probs differ from those of its own forward pass by {gap:.3g} nats a token"
    if gradient_P is None:
        return "" if bool(result.gradient_P.isfinite().all()) else "its gradient is not finite"
    error = float((result.gradient_P - gradient_P).norm() / gradient_P.norm().clamp(min=1e-30))
    if not error <= _GRADIENT_TOLERANCES[host.dtype]:
        return f"the gradient differs from that of its own forward pass by {error:.3g} of its length"
    return ""


@torch.no_grad()
def _head_fault(host: AdaptedModel) -> str:
    """Whether the forward makes anything else than a linear layer's products of the last hidden states."""
    width = host.model.get_output_embeddings().weight.shape[1]
    hidden_Cd = torch.randn(2, width, generator=torch.Generator().manual_seed(0)).to(host.device, host.dtype)
    own, linear = (kind(host.model, 1.0).logits(hidden_Cd).float() for kind in (OwnHead, Head))
    gap = float((own - linear).abs().max() / own.abs().max())
    return "" if gap <= _HEAD_ROUNDINGS * torch.finfo(host.dtype).eps else "its logits are scaled or capped"
