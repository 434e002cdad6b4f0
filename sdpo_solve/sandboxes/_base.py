"""A sandbox made of boxes: its options, its pools, and the run of one program in one box.

A backend adds how a box is made and how it ended.
"""

from __future__ import annotations

import atexit
import itertools
import os
import random
import threading
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from typing import ClassVar

from pydantic import Field

from sdpo_solve.config import Free, Options
from sdpo_solve.errors import ConfigError, PrerequisiteError, SandboxError, one_line
from sdpo_solve.protocols import StopAfter
from sdpo_solve.sandboxes import SandboxPlugin, languages
from sdpo_solve.sandboxes._box import Box, BoxLost, Caps, Layout, infrastructure_fault
from sdpo_solve.sandboxes._pool import Pool, SharedLock
from sdpo_solve.sandboxes.languages import Language, Toolchain
from sdpo_solve.types import BoxInput, Execution, ExecutionStatus, Limits, Program

_RUNNER_MB = 128  # the runner with the inputs and outputs of the tests that run
_MOST_MB = 1 << 30  # in bytes, with what else a box needs, a number that engines can read
_uid_numbers = itertools.count(random.SystemRandom().randrange(1 << 24))


class BoxOptions(Options):
    """Options that mean the same for every backend."""

    removed: ClassVar = {"language": languages.DEFAULT}
    boxes_ready: Free[int] = Field(default=8, ge=0)
    """Boxes kept waiting."""
    parallel: Free[int] = Field(default_factory=lambda: min(4, os.cpu_count() or 1), ge=1, le=32)
    """Tests of one attempt that run at a time; fewer where memory would not do."""
    memory_mb: Free[int] = Field(default=2560, ge=256, le=_MOST_MB)
    """Memory of one box, MiB; more where a problem's limit asks for it."""
    scratch_mb: int = Field(default=16, ge=1, le=_MOST_MB)
    """Private directory of one test, in memory, MiB."""
    output_mb: float = Field(default=4.0, gt=0)
    """Output kept of one test, MiB; a program that writes more is stopped."""
    total_output_mb: float = Field(default=64.0, gt=0)
    """Output kept of all tests of one attempt, MiB."""
    n_processes: int = Field(default=32, ge=1, le=100_000)
    """Processes and threads of one test."""


