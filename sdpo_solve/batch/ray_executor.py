"""The runs of a batch on a Ray cluster: one actor an accelerator, each with engine and learner of its own.

The driver hands out runs, passes on the workers' events and takes back ends; where a worker is lost its
runs go on from their journals on another. Results lie on a path that driver and workers share. Placement,
start-up and health of machines are left to Ray (SLURM and Kubernetes through its own tools); there is no
scheduler here beyond the list of runs.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from statistics import mean
from typing import Any

from sdpo_solve.batch.batch import Batch, Executed
from sdpo_solve.batch.event_bus import RunEnded
from sdpo_solve.batch.local_executor import LocalExecutor
from sdpo_solve.batch.runner import Runner, Sink
from sdpo_solve.batch.spec import RunKey
from sdpo_solve.batch.stop import StopSignal
from sdpo_solve.errors import ConfigError, PrerequisiteError, RunError
from sdpo_solve.types import Problem

# Texts and tokens stay in the journals; the driver passes on what its display, log and trackers show.
_FORWARDED = (
    *("run_started", "run_resumed", "sampling", "grading", "learning", "group", "update", "run_failed"),
    *("notice", "fault", "run_ended"),
)
_POLL_S = 0.5
_CLOSE_S = 60.0
# For one that is not ready: it may have no place, and then never answers.
_LEAVE_S = 5.0


class Worker:
    """What an actor does: the runs of one process. Its methods run in several threads."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._parts = batch.new_parts()
        self._stop = StopSignal()
        self._events: SimpleQueue[Mapping[str, Any]] = SimpleQueue()
        self._runner: Runner | None = None

    def prepare(self) -> None:
        """Start sandbox and engine. Not done where the actor is made: an error there would only say it died.

        Raises PrerequisiteError where something is missing on this machine.
        """
        self._runner = LocalExecutor(self._parts).make_runner(self._batch, self._keep, self._stop)

    def perform(self, key: RunKey, problem: Problem) -> RunEnded:
        """See `Runner.perform`. `problem`: of the run; its file need not be on this machine."""
        assert self._runner is not None
        self._batch.problems.lend(problem)
        return self._runner.perform(key)

    def events(self) -> list[Mapping[str, Any]]:
        """What happened since the last call."""
        events = []
        with suppress(Empty):
            while True:
                events.append(self._events.get_nowait())
        return events

    def stop(self) -> None:
        """End after the groups under way."""
        self._stop.set()

    def close(self) -> dict[str, float]:
        """Remove boxes and weights; returns the busy shares."""
        busy = self._runner.locks.meter.shares() if self._runner else {}
        self._parts.__exit__(None, None, None)
        return busy

    def _keep(self, event: Mapping[str, Any]) -> None:
        if event["event"] in _FORWARDED:
            self._events.put(dict(event))


@dataclass(frozen=True, slots=True)
class RayExecutor:
    """Runs a batch on `n_workers` actors (None: one an accelerator, else one). An `Executor`.

    Raises PrerequisiteError without Ray or its cluster, ConfigError for more workers than accelerators.
    """

    n_workers: int | None
    address: str | None

    def __call__(self, batch: Batch, keys: Sequence[RunKey], sink: Sink, stop: StopSignal) -> Executed:
        ray = load_ray()
        started = not ray.is_initialized()
        if started:
            _connect(ray, self.address)
        try:
            shared = replace(batch, out=batch.out.absolute())
            n_workers = _count_workers(ray, self.n_workers)
            return _Driver(ray, _actor_class(ray, shared, n_workers), shared, sink, stop).run(keys, n_workers)
        finally:
            if started:
                ray.shutdown()


