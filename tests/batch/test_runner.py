"""Threads of runs: every run ends as it would alone, failures stay small, stopping is clean."""

import json
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from sdpo_solve.batch.locks import DeviceLocks, Meter
from sdpo_solve.batch.merged_sampling import MergingEngine
from sdpo_solve.batch.runner import Runner, RunSummary, kept_summary, perform_all
from sdpo_solve.batch.sandbox_outage import SandboxOutage
from sdpo_solve.batch.spec import RunKey
from sdpo_solve.batch.stop import Stopped, StopSignal
from sdpo_solve.errors import ConfigError, EngineError, PrerequisiteError, SandboxError
from sdpo_solve.solve import solve
from sdpo_solve.types import Budget, Message, Policy, Prompt, Sample, SamplingSpec
from tests.helpers.parts import ReadGrader, SayEngine, answer, make_run

PROMPTS = [Prompt((Message("user", "say"),))]
SPEC = SamplingSpec(8)
KEYS = [RunKey(seed, name, "count") for seed in range(2) for name in ("a", "b", "c")]


class Bench:
    """Opens runs of small parts below `out`; `reply` decides what the engine says, `grader` who grades."""

    def __init__(
        self, out: Path, reply: Callable, *, tries: int = 2, grader=None, merge: bool = False
    ) -> None:
        self.engine = SayEngine(reply)
        self.grader = grader or ReadGrader()
        self.events: list[dict] = []
        self.stop = StopSignal()
        locks = DeviceLocks.make(shared_weights=True, stop=self.stop)
        self.sandbox_is_well = threading.Event()
        self.sandbox_is_well.set()
        outage = SandboxOutage(self.stop, self.probe, self.notify, pause_s=0.01)
        self.notices: list[str] = []
        self.out = out
        merging = MergingEngine(self.engine, locks) if merge else None
        self.runner = Runner(locks, outage, self.open, self.close, self.events.append, tries, merging)

    def open(self, key, listeners):
        run = make_run(self.out / key.name, self.engine, budget=Budget(8), listeners=listeners)
        object.__setattr__(run, "grader", self.grader)
        object.__setattr__(run, "seed", key.seed)
        return run

    def close(self, run) -> None:
        run.journal.close()

    def probe(self) -> None:
        if not self.sandbox_is_well.is_set():
            raise SandboxError("no engine answers")

    def notify(self, text: str) -> None:
        self.notices.append(text)

    def perform(self, keys=KEYS, threads: int = 3) -> list[RunSummary]:
        return perform_all(self.runner.perform, keys, threads)


def reply(seed: int, policy: Policy, n: int) -> str:
    return answer("right" if seed % 11 == 0 else f"wrong {seed} {policy.version}")


