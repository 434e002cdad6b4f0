"""What sampling costs: tokens a second of each engine beside the libraries' own generation, in one run.

The same question, temperature 1, answers of natural length. Every arm wants all samples; plain `generate`
gets them in calls of a batch each, as it cannot refill one. Rounds go over the arms in turn and the best of
each arm counts, because other work on the machine only adds to a time. Prints nothing.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sdpo_solve.engines import hf
from sdpo_solve.errors import ConfigError
from sdpo_solve.model.adapted import AdaptedModel
from sdpo_solve.model.chat import encode_chat
from sdpo_solve.types import Message, Policy, Prompt, SamplingSpec

MIN_OVER_GENERATE = 1.7
MIN_OVER_VLLM_ON_A_CPU = 0.8
MIN_OVER_RAW_VLLM = 0.95
ENGINES = ("hf", "vllm")
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
class Ratio:
    """One arm's tokens a second over another's. `least`: the target; None where there is none."""

    name: str
    value: float
    least: float | None

    @property
    def ok(self) -> bool:
        return self.least is None or self.value >= self.least


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run of the bench found."""

    speeds: tuple[Speed, ...]
    ratios: tuple[Ratio, ...]

    @property
    def ok(self) -> bool:
        return all(ratio.ok for ratio in self.ratios)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is measured. `engines` empty: every engine that is installed."""

    n_samples: int = 64
    batch_rows: int = 16
    max_tokens: int = 200
    n_rounds: int = 1
    engines: tuple[str, ...] = ()


Arm = Callable[[int], int]
"""Takes a seed, samples everything that is wanted, and returns how many tokens that were."""


def parse_engines(text: str | None) -> tuple[str, ...]:
    """`hf,vllm` as names.

    Raises ConfigError for an engine that cannot be measured.
    """
    names = tuple(dict.fromkeys(part.strip() for part in text.split(","))) if text else ()
    for name in names:
        if name not in ENGINES:
            raise ConfigError(f"bench sampling measures no engine {name!r} (known: {', '.join(ENGINES)})")
    return names


def run(model_dir: Path, wanted: Wanted, say: Callable[[str], None] = lambda _: None) -> Figures:
    """Speeds of the engines and their ratios. Weights in the machine's own precision for every arm.

    Raises ConfigError for numbers that not every arm can honour, PrerequisiteError where an engine that is
    named is missing, EngineError where one fails.
    """
    n, rows = wanted.n_samples, wanted.batch_rows
    if n % rows:
        raise ConfigError(
            f"{n} samples are no whole number of batches of {rows}; plain `generate` needs that"
        )
    host = AdaptedModel.load(model_dir)
    spec = SamplingSpec(wanted.max_tokens)
    arms: dict[str, Arm] = {}
    if "hf" in (wanted.engines or ENGINES):
        arms["hf"] = _engine_arm(hf.HfEngine(host, hf.Options(batch_rows=rows)), n, spec)
    arms["generate"] = _generate_arm(host, n, rows, spec)
    vllm_engine = _vllm(model_dir, wanted, say)
    try:
        if vllm_engine is not None:
            arms["vllm"] = _engine_arm(vllm_engine, n, spec)
            arms["raw vllm"] = _raw_vllm_arm(vllm_engine, n, spec)
        speeds = _measure(arms, say, wanted.n_rounds)
    finally:
        if vllm_engine is not None:
            vllm_engine.close()
    return Figures(tuple(speeds), tuple(ratios(speeds, on_cpu=host.device.type == "cpu")))


def page(figures: Figures) -> RenderableType:
    """The speeds, and the ratios with their targets, as tables."""
    speeds = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("", "tokens", "seconds", "tokens/s"):
        speeds.add_column(column, justify="right" if column else "left")
    for speed in figures.speeds:
        speeds.add_row(speed.name, str(speed.tokens), f"{speed.wall_s:.1f}", f"{speed.tokens_per_s:.1f}")
    ratios = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("", "ratio", "target", ""):
        ratios.add_column(column, justify="right" if column else "left")
    for ratio in figures.ratios:
        target = "" if ratio.least is None else f"{ratio.least:.2f}"
        verdict = Text("met", style="green") if ratio.ok else Text("missed", style="yellow")
        ratios.add_row(ratio.name, f"{ratio.value:.2f}", target, verdict if target else "")
    return Group(speeds, Text(), ratios)


def as_record(figures: Figures) -> dict[str, Any]:
    """The figures as JSON takes them."""
    return {
        "speeds": [{**asdict(speed), "tokens_per_s": speed.tokens_per_s} for speed in figures.speeds],
        "ratios": [{**asdict(ratio), "ok": ratio.ok} for ratio in figures.ratios],
    }


def ratios(speeds: Sequence[Speed], *, on_cpu: bool) -> list[Ratio]:
    """The ratios that have a target, of the arms at hand."""
    by_name = {speed.name: speed.tokens_per_s for speed in speeds}
    wanted = [
        ("hf", "generate", MIN_OVER_GENERATE if on_cpu else None),
        ("hf", "vllm", MIN_OVER_VLLM_ON_A_CPU if on_cpu else None),
        ("vllm", "raw vllm", MIN_OVER_RAW_VLLM),
    ]
    return [
        Ratio(f"{top} / {bottom}", by_name[top] / by_name[bottom], least)
        for top, bottom, least in wanted
        if top in by_name and bottom in by_name
    ]


def _measure(arms: dict[str, Arm], say: Callable[[str], None], n_rounds: int) -> list[Speed]:
    """The best of `n_rounds` for each arm; each was warmed up when it was made."""
    best: dict[str, Speed] = {}
    for round_number in range(n_rounds):
        for name, arm in arms.items():
            began = time.perf_counter()
            n_tokens = arm(round_number)
            speed = Speed(name, n_tokens, time.perf_counter() - began)
            say(f"round {round_number + 1} of {n_rounds}, {name}: {speed.tokens_per_s:.1f} tokens/s")
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
        said = model.generation_config.eos_token_id
        ends = torch.tensor(said if isinstance(said, list) else [said], device=host.device)
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

    llm = engine.llm

    def arm(seed: int) -> int:
        ids = encode_chat(engine.tokenizer, _QUESTION)
        params = [
            SamplingParams(
                temperature=spec.temperature,
                max_tokens=spec.max_tokens,
                seed=seed * n_samples + index,
                logprobs=0,
                stop_token_ids=sorted(engine.eos),
                detokenize=False,
            )
            for index in range(n_samples)
        ]
        outputs = llm.generate([{"prompt_token_ids": ids}] * n_samples, params, use_tqdm=False)
        return sum(len(output.outputs[0].token_ids) for output in outputs)

    return arm


def _vllm(model_dir: Path, wanted: Wanted, say: Callable[[str], None]) -> Any:
    """The engine vllm: where it is asked for, or where nothing is and it is installed; else None."""
    if wanted.engines and "vllm" not in wanted.engines:
        return None
    if not wanted.engines and importlib.util.find_spec("vllm") is None:
        say("vLLM is not installed; left out")
        return None
    from sdpo_solve.engines import vllm

    say("starting vLLM (about a minute)")
    return vllm.VllmEngine(model_dir, vllm.Options(batch_rows=wanted.batch_rows))
