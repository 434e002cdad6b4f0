"""A batch: problems x methods x seeds, from options to the last run, on one machine.

Plans, measures, runs, and sums up. One process holds one base model, one engine and one sandbox for all runs;
the threads and how they take turns are in `crew.py` and `sharing.py`, other machines in `cluster.py`.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from sdpo_solve.batch.cost import Cost, Estimate, cost_of, estimate
from sdpo_solve.batch.difficulty import TAUGHT
from sdpo_solve.batch.locks import Gate, Outage, Turns, probe, use_threads
from sdpo_solve.batch.runner import Crew, Desk, RunSummary, Sink, Threads
from sdpo_solve.batch.screening_file import Screening, check_marks, read_marks
from sdpo_solve.batch.spec import BatchSpec, RunKey, list_runs
from sdpo_solve.datasets import load
from sdpo_solve.errors import UserError
from sdpo_solve.grading import judge
from sdpo_solve.run import build
from sdpo_solve.run.build import Run
from sdpo_solve.run.events import FILE_NAME, last_event
from sdpo_solve.run.identity import problem_digest, read_config, versions
from sdpo_solve.run.journal import Listener
from sdpo_solve.types import Problem

RECORD_NAME = "batch.json"
# Engines that sample from the learner's own weights, so that both take the same turn.
_SHARED_WEIGHTS = ("hf", "scripted")
# How much is measured where nothing is known yet: attempts of a group, two groups a method.
_MEASURED_GROUP = 4
# Runs on disk that a measurement reads, by method.
_MEASURED_RUNS = 20


@dataclass(frozen=True, slots=True)
class Batch:
    """What will be run: the options, the problems chosen, the runs, and where they go."""

    spec: BatchSpec
    out: Path
    problems: Mapping[str, Problem]
    keys: tuple[RunKey, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Problems known to be bad that the filters would have taken: id -> why."""
    graders: Mapping[Path, Mapping[str, Any]] = field(default_factory=dict)
    """What graded the runs on disk, where some are left to run: the directory of one -> its grader."""

    @property
    def plan(self) -> build.Plan:
        """The plan of the first run; the shared parts are those of every run."""
        return self.plan_for(self.keys[0])

    def plan_for(self, key: RunKey) -> build.Plan:
        return _make_plan(self.spec, key)


@dataclass(frozen=True, slots=True)
class Standing:
    """The runs that are finished, and those that were begun and are not."""

    finished: tuple[RunKey, ...]
    begun: tuple[RunKey, ...]


@dataclass(frozen=True, slots=True)
class BatchResult:
    """How a batch ended. `busy` holds the busy share of each resource, and the runs' own time as `own`."""

    runs: int
    solved: int
    unsolved: int
    failed: tuple[str, ...]
    stopped: int
    kept: int
    wall_s: float
    busy: Mapping[str, float] = field(default_factory=dict)

    def event(self) -> dict[str, Any]:
        return {"event": "batch_finished", **asdict(self)}


@dataclass(frozen=True, slots=True)
class Executed:
    """A summary of each run, and the busy shares (see `Meter.shares`)."""

    summaries: tuple[RunSummary, ...]
    busy: Mapping[str, float]


Executor = Callable[[Batch, Sequence[RunKey], Sink, Gate], Executed]
"""Carries runs to their ends somewhere."""


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
    with build.Workshop(plan, replies=spec.batch.replies) as workshop:
        for method in spec.batch.methods:
            _make_plan(spec, RunKey(0, "", method))  # raises for an option that is wrong
        taken = load.load(spec.batch.sources, spec.batch, workshop.sandbox, among=marked)
        problems = {problem.id: problem for problem in taken.problems}
        batch = Batch(spec, out, problems, tuple(list_runs(spec, taken.problems)), taken.left_out)
        for problem in problems.values():
            judge.check_language(problem, spec.run.language)
        if marks:
            digests = _screened_digests(marks, taken.problems)
            told_with = (
                {"feedback": plan.parts["feedback"].model_dump(mode="json")} if only == TAUGHT else None
            )
            sampled_with = workshop.sampled_with()
            check_marks(marks, spec.batch.screening, sampled_with, digests, told_with=told_with)
        for key in batch.keys:
            if (out / key.name / "config.json").exists():
                workshop.sibling(batch.plan_for(key)).check(batch.problems[key.problem], out)
    return replace(batch, graders=_graders(batch))


