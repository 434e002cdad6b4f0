"""Engines: turn prompts into samples.

May import `model` and the ground. Read `hf.py` (transformers in this process), `_decoding.py` and
`_cache.py` below it, then `vllm.py` and `scripted.py`; `_probe.py` checks that a swapped adapter is the one
that was meant.

The module name is the option name. Each module has `Options`, a class and `build(options, parts)`. This file
holds what every engine is built from; it knows none of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sdpo_solve.protocols import PolicyHost, TokenProgress
from sdpo_solve.registry import Registry

REGISTRY = Registry("engine", __name__)


@dataclass(frozen=True, slots=True)
class EngineParts:
    """What an engine may be built from. What is dear is a callable: only an engine that needs it asks."""

    host: Callable[[], PolicyHost] | None
    """The weights in this process, shared with the learner; None where no model was asked for."""
    model_dir: Callable[[], Path]
    """The model on disk. Raises PrerequisiteError where it is not there."""
    replies: Path | None
    """A file of scripted replies."""
    consumed: int
    """How many attempts of the run are in its journal already."""
    progress: TokenProgress | None
