"""Convert a GGUF file to dense bfloat16 safetensors: run by `wheels.py` as a process.

    python -m sdpo_solve.model.gguf FILE.gguf OUT_DIR STOP_TOKEN...

Writes configuration, weights, tokenizer, chat template and a generation_config that holds the stop tokens and
no sampling rules. Knows the families of the embedded models, Qwen2 and Llama. transformers converts them too,
in four times the processor's time: it makes numpy arrays of the whole vocabulary several times over, and
dequantises 16 rows at a time in one thread. Verifies nothing: `wheels.py` has checked the file's hash.
Formats: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md,
https://huggingface.co/docs/safetensors#format
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import Any

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_CHUNK_NUMBERS = 1 << 17  # dequantised at a time: temporaries that stay in a processor's cache
_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in the file: name in safetensors, shape, GGML's number of its type, where it begins."""

    name: str
    shape: tuple[int, ...]
    ggml_type: int
    offset: int


class Gguf:
    """The file's metadata and where its tensors are. Of arrays in the metadata only the length is kept."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as stream:
            self.blob = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
        self._at = 0
        if bytes(self._take(4)) != b"GGUF":
            raise ValueError("it is no GGUF file")
        _, n_tensors, n_values = self._numbers("IQQ")
        self.metadata = {self._string(): self._value(*self._numbers("I")) for _ in range(n_values)}
        tensors = [self._tensor() for _ in range(n_tensors)]
        alignment = self.metadata.get("general.alignment", 32)
        start = -(-self._at // alignment) * alignment
        self.tensors = [Stored(x.name, x.shape, x.ggml_type, start + x.offset) for x in tensors]

    def _take(self, n_bytes: int) -> memoryview:
        self._at += n_bytes
        return self.blob[self._at - n_bytes : self._at]

    def _numbers(self, form: str) -> tuple[Any, ...]:
        return struct.unpack("<" + form, self._take(struct.calcsize("<" + form)))

    def _string(self) -> str:
        return bytes(self._take(*self._numbers("Q"))).decode()

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            kind, n = self._numbers("IQ")
            for _ in range(n):
                self._value(kind)
            return n
        return self._numbers(_SCALARS[kind])[0]

    def _tensor(self) -> Stored:
        name = self._string()
        (n_dims,) = self._numbers("I")
        shape = tuple(reversed(self._numbers(f"{n_dims}Q")))
        ggml_type, offset = self._numbers("IQ")
        return Stored(_hf_name(name), shape, ggml_type, offset)


def convert(gguf: Path, out: Path, stop_tokens: list[str]) -> None:
    """Write `out`, a directory for `from_pretrained`. Whatever goes wrong is raised as it is."""
    import transformers

    file = Gguf(gguf)
    out.mkdir(parents=True)
    with ThreadPoolExecutor() as pool:
        weights = pool.submit(_write_weights, file, out / "model.safetensors")
        # The class itself: `AutoTokenizer` would have the configuration read from the file once more.
        family: Any = {"qwen2": transformers.Qwen2Tokenizer, "llama": transformers.PreTrainedTokenizerFast}
        tokenizer = family[_architecture(file)].from_pretrained(gguf.parent, gguf_file=gguf.name)
        tokenizer.save_pretrained(out)
        _config(file, tokenizer).save_pretrained(out)
        transformers.GenerationConfig(
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=[tokenizer.convert_tokens_to_ids(token) for token in stop_tokens],
            pad_token_id=tokenizer.pad_token_id,
        ).save_pretrained(out)
        weights.result()


def _architecture(file: Gguf) -> str:
    return str(file.metadata["general.architecture"])


def _config(file: Gguf, tokenizer: Any) -> Any:
    """The configuration that the metadata stands for."""
    import transformers

    architecture = _architecture(file)
    values = {k.removeprefix(architecture + "."): v for k, v in file.metadata.items()}
    family: Any = {"qwen2": transformers.Qwen2Config, "llama": transformers.LlamaConfig}[architecture]
    config = family(
        vocab_size=values["tokenizer.ggml.tokens"],
        hidden_size=values["embedding_length"],
        intermediate_size=values["feed_forward_length"],
        num_hidden_layers=values["block_count"],
        num_attention_heads=values["attention.head_count"],
        num_key_value_heads=values["attention.head_count_kv"],
        max_position_embeddings=values["context_length"],
        rms_norm_eps=values["attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": values["rope.freq_base"]},
        tie_word_embeddings=all(tensor.name != "lm_head.weight" for tensor in file.tensors),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="bfloat16",
    )
    config.architectures = [{"qwen2": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM"}[architecture]]
    return config


def _hf_name(name: str) -> str:
    """blk.3.attn_q.weight -> model.layers.3.self_attn.q_proj.weight. Raises KeyError for an unknown part."""
    module, _, kind = name.rpartition(".")
    if module.startswith("blk."):
        _, layer, part = module.split(".")
        return f"model.layers.{layer}.{_NAMES[part]}.{kind}"
    return f"{_NAMES[module]}.{kind}"


# -- weights -------------------------------------------------------------------------------------------------


def _write_weights(file: Gguf, path: Path) -> None:
    """A safetensors file; several tensors are dequantised at a time, each written as soon as it is."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    ends = [2 * n for n in accumulate(prod(tensor.shape) for tensor in file.tensors)]
    starts = [0, *ends[:-1]]
    for tensor, start, end in zip(file.tensors, starts, ends, strict=True):
        header[tensor.name] = {"dtype": "BF16", "shape": tensor.shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    data_at = path.stat().st_size

    def write(tensor: Stored, start: int) -> None:
        data = _dense(file, tensor)
        with path.open("r+b") as out:
            out.seek(data_at + start)
            out.write(data)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(write, file.tensors, starts))


def _dense(file: Gguf, tensor: Stored) -> Any:
    """The tensor's numbers in bfloat16, in the order in which transformers has them, as bytes."""
    import numpy as np
    import torch
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

    kind = GGMLQuantizationType(tensor.ggml_type)
    n, (block_numbers, block_bytes) = prod(tensor.shape), GGML_QUANT_SIZES[kind]
    dense = torch.empty(n, dtype=torch.bfloat16)
    step = _CHUNK_NUMBERS // block_numbers * block_numbers
    for start in range(0, n, step):
        stop = min(start + step, n)
        places = [tensor.offset + at // block_numbers * block_bytes for at in (start, stop)]
        blocks = np.frombuffer(file.blob[slice(*places)], np.uint8)
        # As one row: the library goes over rows one group after the other.
        dense[start:stop] = torch.from_numpy(dequantize(blocks[None], kind)[0].copy())
    heads = _interleaved_heads(file, tensor.name)
    if heads:
        dense = dense.view(heads, -1, 2, tensor.shape[-1]).transpose(1, 2).contiguous()
    return dense.view(-1).view(torch.uint8).numpy().data


def _interleaved_heads(file: Gguf, name: str) -> int:
    """Heads whose rows llama.cpp keeps in the order of its rotary embedding; 0: rows as they are.

    https://github.com/ggml-org/llama.cpp/blob/master/convert_hf_to_gguf.py, `LlamaModel.permute`.
    """
    if _architecture(file) != "llama":
        return 0
    key = {"q_proj": "head_count", "k_proj": "head_count_kv"}.get(name.split(".")[-2])
    return int(file.metadata[f"llama.attention.{key}"]) if key else 0


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
