"""`LeanLinear`: a LoRA linear layer that keeps little for backward and computes in the base's own precision.

PEFT's layer casts its input to the adapter's float32 and keeps that copy for every projection; this one keeps
the input that the base layer keeps anyway. Weights stay float32 and are PEFT's; only `forward` differs. For
sampling, the adapters of several policies can take its place (`lora_mix.py`).
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor

from sdpo_solve.model.lora_mix import LayerAdapters


class LeanLinear(Linear):
    """PEFT's LoRA layer for `nn.Linear`, one adapter at a time, without dropout."""

    several: LayerAdapters | None = None
    """Takes the place of the one adapter where it is set."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """base(x) + scaling * B A x. x [..., in], result [..., out] in x's precision."""
        result: Tensor = self.base_layer(x, *args, **kwargs)
        if self.several is not None:
            self.several.add(result, x)
            return result
        if self.disable_adapters:
            return result
        if result._is_view():  # as a 4-bit layer with a bias gives it; autograd refuses to write into one
            result = result.clone()
        (name,) = self.active_adapters
        if name not in self.lora_A:  # a slot of another shape had this module among its targets
            return result
        down, up = self.lora_A[name].weight, self.lora_B[name].weight
        added: Tensor = _AddProduct.apply(result, x, down, up, self.scaling[name])  # type: ignore[no-untyped-call]
        return added


class _AddProduct(torch.autograd.Function):
    """result + scaling * (x A^T) B^T, written into `result`."""

    @staticmethod
    def forward(ctx: Any, result: Tensor, x: Tensor, down: Tensor, up: Tensor, scaling: float) -> Tensor:
        low_Nr = x.reshape(-1, x.shape[-1]) @ down.to(x.dtype).T
        result.view(-1, result.shape[-1]).addmm_(low_Nr, up.to(x.dtype).T, alpha=scaling)
        ctx.mark_dirty(result)
        ctx.save_for_backward(x, low_Nr, down, up)
        ctx.scaling = scaling
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, low_Nr, down, up = ctx.saved_tensors
        (grad,) = grads
        grad_No = grad.reshape(-1, grad.shape[-1])
        grad_low_Nr = (grad_No @ up.to(grad.dtype)).mul_(ctx.scaling)
        grad_x = (grad_low_Nr @ down.to(grad.dtype)).view_as(x) if ctx.needs_input_grad[1] else None
        grad_down = (grad_low_Nr.T @ x.reshape(-1, x.shape[-1])).to(down.dtype)
        grad_up = (grad_No.T @ low_Nr).to(up.dtype).mul_(ctx.scaling)
        return grad, grad_x, grad_down, grad_up, None