@dataclass(slots=True)
class _Driver:
    """Which worker has which run."""

    ray: Any
    actor_class: Any
    batch: Batch
    sink: Sink
    stop: StopSignal
    waiting: deque[RunKey] = field(default_factory=deque)
    workers: list[Any] = field(default_factory=list)
    """Those that are ready."""
    starting: dict[Any, Any] = field(default_factory=dict)
    """Calls of `Worker.prepare` that have not returned yet, with their workers."""
    under_way: dict[Any, tuple[Any, RunKey]] = field(default_factory=dict)
    """Calls of `Worker.perform` that have not returned yet, with worker and run."""
    polls: dict[Any, Any] = field(default_factory=dict)
    """Calls of `Worker.events` that have not returned yet, with their workers."""
    ends: list[RunEnded] = field(default_factory=list)
    losses: Counter[RunKey] = field(default_factory=Counter)
    n_unborn: int = 0
    """Workers that died before they were ready."""

    def run(self, keys: Sequence[RunKey], n_workers: int) -> Executed:
        self.waiting.extend(keys)
        try:
            self._start(min(n_workers, len(keys)))
            while self.waiting or self.under_way:
                if self.stop.is_set:
                    self._end_soon()
                self._admit()
                self._assign()
                done, _ = self.ray.wait(list(self.under_way), timeout=_POLL_S) if self.under_way else ([], [])
                self._poll()
                for ref in done:
                    self._take_back(ref)
            return Executed(tuple(self.ends), _mean(self._close()))
        finally:
            for worker in (*self.workers, *self.starting.values()):
                self.ray.kill(worker)

    def _start(self, n_workers: int) -> None:
        """More workers. Ray may have no place for one yet: each joins when it is ready."""
        for _ in range(n_workers):
            worker = self.actor_class.remote(self.batch)
            self.starting[worker.prepare.remote()] = worker

    def _admit(self) -> None:
        """Take in the workers that are ready; where none is at work, wait a moment for them.

        Raises what a worker raises that lacks something, and PrerequisiteError where the last one died.
        """
        if not self.starting:
            return
        within_s = 0 if self.workers else _POLL_S
        ready, _ = self.ray.wait(list(self.starting), num_returns=len(self.starting), timeout=within_s)
        for ref in ready:
            worker = self.starting.pop(ref)
            try:
                self.ray.get(ref)
                self.workers.append(worker)
            except self.ray.exceptions.RayTaskError as exc:
                raise exc.cause from None
            except self.ray.exceptions.RayActorError as exc:
                if not self.workers and not self.starting:
                    raise PrerequisiteError(f"a worker died as it started: {_cause(exc)}") from None
                self._notice(f"a worker is lost as it started, the others go on: {_cause(exc)}")
                self.ray.kill(worker)
                self.n_unborn += 1
                # Ray may have placed it on a machine that was just lost; or the next dies of the same.
                if self.workers and self.n_unborn <= self.batch.spec.batch.tries:
                    self._start(1)

    def _assign(self) -> None:
        """Give waiting runs to the workers that have room, to the least busy first."""
        while self.waiting and self.workers:
            load = Counter(id(worker) for worker, _ in self.under_way.values())
            worker = min(self.workers, key=lambda one: load[id(one)])
            if load[id(worker)] >= self.batch.spec.batch.in_flight:
                return
            key = self.waiting.popleft()
            try:
                problem = self.batch.problems.named(key.problem)
            except RunError as exc:
                self._end(RunEnded.of(key, "failed", error=str(exc)))
                continue
            self.under_way[worker.perform.remote(key, problem)] = (worker, key)

    def _poll(self) -> None:
        """Pass on what the workers report while they work."""
        for worker in self.workers:
            if worker not in self.polls.values():
                self.polls[worker.events.remote()] = worker
        if not self.polls:
            return
        ready, _ = self.ray.wait(list(self.polls), num_returns=len(self.polls), timeout=_POLL_S)
        for ref in ready:
            del self.polls[ref]
            # A lost worker is found, and replaced, where its run is taken back.
            with suppress(self.ray.exceptions.RayActorError):
                self._pass_on(self.ray.get(ref))

    def _pass_on(self, events: Sequence[Mapping[str, Any]]) -> None:
        for event in events:
            self.sink(event)

    def _take_back(self, ref: Any) -> None:
        if ref not in self.under_way:
            return  # its worker was lost together with another run
        worker, key = self.under_way[ref]
        try:
            end: RunEnded = self.ray.get(ref)
            self._pass_on(self.ray.get(worker.events.remote()))  # a run's events come before it counts
        except self.ray.exceptions.RayActorError as exc:
            self._replace(worker, exc)
            return
        except self.ray.exceptions.RayTaskError as exc:
            raise exc.cause from None  # a UserError or a PrerequisiteError: it concerns every run
        del self.under_way[ref]
        if end.may_retry:
            self.waiting.append(key)
        else:
            self.ends.append(end)

    def _replace(self, lost: Any, exc: Exception) -> None:
        """Start a worker in place of one that is lost; the runs of that one wait again."""
        self.workers = [worker for worker in self.workers if worker is not lost]
        where = "elsewhere" if self.workers else "once Ray has a place for another"
        self._notice(f"a worker is lost, its runs go on {where}: {_cause(exc)}")
        self.ray.kill(lost)  # one that only cannot be reached would keep its accelerator, and its runs
        for ref, (worker, key) in list(self.under_way.items()):
            if worker is lost:
                del self.under_way[ref]
                self.losses[key] += 1
                if self.losses[key] <= self.batch.spec.batch.tries:
                    self.waiting.appendleft(key)
                else:
                    error = f"its worker was lost {self.losses[key]} times"
                    self._end(RunEnded.of(key, "failed", error=error))
        self._start(1)

    def _end_soon(self) -> None:
        for worker in self.workers:
            worker.stop.remote()
        while self.waiting:
            self._end(RunEnded.of(self.waiting.popleft(), "stopped"))

    def _close(self) -> list[Mapping[str, float]]:
        """Let every worker remove what it made; their busy shares. The runs are over: nothing fails here."""
        at_work = [worker.close.remote() for worker in self.workers]
        unready = [worker.close.remote() for worker in self.starting.values()]
        shares: list[Mapping[str, float]] = []
        for refs, within_s in ((at_work, _CLOSE_S), (unready, _LEAVE_S)):
            if refs:
                self.ray.wait(refs, num_returns=len(refs), timeout=within_s)
        for ref in at_work:
            try:
                shares.append(self.ray.get(ref, timeout=0))
            except self.ray.exceptions.RayError as exc:  # it died, does not answer, or could not clean up
                of_worker = isinstance(exc, self.ray.exceptions.RayTaskError)
                cause = _cause(exc.cause if of_worker else exc)
                self._notice(f"a worker did not close after the last run, the ends are kept: {cause}")
        return shares

    def _notice(self, text: str) -> None:
        self.sink({"event": "notice", "text": text})

    def _end(self, end: RunEnded) -> None:
        """The end of a run that no worker reports."""
        self.ends.append(end)
        self.sink(end.as_event())


