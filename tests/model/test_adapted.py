"""The adapted model: one that does not fit into memory is refused with what to do."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen2ForCausalLM

from sdpo_solve.errors import PrerequisiteError
from sdpo_solve.model.adapted import AdaptedModel
from tests.helpers.tiny_model import save_tiny_model


@pytest.mark.parametrize("where", ["from_pretrained", "to"])
@pytest.mark.parametrize("lack", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError("os error 12")])
def test_a_model_that_is_larger_than_the_memory_is_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, lack: Exception
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise lack

    save_tiny_model(tmp_path)
    monkeypatch.setattr(Qwen2ForCausalLM, where, full)
    with pytest.raises(PrerequisiteError) as caught:
        AdaptedModel.load(tmp_path, "cpu", torch.float32)
    said = str(caught.value)
    assert f"sdpo-solve doctor --model {tmp_path}" in said
    assert "--quantization 4bit" in said
