"""Linear layers held in 4 bits (NF4, QLoRA, arXiv 2305.14314) by bitsandbytes, an optional package."""

from __future__ import annotations

import importlib.util
import logging
from typing import Any

import torch
from torch import nn

from sdpo_solve.errors import PrerequisiteError


def loading_options(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """What makes transformers hold linear layers but the head so; their products are taken in `dtype`.

    Raises PrerequisiteError without bitsandbytes.
    """
    from transformers import BitsAndBytesConfig

    if importlib.util.find_spec("bitsandbytes") is None:
        raise PrerequisiteError(
            "--quantization 4bit needs bitsandbytes; run: pip install 'sdpo-solve[quantization]'"
        )
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return {"quantization_config": config, "device_map": {"": device}}


def keep_differentiable(model: nn.Module) -> None:
    """Leave the layers as they were loaded: sampled and learned with one product.

    On processors with AVX512-BF16 a layer turns its weights, at the first product outside of training, into
    a form for sampling that rounds to bfloat16 and that no gradient passes.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010 -- modules declare tensors only


def hush() -> None:
    """Keep bitsandbytes, which peft imports where it is installed, from advice on a kernel not used here."""
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
