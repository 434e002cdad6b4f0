"""What the engine `vllm` and its two ways to have a vLLM (`_vllm_process.py`, `_vllm_server.py`) share."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field

from sdpo_solve.config import Free
from sdpo_solve.config import Options as BaseOptions
from sdpo_solve.errors import ConfigError
from sdpo_solve.protocols import TokenProgress
from sdpo_solve.types import Finish

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM has kernels for


class Options(BaseOptions):
    """How vLLM is started, or reached, and used."""

    server: Free[str | None] = Field(None, description="address of a running vLLM: http://HOST:PORT")
    key_variable: Free[str] = Field(
        "VLLM_API_KEY", description="environment variable that holds the server's key, where it has one"
    )
    timeout_s: Free[float] = Field(600, gt=0, description="seconds that the server may take for one answer")
    batch_rows: Free[int] = Field(64, ge=1, description="answers sampled at the same time at most")
    memory_share: Free[float | None] = Field(
        None, gt=0, lt=1, description="share of the GPU's memory for vLLM; None: what the learner leaves"
    )
    cpu_cache_gb: Free[int] = Field(2, ge=1, description="GiB for keys and values where vLLM runs on a CPU")
    tensor_parallel: Free[int] = Field(1, ge=1, description="GPUs that share one copy of the model")
    max_model_len: int | None = Field(None, ge=16, description="context in tokens; None for the model's own")
    quantization: str | None = Field(None, description="vLLM's quantisation of the sampling copy, e.g. fp8")
    eager: Free[bool | None] = Field(
        None, description="no compilation; None for eager on a CPU, compiled on CUDA"
    )
    max_lora_rank: Free[int] = Field(
        32, ge=1, description="largest rank of an adapter, at least learner.lora_rank"
    )
    sleep: Free[bool] = Field(False, description="give the GPU's memory back between groups (CUDA only)")
    probe_tolerance: Free[float] = Field(
        0.03, gt=0, description="mean difference of log-probs to the learner's that a swap may show, in nats"
    )
    stop: str | None = Field(None, min_length=1, description="a text that ends an answer; it is kept in it")


def lora_rank(rank: int) -> int:
    """The next LoRA rank that vLLM supports.

    Raises ConfigError above the largest.
    """
    known = next((known for known in _RANKS if known >= rank), None)
    if known is None:
        raise ConfigError(
            f"vLLM serves adapters up to rank {_RANKS[-1]}; {rank} is more: lower learner.lora_rank"
        )
    return known


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter under a name and a number that were never used before, and the directory it is in."""

    name: str
    number: int
    directory: Path


@dataclass(frozen=True, slots=True)
class Request:
    """One answer to sample; `adapter` None: from the base weights."""

    prompt_ids: tuple[int, ...]
    max_tokens: int
    seed: int
    adapter: Adapter | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What was sampled: ids, their log-probs under the distribution sampled, and why it ended."""

    token_ids_T: tuple[int, ...]
    logprobs_T: tuple[float, ...]
    finish: Finish


class Backend(Protocol):
    """A vLLM. Every method raises EngineError where it fails or is gone."""

    context_tokens: int
    """Tokens that prompt and answer may take together."""
    n_adapters: int
    """Adapters that it samples from at the same time at most."""

    def generate(
        self, requests_G: Sequence[Request], shared: dict[str, Any], progress: TokenProgress | None
    ) -> list[Answer]:
        """One answer a request, in order. `shared`: see `sampling_arguments`."""

    def score(self, ids: Sequence[int], adapter: Adapter | None) -> list[float]:
        """Log-probs of a text at temperature 1, from its second token on."""

    def load(self, adapter: Adapter) -> None:
        """Hold this adapter besides those held already."""

    def unload(self, adapter: Adapter) -> None:
        """Hold it no longer; nothing where it is not held."""

    def held(self) -> set[str]:
        """The names of the adapters that it holds."""

    def wake(self) -> bool:
        """Take back the memory that `rest` gave away; whether it had."""

    def rest(self) -> None:
        """Give memory away until the next call, where that is wanted; no adapter is held then."""

    def identity(self) -> str:
        """Model and version, for the record."""

    def close(self) -> None:
        """End what was started. Safe to call twice."""


def sampling_arguments(temperature: float, eos: Collection[int], stop: str | None) -> dict[str, Any]:
    """What all samples of a call share, by vLLM's names: the whole distribution at its temperature."""
    return {
        "temperature": temperature,
        "logprobs": 0,  # of the sampled token alone
        "stop_token_ids": sorted(eos),
        "stop": stop,
        "include_stop_str_in_output": True,
    }