def _screened_digests(marks: Screening, problems: Sequence[Problem]) -> dict[str, str]:
    """The digest of each problem as that screening would have had it."""
    mode, seed = marks.config.get("feedback_mode", "public"), marks.config.get("seed", 0)
    return {problem.id: problem_digest(judge.with_feedback_mode(problem, mode, seed)) for problem in problems}


def _make_plan(spec: BatchSpec, key: RunKey) -> build.Plan:
    return build.make_plan(spec.options_for(key), places=spec.places_for(key.arm))


def _graders(batch: Batch) -> dict[Path, Mapping[str, Any]]:
    """See `Batch.graders`; runs of before graders were recorded say nothing."""
    found: dict[Path, Mapping[str, Any]] = {}
    done = standing(batch)
    if len(done.finished) == len(batch.keys):
        return found
    for key in (*done.finished, *done.begun):
        run_dir = batch.out / key.name
        grader = (read_config(run_dir) or {}).get("grader")
        if grader is not None and grader not in found.values():
            found[run_dir] = grader
    return found


def write_record(batch: Batch) -> None:
    """`batch.json`: the resolved options, the problems and the versions of this command.

    Raises UserError where the directory cannot be written.
    """
    record = {**batch.spec.record(), "problems": sorted(batch.problems), "versions": versions()}
    try:
        batch.out.mkdir(parents=True, exist_ok=True)
        (batch.out / RECORD_NAME).write_text(json.dumps(record, indent=2) + "\n")
    except OSError as exc:
        raise UserError(f"cannot write {batch.out}: {exc.strerror or exc}; choose another --out") from None


# -- running -------------------------------------------------------------------------------------------------


def run_batch(batch: Batch, execute: Executor, sink: Sink, gate: Gate) -> BatchResult:
    """Carry every run to its end, or on from where it is.

    A failed run is counted and the others go on. Raises UserError and PrerequisiteError, which concern all.
    """
    write_record(batch)
    started_s = time.monotonic()
    methods = list(batch.spec.batch.methods)
    sink({"event": "batch_started", "runs": len(batch.keys), "methods": methods, "out": str(batch.out)})
    done = execute(batch, batch.keys, sink, gate)
    summaries = done.summaries
    result = BatchResult(
        runs=len(batch.keys),
        solved=sum(summary.solved for summary in summaries),
        unsolved=sum(summary.status == "finished" and not summary.solved for summary in summaries),
        failed=tuple(sorted(summary.key.name for summary in summaries if summary.status == "failed")),
        stopped=sum(summary.status == "stopped" for summary in summaries),
        kept=sum(summary.kept for summary in summaries),
        wall_s=round(time.monotonic() - started_s, 1),
        busy=done.busy,
    )
    sink(result.event())
    return result


class LocalExecutor:
    """The local executor: threads over one workshop, which serves measurement and batch alike.

    A context manager; leaving it removes every box and frees the weights.
    """

    def __init__(self, batch: Batch) -> None:
        self._workshop = build.Workshop(batch.plan, replies=batch.spec.batch.replies)

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._workshop.__exit__(kind, exc, trace)

    def __call__(self, batch: Batch, keys: Sequence[RunKey], sink: Sink, gate: Gate) -> Executed:
        crew = self.crew(batch, sink, gate)
        summaries = Threads(crew, batch.spec.batch.in_flight).perform(keys)
        return Executed(tuple(summaries), crew.busy())

    def crew(self, batch: Batch, sink: Sink, gate: Gate) -> Crew:
        """A crew for the runs of `batch`, its parts made.

        Raises PrerequisiteError where sandbox or weights are missing.
        """
        workshop, options = self._workshop, batch.spec.batch
        workshop.warm_up()
        workshop.check_graders(batch.graders)
        turns = Turns.make(shared_weights=batch.spec.run.engine in _SHARED_WEIGHTS, gate=gate)

        def open_run(key: RunKey, listeners: Sequence[Listener]) -> Run:
            use_threads(batch.spec.run.threads)
            bench = workshop.sibling(batch.plan_for(key))
            return bench.new_run(batch.problems[key.problem], batch.out, listeners)

        def close_run(run: Run) -> None:
            with turns.use(turns.weights, "learning"):  # an adapter leaves the model
                workshop.close_run(run)

        def tell(text: str) -> None:
            sink({"event": "notice", "text": text})

        outage = Outage(gate, lambda: probe(workshop.sandbox()), tell)
        return Crew(Desk(batch.out, options.tries, options.merge, turns, outage, open_run, close_run, sink))


