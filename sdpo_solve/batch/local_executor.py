"""The local executor: threads over one base model, one engine and one sandbox of this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from sdpo_solve import engines
from sdpo_solve.batch.batch import Batch, Executed
from sdpo_solve.batch.locks import DeviceLocks, use_threads
from sdpo_solve.batch.merged_sampling import MergingEngine
from sdpo_solve.batch.outage import Outage, RetryingEngine, probe
from sdpo_solve.batch.runner import Runner, Sink, perform_all
from sdpo_solve.batch.spec import RunKey
from sdpo_solve.batch.stop import StopSignal
from sdpo_solve.run.build import Parts, Run, new_run
from sdpo_solve.run.clock import Clock
from sdpo_solve.run.identity import check_grader
from sdpo_solve.run.journal import Listener


@dataclass(frozen=True, slots=True)
class LocalExecutor:
    """Runs batches in threads of this process over `parts`, which serve every call."""

    parts: Parts

    def __call__(self, batch: Batch, keys: Sequence[RunKey], sink: Sink, stop: StopSignal) -> Executed:
        runner = self.make_runner(batch, sink, stop)
        try:
            ends = perform_all(runner.perform, keys, batch.spec.batch.in_flight)
        except BaseException:
            stop.set()  # the parts are closed now: what that raises in other threads is no run's failure
            raise
        return Executed(tuple(ends), runner.locks.meter.shares())

    def make_runner(self, batch: Batch, sink: Sink, stop: StopSignal) -> Runner:
        """A runner for the runs of `batch`, its shared parts made.

        Raises PrerequisiteError where sandbox or weights are missing.
        """
        parts, options = self.parts, batch.spec.batch
        parts.warm_up()
        for run_dir, grader in batch.on_disk.graders.items():
            check_grader(run_dir, grader, parts.sandbox.record())
        engine = engines.REGISTRY.load(batch.spec.run.engine)
        locks = DeviceLocks.make(shared_weights=engine.shares_weights, stop=stop)

        def open_run(key: RunKey, listeners: Sequence[Listener]) -> Run:
            use_threads(batch.spec.run.threads)
            run = new_run(parts, batch.plan_for(key), batch.problem_for(key), batch.out, listeners)
            return replace(run, engine=RetryingEngine.of(run.engine, engine_outage, run.journal.clock))

        def close_run(run: Run) -> None:
            with locks.learning():  # an adapter leaves the model
                run.close()

        def notify(text: str) -> None:
            sink({"event": "notice", "text": text})

        engine_outage = Outage("engine", stop, parts.engine.probe, notify)
        calls = Clock()
        shared_engine = RetryingEngine.of(parts.engine, engine_outage, calls)
        return Runner(
            locks,
            Outage("sandbox", stop, lambda: probe(parts.sandbox), notify),
            open_run,
            close_run,
            sink,
            options.tries,
            MergingEngine(shared_engine, locks, calls) if options.merge else None,
        )


@contextmanager
def local_executor(batch: Batch) -> Iterator[LocalExecutor]:
    """An executor for `batch`; at the end every box is removed and the weights are freed."""
    with batch.new_parts() as parts:
        yield LocalExecutor(parts)
