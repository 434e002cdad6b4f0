"""A host of weights for tests of engines: the base model, and adapters put there by hand."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sdpo_solve.errors import EngineError
from sdpo_solve.types import Policy

BASE = Policy("test", 0)
# A GPU's memory is shared out otherwise, and the option is refused there.
SMALL_CACHE: dict[str, Any] = {} if torch.cuda.is_available() else {"cpu_cache_gb": 1}


class PlainHost:
    """A model as it lies on disk, for the policy BASE and any policy without an adapter directory."""

    def __init__(self, path: Path, dtype: torch.dtype = torch.float32) -> None:
        self.model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=dtype).eval().requires_grad_(False)
        self._tokenizer = AutoTokenizer.from_pretrained(path)

    @property
    def tokenizer(self) -> Any:
        return self._tokenizer

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @contextmanager
    def policy_active(self, policy: Policy) -> Iterator[Any]:
        if policy.adapter_dir is not None:
            raise EngineError(f"no policy {policy.key} here")
        yield self.model


def save_adapter(model_dir: Path, out: Path, seed: int, rank: int = 8) -> Path:
    """A LoRA adapter with random weights, big enough to be told from the base and from other seeds."""
    from peft import LoraConfig, get_peft_model

    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM"
    )
    adapted = get_peft_model(model, config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    adapted.save_pretrained(out)
    return out
