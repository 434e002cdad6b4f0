"""Runs of small parts in threads, for tests of what they share."""

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sdpo_solve.batch.event_bus import RunEnded
from sdpo_solve.batch.locks import DeviceLocks
from sdpo_solve.batch.merged_sampling import MergingEngine
from sdpo_solve.batch.outage import Outage
from sdpo_solve.batch.runner import Runner, perform_all
from sdpo_solve.batch.spec import RunKey
from sdpo_solve.batch.stop import StopSignal
from sdpo_solve.errors import SandboxError
from sdpo_solve.types import Budget, Policy
from tests.helpers.parts import ReadGrader, SayEngine, answer, make_run

KEYS = [RunKey(seed, name, "count") for seed in range(2) for name in ("a", "b", "c")]


class SmallRuns:
    """Opens runs of small parts below `out`; `reply` decides what the engine says, `grader` who grades."""

    def __init__(
        self,
        out: Path,
        reply: Callable,
        *,
        tries: int = 2,
        grader=None,
        merge: bool = False,
        budget: Budget | None = None,
    ) -> None:
        self.budget = budget or Budget(8)
        self.engine = SayEngine(reply)
        self.grader = grader or ReadGrader()
        self.events: list[dict] = []
        self.stop = StopSignal()
        locks = DeviceLocks.make(shared_weights=True, stop=self.stop)
        self.sandbox_is_well = threading.Event()
        self.sandbox_is_well.set()
        outage = Outage("sandbox", self.stop, self.probe, self.notify, pause_s=0.01)
        self.notices: list[str] = []
        self.out = out
        merging = MergingEngine(self.engine, locks) if merge else None
        self.runner = Runner(locks, outage, self.open, self.close, self.events.append, tries, merging)

    def open(self, key, listeners):
        run = make_run(self.out / key.name, self.engine, budget=self.budget, listeners=listeners)
        options = run.options.model_copy(update={"seed": key.seed})
        return replace(run, grader=self.grader, options=options)

    def close(self, run) -> None:
        run.journal.close()

    def probe(self) -> None:
        if not self.sandbox_is_well.is_set():
            raise SandboxError("no engine answers")

    def notify(self, text: str) -> None:
        self.notices.append(text)

    def perform(self, keys=KEYS, threads: int = 3) -> list[RunEnded]:
        return perform_all(self.runner.perform, keys, threads)


def reply(seed: int, policy: Policy, n: int) -> str:
    return answer("right" if seed % 11 == 0 else f"wrong {seed} {policy.version}")


def journal(out: Path, key: RunKey) -> list[dict]:
    clocks = {"time", "elapsed_s", "sample_s", "grade_s", "wall_s"}
    lines = (out / key.name / "journal.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in clocks} for line in lines]
