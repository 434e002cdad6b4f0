"""One list of checks for every engine: what `protocols.Engine` promises, on a real learner's weights.

A check that an engine cannot meet is listed in its `gaps` with the reason, and skipped with that reason.
"""

import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sdpo_solve.engines import EngineParts, hf, scripted
from sdpo_solve.engines._scoring import forced_logprobs
from sdpo_solve.errors import EngineError
from sdpo_solve.model.adapted import AdaptedModel
from sdpo_solve.model.cpu import cpu_dtype
from sdpo_solve.types import Finish, Message, Policy, Prompt, Sample, SamplingSpec
from tests.helpers.hosts import SMALL_CACHE, save_adapter
from tests.helpers.tiny_model import save_tiny_model
from tests.helpers.vllm_server import VllmServer

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft's own

BASE = Policy("run", 0)
WRITTEN = "replies were written, not sampled"


class Seen(list[tuple[int, int]]):
    """What an engine told of its progress. `hurdle`: raise KeyboardInterrupt at that many finished samples."""

    hurdle: int | None = None

    def __call__(self, n_tokens: int, n_done: int) -> None:
        self.append((n_tokens, n_done))
        if self.hurdle is not None and n_done >= self.hurdle:
            raise KeyboardInterrupt


@dataclass
class Subject:
    """An engine with the weights it samples from. `mean_off`, `off`: nats that rounding may cost."""

    engine: Any
    host: AdaptedModel
    first: Policy
    second: Policy
    seen: Seen
    mean_off: float
    off: float
    gaps: Mapping[str, str] = field(default_factory=dict)

    def sample(self, prompts: list[Prompt], policy: Policy = BASE, **spec: Any) -> list[Sample]:
        spec = {"max_tokens": 16, **spec}
        return list(self.engine.sample(prompts, list(range(len(prompts))), policy, SamplingSpec(**spec)))

    def forced(self, sample: Sample, temperature: float = 1.0) -> list[float]:
        with self.host.policy_active(sample.policy) as model:
            return list(forced_logprobs(model, sample.prompt_ids, sample.token_ids_T, temperature))

    def offs(self, samples: list[Sample], temperature: float = 1.0) -> tuple[float, float]:
        """Mean and largest difference of log-probs to the learner's, in nats."""
        offs = [
            abs(a - b)
            for s in samples
            for a, b in zip(s.logprobs_T, self.forced(s, temperature), strict=True)
        ]
        return sum(offs) / len(offs), max(offs)

    def agrees(self, samples: list[Sample], temperature: float = 1.0) -> bool:
        """Whether every log-prob is the learner's, up to rounding."""
        mean, largest = self.offs(samples, temperature)
        return mean <= self.mean_off and largest <= self.off


def make_subject(name: str, folder: Path, closing: ExitStack) -> Subject:
    model_dir = save_tiny_model(folder / "model", hidden=256)
    policies = [
        Policy("run", n, save_adapter(model_dir, folder / "policies" / f"{n:04}", seed=n)) for n in (1, 2)
    ]
    dtype = (
        None if name.startswith("vllm") else torch.float32
    )  # vLLM takes the machine's own, like the learner
    host = AdaptedModel.load(model_dir, dtype=dtype)
    replies = folder / "replies.jsonl"
    replies.write_text("".join(json.dumps({"text": f"reply {n} é"}) + "\n" for n in range(200)))
    seen = Seen()
    parts = EngineParts(
        host=lambda: host,
        model_dir=lambda: model_dir,
        replies=replies,
        consumed=0,
        progress=seen,
        n_policies=2,
    )
    if name == "hf":
        engine: Any = hf.HfEngine.build(hf.Options(batch_rows=4), parts)
        return Subject(engine, host, *policies, seen, 1e-5, 1e-4)
    if name == "scripted":
        gaps = {"limits": WRITTEN, "seeds": WRITTEN, "too long": "no context of its own", "length": WRITTEN,
                "mixed": WRITTEN}  # fmt: skip
        return Subject(
            scripted.ScriptedEngine.build(scripted.Options(), parts), host, *policies, seen, 1e-6, 1e-6, gaps
        )
    from sdpo_solve.engines import vllm

    options = vllm.Options(batch_rows=8, probe_tolerance=0.1, **SMALL_CACHE)
    if name == "vllm-server":
        server = VllmServer(model_dir, folder / "server.log", cpu_dtype()).start()
        closing.callback(server.kill)
        options = vllm.Options(batch_rows=8, probe_tolerance=0.1, server=server.url)
    off = (0.1, 0.6) if host.dtype == torch.bfloat16 else (1e-3, 1e-2)
    return Subject(vllm.VllmEngine.build(options, parts), host, *policies, seen, *off)


@pytest.fixture(
    scope="module",
    params=[
        "hf",
        "scripted",
        *(
            pytest.param(name, marks=[pytest.mark.vllm, pytest.mark.filterwarnings("ignore")])
            for name in ("vllm", "vllm-server")
        ),
    ],
)
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    with ExitStack() as closing:
        made = make_subject(request.param, tmp_path_factory.mktemp(request.param), closing)
        yield made
        made.engine.close()
        made.engine.close()  # safe to call twice


def needs(subject: Subject, what: str) -> None:
    if what in subject.gaps:
        pytest.skip(f"known gap: {subject.gaps[what]}")


def ask(text: str) -> Prompt:
    return Prompt((Message("user", text),))