def _count_workers(ray: Any, n_workers: int | None) -> int:
    n_gpus = int(ray.cluster_resources().get("GPU", 0))
    if n_gpus and n_workers and n_workers > n_gpus:
        raise ConfigError(f"{n_workers} workers on {n_gpus} accelerators; one worker takes one")
    return n_workers or max(1, n_gpus)


def _actor_class(ray: Any, batch: Batch, n_workers: int) -> Any:
    """`Worker` as an actor: one accelerator each where there are some, else a share of the processors."""
    has_gpus = bool(ray.cluster_resources().get("GPU", 0))
    shared_out = os.environ.get("OMP_NUM_THREADS") or max(1, (os.cpu_count() or 1) // n_workers)
    return ray.remote(Worker).options(
        num_gpus=int(has_gpus),
        num_cpus=int(not has_gpus),
        max_concurrency=batch.spec.batch.in_flight + 3,
        max_restarts=0,
        runtime_env={"env_vars": {"OMP_NUM_THREADS": str(batch.spec.run.threads or shared_out)}},
    )


def load_ray() -> Any:
    """The package `ray`. Raises PrerequisiteError where it is missing."""
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise PrerequisiteError("--executor ray needs Ray: pip install 'sdpo-solve[ray]'") from None
    return ray


def _connect(ray: Any, address: str | None) -> None:
    """Join the cluster at `address` or RAY_ADDRESS; without either start one on this machine."""
    try:
        ray.init(
            address=address or os.environ.get("RAY_ADDRESS") or "local",
            include_dashboard=None if address or os.environ.get("RAY_ADDRESS") else False,
            log_to_driver=False,
            logging_level="ERROR",
        )
    except (ConnectionError, ValueError, RuntimeError) as exc:
        first = str(exc).strip().splitlines()[0]
        raise PrerequisiteError(f"no Ray cluster at {address}: {first}; start it with 'ray start'") from None


def _mean(shares: Sequence[Mapping[str, float]]) -> dict[str, float]:
    made = [one for one in shares if one]  # a worker that was stopped as it started has none
    return {name: round(mean(one[name] for one in made), 4) for name in made[0]} if made else {}


def _cause(exc: Exception) -> str:
    """The first line of what Ray says; tables and traces follow it."""
    return (str(exc).strip() or type(exc).__name__).splitlines()[0]
