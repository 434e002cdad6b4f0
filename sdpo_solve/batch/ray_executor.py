"""The runs of a batch on a Ray cluster: one actor an accelerator, each with engine and learner of its own.

The driver hands out runs, passes on the workers' events and takes back summaries; where a worker is lost its
runs go on from their journals on another. Results lie on a path that driver and workers share. Placement,
start-up and health of machines are left to Ray (SLURM and Kubernetes through its own tools); there is no
scheduler here beyond the list of runs.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from typing import Any

from sdpo_solve.batch.batch import Batch, Executed, LocalExecutor
from sdpo_solve.batch.locks import Gate
from sdpo_solve.batch.runner import Crew, RunSummary, Sink, kept_summary
from sdpo_solve.batch.spec import RunKey
from sdpo_solve.errors import ConfigError, PrerequisiteError

# Texts and tokens stay in the journals; the driver passes on what its display, log and trackers show.
_FORWARDED = (
    *("run_started", "run_resumed", "sampling", "grading", "learning", "group", "update", "run_failed"),
    "notice",
)
_POLL_S = 0.5
_CLOSE_S = 60.0


class Worker:
    """What an actor does: the runs of one process. Its methods run in several threads."""

    def __init__(self, batch: Batch) -> None:
        self._events: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._gate = Gate()
        self._batch = batch
        self._local = LocalExecutor(batch)
        self._crew: Crew | None = None

    def prepare(self) -> None:
        """Start sandbox and engine. Not done where the actor is made: an error there would only say it died.

        Raises PrerequisiteError where something is missing on this machine.
        """
        self._crew = self._local.crew(self._batch, self._keep, self._gate)

    def perform(self, key: RunKey) -> RunSummary:
        """See `Crew.perform`."""
        assert self._crew is not None
        return self._crew.perform(key)

    def events(self) -> list[dict[str, Any]]:
        """What happened since the last call."""
        found = []
        while True:
            try:
                found.append(self._events.get_nowait())
            except Empty:
                return found

    def end_soon(self) -> None:
        """End after the groups under way."""
        self._gate.close()

    def close(self) -> dict[str, float]:
        """Remove boxes and weights; returns the busy shares."""
        busy = self._crew.busy() if self._crew else {}
        self._local.__exit__(None, None, None)
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

    def __call__(self, batch: Batch, keys: Sequence[RunKey], sink: Sink, gate: Gate) -> Executed:
        ray = load_ray()
        started = not ray.is_initialized()
        if started:
            _connect(ray, self.address)
        try:
            shared = replace(batch, out=batch.out.absolute())
            return _Drive(ray, _actor_class(ray, shared, self.n_workers), shared, sink, gate).run(keys)
        finally:
            if started:
                ray.shutdown()


@dataclass(slots=True)
class _Drive:
    """The driver's half: which worker has which run."""

    ray: Any
    actors: _Actors
    batch: Batch
    sink: Sink
    gate: Gate
    waiting: deque[RunKey] = field(default_factory=deque)
    workers: list[Any] = field(default_factory=list)
    under_way: dict[Any, tuple[Any, RunKey]] = field(default_factory=dict)
    polls: dict[Any, Any] = field(default_factory=dict)
    """Calls of `Worker.events` that have not returned yet, with their workers."""
    summaries: list[RunSummary] = field(default_factory=list)
    losses: Counter[RunKey] = field(default_factory=Counter)
    is_ending: bool = False

    def run(self, keys: Sequence[RunKey]) -> Executed:
        self.waiting.extend(keys)
        try:
            self._start(min(self.actors.n_workers, max(1, len(keys))))
            while self.waiting or self.under_way:
                self._stop_if_asked()
                self._hand_out()
                done, _ = self.ray.wait(list(self.under_way), timeout=_POLL_S) if self.under_way else ([], [])
                self._poll()
                for ref in done:
                    self._take_back(ref)
            busy = [self.ray.get(worker.close.remote(), timeout=_CLOSE_S) for worker in self.workers]
            return Executed(tuple(self.summaries), _mean(busy))
        finally:
            for worker in self.workers:
                self.ray.kill(worker)

    def _start(self, n_workers: int) -> None:
        """More workers, ready when this returns.

        Raises what a worker raises that lacks something.
        """
        fresh = [self.actors.start() for _ in range(n_workers)]
        self.workers += fresh
        try:
            self.ray.get([worker.prepare.remote() for worker in fresh])
        except self.ray.exceptions.RayTaskError as exc:
            raise exc.cause from None
        except self.ray.exceptions.RayActorError as exc:
            raise PrerequisiteError(f"a worker died as it started: {exc}") from None

    def _hand_out(self) -> None:
        """Give waiting runs to the workers that have room, to the least busy first."""
        while self.waiting:
            load = Counter(id(worker) for worker, _ in self.under_way.values())
            worker = min(self.workers, key=lambda one: load[id(one)])
            if load[id(worker)] >= self.batch.spec.batch.in_flight:
                return
            key = self.waiting.popleft()
            kept = kept_summary(self.batch.out, key)
            if kept is not None:
                self._end(kept)
                continue
            self.under_way[worker.perform.remote(key)] = (worker, key)

    def _take_back(self, ref: Any) -> None:
        if ref not in self.under_way:
            return  # its worker was lost together with another run
        worker, key = self.under_way[ref]
        try:
            summary: RunSummary = self.ray.get(ref)
        except self.ray.exceptions.RayActorError as exc:
            self._lost(worker, exc)
            return
        except self.ray.exceptions.RayTaskError as exc:
            raise exc.cause from None  # a UserError or a PrerequisiteError: it concerns every run
        self._drain(worker)
        del self.under_way[ref]
        if summary.may_retry:
            self.sink(summary.event())
            self.waiting.append(key)
        else:
            self._end(summary)

    def _lost(self, worker: Any, exc: Exception) -> None:
        """The runs of a lost worker wait again; another worker takes its place."""
        cause = str(exc).strip().splitlines()[0] if str(exc).strip() else type(exc).__name__
        self.sink({"event": "notice", "text": f"a worker is lost, its runs go on elsewhere: {cause}"})
        self.workers = [one for one in self.workers if one is not worker]
        for ref, (owner, key) in list(self.under_way.items()):
            if owner is worker:
                del self.under_way[ref]
                self._again(key)
        self._start(1)

    def _again(self, key: RunKey) -> None:
        self.losses[key] += 1
        if self.losses[key] <= self.batch.spec.batch.tries:
            self.waiting.appendleft(key)
        else:
            self._end(RunSummary(key, "failed", error=f"its worker was lost {self.losses[key]} times"))

    def _stop_if_asked(self) -> None:
        if not self.gate.is_closed:
            return
        if not self.is_ending:
            self.is_ending = True
            for worker in self.workers:
                worker.end_soon.remote()
        while self.waiting:
            self._end(RunSummary(self.waiting.popleft(), "stopped"))

    def _poll(self) -> None:
        for worker in self.workers:
            if worker not in self.polls.values():
                self.polls[worker.events.remote()] = worker
        refs = list(self.polls)
        ready, _ = self.ray.wait(refs, num_returns=len(refs), timeout=_POLL_S)
        for ref in ready:
            self._pass_on(ref)

    def _drain(self, worker: Any) -> None:
        """Every event of a worker so far: those of a run come before its end."""
        for ref in [ref for ref, polled in self.polls.items() if polled is worker]:
            self._pass_on(ref)
        self._pass_on(worker.events.remote())

    def _pass_on(self, ref: Any) -> None:
        self.polls.pop(ref, None)
        try:
            events = self.ray.get(ref)
        except self.ray.exceptions.RayActorError:
            return  # found out, and acted upon, where its run is taken back
        for event in events:
            self.sink(event)

    def _end(self, summary: RunSummary) -> None:
        self.summaries.append(summary)
        self.sink(summary.event())


