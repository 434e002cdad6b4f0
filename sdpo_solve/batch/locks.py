"""The locks that the runs of one process share: the weights, the engine; and how busy each resource is.

Wraps the parts of a run so that threads take turns where they must (sampling and learning change the same
weights) and overlap where they may (grading). A run's clock stands still while it waits for its turn.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field

from sdpo_solve.batch.stop import StopSignal
from sdpo_solve.protocols import Method, MixingEngine, Sampler
from sdpo_solve.run.clock import Clock
from sdpo_solve.solve import sample_each
from sdpo_solve.types import Attempt, Policy, Problem, Prompt, Sample, SamplingSpec, Update

RESOURCES = ("sampling", "grading", "learning")


def use_threads(n_threads: int | None) -> None:
    """Let the model use so many processor threads when called from this thread; None leaves them as they are.

    Float rounding depends on their number, and a token at a near-tie on the rounding.
    """
    if n_threads is not None:
        import torch

        torch.set_num_threads(n_threads)


class Meter:
    """Times what the threads of a batch do: the resources (overlaps counted once), `running` and `waiting`.

    `running` is the time of all threads that work on a run, `waiting` their time in a resource or before its
    lock; what is left is the runs' own time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_threads: Counter[str] = Counter()
        self._once_s: defaultdict[str, float] = defaultdict(float)
        self._summed_s: defaultdict[str, float] = defaultdict(float)
        self._started_s = self._last_s = time.monotonic()

    @contextmanager
    def time(self, what: str) -> Iterator[None]:
        """The thread does this until the context ends."""
        self._count(what, 1)
        try:
            yield
        finally:
            self._count(what, -1)

    def shares(self) -> dict[str, float]:
        """Busy share of the time since the meter was made, by resource; `own` is the runs' own time."""
        self._count("", 0)
        wall_s = max(self._last_s - self._started_s, 1e-9)
        own_s = max(0.0, self._summed_s["running"] - self._summed_s["waiting"])
        shares = {name: self._once_s[name] / wall_s for name in RESOURCES} | {"own": own_s / wall_s}
        return {name: round(share, 4) for name, share in shares.items()}

    def _count(self, what: str, change: int) -> None:
        """Add the time since the last change to what was done in it."""
        with self._lock:
            now_s = time.monotonic()
            for name, n in self._n_threads.items():
                self._once_s[name] += (now_s - self._last_s) * (n > 0)
                self._summed_s[name] += (now_s - self._last_s) * n
            self._last_s = now_s
            self._n_threads[what] += change


def busy_line(shares: Mapping[str, float]) -> str:
    """The shares of `Meter.shares` as one line."""
    return ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares.items())


@dataclass(frozen=True, slots=True)
class DeviceLocks:
    """The locks of one process. `weights` guards adapters and updates, `engine` sampling.

    They are one lock where the engine samples from the learner's own weights.
    """

    weights: threading.Lock
    engine: threading.Lock
    stop: StopSignal
    meter: Meter = field(default_factory=Meter)

    @classmethod
    def make(cls, *, shared_weights: bool, stop: StopSignal | None = None) -> DeviceLocks:
        weights = threading.Lock()
        return cls(weights, weights if shared_weights else threading.Lock(), stop or StopSignal())

    def sampling(self, clock: Clock | None = None) -> AbstractContextManager[None]:
        """The thread's turn to sample; the clock of its run stands still until it comes."""
        return self._turn(self.engine, "sampling", clock)

    def learning(self, clock: Clock | None = None) -> AbstractContextManager[None]:
        """The thread's turn to change weights; as `sampling`."""
        return self._turn(self.weights, "learning", clock)

    @contextmanager
    def _turn(self, lock: threading.Lock, what: str, clock: Clock | None) -> Iterator[None]:
        with self.meter.time("waiting"), ExitStack() as held:
            with (clock or Clock()).paused():
                held.enter_context(lock)
            with self.meter.time(what):
                yield


@dataclass(frozen=True, slots=True)
class LockedEngine(MixingEngine):
    """One group at a time, over engines that cannot mix as well."""

    engine: Sampler
    locks: DeviceLocks
    clock: Clock | None = None

    def sample_mixed(
        self,
        prompts_G: Sequence[Prompt],
        seeds_G: Sequence[int],
        policies_G: Sequence[Policy],
        spec: SamplingSpec,
    ) -> list[Sample]:
        with self.locks.sampling(self.clock):
            return sample_each(self.engine, prompts_G, seeds_G, policies_G, spec)


@dataclass(frozen=True, slots=True)
class LockedMethod:
    """Adapters and updates one at a time, and none once the batch stops. Implements `protocols.Method`.

    `propose` locks the engine: it counts tokens with the tokenizer that sampling uses.
    """

    method: Method
    locks: DeviceLocks
    clock: Clock | None = None

    @property
    def learns(self) -> bool:
        return self.method.learns

    def start(self, problem: Problem, resume_from: Policy | None) -> Policy:
        with self.locks.learning(self.clock):
            return self.method.start(problem, resume_from)

    def propose(self, problem: Problem, history: Sequence[Attempt], n: int) -> list[Prompt]:
        self.locks.stop.check()
        with self.locks.sampling(self.clock):
            return self.method.propose(problem, history, n)

    def policies(
        self, history: Sequence[Attempt], policy: Policy, prompts_G: Sequence[Prompt]
    ) -> list[Policy]:
        return self.method.policies(history, policy, prompts_G)

    def learn(self, problem: Problem, history: Sequence[Attempt], group: Sequence[Attempt]) -> Update | None:
        self.locks.stop.check()
        with self.locks.learning(self.clock):
            return self.method.learn(problem, history, group)
