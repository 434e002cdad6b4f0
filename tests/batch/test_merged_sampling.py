"""Sampling together: fewer calls, the same samples, an error for its own run."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from sdpo_solve.batch.locks import DeviceLocks, LockedEngine
from sdpo_solve.batch.merged_sampling import MergedEngine, MergingEngine
from sdpo_solve.batch.stop import Stopped
from sdpo_solve.errors import ConfigError, EngineError, PrerequisiteError
from sdpo_solve.run.clock import Clock
from sdpo_solve.types import Message, Policy, Prompt, Sample, SamplingSpec
from tests.helpers.parts import SayEngine
from tests.helpers.small_runs import KEYS, SmallRuns, journal, reply

PROMPTS = [Prompt((Message("user", "say"),))]
SPEC = SamplingSpec(8)


def together(go: Callable[..., object], *arguments: Iterable[Any]) -> None:
    """Call `go` with each set of arguments at once, and wait for all, though not for ever."""
    threads = [threading.Thread(target=go, args=given) for given in zip(*arguments, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)


def test_requests_that_wait_are_merged_and_each_gets_its_own_samples() -> None:
    engine = SayEngine(lambda seed, policy, n: f"said {seed}")
    sizes: list[int] = []
    plain = engine.sample

    def slow(prompts_G, seeds_G, policy, spec):
        time.sleep(0.05)
        sizes.append(len(seeds_G))
        return plain(prompts_G, seeds_G, policy, spec)

    engine.sample = slow
    merging = MergingEngine(engine, DeviceLocks.make(shared_weights=True))
    spec, got = SamplingSpec(8), {}

    def ask(number: int) -> None:
        policy = Policy(f"run {number}", 0)
        got[number] = merging.sample([None] * 2, [10 * number, 10 * number + 1], policy, spec)

    together(ask, range(5))
    assert sum(sizes) == 10
    assert len(sizes) < 5
    for number, samples in got.items():
        assert [sample.text for sample in samples] == [f"said {10 * number}", f"said {10 * number + 1}"]
        assert {sample.policy.run for sample in samples} == {f"run {number}"}


def test_an_error_in_a_merged_call_hits_only_the_run_it_belongs_to() -> None:
    def says(seed: int, policy: Policy, n: int) -> str:
        if seed == 3:
            raise EngineError("prompt too long")
        time.sleep(0.01)
        return f"said {seed}"

    merging = MergingEngine(SayEngine(says), DeviceLocks.make(shared_weights=True))
    got: dict[int, object] = {}

    def ask(number: int) -> None:
        try:
            got[number] = merging.sample([None], [number], Policy("run", 0), SamplingSpec(8))[0].text
        except EngineError as exc:
            got[number] = str(exc)

    together(ask, range(6))
    assert got == {n: "prompt too long" if n == 3 else f"said {n}" for n in range(6)}


class MixedEngine(SayEngine):
    """Writes down the policies of each call, which takes `call_s`."""

    def __init__(self, call_s: float = 0.0) -> None:
        super().__init__(lambda seed, policy, n: f"said {seed}")
        self.mixes: list[set[str]] = []
        self.call_s = call_s

    def sample_mixed(
        self,
        prompts_G: Sequence[Prompt],
        seeds_G: Sequence[int],
        policies_G: Sequence[Policy],
        spec: SamplingSpec,
    ) -> list[Sample]:
        self.mixes.append({policy.key for policy in policies_G})
        time.sleep(self.call_s)
        return [
            self.sample([prompt], [seed], policy, spec)[0]
            for prompt, seed, policy in zip(prompts_G, seeds_G, policies_G, strict=True)
        ]


def learning_run(
    merging: MergingEngine,
    number: int,
    n_groups: int,
    learn_s: float,
    group: list[int],
    ready: Callable[[], object] = int,
) -> None:
    with merging.taking_part():
        ready()
        for version in range(n_groups):
            policy = Policy(f"run {number}", version, Path("adapter") if version else None)
            seeds = [100 * number + version]
            group += [int(s.text.removeprefix("said ")) for s in merging.sample(PROMPTS, seeds, policy, SPEC)]
            with merging._locks.learning():
                time.sleep(learn_s)


def test_runs_that_learn_sample_together_group_by_group() -> None:
    """Three runs of 4, 4 and 2 groups that learn in turns: 4 calls, not 10, and none waits for one that left."""
    engine = MixedEngine(call_s=0.5)
    merging = MergingEngine(engine, DeviceLocks.make(shared_weights=True))
    groups: list[list[int]] = [[], [], []]
    starts = threading.Barrier(3)

    def go(number: int, n_groups: int) -> None:
        learning_run(merging, number, n_groups, 0.05 * (1 + number), groups[number], starts.wait)

    together(go, range(3), (4, 4, 2))
    assert groups == [[0, 1, 2, 3], [100, 101, 102, 103], [200, 201]]
    want = [{f"run {run}@{version}" for run in range(3 if version < 2 else 2)} for version in range(4)]
    assert engine.mixes == want


def test_a_request_that_cannot_be_served_costs_the_others_nothing_but_one_call_each() -> None:
    """Three runs ask together, one has an odd prompt: one call that fails, then each alone, in one turn."""

    class Picky(MixedEngine):
        def sample_mixed(
            self,
            prompts_G: Sequence[Prompt],
            seeds_G: Sequence[int],
            policies_G: Sequence[Policy],
            spec: SamplingSpec,
        ) -> list[Sample]:
            samples = super().sample_mixed(prompts_G, seeds_G, policies_G, spec)
            if 200 in seeds_G:
                raise EngineError("no room")
            return samples

    engine = Picky()
    merging = MergingEngine(engine, DeviceLocks.make(shared_weights=True))
    starts = threading.Barrier(3)
    groups: list[list[int]] = [[], [], []]
    errors: list[str] = []

    def go(number: int) -> None:
        try:
            learning_run(merging, number, 1, 0.0, groups[number], starts.wait)
        except EngineError as exc:
            errors.append(str(exc))

    together(go, range(3))
    assert (groups, errors) == ([[0], [100], []], ["no room"])
    assert sorted(map(len, engine.mixes)) == [1, 1, 1, 3]


def test_a_fault_of_the_engine_is_raised_in_every_run_that_waits_for_it() -> None:
    """It gives back another number of samples than it was asked for; nobody waits for ever."""

    class Short(MixedEngine):
        def sample_mixed(self, *asked: Any) -> list[Sample]:
            return super().sample_mixed(*asked)[:0]

    merging = MergingEngine(Short(), DeviceLocks.make(shared_weights=True))
    starts, faults = threading.Barrier(3), SimpleQueue[str]()

    def go(number: int) -> None:
        try:
            learning_run(merging, number, 1, 0.0, [], starts.wait)
        except ValueError as exc:
            faults.put(str(exc))

    together(go, range(3))
    assert faults.qsize() == 3


@pytest.mark.parametrize("error", [PrerequisiteError("the engine is gone"), Stopped(), ConfigError("no")])
def test_what_concerns_every_run_is_not_tried_again_for_each(error: Exception) -> None:
    class Gone(MixedEngine):
        def sample_mixed(self, *asked: Any) -> list[Sample]:
            super().sample_mixed(*asked)
            raise error

    engine = Gone()
    merging = MergingEngine(engine, DeviceLocks.make(shared_weights=True))
    starts, raised = threading.Barrier(3), SimpleQueue[Exception]()

    def go(number: int) -> None:
        try:
            learning_run(merging, number, 1, 0.0, [], starts.wait)
        except type(error) as exc:
            raised.put(exc)

    together(go, range(3))
    assert raised.qsize() == 3
    assert sum(map(len, engine.mixes)) == 3, "each request was part of one call"


def test_a_run_does_not_wait_for_ever_for_one_that_is_busy_elsewhere() -> None:
    engine = MixedEngine()
    merging = MergingEngine(engine, DeviceLocks.make(shared_weights=True))
    with merging.taking_part():  # a run that grades for the whole test
        got: list[int] = []
        learning_run(merging, 1, 2, 0.0, got)
    assert got == [100, 101]


def test_a_group_of_two_policies_is_one_call_where_the_engine_can_mix() -> None:
    mixing, plain = MixedEngine(), SayEngine(lambda seed, policy, n: f"said {seed}")
    base, newest = Policy("run", 0), Policy("run", 3, Path("adapter"))
    for engine in (mixing, plain):
        for depth in (MergingEngine, LockedEngine):
            shared = depth(engine, DeviceLocks.make(shared_weights=True))
            samples = shared.sample_mixed(PROMPTS * 3, [1, 2, 3], [newest, base, newest], SPEC)
            assert [(s.text, s.policy) for s in samples] == [
                ("said 1", newest),
                ("said 2", base),
                ("said 3", newest),
            ]
    assert mixing.mixes == [{"run@0", "run@3"}] * 2


def test_an_engine_of_one_policy_a_call_merges_only_what_needs_no_adapter() -> None:
    engine = SayEngine(lambda seed, policy, n: f"said {seed}")
    merging = MergingEngine(engine, DeviceLocks.make(shared_weights=True))
    with merging.taking_part():
        got: list[int] = []
        learning_run(merging, 1, 3, 0.0, got)
    assert got == [100, 101, 102]


def test_a_merged_batch_gives_the_runs_of_an_unmerged_one(tmp_path: Path) -> None:
    SmallRuns(tmp_path / "merged", reply, merge=True).perform()
    SmallRuns(tmp_path / "plain", reply).perform()
    for key in KEYS:
        assert journal(tmp_path / "merged", key) == journal(tmp_path / "plain", key)


@pytest.mark.parametrize("adapter", [None, Path("adapter")], ids=["base", "adapter"])
def test_a_runs_clock_counts_the_call_that_serves_it_and_no_waiting(adapter: Path | None) -> None:
    """Another run learns for 0.5 s first; the call takes 0.3 s, an outage of 0.4 s in it left out."""
    calls, clocks = Clock(), [Clock(), Clock()]

    def slow(seed: int, policy: Policy, n: int) -> str:
        if n == 0:
            with calls.paused():
                time.sleep(0.4)
        time.sleep(0.15)
        return ""

    locks = DeviceLocks.make(shared_weights=True)
    merging = MergingEngine(SayEngine(slow), locks, calls)
    seen = SimpleQueue[float]()

    def go(number: int) -> None:
        with merging.taking_part():
            policy = Policy(f"run {number}", int(adapter is not None), adapter)
            prompts, seeds = PROMPTS * (2 if adapter else 1), [number] * (2 if adapter else 1)
            MergedEngine(merging, clocks[number]).sample(prompts, seeds, policy, SPEC)
            seen.put(clocks[number].elapsed_s)

    with locks.learning():
        threads = [threading.Thread(target=go, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
    for thread in threads:
        thread.join(20)
    assert [seen.get(), seen.get()] == pytest.approx([0.3, 0.3], abs=0.12)
