"""A model's files in a directory, as `save_pretrained` writes them: what is missing, and a hash over them.

Reads no weights: of a safetensors file only its header.
"""

from __future__ import annotations

import hashlib
import json
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from sdpo_solve.errors import one_line

SMALL_FILES = ("*.json", "*.jinja", "*.txt", "*.model")
"""Patterns of everything but the weights: configuration, tokenizer, chat template, index."""
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")
_PIECE_BYTES = 65536
_N_PIECES = 64


def weight_files(model_dir: Path) -> tuple[str, ...]:
    """The weight files that transformers loads: those that the index names, or `model.safetensors`.

    Raises ValueError where the index cannot be read.
    """
    index = model_dir / _INDEX
    if not index.is_file():
        return (_WEIGHTS,)
    try:
        return tuple(sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values())))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{_INDEX} is damaged") from None


def fault_of(model_dir: Path, *, tokenizer: bool = True) -> str | None:
    """What is missing or damaged among the files, by name; None where all is there.

    `tokenizer`: whether one must be there. Raises OSError where a file or the directory may not be read.
    """
    config = model_dir / "config.json"
    if not config.is_file():
        return "config.json is missing"
    try:
        json.loads(config.read_text("utf-8"))
        files = weight_files(model_dir)
    except ValueError as exc:
        return str(exc) if _INDEX in str(exc) else "config.json is damaged"
    for name in files:
        if not (model_dir / name).is_file():
            shards = sorted(path.name for path in model_dir.glob("*.safetensors"))
            no_index = f" ({shards[0]} is there, {_INDEX} is not)" if shards and name == _WEIGHTS else ""
            return f"{name} is missing{no_index}"
        if (fault := _header_fault(model_dir / name)) is not None:
            return f"{name} is damaged: {fault}"
    if tokenizer and not any((model_dir / name).is_file() for name in _TOKENIZERS):
        return "it has no tokenizer (tokenizer.json)"
    return None


def is_whole(model_dir: Path) -> bool:
    """Whether configuration and every weight file are there and undamaged.

    Raises OSError as `fault_of` does.
    """
    return fault_of(model_dir, tokenizer=False) is None


def fingerprint(model_dir: Path) -> str:
    """A hash over names, sizes and contents; of big files 64 pieces of 64 KiB, evenly spaced.

    Tells two checkpoints apart in a blink; no proof against forgery. Raises OSError as `fault_of` does.
    """
    digest = hashlib.sha256()
    for file in sorted(model_dir.iterdir()):
        known = any(fnmatch(file.name, pattern) for pattern in (*SMALL_FILES, "*.safetensors"))
        if not known or not file.is_file():
            continue
        size = file.stat().st_size
        digest.update(f"{file.name}\0{size}\0".encode())
        with file.open("rb") as stream:
            if size <= _N_PIECES * _PIECE_BYTES:
                digest.update(stream.read())
                continue
            for piece in range(_N_PIECES):
                stream.seek(piece * (size - _PIECE_BYTES) // (_N_PIECES - 1))
                digest.update(stream.read(_PIECE_BYTES))
    return digest.hexdigest()[:16]


def _header_fault(path: Path) -> str | None:
    """Why a safetensors file is not what its header says; None where it is.

    Raises OSError where it may not be read.
    """
    from safetensors import SafetensorError, safe_open

    opened: Any = safe_open
    path.open("rb").close()  # safe_open says of a file that may not be read that there is none
    try:
        with opened(path, framework="numpy"):
            return None
    except (SafetensorError, OSError) as exc:
        return one_line(exc)