def test_one_sample_a_prompt_in_order(subject: Subject) -> None:
    prompts = [ask(letter * n) for letter, n in zip("abcdef", (1, 30, 5, 80, 2, 11), strict=True)]
    samples = subject.sample(prompts)
    assert [s.prompt for s in samples] == prompts
    for got in samples:
        assert got.prompt.messages[0].content in subject.host.tokenizer.decode(got.prompt_ids)
        assert got.policy == BASE
        assert len(got.token_ids_T) == len(got.logprobs_T) > 0


def test_the_policy_asked_for_is_the_one_used(subject: Subject) -> None:
    """In the order 0 1 2 1 0; each answer fits its own policy and no other."""
    for policy in (BASE, subject.first, subject.second, subject.first, BASE):
        samples = subject.sample([ask("ab")] * 4, policy)
        assert subject.agrees(samples), subject.offs(samples)
        for other in {BASE, subject.first, subject.second} - {policy}:
            moved = [replace(s, policy=other) for s in samples]
            assert not subject.agrees(moved), f"{policy.key} cannot be told from {other.key}"


def test_rows_of_several_policies_share_a_call(subject: Subject) -> None:
    """More policies than the engine holds at a time; each answer fits its own policy and no other."""
    needs(subject, "mixed")
    third = Policy("other", 1, subject.first.adapter_dir)
    policies = [BASE, subject.first, subject.second, third, subject.second, BASE]
    prompts = [ask("ab" * (n + 1)) for n in range(6)]
    samples = subject.engine.sample_mixed(prompts, list(range(6)), policies, SamplingSpec(16))
    assert [s.policy for s in samples] == policies
    assert [s.prompt for s in samples] == prompts
    assert subject.agrees(samples), subject.offs(samples)
    for other in (BASE, subject.first, subject.second):
        moved = [replace(s, policy=other) for s in samples if s.policy.adapter_dir != other.adapter_dir]
        assert not subject.agrees(moved), f"some rows fit {other.key} as well"


def test_ids_decode_to_the_text(subject: Subject) -> None:
    for got in subject.sample([ask("ab")] * 6):
        assert subject.host.tokenizer.decode(got.token_ids_T, skip_special_tokens=True) == got.text


@pytest.mark.parametrize("temperature", [1.0, 0.5, 1.7])
def test_logprobs_are_those_of_the_distribution_sampled(subject: Subject, temperature: float) -> None:
    samples = subject.sample([ask("ab")] * 6, temperature=temperature)
    assert subject.agrees(samples, temperature), subject.offs(samples, temperature)


def test_limits_are_honoured(subject: Subject) -> None:
    needs(subject, "limits")
    for limit in (1, 7):
        for got in subject.sample([ask("ab")] * 3, max_tokens=limit):
            assert len(got.token_ids_T) <= limit


def test_ends_are_reported(subject: Subject) -> None:
    """A stopped answer ends with an end-of-turn token, a cut one has all its tokens and none of those."""
    end = {subject.host.tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>")}
    samples = subject.sample([ask("ab")] * 40, max_tokens=30, temperature=2.0)
    for got in samples:
        assert (got.token_ids_T[-1] in end) == (got.finish is Finish.STOP)
        assert not end & set(got.token_ids_T[:-1])
    needs(subject, "length")
    assert {s.finish for s in samples} == {Finish.STOP, Finish.LENGTH}


def test_the_same_seed_gives_the_same_answer(subject: Subject) -> None:
    needs(subject, "seeds")
    spec = SamplingSpec(16)
    first, other, again = subject.engine.sample([ask("ab")] * 3, [5, 6, 5], BASE, spec)
    assert first.token_ids_T == again.token_ids_T != other.token_ids_T


def test_an_empty_prompt_is_a_clear_error(subject: Subject) -> None:
    for prompt in (Prompt(()), ask(" \n")):
        with pytest.raises(EngineError, match="prompt is empty"):
            subject.sample([prompt])


def test_a_too_long_prompt_is_a_clear_error(subject: Subject) -> None:
    needs(subject, "too long")
    with pytest.raises(EngineError, match="leaves no room for an answer"):
        subject.sample([ask("x" * 3000)])
    assert len(subject.sample([ask("ab")])) == 1, "the engine is of use afterwards"


def test_progress_ends_with_every_token_and_every_sample(subject: Subject) -> None:
    subject.seen.clear()
    samples = subject.sample([ask("ab")] * 6)
    assert subject.seen[-1] == (sum(len(s.token_ids_T) for s in samples), 6)
    assert subject.seen == sorted(subject.seen)


def test_interrupted_sampling_leaves_nothing_behind(subject: Subject) -> None:
    """Ctrl-C in the middle: no process or thread more than before, and the next call is as good as any."""
    before = subject.sample([ask("ab")] * 3)
    running = (descendants(os.getpid()), threading.active_count())
    subject.seen.hurdle = 1
    with pytest.raises(KeyboardInterrupt):
        subject.sample([ask("cd")] * 6)
    subject.seen.hurdle = None
    assert (descendants(os.getpid()), threading.active_count()) == running
    after = subject.sample([ask("ab")] * 3)
    needs(subject, "seeds")
    assert [s.token_ids_T for s in after] == [s.token_ids_T for s in before]


def descendants(pid: int) -> set[int]:
    """Processes that this one and its own have started and that still run."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            found |= {child, *descendants(child)}
    return found


def test_it_says_what_it_is(subject: Subject) -> None:
    assert subject.engine.identity().split(":")[0] in ("hf", "scripted", "vllm")
