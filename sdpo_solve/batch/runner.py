"""The runs of one process: each opened, carried to its end, and summed up in a record.

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
from typing import Any, Literal

from sdpo_solve.batch.locks import DeviceLocks, LockedEngine, LockedMethod
from sdpo_solve.batch.merged_sampling import MergingEngine
from sdpo_solve.batch.sandbox_outage import RetryingGrader, SandboxOutage
from sdpo_solve.batch.spec import RunKey
from sdpo_solve.batch.stop import Stopped
from sdpo_solve.config import RunOptions
from sdpo_solve.errors import JournalError, PrerequisiteError, RunError, UserError
from sdpo_solve.run.build import Run
from sdpo_solve.run.events import FILE_NAME, last_record
from sdpo_solve.run.journal import Listener
from sdpo_solve.run.records import RunFinished
from sdpo_solve.solve import solve, write_solution
from sdpo_solve.types import Outcome, OutcomeStatus

Sink = Callable[[Mapping[str, Any]], None]
"""Receives every event of every run, with the run's name under `run`. Called from several threads."""


@dataclass(frozen=True, slots=True)
class RunSummary:
    """How one run stands. `kept`: it had ended before this batch came to it."""

    key: RunKey
    status: Literal["finished", "failed", "stopped"]
    kept: bool = False
    solved: bool = False
    discovery_time: int | None = None
    confirmed: bool | None = None
    attempts: int = 0
    tokens: int = 0
    wall_s: float = 0.0
    error: str | None = None
    may_retry: bool = False
    """It failed, and its tries are not used up."""

    def event(self) -> dict[str, Any]:
        """The summary as an event of the batch."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "key"}
        key = {"problem": self.key.problem, "arm": self.key.arm, "seed": self.key.seed}
        return {"event": "run_ended", "run": self.key.name, **key, **fields}


@dataclass(frozen=True, slots=True)
class Runner:
    """Carries runs to their ends. `perform` is safe to call from several threads.

    `open_run` builds a run or takes it up again, `close_run` frees it. `tries`: times that a run may fail,
    over all commands. `merging`: samples for all runs in place of their own engines.
    """

    locks: DeviceLocks
    outage: SandboxOutage
    open_run: Callable[[RunKey, Sequence[Listener]], Run]
    close_run: Callable[[Run], None]
    sink: Sink
    tries: int = 2
    merging: MergingEngine | None = None

    def perform(self, key: RunKey) -> RunSummary:
        """One run, from nothing or on from its journal. Whatever breaks in it ends this run only.

        Raises UserError and PrerequisiteError, which concern every run.
        """
        if self.locks.stop.is_set:
            summary = RunSummary(key, "stopped")
        else:
            with self.locks.meter.time("running"):
                summary = self._perform(key)
        self.sink(summary.event())
        return summary

    def _perform(self, key: RunKey) -> RunSummary:
        try:
            run = self.open_run(key, [lambda event: self.sink({**event, "run": key.name})])
        except (UserError, PrerequisiteError):
            raise
        except Exception as exc:  # noqa: BLE001 -- one run's fault must not end the others
            return RunSummary(key, "failed", error=str(self._as_run_error(key, exc)))  # there is no journal
        try:
            return self._carry(key, run)
        finally:
            self.close_run(run)

    def _carry(self, key: RunKey, run: Run) -> RunSummary:
        failures = run.journal.state.failures
        n_failures = len(failures)
        if n_failures >= self.tries:
            return replace(_unfinished(key, run, failures[-1]), kept=True)
        try:
            outcome = self._solve(run)
        except Stopped:
            return replace(_unfinished(key, run), status="stopped")
        except (UserError, PrerequisiteError):
            raise
        except Exception as exc:  # noqa: BLE001 -- one run's fault must not end the others
            if self.locks.stop.is_set and isinstance(exc, RunError):
                return replace(_unfinished(key, run), status="stopped")  # its boxes were removed at the end
            error = self._as_run_error(key, exc)
            with suppress(JournalError):  # a full disk does not take this line either
                run.journal.fail(error)
            return replace(_unfinished(key, run, str(error)), may_retry=n_failures + 1 < self.tries)
        return finished_summary(key, outcome)

    def _solve(self, run: Run) -> Outcome:
        """The loop, with parts that share locks with those of the other runs."""
        shared = replace(
            run,
            engine=self.merging or LockedEngine(run.engine, self.locks),
            grader=RetryingGrader(run.grader, self.outage, self.locks.meter),
            method=LockedMethod(run.method, self.locks),
        )
        with self.merging.taking_part() if self.merging else nullcontext():
            outcome = solve(shared)
        write_solution(run)
        return outcome

    def _as_run_error(self, key: RunKey, exc: Exception) -> RunError:
        """The error itself, or, for a fault that no part has foreseen, one that names it; see `batch.log`."""
        if isinstance(exc, RunError):
            return exc
        text = "".join(traceback.format_exception(exc))
        self.sink({"event": "fault", "run": key.name, "traceback": text})
        return RunError(f"{type(exc).__name__}: {exc} (batch.log holds the traceback)")


def kept_summary(out: Path, key: RunKey, options: RunOptions) -> RunSummary | None:
    """The summary of a run that ended before; only the end of its journal is read.

    None where it goes on: it broke off, or the budget of `options` is larger than the one that it spent.
    """
    end = last_record(out / key.name / FILE_NAME)
    if not isinstance(end, RunFinished):
        return None
    solved = end.status is OutcomeStatus.SOLVED and not options.keep_going
    if not (solved or options.budget.is_spent(end.attempts, end.tokens, end.wall_s)):
        return None
    outcome = Outcome(**{name: getattr(end, name) for name in Outcome.__dataclass_fields__})
    return replace(finished_summary(key, outcome), kept=True)


def finished_summary(key: RunKey, outcome: Outcome) -> RunSummary:
    """The summary of a run that has come to its end."""
    return RunSummary(
        key,
        "finished",
        solved=outcome.status is OutcomeStatus.SOLVED,
        discovery_time=outcome.discovery_time,
        confirmed=outcome.confirmed,
        attempts=outcome.attempts,
        tokens=outcome.tokens,
        wall_s=outcome.wall_s,
    )


def _unfinished(key: RunKey, run: Run, error: str | None = None) -> RunSummary:
    history = run.journal.history
    tokens = sum(len(attempt.sample.token_ids_T) for attempt in history)
    wall_s = round(run.journal.elapsed_s, 3)
    return RunSummary(key, "failed", attempts=len(history), tokens=tokens, wall_s=wall_s, error=error)


def perform_all(
    perform: Callable[[RunKey], RunSummary], keys: Sequence[RunKey], n_threads: int
) -> list[RunSummary]:
    """One summary a key, `n_threads` runs at a time, failed ones again at the end.

    The threads are daemons: a process that must end at once does not wait for a gradient step. Raises what
    `perform` raises, and KeyboardInterrupt, without waiting for the runs under way.
    """
    todo: SimpleQueue[RunKey | None] = SimpleQueue()
    ended: SimpleQueue[RunSummary | BaseException] = SimpleQueue()

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
    summaries: list[RunSummary] = []
    while len(summaries) < len(keys):
        result = ended.get()
        if isinstance(result, BaseException):
            raise result
        if result.may_retry:
            todo.put(result.key)
        else:
            summaries.append(result)
    for _ in range(n_threads):
        todo.put(None)
    return summaries
