"""In which precision this machine multiplies fast: for the learner's weights and vLLM's copy alike.

Knows no model and no engine. Imports torch late.
"""

from __future__ import annotations

from typing import Any, Literal


def cpu_dtype() -> Literal["bfloat16", "float32"]:
    """bfloat16 where a CPU has matrix instructions for it; elsewhere torch computes it many times slower."""
    import torch

    can: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return "bfloat16" if can.get("avx512_bf16") or can.get("amx_bf16") else "float32"