# -- what it may cost ----------------------------------------------------------------------------------------


def standing(batch: Batch) -> Standing:
    """How the runs stand on disk; the ends of their journals are read, nothing else."""
    finished: list[RunKey] = []
    begun: list[RunKey] = []
    for key in batch.keys:
        end = last_event(batch.out / key.name / FILE_NAME)
        if end is not None:
            (finished if end["event"] == "run_finished" else begun).append(key)
    return Standing(tuple(finished), tuple(begun))


def measure(batch: Batch, execute: Executor, gate: Gate) -> dict[str, Cost]:
    """What each method costs here: from its runs on disk, else from a short run on the first problem.

    The short runs lie in a temporary directory and leave nothing behind. A method that fails costs nothing.
    """
    costs = _costs_on_disk(batch)
    missing = [arm for arm, cost in costs.items() if not cost.attempts]
    if not missing:
        return costs
    # Beside the results: Ray's workers must see it too.
    place = next(path for path in batch.out.absolute().parents if path.exists())
    with tempfile.TemporaryDirectory(prefix=".sdpo-solve-measure-", dir=place) as folder:
        short = _short(batch, Path(folder))
        keys = [RunKey(0, next(iter(batch.problems)), method) for method in missing]
        execute(short, keys, lambda event: None, gate)
        return costs | {key.arm: cost_of([short.out / key.name]) for key in keys}


def unmeasured(batch: Batch) -> bool:
    """Whether `measure` has to run something."""
    return not all(cost.attempts for cost in _costs_on_disk(batch).values())


def _costs_on_disk(batch: Batch) -> dict[str, Cost]:
    """What each arm cost in the runs that are there."""
    done = standing(batch)
    dirs: dict[str, list[Path]] = {arm: [] for arm in batch.spec.batch.methods}
    for key in (*done.finished, *done.begun):
        if len(dirs[key.arm]) < _MEASURED_RUNS:
            dirs[key.arm].append(batch.out / key.name)
    return {arm: cost_of(found) for arm, found in dirs.items()}


def _short(batch: Batch, out: Path) -> Batch:
    """The batch with runs of two small groups."""
    group_size = min(batch.spec.run.group_size or _MEASURED_GROUP, _MEASURED_GROUP)
    grouped = batch.spec.samples_groups()
    settings = {
        part: {key: value for key, value in values.items() if key != "group_size"}
        for part, values in batch.spec.run.settings.items()
    }
    short = {
        "attempts": 2 * group_size,
        "group_size": group_size if grouped else None,
        "keep_going": True,
        "tokens": None,
        "wall_seconds": None,
        "settings": settings,
    }
    return replace(batch, spec=replace(batch.spec, run=batch.spec.run.model_copy(update=short)), out=out)


def left_to_spend(batch: Batch, costs: Mapping[str, Cost]) -> Estimate | None:
    """The most that the runs which are not finished may still cost."""
    finished = set(standing(batch).finished)
    return estimate([key for key in batch.keys if key not in finished], costs, batch.spec.run)


@dataclass(frozen=True, slots=True)
class Bound:
    """What runs may spend by their options alone, without any measurement."""

    attempts: int
    tokens: int


def most_to_spend(batch: Batch) -> Bound:
    """The bound of the runs that are not finished."""
    workshop, options = build.Workshop(batch.plan, replies=batch.spec.batch.replies), batch.spec.run
    n_runs = len(batch.keys) - len(standing(batch).finished)
    run_tokens = options.attempts * workshop.sampling_spec().max_tokens
    if options.tokens is not None:
        run_tokens = min(run_tokens, options.tokens)
    return Bound(n_runs * options.attempts, n_runs * run_tokens)
