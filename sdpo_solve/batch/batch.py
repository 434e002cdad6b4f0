"""A batch: problems x methods x seeds, from options to a prepared list of runs, and from there to a result.

Loads the problems, checks every option, reads how far the runs on disk have come, and passes what is left to
an executor: this process (`local_executor.py`) or a Ray cluster (`ray_executor.py`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from sdpo_solve.batch.cost import Cost, cost_of
from sdpo_solve.batch.difficulty import TAUGHT
from sdpo_solve.batch.event_bus import RunEnded
from sdpo_solve.batch.runner import Sink, end_on_disk
from sdpo_solve.batch.screening_file import Screening, check_marks, read_marks
from sdpo_solve.batch.spec import BatchSpec, RunKey, list_runs
from sdpo_solve.batch.stop import StopSignal
from sdpo_solve.config import RunOptions
from sdpo_solve.datasets import load
from sdpo_solve.datasets.selection import Problems
from sdpo_solve.errors import UserError
from sdpo_solve.paths import file_errors
from sdpo_solve.run import build
from sdpo_solve.run.events import FILE_NAME
from sdpo_solve.run.identity import holds_results, problem_digest, read_config, sampling_record, versions
from sdpo_solve.run.options import Plan, make_plan
from sdpo_solve.types import Problem

RECORD_NAME = "batch.json"
# Runs on disk that the estimate of costs reads, by arm.
_COSTED_RUNS = 20


@dataclass(frozen=True, slots=True)
class RunsOnDisk:
    """The runs of a batch that were there before it. `begun`: not finished, failed ones included."""

    finished: Mapping[RunKey, RunEnded] = field(default_factory=dict)
    begun: tuple[RunKey, ...] = ()
    costs: Mapping[str, Cost] = field(default_factory=dict)
    """What the runs of each arm cost; an arm without runs is there with none."""
    graders: Mapping[Path, Mapping[str, Any]] = field(default_factory=dict)
    """What graded them: the directory of one run -> its grader, for each grader once."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What will be run: the options, the problems chosen, the runs, and where they go."""

    spec: BatchSpec
    out: Path
    problems: Problems
    keys: tuple[RunKey, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Bad problems that the filters would have taken: id -> why."""
    broken: tuple[str, ...] = ()
    """Those of them that are no sound problems."""
    on_disk: RunsOnDisk = RunsOnDisk()

    @property
    def keys_left(self) -> tuple[RunKey, ...]:
        """The runs that are not finished."""
        return tuple(key for key in self.keys if key not in self.on_disk.finished)

    def plan_for(self, key: RunKey) -> Plan:
        return _make_plan(self.spec, key)

    def problem_for(self, key: RunKey) -> Problem:
        """The problem as that run has it: feedback may quote other tests under another seed."""
        return build.problem_for(self.spec.options_for(key), self.problems.named(key.problem))

    def new_parts(self) -> build.Parts:
        """The parts that the runs share, not made yet: those of the first run's plan."""
        options = self.spec.batch
        n_policies = options.in_flight if options.merge else 1
        return build.Parts(self.plan_for(self.keys[0]), replies=options.replies, n_policies=n_policies)


@dataclass(frozen=True, slots=True)
class BatchResult:
    """How a batch ended. `busy` holds the busy share of each resource, and the runs' own time as `own`.

    `spent`: how many of the failed runs have no try left.
    """

    runs: int
    solved: int
    unsolved: int
    failed: tuple[str, ...]
    stopped: int
    kept: int
    wall_s: float
    busy: Mapping[str, float] = field(default_factory=dict)
    spent: int = 0

    def event(self) -> dict[str, Any]:
        return {"event": "batch_finished", **asdict(self)}


@dataclass(frozen=True, slots=True)
class Executed:
    """A end of each run, and the busy shares (see `Meter.shares`)."""

    ends: tuple[RunEnded, ...] = ()
    busy: Mapping[str, float] = field(default_factory=dict)


Executor = Callable[[Batch, Sequence[RunKey], Sink, StopSignal], Executed]
"""Carries runs to their ends somewhere. Raises UserError and PrerequisiteError, which concern all runs."""


# -- preparing -----------------------------------------------------------------------------------------------


def prepare(spec: BatchSpec, out: Path) -> Batch:
    """Load and choose the problems, check every option, and that no run on disk has other ones.

    Loads no weights, and starts a box only for expected values that are not known yet. Raises UserError for a
    mistake, PrerequisiteError without a model.
    """
    only = spec.batch.only
    marks = read_marks(spec.batch.screening) if only is not None else None
    marked = marks.marked(only) if marks and only is not None else None
    plan = _make_plan(spec, RunKey(0, "", spec.batch.methods[0]))
    with build.Parts(plan, replies=spec.batch.replies) as parts:
        for method in spec.batch.methods:
            _make_plan(spec, RunKey(0, "", method))  # raises for an option that is wrong
        digests: dict[str, str] = {}

        def look_at(problem: Problem) -> None:
            build.problem_for(plan.run, problem)  # raises where the two do not go together
            if marks:
                digests[problem.id] = problem_digest(build.problem_for(_options_of(marks), problem))

        taken = load.load(
            spec.batch.sources, spec.batch, lambda: parts.sandbox, among=marked, on_made=look_at
        )
        keys = tuple(list_runs(spec, taken.problems.ids))
        batch = Batch(spec, out, taken.problems, keys, taken.left_out, taken.broken)
        if marks:
            _check_marks(marks, spec, parts, digests)
        begun = [key for key in keys if (out / key.name / "config.json").exists()]
        for name in taken.problems.ids:
            _check_runs(batch, parts, [key for key in begun if key.problem == name])
    return replace(batch, on_disk=_read_runs(batch))


def _check_runs(batch: Batch, parts: build.Parts, keys: Sequence[RunKey]) -> None:
    """Raises ConfigError where a run on disk, of one problem, has other options."""
    problem = batch.problems.named(keys[0].problem) if keys else None  # held: it is made once for all of them
    for key in keys:
        build.check_run(parts, batch.plan_for(key), batch.problem_for(key), batch.out)
    del problem


def _options_of(marks: Screening) -> RunOptions:
    """What decides how a screening had its problems."""
    return RunOptions.model_validate({"feedback_mode": marks.feedback_mode, "seed": marks.seed})


def _check_marks(marks: Screening, spec: BatchSpec, parts: build.Parts, digests: Mapping[str, str]) -> None:
    """Raises ConfigError for marks of a screening that sampled otherwise, or of problems as they were.

    `digests`: of the problems as the screening had them.
    """
    feedback = None
    if spec.batch.only == TAUGHT:
        feedback = {"feedback": parts.plan.parts["feedback"].model_dump(mode="json")}
    sampled_with = sampling_record(parts.plan, build.sampling_spec(parts.plan), parts.model_identity)
    check_marks(marks, spec.batch.screening, sampled_with, digests, feedback=feedback)


def _make_plan(spec: BatchSpec, key: RunKey) -> Plan:
    return make_plan(spec.options_for(key), places=spec.places_for(key.arm))


def _read_runs(batch: Batch) -> RunsOnDisk:
    """How far the runs have come, by the ends of their journals, and what some of them cost."""
    finished: dict[RunKey, RunEnded] = {}
    begun: list[RunKey] = []
    costed: dict[str, list[Path]] = {arm: [] for arm in batch.spec.batch.methods}
    graders: dict[Path, Mapping[str, Any]] = {}
    for key in batch.keys:
        run_dir = batch.out / key.name
        if not (run_dir / FILE_NAME).exists():
            continue
        end = end_on_disk(batch.out, key, batch.spec.run)
        if end is not None:
            finished[key] = end
        else:
            begun.append(key)
        if len(costed[key.arm]) < _COSTED_RUNS:
            costed[key.arm].append(run_dir)
        grader = (read_config(run_dir) or {}).get("grader")  # early versions did not record it
        if grader is not None and grader not in graders.values() and holds_results(run_dir):
            graders[run_dir] = grader
    return RunsOnDisk(finished, tuple(begun), {arm: cost_of(dirs) for arm, dirs in costed.items()}, graders)


def write_record(batch: Batch) -> None:
    """`batch.json`: the resolved options, the problems and the versions of this command.

    Raises UserError where the directory cannot be written.
    """
    record = {**batch.spec.record(), "problems": sorted(batch.problems.ids), "versions": versions()}
    with file_errors(UserError, f"write {batch.out}", "choose another --out"):
        batch.out.mkdir(parents=True, exist_ok=True)
        (batch.out / RECORD_NAME).write_text(json.dumps(record, indent=2) + "\n")


# -- running -------------------------------------------------------------------------------------------------


def run_batch(batch: Batch, execute: Executor, sink: Sink, stop: StopSignal) -> BatchResult:
    """Carry every run to its end, or on from where it is.

    A failed run is counted and the others go on. Raises UserError and PrerequisiteError, which concern all.
    """
    write_record(batch)
    started_s = time.monotonic()
    methods = list(batch.spec.batch.methods)
    sink({"event": "batch_started", "runs": len(batch.keys), "methods": methods, "out": str(batch.out)})
    kept = tuple(batch.on_disk.finished.values())
    for end in kept:
        sink(end.as_event())
    done = execute(batch, batch.keys_left, sink, stop) if batch.keys_left else Executed()
    ends = (*kept, *done.ends)
    result = BatchResult(
        runs=len(batch.keys),
        solved=sum(end.solved for end in ends),
        unsolved=sum(end.status == "finished" and not end.solved for end in ends),
        failed=tuple(sorted(end.key.name for end in ends if end.status == "failed")),
        stopped=sum(end.status == "stopped" for end in ends),
        kept=sum(end.kept for end in ends),
        wall_s=round(time.monotonic() - started_s, 1),
        busy=done.busy,
        spent=sum(end.is_spent for end in ends),
    )
    sink(result.event())
    return result
