"""Engines: turn prompts into samples.

May import `model` and the ground. Read `hf.py` (transformers in this process), `_decoding.py` and
`_cache.py` below it, `_batch_choice.py` (the form of batch for a model), then `vllm.py` and `scripted.py`;
`_probe.py` checks that a swapped adapter is the one that was meant. `vllm.py` starts a vLLM
(`_vllm_process.py`) or uses a server (`_vllm_server.py`); `openai.py` uses a server of any kind.

An engine is one file with `Options`, a class below `EnginePlugin` and `PLUGIN = TheClass`; the module's name
is the option name. This file holds what every engine is built from; it knows none of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sdpo_solve.config import Options
from sdpo_solve.protocols import Engine, PolicyHost, TokenProgress
from sdpo_solve.registry import Registry


@dataclass(frozen=True, slots=True)
class EngineParts:
    """What an engine may be built from. What is expensive is a callable, called where needed."""

    host: Callable[[], PolicyHost] | None
    """The weights in this process, shared with the learner; None for a run without a model."""
    model_dir: Callable[[], Path]
    """The model on disk. Raises PrerequisiteError where it is not there."""
    replies: Path | None
    """A file of scripted replies."""
    consumed: int
    """How many attempts of the run are in its journal already."""
    progress: TokenProgress | None
    lora_rank: int = 1
    """The rank of the adapters that the run will make."""
    n_policies: int = 1
    """Policies that one call may sample from."""
    model_name: str | None = None
    """The model as `--model` names it, or the default's name; None for a run without one."""


class EnginePlugin(Engine, ABC):
    """Base of the engines that `REGISTRY` hands out, with the facts that other rooms ask for."""

    options_type: ClassVar[type[Options]]
    """The options of the engine: the part `engine` of `--set` and of a batch file."""
    needs_model: ClassVar[bool] = True
    """Whether it samples from a model; otherwise a run has weights only where one is named."""
    reads_replies: ClassVar[bool] = False
    """Whether its answers come from `--replies FILE`; each run has an engine of its own then."""
    shares_weights: ClassVar[bool] = False
    """Whether it samples from the weights that the learner changes, so that the two take turns."""
    remote: ClassVar[bool] = False
    """Whether `--model` names a model of a server: neither its weights nor its tokenizer are here, so that
    nothing can be learned."""
    refused_options: ClassVar[frozenset[str]] = frozenset({"top_p", "top_k", "min_p"})
    """Options of other engines that would cut the distribution, so that log-probs were not the model's."""

    @classmethod
    @abstractmethod
    def build(cls, options: Any, parts: EngineParts) -> EnginePlugin:
        """The engine, started; `options` is of `options_type`.

        Raises ConfigError for options that cannot be honoured here, PrerequisiteError for what is missing.
        """

    @property
    def context_tokens(self) -> int | None:
        """Tokens that prompt and answer may take together; None: what the model says of itself."""
        return None

    def probe(self) -> None:
        """Raises EngineError where what it samples with is gone, for this run and every other."""
        return


REGISTRY: Registry[type[EnginePlugin]] = Registry("engine", __name__)
