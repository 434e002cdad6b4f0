"""The frozen weights of a model on a CPU, each kept once and in the form that is fast there.

torch lays bfloat16 weights out anew for every product; with few rows that costs as much as the product, and
its float32 products with few rows take about twice as long as oneDNN's. So linear layers keep their weights
in oneDNN's own layout and nothing else, and unpack them for a moment where a gradient goes back. The layout
and the product on it are the operators that torch's own compiler uses when it freezes a model for the CPU
(torch/_inductor/fx_passes/mkldnn_fusion.py). Embeddings stay as narrow as they are on disk; what is looked up
is widened, which changes no number. In place of both, `weight` is a stand-in of the right shape and type
whose every number is NaN, so that whoever reads it is noticed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from sdpo_solve.model.cpu import hand_back_freed_memory

# Layers that their owners call and whose weight they never read.
_LAYERS = frozenset(("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"))
_ROWS = 64  # rows of a product that the layout is made for: made for 16, fewer take as long, 128 1.2 times
_PART_NUMBERS = 1 << 24  # unpacked at a time


def is_fast(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this torch has the operators, and oneDNN multiplies that precision on this processor."""
    operators = torch.ops.mkldnn
    return (
        device.type == "cpu"
        and dtype in (torch.bfloat16, torch.float32)
        and torch.backends.mkldnn.is_available()
        and hasattr(operators, "_reorder_linear_weight")
        and hasattr(operators, "_linear_pointwise")
        and (dtype is torch.float32 or bool(operators._is_mkldnn_bf16_supported()))
    )


def narrow_dtype(config: Any, dtype: torch.dtype) -> torch.dtype:
    """The precision to load in: that of the file where `dtype` holds all of its numbers, else `dtype`."""
    stored = getattr(config.get_text_config(), "dtype", None)
    return torch.bfloat16 if stored is torch.bfloat16 and dtype is torch.float32 else dtype


def is_rounded(model: nn.Module, dtype: torch.dtype) -> bool:
    """Whether the model has computed numbers of its own in that precision when it was made."""
    return any(buffer.dtype is dtype for buffer in model.buffers())


def make_lean(model: nn.Module, dtype: torch.dtype) -> None:
    """Keep the weights of `model`, on the CPU and without adapters, once, and compute in `dtype`."""
    for name, module in list(model.named_modules()):
        if type(module) is nn.Linear and name.rpartition(".")[2] in _LAYERS:
            PackedLinear.take(module, dtype)
            hand_back_freed_memory()  # or what every layer was unpacked in stays
    for module in list(model.modules()):
        if type(module) is nn.Embedding and module.weight.dtype is not dtype:
            NarrowEmbedding.take(module, dtype)
    model.to(dtype)
    _let_go_of_the_file(model)
    hand_back_freed_memory()
    config: Any = model.config
    config.dtype = dtype


def _let_go_of_the_file(model: nn.Module) -> None:
    """Copy the weights that are left: one of them that lies in the mapped file keeps all of it in memory."""
    for module in model.modules():
        for kind, parameter in module.named_parameters(recurse=False):
            if not _is_stand_in(module, kind):
                parameter.data = parameter.data.clone()


def _is_stand_in(module: nn.Module, name: str) -> bool:
    """Whether the parameter of that name stands in for a weight that the module keeps in another form."""
    return isinstance(module, PackedLinear | NarrowEmbedding) and name.rpartition(".")[2] == "weight"


def named_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The model's own weights as plain tensors, large ones in parts; of adapters none."""
    for name, module in model.named_modules():
        if isinstance(module, PackedLinear):
            yield from ((f"{name}.weight", part.to_dense()) for part in module.parts)
        if isinstance(module, NarrowEmbedding):
            yield f"{name}.weight", module.table
        for kind, parameter in module.named_parameters(name, recurse=False):
            if "lora_" not in kind and not _is_stand_in(module, kind):
                yield kind, parameter


class PackedLinear(nn.Linear):
    """A frozen linear layer. `parts`: its weight [out, in] in packed pieces of rows."""

    parts: tuple[Tensor, ...]

    @staticmethod
    def take(layer: nn.Linear, dtype: torch.dtype) -> None:
        """Make `layer` one of these; its dense weight is let go."""
        weight = layer.weight.detach()
        pieces = weight.split(max(1, _PART_NUMBERS // weight.shape[1]))
        parts = [torch.ops.mkldnn._reorder_linear_weight(x.to(dtype).contiguous(), _ROWS) for x in pieces]
        layer.__class__ = PackedLinear
        vars(layer)["parts"] = tuple(parts)
        layer.weight = _stand_in(weight, dtype)

    def forward(self, input: Tensor) -> Tensor:
        if torch.is_grad_enabled() and input.requires_grad:
            result: Tensor = _Product.apply(input, self)  # type: ignore[no-untyped-call]
            return result
        return self.product(input)

    def product(self, x: Tensor) -> Tensor:
        biases = [None] * len(self.parts)
        if self.bias is not None:
            biases = list(self.bias.split([len(part) for part in self.parts]))
        operator, rows = torch.ops.mkldnn._linear_pointwise, x.reshape(-1, x.shape[-1])
        pairs = zip(self.parts, biases, strict=True)
        outs: list[Tensor] = [operator(rows, weight, bias, "none", [], "") for weight, bias in pairs]
        y = outs[0] if len(outs) == 1 else torch.cat(outs, dim=-1)
        # Not a view: a LoRA layer adds to it in place.
        result: Tensor = torch.ops.aten._unsafe_view(y, [*x.shape[:-1], self.out_features])
        return result


class NarrowEmbedding(nn.Embedding):
    """A frozen embedding whose `table` is narrower than what it gives."""

    table: Tensor

    @staticmethod
    def take(layer: nn.Embedding, dtype: torch.dtype) -> None:
        """Make `layer` one of these."""
        layer.__class__ = NarrowEmbedding
        vars(layer)["table"] = layer.weight.detach().clone()  # of its own: not a view of the file
        layer.weight = _stand_in(layer.weight, dtype)

    def forward(self, input: Tensor) -> Tensor:
        rows = nn.functional.embedding(input, self.table, self.padding_idx)
        return rows.to(self.weight.dtype)


def times_weight(layer: nn.Linear, x: Tensor) -> Tensor:
    """x [..., out] times the layer's weight [out, in]: the way back through the layer."""
    if not isinstance(layer, PackedLinear):
        return x @ layer.weight
    pieces = x.split([len(part) for part in layer.parts], dim=-1)
    result: Tensor = pieces[0] @ layer.parts[0].to_dense()
    for piece, part in zip(pieces[1:], layer.parts[1:], strict=True):
        result += piece @ part.to_dense()
    return result


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: PackedLinear) -> Tensor:
        ctx.layer = layer
        return layer.product(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return times_weight(ctx.layer, grads[0]), None


def _stand_in(weight: Tensor, dtype: torch.dtype) -> nn.Parameter:
    """NaN in the shape of `weight`, with storage for one number."""
    return nn.Parameter(torch.full((1, 1), torch.nan, dtype=dtype).expand(weight.shape), requires_grad=False)
