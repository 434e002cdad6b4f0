"""Tokens a second of each engine, beside the libraries' own generation, in one run.

The same question, temperature 1, answers of natural length. Every arm needs all samples; plain `generate`
gets them in calls of a batch each, as it cannot refill one. Rounds go over the arms in turn and the best of
each arm counts, because other work on the machine only adds to a time. Prints nothing.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType

from sdpo_solve.engines import EngineParts, hf
from sdpo_solve.errors import ConfigError
from sdpo_solve.model.adapted import AdaptedModel
from sdpo_solve.model.chat import encode_chat
from sdpo_solve.report.table import AlignedTable
from sdpo_solve.types import Message, Policy, Prompt, SamplingSpec

ENGINES = ("hf", "vllm")
_BESIDE = " beside a busy process"
RATIOS = (
    ("hf", "generate"),
    ("hf", "vllm"),
    ("vllm", "raw vllm"),
    ("hf" + _BESIDE, "hf"),
    ("vllm" + _BESIDE, "vllm"),
)
_BASE = Policy("bench", 0)
_QUESTION = Prompt(
    (
        Message(
            "user",
            "Write a Python 3 function `long_words(n, text)` that returns the words of `text` with more than "
            "n letters, in order.\n\n"
            "Answer with the whole program in one ```python code block and nothing else.",
        ),
    )
)


@dataclass(frozen=True, slots=True)
class Speed:
    """One arm at its best: generated tokens (ends included) and the seconds they took."""

    name: str
    tokens: int
    wall_s: float

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.wall_s


@dataclass(frozen=True, slots=True)
class Figures:
    """The speeds of one run of the bench."""

    speeds: tuple[Speed, ...]

    @property
    def ratios(self) -> dict[str, float]:
        """Tokens a second of one arm over another's, of the pairs whose arms were measured."""
        by_name = {speed.name: speed.tokens_per_s for speed in self.speeds}
        pairs = [pair for pair in RATIOS if by_name.keys() >= set(pair)]
        return {f"{top} / {bottom}": by_name[top] / by_name[bottom] for top, bottom in pairs}

    def record(self) -> dict[str, Any]:
        """The figures as JSON takes them."""
        return {
            "speeds": [{**asdict(speed), "tokens_per_s": speed.tokens_per_s} for speed in self.speeds],
            "ratios": self.ratios,
        }


@dataclass(frozen=True, slots=True)
class Size:
    """What is sampled. `engines` empty: every engine that is installed."""

    n_samples: int = 64
    batch_rows: int = 16
    max_tokens: int = 200
    n_rounds: int = 1
    engines: Sequence[str] = ()
    beside_load: bool = False


Arm = Callable[[int], int]
"""Takes a seed, samples everything that is wanted, and returns how many tokens that were."""


def check_engines(names: Sequence[str]) -> None:
    """Raises ConfigError for an engine that cannot be measured."""
    for name in names:
        if name not in ENGINES:
            raise ConfigError(f"bench sampling measures no engine {name!r} (known: {', '.join(ENGINES)})")


def run(model_dir: Path, size: Size, notify: Callable[[str], None] = lambda _: None) -> Figures:
    """Speeds of the engines. Weights in the machine's own precision for every arm.

    Raises ConfigError for numbers that not every arm can honour, PrerequisiteError where an engine that is
    named is missing, EngineError where one fails.
    """
    n, rows = size.n_samples, size.batch_rows
    if n % rows:
        raise ConfigError(
            f"{n} samples are no whole number of batches of {rows}; plain `generate` needs that"
        )
    host = AdaptedModel.load(model_dir)
    spec = SamplingSpec(size.max_tokens)
    arms: dict[str, Arm] = {}
    if "hf" in (size.engines or ENGINES):
        arms["hf"] = _engine_arm(hf.HfEngine(host, hf.Options(batch_rows=rows)), n, spec)
    arms["generate"] = _generate_arm(host, n, rows, spec)
    vllm_engine = _vllm(model_dir, size, notify)
    try:
        if vllm_engine is not None:
            arms["vllm"] = _engine_arm(vllm_engine, n, spec)
            arms["raw vllm"] = _raw_vllm_arm(vllm_engine, n, spec)
        if size.beside_load:
            arms |= {name + _BESIDE: _beside_load(arms[name]) for name in ENGINES if name in arms}
        return Figures(tuple(_measure(arms, notify, size.n_rounds)))
    finally:
        if vllm_engine is not None:
            vllm_engine.close()


