"""A sandbox that is gone: grading waits for it to come back instead of failing every run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from sdpo_solve.batch.locks import Meter
from sdpo_solve.batch.stop import StopSignal
from sdpo_solve.errors import PrerequisiteError, SandboxError
from sdpo_solve.protocols import Grader, OnVerdict, Sandbox
from sdpo_solve.types import BoxInput, ExecutionStatus, Extracted, Limits, Problem, Program, Sample, Verdict

# Between two tries of an empty program, and the longest wait before the batch ends.
_PAUSE_S = 10.0
_MAX_WAIT_S = 3600.0


def probe(sandbox: Sandbox) -> None:
    """Raises SandboxError where not even an empty program runs."""
    (result,) = sandbox.run(Program("pass"), [BoxInput()], Limits())
    if result.status is not ExecutionStatus.OK:
        raise SandboxError(f"an empty program ended with {result.status.value}: {result.stderr[:200]}")


class SandboxOutage:
    """Distinguishes a sandbox that is gone from one box that broke, and waits for the sandbox to return.

    `probe` raises SandboxError where the sandbox is gone; `notify` receives one sentence when waiting begins
    and one when it ends, however many runs wait.
    """

    def __init__(
        self,
        stop: StopSignal,
        probe: Callable[[], None],
        notify: Callable[[str], None],
        *,
        pause_s: float = _PAUSE_S,
        max_wait_s: float = _MAX_WAIT_S,
    ) -> None:
        self._stop, self._probe, self._notify = stop, probe, notify
        self._pause_s, self._max_wait_s = pause_s, max_wait_s
        self._lock = threading.Lock()
        self.has_worked = False
        """Something was graded, so that there is a sandbox to wait for."""
        self.n_over = 0
        """Outages that have come and gone."""

    def wait(self, n_over_before: int) -> bool:
        """Wait for the end of an outage that began since `n_over` was read; false where there is none.

        Raises PrerequisiteError for a sandbox that has never worked, or that stays away too long, and Stopped
        where the batch ends meanwhile.
        """
        with self._lock:
            if self.n_over > n_over_before:
                return True
            error = self._error()
            if error is None:
                return False
            if not self.has_worked:
                raise PrerequisiteError(f"the sandbox does not work: {error}; 'sdpo-solve doctor' says more")
            self._wait(error)
            self.n_over += 1
            return True

    def _wait(self, error: SandboxError | None) -> None:
        gone_s, since = time.monotonic(), time.strftime("%H:%M:%S")
        most = f"at most {self._max_wait_s / 60:.0f} minutes; Ctrl-C ends the batch"
        self._notify(f"the sandbox is gone since {since}, the batch waits for it ({most}): {error}")
        while error is not None:
            if time.monotonic() - gone_s >= self._max_wait_s:
                raise PrerequisiteError(
                    f"the sandbox is gone since {since}: {error}; repeat the command when it is back"
                )
            self._stop.sleep(self._pause_s)
            error = self._error()
        waited_s = time.monotonic() - gone_s
        self._notify(f"the sandbox is back after {waited_s:.0f} s, the batch goes on")

    def _error(self) -> SandboxError | None:
        try:
            self._probe()
        except SandboxError as exc:
            return exc
        return None


class RetryingGrader:
    """Grades, and grades again after an outage of the whole sandbox. Implements `protocols.Grader`."""

    def __init__(self, grader: Grader, outage: SandboxOutage, meter: Meter) -> None:
        self._grader, self._outage, self._meter = grader, outage, meter

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
        """Raises SandboxError where a box broke though the sandbox works, else as `SandboxOutage.wait`."""
        with self._meter.time("waiting"):
            while True:
                n_over = self._outage.n_over
                try:
                    with self._meter.time("grading"):
                        verdicts_G = self._grader.grade(
                            problem, codes_G, thorough=thorough, on_verdict=on_verdict
                        )
                except SandboxError:
                    if not self._outage.wait(n_over):
                        raise
                else:
                    self._outage.has_worked |= any(code is not None for code in codes_G)
                    return verdicts_G
