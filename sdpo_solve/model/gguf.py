"""Convert a GGUF file to dense bfloat16 safetensors: run by `wheels.py` as a process, imported by nothing.

    python -m sdpo_solve.model.gguf FILE.gguf OUT_DIR STOP_TOKEN...

Writes weights, tokenizer, chat template and a generation_config that holds the stop tokens and no sampling
rules. Verifies nothing: `wheels.py` has checked the file's hash. https://huggingface.co/docs/transformers/gguf
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def convert(gguf: Path, out: Path, stop_tokens: list[str]) -> None:
    """Write `out`, a directory for `from_pretrained`. Whatever goes wrong is raised as it is."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    extra: dict[str, Any] = {}
    if hasattr(transformers, "GgufConfig"):  # newer releases would keep the weights packed
        extra["quantization_config"] = transformers.GgufConfig(dequantize=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16, **extra
    )
    # The weights are dense now; what the loader noted about their quantisation would forbid saving them.
    for attribute in ("hf_quantizer", "quantization_method", "is_quantized"):
        if attribute in vars(model):
            delattr(model, attribute)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.generation_config = transformers.GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=[tokenizer.convert_tokens_to_ids(token) for token in stop_tokens],
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
