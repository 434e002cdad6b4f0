"""The local executor: threads over one base model, one engine and one sandbox of this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sdpo_solve.batch.batch import Batch, Executed
from sdpo_solve.batch.locks import DeviceLocks, use_threads
from sdpo_solve.batch.merged_sampling import MergingEngine
from sdpo_solve.batch.runner import Runner, Sink, perform_all
from sdpo_solve.batch.sandbox_outage import SandboxOutage, probe
from sdpo_solve.batch.spec import RunKey
from sdpo_solve.batch.stop import StopSignal
from sdpo_solve.run.build import Run, Workshop
from sdpo_solve.run.journal import Listener

# Engines that sample from the learner's own weights, so that both need the same lock.
_SHARED_WEIGHTS = ("hf", "scripted")


@dataclass(frozen=True, slots=True)
class LocalExecutor:
    """Runs batches in threads of this process over the parts of `workshop`, which serve every call."""

    workshop: Workshop

    def __call__(self, batch: Batch, keys: Sequence[RunKey], sink: Sink, stop: StopSignal) -> Executed:
        runner = self.make_runner(batch, sink, stop)
        summaries = perform_all(runner.perform, keys, batch.spec.batch.in_flight)
        return Executed(tuple(summaries), runner.locks.meter.shares())

    def make_runner(self, batch: Batch, sink: Sink, stop: StopSignal) -> Runner:
        """A runner for the runs of `batch`, its shared parts made.

        Raises PrerequisiteError where sandbox or weights are missing.
        """
        workshop, options = self.workshop, batch.spec.batch
        workshop.warm_up()
        workshop.check_graders(batch.on_disk.graders)
        locks = DeviceLocks.make(shared_weights=batch.spec.run.engine in _SHARED_WEIGHTS, stop=stop)

        def open_run(key: RunKey, listeners: Sequence[Listener]) -> Run:
            use_threads(batch.spec.run.threads)
            return workshop.sibling(batch.plan_for(key)).new_run(
                batch.problems[key.problem], batch.out, listeners
            )

        def close_run(run: Run) -> None:
            with locks.learning():  # an adapter leaves the model
                workshop.close_run(run)

        def notify(text: str) -> None:
            sink({"event": "notice", "text": text})

        return Runner(
            locks,
            SandboxOutage(stop, lambda: probe(workshop.sandbox()), notify),
            open_run,
            close_run,
            sink,
            options.tries,
            MergingEngine(workshop.engine(0), locks) if options.merge else None,
        )


@contextmanager
def local_executor(batch: Batch) -> Iterator[LocalExecutor]:
    """An executor for `batch`; at the end every box is removed and the weights are freed."""
    with batch.workshop() as workshop:
        yield LocalExecutor(workshop)
