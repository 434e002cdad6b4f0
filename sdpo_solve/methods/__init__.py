"""Methods: how to start, what to sample next, what to learn.

May import `learner` and the ground. Read `prompts.py` (every prompt of a run), then `sdpo.py`.

The module name is the option name, with `_` for `-`. Each module has `Options`, a class and `build`. This
file holds what every method is built from; it knows none of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sdpo_solve.methods.prompts import Prompter
from sdpo_solve.protocols import Learner
from sdpo_solve.registry import Registry
from sdpo_solve.types import SamplingSpec

REGISTRY = Registry("method", __name__, frozenset({"prompts"}))


@dataclass(frozen=True, slots=True)
class MethodParts:
    """What a method may be built from."""

    prompter: Prompter
    spec: SamplingSpec
    run: str
    """The name of the run, part of every policy's key."""
    policies_dir: Path
    seed: int
    stop_at_first: bool
    learner: Callable[[], Learner | None]
    """Makes the run's learner; None where the engine samples from no weights (scripted replies)."""
    count_tokens: Callable[[str], int]
    context_tokens: int
    """Tokens that prompt and answer may take together."""
