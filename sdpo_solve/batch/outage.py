"""A sandbox or a server that is gone: runs wait for it to come back instead of failing one by one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from sdpo_solve.batch.locks import Meter
from sdpo_solve.batch.stop import StopSignal
from sdpo_solve.errors import EngineError, PrerequisiteError, SandboxError
from sdpo_solve.protocols import Grader, MixingEngine, OnVerdict, Sampler, Sandbox
from sdpo_solve.run.clock import Clock
from sdpo_solve.types import (
    BoxInput,
    ExecutionStatus,
    Extracted,
    Limits,
    Policy,
    Problem,
    Program,
    Prompt,
    Sample,
    SamplingSpec,
    Verdict,
)

# Between two probes, and the longest wait before the batch ends.
_PAUSE_S = 10.0
_MAX_WAIT_S = 3600.0


def probe(sandbox: Sandbox) -> None:
    """Raises SandboxError where not even an empty program runs."""
    (result,) = sandbox.run(Program("pass"), [BoxInput()], Limits())
    if result.status is not ExecutionStatus.OK:
        raise SandboxError(f"an empty program ended with {result.status.value}: {result.stderr[:200]}")


class Outage:
    """Distinguishes a part that is gone from one call that failed, and waits for the part to return.

    `what`: the part, in messages. `probe` raises SandboxError or EngineError where it is gone; `notify`
    receives one sentence when waiting begins and one when it ends, however many runs wait.
    """

    def __init__(
        self,
        what: str,
        stop: StopSignal,
        probe: Callable[[], None],
        notify: Callable[[str], None],
        *,
        pause_s: float = _PAUSE_S,
        max_wait_s: float = _MAX_WAIT_S,
    ) -> None:
        self._what, self._stop, self._probe, self._notify = what, stop, probe, notify
        self._pause_s, self._max_wait_s = pause_s, max_wait_s
        self._lock = threading.Lock()
        self.has_worked = False
        """It has done something, so that there is a part to wait for."""
        self.n_over = 0
        """Outages that have come and gone."""

    def wait(self, n_over_before: int, clock: Clock | None = None) -> bool:
        """Wait for the end of an outage that began since `n_over` was read; false where there is none.

        `clock`, that of the run which waits, stands still.
        Raises PrerequisiteError for a part that has never worked, or that stays away too long, and Stopped
        where the batch ends meanwhile.
        """
        with (clock or Clock()).paused(), self._lock:
            if self.n_over > n_over_before:
                return True
            error = self._error()
            if error is None:
                return False
            if not self.has_worked:
                raise PrerequisiteError(
                    f"the {self._what} does not work: {error}; 'sdpo-solve doctor' says more"
                )
            self._wait(error)
            self.n_over += 1
            return True

    def _wait(self, error: SandboxError | EngineError | None) -> None:
        gone_s, since = time.monotonic(), time.strftime("%H:%M:%S")
        most = f"at most {self._max_wait_s / 60:.0f} minutes; Ctrl-C ends the batch"
        self._notify(f"the {self._what} is gone since {since}, the batch waits for it ({most}): {error}")
        while error is not None:
            if time.monotonic() - gone_s >= self._max_wait_s:
                raise PrerequisiteError(
                    f"the {self._what} is gone since {since}: {error}; repeat the command when it is back"
                )
            self._stop.sleep(self._pause_s)
            error = self._error()
        waited_s = time.monotonic() - gone_s
        self._notify(f"the {self._what} is back after {waited_s:.0f} s, the batch goes on")

    def _error(self) -> SandboxError | EngineError | None:
        try:
            self._probe()
        except (SandboxError, EngineError) as exc:
            return exc
        return None


class RetryingGrader:
    """Grades, and grades again after an outage of the whole sandbox. Implements `protocols.Grader`."""

    def __init__(self, grader: Grader, outage: Outage, meter: Meter, clock: Clock | None = None) -> None:
        self._grader, self._outage, self._meter, self._clock = grader, outage, meter, clock

    def extract(self, problem: Problem, sample: Sample) -> Extracted:
        """As the grader below."""
        return self._grader.extract(problem, sample)

    def grade(
        self,
        problem: Problem,
        codes_G: Sequence[str | None],
        *,
        thorough: bool = False,
        on_verdict: OnVerdict | None = None,
    ) -> list[Verdict]:
        """Raises SandboxError where a box broke though the sandbox works, else as `Outage.wait`."""
        with self._meter.time("waiting"):
            while True:
                n_over = self._outage.n_over
                try:
                    with self._meter.time("grading"):
                        verdicts_G = self._grader.grade(
                            problem, codes_G, thorough=thorough, on_verdict=on_verdict
                        )
                except SandboxError:
                    if not self._outage.wait(n_over, self._clock):
                        raise
                else:
                    self._outage.has_worked |= any(code is not None for code in codes_G)
                    return verdicts_G


class RetryingEngine:
    """Samples, and samples again after an outage of the engine. Implements `protocols.Sampler`."""

    def __init__(self, engine: Sampler, outage: Outage, clock: Clock | None = None) -> None:
        self._engine, self._outage, self._clock = engine, outage, clock
        outage.has_worked = True  # it was built, and has looked at what it samples with

    @staticmethod
    def of(engine: Sampler, outage: Outage, clock: Clock | None = None) -> RetryingEngine:
        """One with the abilities of `engine`."""
        kind = RetryingMixingEngine if isinstance(engine, MixingEngine) else RetryingEngine
        return kind(engine, outage, clock)

    def sample(
        self, prompts_G: Sequence[Prompt], seeds_G: Sequence[int], policy: Policy, spec: SamplingSpec
    ) -> list[Sample]:
        """Raises EngineError where sampling failed though the engine works, else as `Outage.wait`."""
        return self._tried(lambda: self._engine.sample(prompts_G, seeds_G, policy, spec))

    def _tried(self, call: Callable[[], list[Sample]]) -> list[Sample]:
        while True:
            n_over = self._outage.n_over
            try:
                return call()
            except EngineError:
                if not self._outage.wait(n_over, self._clock):
                    raise


class RetryingMixingEngine(RetryingEngine):
    """The same for rows of several policies. Implements `protocols.MixingEngine`."""

    _engine: MixingEngine

    def sample_mixed(
        self,
        prompts_G: Sequence[Prompt],
        seeds_G: Sequence[int],
        policies_G: Sequence[Policy],
        spec: SamplingSpec,
    ) -> list[Sample]:
        """Raises as `sample`."""
        return self._tried(lambda: self._engine.sample_mixed(prompts_G, seeds_G, policies_G, spec))