class PooledSandbox(SandboxPlugin):
    """Implements `protocols.Sandbox` over boxes that a backend makes."""

    verdict_options = frozenset({"memory_mb", "scratch_mb", "output_mb", "total_output_mb", "n_processes"})

    @classmethod
    def build(cls, options: BoxOptions, language: str) -> PooledSandbox:
        """See `SandboxPlugin`."""
        return cls(options, language)

    def __init__(self, options: BoxOptions, language: str = languages.DEFAULT) -> None:
        """`language`: whose boxes are started ahead of need. A backend's own constructor ends with `open`."""
        self.options = options
        self.language = languages.get(language)
        self._lock = threading.Lock()
        self._others = SharedLock()
        self._pools: dict[tuple[str, int], Pool] = {}
        self._closed = False
        self.waits_s: deque[float] = deque(maxlen=1000)
        """How long each of the last runs waited for its box."""

    @abstractmethod
    def make_box(self, language: Language, memory_mb: int) -> Box:
        """A box that is yet to be started. Called from several threads."""

    def layout(self, language: Language) -> Layout:
        """What the box's runner has to know."""
        builds = language.compile is not None
        return Layout(self.options.parallel, builds, by_uid=True, uid_number=next(_uid_numbers))

    @abstractmethod
    def remedy(self, cause: str) -> str:
        """What to do where boxes cannot be started; `cause` holds what engine or system reported."""

    def is_own_fault(self, stderr: str) -> bool:
        """Whether what a failed first program left on standard error comes from the box, not the program."""
        return False

    def start_errors(self) -> tuple[type[Exception], ...]:
        """What making and starting a box may raise."""
        return BoxLost, OSError

    @abstractmethod
    def identity(self) -> str:
        """See `protocols.Sandbox`."""

    def open(self) -> None:
        """Begin to start boxes, and run a first program; the backend calls it once it can.

        Raises PrerequisiteError where that does not work; then it may be called again.
        """
        self._closed = False
        self._pools.clear()
        try:
            atexit.register(self.close)
            self._usual_pool()
            self._run_first_program()
        # Whoever is interrupted here has no sandbox yet to close, and the command may end without the exit
        # handlers: boxes that were made and not started would stay for good.
        except BaseException:
            self.close()
            raise

    def _run_first_program(self) -> None:
        """Run it and note the toolchain. Raises PrerequisiteError where that does not work."""
        language = self.language
        program, given = Program(language.probe, language=language.name), BoxInput(output_bytes=1 << 12)
        try:
            (result,) = self.run(program, [given], Limits())
        except SandboxError as exc:
            raise _no_sandbox(str(exc), self.remedy(str(exc))) from None
        if result.status is not ExecutionStatus.OK:
            status, said = result.status.value, result.stderr[-200:]
            cause = f"a first program in {language.name} ended with {status}: {said}"
            command = " ".join(language.compile or language.run or ("python3",))
            remedy = f"see whether this sandbox can run: {command}"
            raise _no_sandbox(cause, self.remedy(cause) if self.is_own_fault(result.stderr) else remedy)
        title, *libraries = result.stdout.splitlines()
        self.toolchain = Toolchain(title, tuple(libraries))

    def run(
        self,
        program: Program,
        inputs: Sequence[BoxInput],
        limits: Limits,
        stop_after: StopAfter | None = None,
    ) -> list[Execution]:
        """See `protocols.Sandbox`. Raises ConfigError for calls in a language that has none."""
        language = languages.get(program.language)
        if program.entry_point and not language.makes_calls:
            raise ConfigError(
                f"{language.name} programs read standard input; problems with calls need {languages.DEFAULT}"
            )
        if not inputs:
            return []
        most_output_mb = 2 * max(given.output_bytes for given in inputs) >> 20
        per_test_mb = limits.memory_mb + self.options.scratch_mb + most_output_mb
        memory_mb = max(self.options.memory_mb, per_test_mb + _RUNNER_MB)
        parallel = min(self.options.parallel, (memory_mb - _RUNNER_MB) // per_test_mb, len(inputs))
        names = {"output_mb", "total_output_mb", "scratch_mb", "n_processes"}
        caps = Caps(parallel=parallel, **self.options.model_dump(include=names))
        began = time.monotonic()
        with self._pool(language, memory_mb).box() as box, self._others.shared():
            self.waits_s.append(time.monotonic() - began)
            try:
                exclusive = self._others.exclusive()
                return box.run(program, language, inputs, limits, caps, stop_after, exclusive)
            except BoxLost as lost:
                cause = infrastructure_fault(box.how_it_ended(str(lost)))
                if cause is not None:
                    raise SandboxError(cause) from None
                return box.results_of_crash()

    def wait_ready(self, timeout_s: float = 60.0) -> bool:
        """Wait until the pool is full; false when that takes longer. For measurements; runs need not wait."""
        return self._usual_pool().wait_ready(timeout_s)

    def close(self) -> None:
        """See `protocols.Sandbox`."""
        with self._lock:
            self._closed = True
            pools = list(self._pools.values())
        for pool in pools:
            pool.close()
        atexit.unregister(self.close)

    def _new_box(self, language: Language, memory_mb: int) -> Box:
        """A box whose runner is ready. Raises SandboxError."""
        with ExitStack() as unless_ready:
            box = None
            try:
                box = self.make_box(language, memory_mb)
                unless_ready.callback(box.end)  # nobody else knows of it yet
                self._refuse_when_closed()  # a start would keep whoever closes it waiting
                box.start(self.layout(language))
            except self.start_errors() as exc:
                last = box.last_error() if box is not None else ""
                raise SandboxError(f"a box cannot be started: {one_line(exc)}{last}") from None
            unless_ready.pop_all()
            return box

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise SandboxError("the sandbox is closed")

    def _usual_pool(self) -> Pool:
        return self._pool(self.language, self.options.memory_mb)

    def _pool(self, language: Language, memory_mb: int) -> Pool:
        key = (language.name, memory_mb)
        with self._lock:
            if key not in self._pools:
                self._refuse_when_closed()
                usual = key == (self.language.name, self.options.memory_mb)
                n_ready = self.options.boxes_ready if usual else min(1, self.options.boxes_ready)
                self._pools[key] = Pool(lambda: self._new_box(language, memory_mb), n_ready)
            return self._pools[key]


def _no_sandbox(cause: str, remedy: str) -> PrerequisiteError:
    """On one line; what comes before the semicolon is the cause (see `install.Check`)."""
    return PrerequisiteError(f"{' '.join(cause.replace(';', ',').split())}; {remedy}")
