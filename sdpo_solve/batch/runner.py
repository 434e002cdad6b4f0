"""The runs of one process: each opened and carried to its end.

Knows how one run ends (finished, stopped, failed) and keeps a failure within its run; how many go at once and
on which machine is for the executors. Builds no part itself: it is given a way to open runs.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from sdpo_solve.batch.event_bus import RunEnded
from sdpo_solve.batch.locks import DeviceLocks, LockedEngine, LockedMethod
from sdpo_solve.batch.merged_sampling import MergedEngine, MergingEngine
from sdpo_solve.batch.outage import Outage, RetryingGrader
from sdpo_solve.batch.spec import RunKey
from sdpo_solve.batch.stop import Stopped
from sdpo_solve.config import RunOptions
from sdpo_solve.errors import JournalError, PrerequisiteError, ProblemError, RunError, UserError
from sdpo_solve.run.build import Run
from sdpo_solve.run.events import FILE_NAME, last_record
from sdpo_solve.run.journal import Listener
from sdpo_solve.run.records import RunFinished
from sdpo_solve.solve import outcome, solution_path, solve, write_solution
from sdpo_solve.types import Outcome, OutcomeStatus

Sink = Callable[[Mapping[str, Any]], None]
"""Receives every event of every run, with the run's name under `run`. Called from several threads."""


@dataclass(frozen=True, slots=True)
class Runner:
    """Carries runs to their ends. `perform` is safe to call from several threads.

    `open_run` builds a run or takes it up again, `close_run` frees it. `tries`: times that a run may fail,
    over all commands. `merging`: samples for all runs in place of their own engines.
    """

    locks: DeviceLocks
    outage: Outage
    open_run: Callable[[RunKey, Sequence[Listener]], Run]
    close_run: Callable[[Run], None]
    sink: Sink
    tries: int = 2
    merging: MergingEngine | None = None

    def perform(self, key: RunKey) -> RunEnded:
        """One run, from nothing or on from its journal. Whatever breaks in it ends this run only.

        Raises UserError and PrerequisiteError, which concern every run.
        """
        if self.locks.stop.is_set:
            end = RunEnded.of(key, "stopped")
        else:
            with self.locks.meter.time("running"):
                end = self._perform(key)
        self.sink(end.as_event())
        return end

    def _perform(self, key: RunKey) -> RunEnded:
        try:
            run = self.open_run(key, [lambda event: self.sink({**event, "run": key.name})])
        except (UserError, PrerequisiteError):
            raise
        except Exception as exc:  # noqa: BLE001 -- one run's fault must not end the others
            # There is no journal that could count it: it is not tried again.
            return RunEnded.of(key, "failed", error=str(self._as_run_error(key, exc)))
        try:
            return self._carry(key, run)
        finally:
            self.close_run(run)

    def _carry(self, key: RunKey, run: Run) -> RunEnded:
        failures = run.journal.state.failures
        n_failures = len(failures)
        if n_failures >= self.tries:
            error_before = failures[-1]
            return RunEnded.of(key, "failed", outcome(run), error=error_before, kept=True, is_spent=True)
        try:
            return RunEnded.of(key, "finished", self._solve(run))
        except Stopped:
            return RunEnded.of(key, "stopped", outcome(run))
        except Exception as exc:
            is_of_problem = isinstance(exc, ProblemError)  # its checker crashed
            if isinstance(exc, UserError | PrerequisiteError) and not is_of_problem:
                raise
            if self.locks.stop.is_set:  # its parts were closed at the end
                return RunEnded.of(key, "stopped", outcome(run))
            error = self._as_run_error(key, exc)
            with suppress(JournalError):  # a full disk does not take this line either
                run.journal.fail(error)
            # What could not be recorded was not counted either: tried again, it would never end.
            may_retry = not is_of_problem and n_failures < len(failures) < self.tries
            counts = {"may_retry": may_retry, "is_spent": len(failures) >= self.tries}
            return RunEnded.of(key, "failed", outcome(run), error=str(error), **counts)

    def _solve(self, run: Run) -> Outcome:
        """The loop, with parts that share locks with those of the other runs."""
        clock, merging = run.journal.clock, self.merging
        shared = replace(
            run,
            engine=MergedEngine(merging, clock) if merging else LockedEngine(run.engine, self.locks, clock),
            grader=RetryingGrader(run.grader, self.outage, self.locks.meter, clock),
            method=LockedMethod(run.method, self.locks, clock),
        )
        with merging.taking_part() if merging else nullcontext():
            result = solve(shared)
        write_solution(run)
        return result

    def _as_run_error(self, key: RunKey, exc: Exception) -> RunError:
        """The error itself, or, for a fault that no part has foreseen, one that names it; see `batch.log`."""
        if isinstance(exc, RunError):
            return exc
        if isinstance(exc, ProblemError):
            return RunError(str(exc))
        text = "".join(traceback.format_exception(exc))
        self.sink({"event": "fault", "run": key.name, "traceback": text})
        return RunError(f"{type(exc).__name__}: {exc} (batch.log holds the traceback)")


def end_on_disk(out: Path, key: RunKey, options: RunOptions) -> RunEnded | None:
    """The end of a run that ended before; only the end of its journal is read.

    None where it goes on: it broke off, the budget of `options` is larger than the one that it spent, or its
    solution could not be written.
    """
    run_dir = out / key.name
    end = last_record(run_dir / FILE_NAME)
    if not isinstance(end, RunFinished):
        return None
    solved = end.status is OutcomeStatus.SOLVED
    if solved and not solution_path(run_dir, options.language).exists():
        return None
    if not (
        (solved and not options.keep_going) or options.budget.is_spent(end.attempts, end.tokens, end.wall_s)
    ):
        return None
    return RunEnded.of(key, "finished", end, kept=True)


def perform_all(
    perform: Callable[[RunKey], RunEnded], keys: Sequence[RunKey], n_threads: int
) -> list[RunEnded]:
    """One end a key, `n_threads` runs at a time, failed ones again at the end.

    The threads are daemons: a process that must end at once does not wait for a gradient step. Raises what
    `perform` raises, and KeyboardInterrupt, without waiting for the runs under way.
    """
    todo: SimpleQueue[RunKey | None] = SimpleQueue()
    ended: SimpleQueue[RunEnded | BaseException] = SimpleQueue()

    def work() -> None:
        while (key := todo.get()) is not None:
            try:
                ended.put(perform(key))
            except BaseException as exc:  # noqa: BLE001 -- carried to the thread that waits, which raises it
                ended.put(exc)

    for key in keys:
        todo.put(key)
    for number in range(min(n_threads, len(keys))):
        threading.Thread(target=work, name=f"run-{number}", daemon=True).start()
    ends: list[RunEnded] = []
    while len(ends) < len(keys):
        result = ended.get()
        if isinstance(result, BaseException):
            raise result
        if result.may_retry:
            todo.put(result.key)
        else:
            ends.append(result)
    for _ in range(n_threads):
        todo.put(None)
    return ends
