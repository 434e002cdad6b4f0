"""How the runs of one process share what there is one of: the weights, the engine, the sandbox.

Wraps the parts of a run so that threads take turns where they must (sampling and learning change the same
weights) and overlap where they may (grading). Measures who was busy, lets a batch end between two groups,
and waits for a sandbox that is gone instead of failing every run. Schedules nothing (see `crew.py`).
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from sdpo_solve.errors import SandboxError
from sdpo_solve.protocols import Engine, Grader, Method, Sandbox
from sdpo_solve.types import (
    Attempt,
    BoxInput,
    ExecutionStatus,
    Limits,
    Policy,
    Problem,
    Program,
    Prompt,
    Sample,
    SamplingSpec,
    Update,
    Verdict,
)

RESOURCES = ("sampling", "grading", "learning")


class Stopped(Exception):
    """A run was asked to end between two groups. Not an error: its journal goes on from there."""


class Gate:
    """Open until `close` is called; runs pass it before each group and before each update."""

    def __init__(self) -> None:
        self._closed = threading.Event()

    def close(self) -> None:
        self._closed.set()

    @property
    def is_closed(self) -> bool:
        return self._closed.is_set()

    def check(self) -> None:
        """Raises Stopped once the gate is closed."""
        if self._closed.is_set():
            raise Stopped

    def wait(self, seconds: float) -> None:
        """Sleep, and raise Stopped as soon as the gate is closed."""
        if self._closed.wait(seconds):
            raise Stopped


@contextmanager
def interrupts(gate: Gate, tell: Callable[[str], None]) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) closes the gate, the second raises KeyboardInterrupt.

    Outside the main thread signals are somebody else's, and nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def heed(number: int, frame: FrameType | None) -> None:
        if gate.is_closed:
            raise KeyboardInterrupt
        gate.close()
        # Not from here: the thread that was interrupted may hold the lock of the display.
        text = "ending after the groups under way; Ctrl-C again ends at once"
        threading.Thread(target=tell, args=(text,), daemon=True).start()

    before = {number: signal.signal(number, heed) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def use_threads(n_threads: int | None) -> None:
    """Let the model use so many processor threads when this thread asks it; None leaves them as they are.

    Float rounding depends on their number, and a token at a near-tie on the rounding.
    """
    if n_threads is not None:
        import torch

        torch.set_num_threads(n_threads)


# -- who was busy --------------------------------------------------------------------------------------------


class Meter:
    """Seconds that each resource was busy (overlaps counted once), and the runs' own time beside that.

    A run's own time is what its thread spends neither in a resource nor waiting for one.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._users = dict.fromkeys(RESOURCES, 0)
        self._since_s = dict.fromkeys(RESOURCES, 0.0)
        self._busy_s = dict.fromkeys(RESOURCES, 0.0)
        self._inside_s = 0.0
        self._runs_s = 0.0
        self._started_s = time.monotonic()

    @contextmanager
    def busy(self, resource: str) -> Iterator[None]:
        """The thread holds the resource."""
        with self._guard:
            if self._users[resource] == 0:
                self._since_s[resource] = time.monotonic()
            self._users[resource] += 1
        try:
            yield
        finally:
            with self._guard:
                self._users[resource] -= 1
                if self._users[resource] == 0:
                    self._busy_s[resource] += time.monotonic() - self._since_s[resource]

    @contextmanager
    def inside(self) -> Iterator[None]:
        """The thread is in a resource or waits for one: not the run's own time."""
        started_s = time.monotonic()
        try:
            yield
        finally:
            with self._guard:
                self._inside_s += time.monotonic() - started_s

    @contextmanager
    def run(self) -> Iterator[None]:
        """The thread works on a run."""
        started_s = time.monotonic()
        try:
            yield
        finally:
            with self._guard:
                self._runs_s += time.monotonic() - started_s

    def shares(self) -> dict[str, float]:
        """Busy share of the time since the meter was made, by resource; `own` is the runs' own time."""
        with self._guard:
            wall_s = max(time.monotonic() - self._started_s, 1e-9)
            shares = {name: self._busy_s[name] / wall_s for name in RESOURCES}
            own_s = max(0.0, self._runs_s - self._inside_s)
        return {name: round(share, 4) for name, share in {**shares, "own": own_s / wall_s}.items()}