def page(figures: Figures) -> RenderableType:
    """The speeds and the ratios as tables."""
    speeds, ratios = AlignedTable(["", "tokens", "seconds", "tokens/s"]), AlignedTable(["", "ratio"])
    for x in figures.speeds:
        speeds.add([x.name, str(x.tokens), f"{x.wall_s:.1f}", f"{x.tokens_per_s:.1f}"])
    for name, value in figures.ratios.items():
        ratios.add([name, f"{value:.2f}"])
    return Group(speeds, "", ratios)


def _measure(arms: dict[str, Arm], notify: Callable[[str], None], n_rounds: int) -> list[Speed]:
    """The best of `n_rounds` for each arm; each was warmed up when it was made."""
    best: dict[str, Speed] = {}
    for round_number in range(n_rounds):
        for name, arm in arms.items():
            began = time.perf_counter()
            n_tokens = arm(round_number)
            speed = Speed(name, n_tokens, time.perf_counter() - began)
            notify(f"round {round_number + 1} of {n_rounds}, {name}: {speed.tokens_per_s:.1f} tokens/s")
            if name not in best or speed.tokens_per_s > best[name].tokens_per_s:
                best[name] = speed
    return list(best.values())


def _engine_arm(engine: Any, n_samples: int, spec: SamplingSpec) -> Arm:
    engine.sample([_QUESTION], [0], _BASE, SamplingSpec(2))  # weights are laid out, kernels chosen

    def arm(seed: int) -> int:
        seeds = range(seed * n_samples, (seed + 1) * n_samples)
        samples = engine.sample([_QUESTION] * n_samples, seeds, _BASE, spec)
        return sum(len(sample.token_ids_T) for sample in samples)

    return arm


def _beside_load(arm: Arm) -> Arm:
    """The same arm while one other process keeps a core busy."""

    def beside(seed: int) -> int:
        with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
            try:
                return arm(seed)
            finally:
                busy.kill()

    return beside


def _generate_arm(host: AdaptedModel, n_samples: int, batch_rows: int, spec: SamplingSpec) -> Arm:
    """transformers' own `generate`, sampling from the same distribution."""
    import torch

    ids = torch.tensor([encode_chat(host.tokenizer, _QUESTION)], device=host.device)

    def call(model: Any, max_tokens: int) -> int:
        output = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            num_return_sequences=batch_rows,
            max_new_tokens=max_tokens,
            temperature=spec.temperature,
            top_p=1.0,
            top_k=0,
        )
        eos = model.generation_config.eos_token_id
        ends = torch.tensor(eos if isinstance(eos, list) else [eos], device=host.device)
        is_end = torch.isin(output[:, ids.shape[1] :], ends)
        before_end = is_end.cumsum(1) - is_end.long() == 0  # what follows the first end is padding
        return int(before_end.sum())

    def arm(seed: int) -> int:
        with host.policy_active(_BASE) as model, torch.random.fork_rng():
            torch.manual_seed(seed)
            return sum(call(model, spec.max_tokens) for _ in range(n_samples // batch_rows))

    with host.policy_active(_BASE) as model:
        call(model, 2)
    return arm


def _raw_vllm_arm(engine: Any, n_samples: int, spec: SamplingSpec) -> Arm:
    """`vllm.LLM.generate` on the same instance, with the settings that the engine uses."""
    from vllm import SamplingParams

    from sdpo_solve.engines._vllm_backend import sampling_arguments

    ids = encode_chat(engine.tokenizer, _QUESTION)
    shared = {**sampling_arguments(spec.temperature, engine.eos, None), "detokenize": False}

    def arm(seed: int) -> int:
        params = [
            SamplingParams(**shared, max_tokens=spec.max_tokens, seed=seed * n_samples + index)
            for index in range(n_samples)
        ]
        outputs = engine.backend.llm.generate([{"prompt_token_ids": ids}] * n_samples, params, use_tqdm=False)
        return sum(len(output.outputs[0].token_ids) for output in outputs)

    return arm


def _vllm(model_dir: Path, size: Size, notify: Callable[[str], None]) -> Any:
    """The engine vllm: where it is named, or where no engine is and it is installed; else None."""
    if size.engines and "vllm" not in size.engines:
        return None
    if not size.engines and importlib.util.find_spec("vllm") is None:
        notify("vLLM is not installed; left out")
        return None
    from sdpo_solve.engines.vllm import VllmEngine

    notify("starting vLLM (about a minute)")
    parts = EngineParts(None, lambda: model_dir, None, 0, None)
    return VllmEngine.build(VllmEngine.options_type(batch_rows=size.batch_rows), parts)