@dataclass(frozen=True, slots=True)
class _Actors:
    """How to start a worker, and how many there are to be."""

    actor_class: Any
    batch: Batch
    n_workers: int

    def start(self) -> Any:
        return self.actor_class.remote(self.batch)


def _actor_class(ray: Any, batch: Batch, n_workers: int | None) -> _Actors:
    n_gpus = int(ray.cluster_resources().get("GPU", 0))
    wanted = n_workers or max(1, n_gpus)
    if n_gpus and wanted > n_gpus:
        raise ConfigError(f"{wanted} workers on {n_gpus} accelerators; one worker takes one")
    shared_out = os.environ.get("OMP_NUM_THREADS") or max(1, (os.cpu_count() or 1) // wanted)
    threads = str(batch.spec.run.threads or shared_out)
    actor_class = ray.remote(Worker).options(
        num_gpus=1 if n_gpus else 0,
        num_cpus=0 if n_gpus else 1,
        max_concurrency=batch.spec.batch.in_flight + 3,
        max_restarts=0,
        runtime_env={"env_vars": {"OMP_NUM_THREADS": threads}},
    )
    return _Actors(actor_class, batch, wanted)


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


def _mean(shares: Iterable[Mapping[str, float]]) -> dict[str, float]:
    found = list(shares)
    return (
        {name: round(sum(one[name] for one in found) / len(found), 4) for name in found[0]} if found else {}
    )
