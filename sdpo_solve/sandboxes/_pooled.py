"""What every sandbox made of boxes has in common: options, pools, and the run of one program in one box.

A backend adds how a box is started and how it ended.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field

from sdpo_solve.errors import ConfigError, SandboxError
from sdpo_solve.protocols import StopAfter
from sdpo_solve.sandboxes import SandboxPlugin, languages
from sdpo_solve.sandboxes._box import Allowance, BoxEnd, BoxLost, Conversation, blame
from sdpo_solve.sandboxes._pool import Gate, Pool, Poolable
from sdpo_solve.types import BoxInput, Execution, Limits, Program

_RUNNER_MB = 128  # the runner with the inputs and outputs of the tests that run


class BoxOptions(BaseModel):
    """Options that mean the same for every backend."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    language: str = "python"
    """Language whose boxes are started ahead of need."""
    boxes_ready: int = Field(default=8, ge=0)
    """Boxes kept waiting."""
    parallel: int = Field(default_factory=lambda: min(4, os.cpu_count() or 1), ge=1, le=32)
    """Tests of one attempt that run at a time; fewer where memory would not do."""
    memory_mb: int = Field(default=2560, ge=256)
    """Memory of one box, MiB; more where a problem's limit asks for it."""
    scratch_mb: int = Field(default=16, ge=1)
    """Private directory of one test, in memory, MiB."""
    output_mb: float = Field(default=4.0, gt=0)
    """Output kept of one test, MiB; a program that writes more is stopped."""
    total_output_mb: float = Field(default=64.0, gt=0)
    """Output kept of all tests of one attempt, MiB."""
    n_processes: int = Field(default=32, ge=1)
    """Processes and threads of one test."""


class Box(Poolable, Protocol):
    """One started box."""

    @property
    def talk(self) -> Conversation:
        """The line to its runner."""

    def how_it_ended(self, seen: str) -> BoxEnd:
        """Why its runner fell silent; `seen` is what the line showed."""


class PooledSandbox(SandboxPlugin):
    """Implements `protocols.Sandbox` over boxes that a backend starts."""

    verdict_options = frozenset({"memory_mb", "scratch_mb", "output_mb", "total_output_mb", "n_processes"})

    @classmethod
    def build(cls, options: BoxOptions, language: str) -> PooledSandbox:
        """See `SandboxPlugin`. Raises ConfigError for a language set in two ways."""
        if options.language not in (BoxOptions().language, language):
            raise ConfigError("--set sandbox.language: the language of the programs is set with --language")
        return cls(options.model_copy(update={"language": language}))

    def __init__(self, options: BoxOptions) -> None:
        self._options = options
        self._gate = Gate()
        self._lock = threading.Lock()
        self._pools: dict[tuple[str, int], Pool[Box]] = {}
        self.waits_s: deque[float] = deque(maxlen=1000)
        """How long each of the last runs waited for its box."""

    @abstractmethod
    def start_box(self, language: str, memory_mb: int) -> Box:
        """A box whose runner is ready. Raises SandboxError. Called from several threads."""

    @abstractmethod
    def identity(self) -> str:
        """See `protocols.Sandbox`."""

    def open(self) -> None:
        """Begin to start boxes; the backend calls it once it can."""
        languages.get(self._options.language)
        atexit.register(self.close)
        self._pool(self._options.language, self._options.memory_mb)

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
                f"{language.name} programs read standard input; problems with calls need python"
            )
        if not inputs:
            return []
        per_test_mb = limits.memory_mb + self._options.scratch_mb
        memory_mb = max(self._options.memory_mb, per_test_mb + _RUNNER_MB)
        parallel = min(self._options.parallel, (memory_mb - _RUNNER_MB) // per_test_mb, len(inputs))
        allowance = self._allowance(parallel)
        began = time.monotonic()
        with self._pool(language.name, memory_mb).box() as box, self._gate.running():
            self.waits_s.append(time.monotonic() - began)
            try:
                quiet = self._gate.alone()
                return box.talk.run(program, language, inputs, limits, allowance, stop_after, quiet)
            except BoxLost as lost:
                cause = blame(box.how_it_ended(str(lost)))
                if cause is not None:
                    raise SandboxError(cause) from None
                return box.talk.without_runner()

    def wait_ready(self, timeout_s: float = 60.0) -> bool:
        """Wait until the pool is full; false when that takes longer. Nobody has to wait; figures want to."""
        return self._pool(self._options.language, self._options.memory_mb).wait_ready(timeout_s)

    def close(self) -> None:
        """See `protocols.Sandbox`."""
        with self._lock:
            pools = list(self._pools.values())
        for pool in pools:
            pool.close()
        atexit.unregister(self.close)

    def _allowance(self, parallel: int) -> Allowance:
        return Allowance(
            parallel=parallel,
            output_mb=self._options.output_mb,
            total_output_mb=self._options.total_output_mb,
            scratch_mb=self._options.scratch_mb,
            n_processes=self._options.n_processes,
        )

    def _pool(self, language: str, memory_mb: int) -> Pool[Box]:
        with self._lock:
            key = (language, memory_mb)
            if key not in self._pools:
                usual = key == (self._options.language, self._options.memory_mb)
                n_ready = self._options.boxes_ready if usual else min(1, self._options.boxes_ready)
                self._pools[key] = Pool(lambda: self.start_box(language, memory_mb), n_ready)
            return self._pools[key]
