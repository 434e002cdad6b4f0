"""The runs of one process: each opened, carried to its end, and summed up in a record.

Knows how one run ends (finished, stopped, failed) and keeps failures small; how many go at once and on which
machine is for the executors. Builds no part itself: it is given a way to open runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal

from sdpo_solve.batch.locks import Outage, PatientGrader, Stopped, TurnEngine, TurnMethod, Turns
from sdpo_solve.batch.merged_sampling import MergingEngine
from sdpo_solve.batch.spec import RunKey
from sdpo_solve.errors import RunError
from sdpo_solve.run.build import Run
from sdpo_solve.run.events import FILE_NAME, last_event
from sdpo_solve.run.journal import Listener
from sdpo_solve.solve import solve, write_solution
from sdpo_solve.types import Outcome, OutcomeStatus

Sink = Callable[[Mapping[str, Any]], None]
"""Hears every event of every run, with the run's name under `run`. Called from several threads."""


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
class Desk:
    """What a crew works with. `open_run` builds a run or takes it up again, `close_run` frees it."""

    out: Path
    tries: int
    merge: bool
    turns: Turns
    outage: Outage
    open_run: Callable[[RunKey, Sequence[Listener]], Run]
    close_run: Callable[[Run], None]
    sink: Sink


class Crew:
    """Carries runs to their ends. `perform` is safe to call from several threads."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._engines: dict[int, MergingEngine] = {}

    def busy(self) -> dict[str, float]:
        """Busy shares since the crew began (see `Meter.shares`)."""
        return self._desk.turns.meter.shares()

    def perform(self, key: RunKey) -> RunSummary:
        """One run, from nothing or on from its journal. A RunError ends this run only.

        Raises UserError and PrerequisiteError, which concern every run.
        """
        summary = kept_summary(self._desk.out, key) or self._perform(key)
        self._desk.sink(summary.event())
        return summary

    def _perform(self, key: RunKey) -> RunSummary:
        desk = self._desk
        if desk.turns.gate.is_closed:
            return RunSummary(key, "stopped")
        with desk.turns.meter.run():
            try:
                run = desk.open_run(key, [lambda event: desk.sink({**event, "run": key.name})])
            except RunError as exc:  # no journal to write it to
                return RunSummary(key, "failed", error=str(exc))
            try:
                return self._carry(key, run)
            finally:
                desk.close_run(run)

    def _carry(self, key: RunKey, run: Run) -> RunSummary:
        journal, tries = run.journal, self._desk.tries
        n_failures = len(journal.state.failures)
        if n_failures >= tries:
            return replace(_unfinished(key, run, journal.state.failures[-1]), kept=True)
        try:
            shared = self._shared(run)
            with shared.engine.taking_part() if isinstance(shared.engine, MergingEngine) else nullcontext():
                outcome = solve(shared)
            write_solution(run)
        except Stopped:
            return replace(_unfinished(key, run), status="stopped")
        except RunError as exc:
            if self._desk.turns.gate.is_closed:  # boxes were taken away at the end of the batch
                return replace(_unfinished(key, run), status="stopped")
            journal.fail(exc)
            return replace(_unfinished(key, run, str(exc)), may_retry=n_failures + 1 < tries)
        return _finished(key, outcome)

    def _shared(self, run: Run) -> Run:
        """The run with parts that take turns with those of other runs."""
        turns = self._desk.turns
        engine = self._merging(run) if self._desk.merge else TurnEngine(run.engine, turns)
        grader = PatientGrader(run.grader, turns, self._desk.outage)
        return replace(run, engine=engine, grader=grader, method=TurnMethod(run.method, turns))

    def _merging(self, run: Run) -> MergingEngine:
        """One wrapper for each engine, so that the requests of different runs meet in it."""
        return self._engines.setdefault(id(run.engine), MergingEngine(run.engine, self._desk.turns))


def kept_summary(out: Path, key: RunKey) -> RunSummary | None:
    """The summary of a run that ended before; only the end of its journal is read."""
    end = last_event(out / key.name / FILE_NAME)
    if end is None or end["event"] != "run_finished":
        return None
    fields = {name: end[name] for name in Outcome.__dataclass_fields__}
    outcome = Outcome(**{**fields, "status": OutcomeStatus(end["status"])})
    return replace(_finished(key, outcome), kept=True)


def _finished(key: RunKey, outcome: Outcome) -> RunSummary:
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


# -- threads -------------------------------------------------------------------------------------------------


class Threads:
    """The local executor: `n_threads` runs of one crew at a time, failed ones again at the end.

    The threads are daemons: a process that must end at once does not wait for a gradient step.
    """

    def __init__(self, crew: Crew, n_threads: int) -> None:
        self._crew = crew
        self._n_threads = n_threads

    def perform(self, keys: Sequence[RunKey]) -> list[RunSummary]:
        """One summary a key, in the order in which they ended.

        Raises what `Crew.perform` raises, and KeyboardInterrupt, without waiting for the runs under way.
        """
        todo: SimpleQueue[RunKey | None] = SimpleQueue()
        ended: SimpleQueue[RunSummary | BaseException] = SimpleQueue()
        for key in keys:
            todo.put(key)
        for number in range(min(self._n_threads, len(keys))):
            threading.Thread(target=self._work, args=(todo, ended), name=f"run-{number}", daemon=True).start()
        summaries: list[RunSummary] = []
        while len(summaries) < len(keys):
            said = ended.get()
            if isinstance(said, BaseException):
                raise said
            if said.may_retry:
                todo.put(said.key)
            else:
                summaries.append(said)
        for _ in range(self._n_threads):
            todo.put(None)
        return summaries

    def _work(self, todo: SimpleQueue[RunKey | None], ended: SimpleQueue[RunSummary | BaseException]) -> None:
        while (key := todo.get()) is not None:
            try:
                ended.put(self._crew.perform(key))
            except BaseException as exc:  # noqa: BLE001 -- carried to the thread that waits, which raises it
                ended.put(exc)
