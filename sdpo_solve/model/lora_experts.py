"""LoRA on parameters that hold all experts of a layer, without adding the product to the weights.

PEFT's wrapper adds it to a copy of all experts in every pass. That takes a layer's memory again, and in
bfloat16 an early update, smaller than half a step of the weights' precision, would be rounded away. Here a
`LowRankSum` takes the parameter's place: each product with it is two more with the factors. Parameters, names
and files are PEFT's. Axes: `_E` experts; a weight is [E, m, n], its factors [E, m, r] and [E, r, n].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.lora import layer as peft_layer
from torch import Tensor

_GROUPED_RANKS = 8  # grouped products want rows of 16 bytes


class ParamWrapper(peft_layer.ParamWrapper):  # PEFT knows wrapped parameters by this name
    """PEFT's wrapper of one parameter, with one adapter at a time."""

    @contextmanager
    def _activate_lora(self, active_adapters: list[str]) -> Iterator[None]:
        names = [name for name in active_adapters if name in self.lora_A]
        if not names:  # a slot of another shape had this parameter among its targets
            yield
            return
        own: Any = self  # PEFT has no types
        left, right, scaling = own.get_delta_factors(names[0])
        layer = own.get_base_layer()
        # An entry of the instance comes before the parameter of that name.
        vars(layer)[self.parameter_name] = LowRankSum.of(own.get_param(), left * scaling, right)
        try:
            yield
        finally:
            del vars(layer)[self.parameter_name]


@dataclass(frozen=True, slots=True)
class LowRankSum:
    """weight + left @ right, in place of that tensor, for products alone: the sum is never made.

    Anything else that a model does with its experts is an error, so that it is refused as it is tried.
    """

    weight: Tensor
    left: Tensor
    right: Tensor

    @classmethod
    def of(cls, weight_Emn: Tensor, left_Emr: Tensor, right_Ern: Tensor) -> LowRankSum:
        n_more = -left_Emr.shape[-1] % _GROUPED_RANKS
        pad = torch.nn.functional.pad
        left_Emr, right_Ern = pad(left_Emr, (0, n_more)), pad(right_Ern, (0, 0, 0, n_more))
        return cls(weight_Emn, left_Emr.contiguous(), right_Ern.contiguous())

    @property
    def shape(self) -> torch.Size:
        return self.weight.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.weight.device

    def __getitem__(self, index: Any) -> LowRankSum:
        """Of some experts."""
        return LowRankSum(self.weight[index], self.left[index], self.right[index])

    def transpose(self, dim0: int, dim1: int) -> LowRankSum:
        """The last two dimensions changed over."""
        assert {dim0 % self.weight.dim(), dim1 % self.weight.dim()} == set(range(self.weight.dim())[-2:])
        return LowRankSum(self.weight.mT, self.right.mT, self.left.mT)

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        match args:
            case (Tensor() as x, cls() as w) if func in _PRODUCTS or func is torch._grouped_mm:
                return func(x, w.weight, **kwargs) + func(func(x, w.left, **kwargs), w.right, **kwargs)
            case (cls() as w, Tensor() as x) if func in _PRODUCTS:
                return func(w.weight, x) + func(w.left, func(w.right, x))
            case (Tensor() as x, cls() as w, *bias) if func is torch.nn.functional.linear:
                return func(x, w.weight, *bias, **kwargs) + func(func(x, w.right), w.left)
        return NotImplemented


_PRODUCTS = frozenset({torch.matmul, torch.bmm, torch.Tensor.matmul, torch.Tensor.bmm})