def journal(out: Path, key: RunKey) -> list[dict]:
    clocks = {"time", "elapsed_s", "sample_s", "grade_s", "wall_s"}
    lines = (out / key.name / "journal.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in clocks} for line in lines]


def test_every_run_among_others_equals_the_run_alone(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "together", reply)
    summaries = bench.perform()
    assert sorted(summary.key for summary in summaries) == sorted(KEYS)
    for key in KEYS:
        alone = Bench(tmp_path / "alone", reply)
        run = alone.open(key, [])
        solve(run)
        assert journal(tmp_path / "together", key) == journal(tmp_path / "alone", key)


def test_finished_runs_are_kept_and_cost_nothing(tmp_path: Path) -> None:
    first = Bench(tmp_path, reply).perform()
    bench = Bench(tmp_path, reply)
    again = bench.perform()
    assert bench.engine.calls == []
    assert all(kept_summary(tmp_path, summary.key) == replace(summary, kept=True) for summary in again)
    ends = {s.key: (s.status, s.solved, s.discovery_time, s.attempts, s.tokens) for s in first}
    assert ends == {s.key: (s.status, s.solved, s.discovery_time, s.attempts, s.tokens) for s in again}


def fails(times: int, error: Exception = EngineError("out of memory")) -> Callable:  # noqa: B008
    """An engine that breaks `times` times, at the second group of a run."""
    left = [times]

    def says(seed: int, policy: Policy, n: int) -> str:
        if policy.version == 1 and left[0]:
            left[0] -= 1
            raise error
        return answer(f"wrong {seed} {policy.version}")

    return says


def test_a_failure_ends_its_own_run_and_is_tried_again(tmp_path: Path) -> None:
    summaries = Bench(tmp_path, fails(1)).perform()
    assert [s.status for s in summaries] == ["finished"] * len(KEYS)
    failed = [key for key in KEYS if any(e["event"] == "run_failed" for e in journal(tmp_path, key))]
    assert len(failed) == 1


def test_tries_are_counted_over_commands_and_then_the_run_is_listed(tmp_path: Path) -> None:
    key = KEYS[0]
    bench = Bench(tmp_path, fails(99), tries=2)
    (summary,) = bench.perform([key])
    assert (summary.status, summary.kept, summary.error) == ("failed", False, "out of memory")
    assert [e["event"] for e in journal(tmp_path, key)].count("run_failed") == 2
    (again,) = Bench(tmp_path, reply, tries=2).perform([key])
    assert (again.status, again.kept) == ("failed", True)
    (more,) = Bench(tmp_path, reply, tries=3).perform([key])
    assert more.status == "finished"


def test_a_users_mistake_ends_the_batch(tmp_path: Path) -> None:
    bench = Bench(tmp_path, reply)

    def refuse(key, listeners):
        raise ConfigError("results must not mix")

    object.__setattr__(bench.runner, "open_run", refuse)
    with pytest.raises(ConfigError, match="must not mix"):
        bench.perform()


def test_the_stop_signal_ends_runs_after_the_group_under_way(tmp_path: Path) -> None:
    bench = Bench(tmp_path, lambda seed, policy, n: bench.stop.set() or answer("wrong"))
    summaries = bench.perform(threads=1)
    assert [s.status for s in summaries] == ["stopped"] * len(KEYS)
    started = journal(tmp_path, KEYS[0])
    assert [e["event"] for e in started if e["event"] != "prompt"] == [
        "run_started",
        *["attempt"] * 4,
        "group",
    ]
    assert not (tmp_path / KEYS[-1].name).exists()
    whole = Bench(tmp_path, reply).perform()
    assert {s.status for s in whole} == {"finished"}


class Breaking(ReadGrader):
    """The sandbox goes away under the third group and comes back a moment later."""

    def __init__(self) -> None:
        self.n, self.bench = 0, None

    def grade(self, problem, codes_G, *, thorough=False):
        self.n += 1
        if self.n == 3:
            self.bench.sandbox_is_well.clear()
            threading.Timer(0.1, self.bench.sandbox_is_well.set).start()
        if not self.bench.sandbox_is_well.is_set():
            raise SandboxError("the container is gone")
        return super().grade(problem, codes_G)


def test_a_sandbox_that_is_gone_pauses_the_batch_and_fails_nothing(tmp_path: Path) -> None:
    grader = Breaking()
    bench = Bench(tmp_path, lambda *_: answer("wrong"), grader=grader)
    grader.bench = bench
    summaries = bench.perform()
    assert {s.status for s in summaries} == {"finished"}
    assert len(bench.notices) == 2
    assert "the batch waits" in bench.notices[0]
    assert "goes on" in bench.notices[1]


def test_a_box_that_breaks_while_the_sandbox_is_well_fails_its_run(tmp_path: Path) -> None:
    class Bad(ReadGrader):
        def grade(self, problem, codes_G, *, thorough=False):
            raise SandboxError("the box broke")

    bench = Bench(tmp_path, reply, grader=Bad(), tries=1)
    assert {(s.status, s.error) for s in bench.perform()} == {("failed", "the box broke")}
    assert bench.notices == []


def test_waiting_for_a_sandbox_ends_with_the_batch(tmp_path: Path) -> None:
    stop = StopSignal()
    threading.Timer(0.05, stop.set).start()
    with pytest.raises(Stopped):
        gone_after_it_worked(stop, pause_s=5).wait(0)


def gone_after_it_worked(
    stop: StopSignal, notices: list[str] | None = None, **limits: float
) -> SandboxOutage:
    def gone() -> None:
        raise SandboxError("no engine answers")

    outage = SandboxOutage(stop, gone, (notices if notices is not None else []).append, **limits)
    outage.has_worked = True
    return outage


def test_a_sandbox_that_stays_away_ends_the_batch_and_it_is_said_since_when() -> None:
    notices: list[str] = []
    with pytest.raises(PrerequisiteError, match=r"gone since \d\d:\d\d:\d\d: no engine answers; repeat"):
        gone_after_it_worked(StopSignal(), notices, pause_s=0.01, max_wait_s=0.05).wait(0)
    assert re.search(r"gone since \d\d:\d\d:\d\d, the batch waits for it \(at most 0 minutes", notices[0])


def test_a_batch_does_not_wait_for_a_sandbox_that_never_worked(tmp_path: Path) -> None:
    class Bad(ReadGrader):
        def grade(self, problem, codes_G, *, thorough=False):
            raise SandboxError("Invalid argument")

    bench = Bench(tmp_path, reply, grader=Bad())
    bench.sandbox_is_well.clear()
    with pytest.raises(PrerequisiteError, match="does not work: no engine answers; 'sdpo-solve doctor'"):
        bench.perform()
    assert bench.notices == []


def test_a_fault_of_one_run_ends_that_run_with_its_traceback(tmp_path: Path) -> None:
    bench = Bench(tmp_path, fails(1, AttributeError("no attribute 'shape'")), tries=1)
    ended = bench.perform()
    (failed,) = [summary for summary in ended if summary.status != "finished"]
    assert (failed.status, failed.attempts) == ("failed", 4)
    assert failed.error.startswith("AttributeError: no attribute 'shape'")
    (fault,) = [event for event in bench.events if event["event"] == "fault"]
    assert fault["run"] == failed.key.name
    assert fault["traceback"].startswith("Traceback")
    assert journal(tmp_path, failed.key)[-1]["event"] == "run_failed"


# -- sampling together ---------------------------------------------------------------------------------------


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

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
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

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
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

    threads = [threading.Thread(target=go, args=(number, n)) for number, n in enumerate((4, 4, 2))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
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

    threads = [threading.Thread(target=go, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
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

    threads = [threading.Thread(target=go, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert faults.qsize() == 3


def test_a_run_does_not_wait_for_ever_for_one_that_is_busy_elsewhere() -> None:
    engine = MixedEngine()
    merging = MergingEngine(engine, DeviceLocks.make(shared_weights=True))
    with merging.taking_part():  # a run that grades for the whole test
        got: list[int] = []
        learning_run(merging, 1, 2, 0.0, got)
    assert got == [100, 101]


def test_an_engine_of_one_policy_a_call_merges_only_what_needs_no_adapter() -> None:
    engine = SayEngine(lambda seed, policy, n: f"said {seed}")
    merging = MergingEngine(engine, DeviceLocks.make(shared_weights=True))
    with merging.taking_part():
        got: list[int] = []
        learning_run(merging, 1, 3, 0.0, got)
    assert got == [100, 101, 102]


def test_a_merged_batch_gives_the_runs_of_an_unmerged_one(tmp_path: Path) -> None:
    Bench(tmp_path / "merged", reply, merge=True).perform()
    Bench(tmp_path / "plain", reply).perform()
    for key in KEYS:
        assert journal(tmp_path / "merged", key) == journal(tmp_path / "plain", key)


# -- the meter -----------------------------------------------------------------------------------------------


def test_overlapping_use_counts_once_and_waiting_is_not_a_runs_own_time() -> None:
    meter = Meter()

    def grade() -> None:
        with meter.time("running"), meter.time("waiting"), meter.time("grading"):
            time.sleep(0.2)

    threads = [threading.Thread(target=grade) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with meter.time("running"):
        time.sleep(0.2)
    shares = meter.shares()
    assert shares["grading"] == pytest.approx(0.5, abs=0.15)
    assert shares["own"] == pytest.approx(0.5, abs=0.15)
    assert shares["learning"] == 0