# -- taking turns --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Turns:
    """The locks of one process. `weights` guards adapters and updates, `engine` sampling.

    They are one lock where the engine samples from the learner's own weights.
    """

    gate: Gate
    meter: Meter
    weights: threading.Lock
    engine: threading.Lock

    @classmethod
    def make(cls, *, shared_weights: bool, gate: Gate | None = None) -> Turns:
        weights = threading.Lock()
        return cls(gate or Gate(), Meter(), weights, weights if shared_weights else threading.Lock())

    @contextmanager
    def use(self, lock: threading.Lock, resource: str) -> Iterator[None]:
        with self.meter.inside(), lock, self.meter.busy(resource):
            yield


@dataclass(frozen=True, slots=True)
class TurnEngine:
    """One call at a time. Implements `protocols.Engine`."""

    engine: Engine
    turns: Turns

    def sample(
        self, prompts_G: Sequence[Prompt], seeds_G: Sequence[int], policy: Policy, spec: SamplingSpec
    ) -> list[Sample]:
        with self.turns.use(self.turns.engine, "sampling"):
            return self.engine.sample(prompts_G, seeds_G, policy, spec)

    def identity(self) -> str:
        return self.engine.identity()

    def close(self) -> None:
        self.engine.close()


@dataclass(frozen=True, slots=True)
class TurnMethod:
    """Adapters and updates one at a time, and none once the gate is closed. Implements `protocols.Method`.

    `propose` takes its turn too: it counts tokens with the tokenizer that sampling uses.
    """

    method: Method
    turns: Turns

    def start(self, problem: Problem, resume_from: Policy | None) -> Policy:
        with self.turns.use(self.turns.weights, "learning"):
            return self.method.start(problem, resume_from)

    def propose(self, problem: Problem, history: Sequence[Attempt], n: int) -> list[Prompt]:
        self.turns.gate.check()
        with self.turns.use(self.turns.engine, "sampling"):
            return self.method.propose(problem, history, n)

    def learn(self, problem: Problem, history: Sequence[Attempt], group: Sequence[Attempt]) -> Update | None:
        self.turns.gate.check()
        with self.turns.use(self.turns.weights, "learning"):
            return self.method.learn(problem, history, group)


def probe(sandbox: Sandbox) -> None:
    """Raises SandboxError where not even an empty program runs."""
    (result,) = sandbox.run(Program("pass"), [BoxInput()], Limits())
    if result.status is not ExecutionStatus.OK:
        raise SandboxError(f"an empty program ended with {result.status.value}: {result.stderr[:200]}")


class Outage:
    """Tells a sandbox that is gone from a box that broke, and waits for the sandbox to come back.

    `probe` runs a program that does nothing and raises SandboxError where even that fails; `tell` hears when
    waiting begins and when it ends, once however many runs wait.
    """

    def __init__(
        self, gate: Gate, probe: Callable[[], None], tell: Callable[[str], None], pause_s: float = 10.0
    ) -> None:
        self._gate, self._probe, self._tell, self._pause_s = gate, probe, tell, pause_s
        self._turn = threading.Lock()
        self.n_over = 0
        """Outages that have come and gone."""

    def sat_out(self, n_over_before: int) -> bool:
        """True after an outage that began since `n_over_before` was read; false where the sandbox is well.

        Raises Stopped where the batch ends meanwhile.
        """
        with self._turn:
            if self.n_over > n_over_before:
                return True
            said = False
            while not self._is_well(said):
                said = True
                self._gate.wait(self._pause_s)
            if said:
                self.n_over += 1
                self._tell("the sandbox is back, the batch goes on")
            return said

    def _is_well(self, said: bool) -> bool:
        try:
            self._probe()
        except SandboxError as exc:
            if not said:
                self._tell(f"the sandbox is gone, the batch waits for it (Ctrl-C ends the batch): {exc}")
            return False
        return True


@dataclass(frozen=True, slots=True)
class PatientGrader:
    """Grades while others sample; sits out an outage of the whole sandbox. Implements `protocols.Grader`."""

    grader: Grader
    turns: Turns
    outage: Outage

    def grade(
        self, problem: Problem, codes_G: Sequence[str | None], *, thorough: bool = False
    ) -> list[Verdict]:
        """Raises SandboxError where a box broke and the sandbox is well, Stopped where the batch ends."""
        with self.turns.meter.inside():
            while True:
                n_over = self.outage.n_over
                try:
                    with self.turns.meter.busy("grading"):
                        return self.grader.grade(problem, codes_G, thorough=thorough)
                except SandboxError:
                    if not self.outage.sat_out(n_over):
                        raise


# -- in words ----------------------------------------------------------------------------------------------


def busy_line(shares: Mapping[str, float]) -> str:
    """The shares of `Meter.shares` as one line."""
    return ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares.items())
