"""A started box seen from the host: frames to and from the runner inside, results in input order.

A backend subclasses `Box` with the byte stream and with what is known of a box that ended.
"""

from __future__ import annotations

import dataclasses
import marshal
import select
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from sdpo_solve.protocols import StopAfter
from sdpo_solve.sandboxes import _seccomp, wire_values
from sdpo_solve.sandboxes.guest.wire import EXCERPT_BYTES, MAX_WALL_FACTOR, Unpacker, pack
from sdpo_solve.sandboxes.languages import Language
from sdpo_solve.types import BoxInput, Execution, ExecutionStatus, Limits, Program

START_S = 60.0
_SILENCE_S = 60.0  # beyond a test's wall time: then the runner hangs
_POLL_S = 1.0
_GUEST_MODULES = ("wire", "proc", "slots", "forkserver", "process", "runner")
# Takes the modules off the stream, then gives it to the last one's `main`.
_BOOTSTRAP = r"""
import marshal, os, sys
n = int(b"".join(iter(lambda: os.read(0, 1) or os._exit(0), b"\n")))
s = b""
while len(s) < n:
    s += os.read(0, n - len(s)) or os._exit(0)
for name, source in marshal.loads(s):
    module = sys.modules[name] = type(sys)(name)
    module.CODE = compile(source, f"<{name}>", "exec")
    exec(module.CODE, module.__dict__)
module.main()
"""
COMMAND = ("python3", "-I", "-c", _BOOTSTRAP)
"""What a box runs; everything else arrives over its standard input."""


class BoxLost(Exception):
    """The runner fell silent or gave up; the backend finds out why. The message is what was seen."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a box is laid out, for its runner."""

    n_slots: int
    """Places for tests: the directories /box/0, /box/1 and so on."""
    builds: bool
    """Whether there is a place for a compiler: /box/build."""
    by_uid: bool
    """Whether user ids separate the tests; otherwise namespaces do."""
    uid_number: int
    """Which of the blocks of user ids the box takes: the kernel counts processes by id, across boxes."""
    environment: dict[str, str] = field(default_factory=dict)
    """Added to what tests get."""


@dataclass(frozen=True, slots=True)
class Caps:
    """What an attempt may use beyond the problem's own limits."""

    parallel: int
    """Tests at a time."""
    output_mb: float
    """Kept of one test's output, MiB."""
    total_output_mb: float
    """Kept of all tests of an attempt, MiB."""
    scratch_mb: int
    """Private directory of a test, MiB."""
    n_processes: int
    """Processes and threads of one test."""


@dataclass(frozen=True, slots=True)
class BoxEnd:
    """The backend's facts about a box that stopped answering."""

    engine_answers: bool
    removed_from_outside: bool
    out_of_memory: bool
    detail: str


def infrastructure_fault(end: BoxEnd) -> str | None:
    """The cause if the box broke; None if the program brought its own runner down.

    Out of memory is the only way a program has to reach the runner: it can send it no signal, use up none
    of its processes or files, and write nowhere that the runner reads.
    """
    if not end.engine_answers:
        return f"the sandbox engine stopped answering ({end.detail})"
    if end.removed_from_outside:
        return f"the box was removed from outside ({end.detail})"
    if end.out_of_memory:
        return None
    return f"the box ended by itself ({end.detail})"


def wall_limit_s(limits: Limits) -> float:
    """Wall time of one test, without waits for a processor. Processor time comes first, this ends sleep."""
    return 2 * limits.time_s + 1


@cache
def _source(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


class Box(ABC):
    """One started box. Its stream may block either way; one job, then it is ended."""

    def __init__(self) -> None:
        self._incoming = Unpacker()
        self._outgoing = memoryview(b"")
        self._results: Results | None = None
        self.at_rest = False
        """Whether every test of the job has ended, so that the box may be ended later."""

    # -- what a backend adds ---------------------------------------------------------------------------------

    @abstractmethod
    def fileno(self) -> int:
        """Of the stream that is read. Raises ValueError once it is closed."""

    def write_fileno(self) -> int:
        """Of the stream that is written; may be the same."""
        return self.fileno()

    @abstractmethod
    def send(self, data: memoryview) -> int:
        """Bytes taken, 0 when it would block. Raises OSError when the box is gone."""

    @abstractmethod
    def receive(self) -> bytes | None:
        """What the runner wrote; b"" when there is nothing for us; None at the end. Raises OSError."""

    @abstractmethod
    def errors(self) -> bytes:
        """What runner and engine wrote to standard error."""

    @abstractmethod
    def how_it_ended(self, seen: str) -> BoxEnd:
        """Why its runner fell silent; `seen` is what the stream showed."""

    @abstractmethod
    def end(self) -> None:
        """Remove it. Raises nothing; safe to call twice."""

    def alive(self) -> bool:
        """Whether its runner still waits for a job."""
        try:
            return self.receive() == b""
        except OSError:
            return False

    # -- its runner ------------------------------------------------------------------------------------------

    def start(self, layout: Layout) -> None:
        """Send the runner and its layout into a box that runs COMMAND, and wait until it is ready.

        Raises BoxLost.
        """
        modules = [(f"{__package__}.guest.{name}", _source(f"guest/{name}.py")) for name in _GUEST_MODULES]
        runner = marshal.dumps(modules, 2)
        head = dataclasses.asdict(layout) | {"seccomp": _seccomp.filters()}
        head |= {"launcher": _source("guest/launcher.py"), "values": _source(Path(wire_values.__file__).name)}
        self._queue(str(len(runner)).encode() + b"\n" + runner + pack(head))
        deadline = time.monotonic() + START_S
        while self._outgoing:
            self._step(deadline)
        self._next_frame(START_S)

    def run(
        self,
        program: Program,
        language: Language,
        inputs: Sequence[BoxInput],
        limits: Limits,
        caps: Caps,
        stop_after: StopAfter | None,
        exclusive: AbstractContextManager[None],
    ) -> list[Execution]:
        """All tests of one attempt. `exclusive` is entered while a test is repeated alone. Raises BoxLost."""
        self._queue(pack(_job(program, language, limits, caps)))
        extra_bytes = sum(2 * given.output_bytes for given in inputs)
        results = self._results = Results(len(inputs), caps, stop_after, extra_bytes)
        silence_s = MAX_WALL_FACTOR * wall_limit_s(limits) + _SILENCE_S
        self._exchange(_input_frames(inputs, range(len(inputs)), caps, alone=False), len(inputs), silence_s)
        if repeats := results.start_repeats():
            with exclusive:
                for index in repeats:
                    self._exchange(_input_frames(inputs, [index], caps, alone=True), 1, silence_s)
        self.at_rest = not results.stopped
        return results.all()

    def results_of_crash(self) -> list[Execution]:
        """The results of a program that brought its own runner down: an error in the test that was next."""
        assert self._results is not None
        return self._results.after_crash()

    def last_error(self) -> str:
        """The last line on standard error, in parentheses; empty where there is none."""
        lines = self.errors().decode("utf-8", "replace").strip().splitlines()
        return f" ({lines[-1]})" if lines else ""

    def _exchange(self, frames: Iterator[bytes], n: int, silence_s: float) -> None:
        assert self._results is not None
        while n and not self._results.stopped:
            self._results.add(*self._next_frame(silence_s, frames))
            n -= 1

    def _queue(self, data: bytes) -> None:
        self._outgoing = memoryview(bytes(self._outgoing) + data)

    def _next_frame(self, silence_s: float, more: Iterator[bytes] = iter(())) -> tuple[dict[str, Any], bytes]:  # noqa: B008
        """The runner's next frame; meanwhile sends `more`. Raises BoxLost after `silence_s`."""
        deadline = time.monotonic() + silence_s
        while (frame := self._incoming.next()) is None:
            if not self._outgoing:
                self._outgoing = memoryview(next(more, b""))
            self._step(deadline)
        if "broken" in frame[0]:
            raise BoxLost(f"its runner reports: {frame[0]['broken']}")
        return frame

    def _step(self, deadline: float) -> None:
        """Move some bytes, whichever way they can go, or look again after a while.

        Another thread may end the box at any moment. The number of its stream can then belong to something
        else before the poll has begun, and no event of ours would come any more.
        """
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise BoxLost("its runner does not answer")
        try:
            read_fd, write_fd = self.fileno(), self.write_fileno()
            poll = select.poll()
            poll.register(read_fd, select.POLLIN)
            if self._outgoing:
                poll.register(write_fd, select.POLLOUT | (select.POLLIN if read_fd == write_fd else 0))
        except ValueError:  # a closed file or socket has no number
            raise BoxLost("its stream was closed") from None
        ready = poll.poll(min(left_s, _POLL_S) * 1000)
        try:
            if self._outgoing and any(event & ~select.POLLIN for _, event in ready):
                self._outgoing = self._outgoing[self.send(self._outgoing) :]
            if any(event & ~select.POLLOUT for _, event in ready):
                data = self.receive()
                if data is None:
                    raise BoxLost("its stream ended")
                self._incoming.feed(data)
        except OSError as exc:
            raise BoxLost(f"its stream broke: {exc}") from None


class Results:
    """Results of one attempt as they come in, accepted in input order."""

    def __init__(self, n: int, caps: Caps, stop_after: StopAfter | None, extra_output_bytes: int = 0) -> None:
        self._results: list[Execution | None] = [None] * n
        self._to_repeat: set[int] = set()
        self._n_accepted = 0
        self._n_bytes_left = int(caps.total_output_mb * 2**20) + extra_output_bytes
        self._stop_after = stop_after
        self.stopped = False

    def add(self, head: dict[str, Any], payload: bytes) -> None:
        """One result frame."""
        index = head["result"]
        if head["again"]:
            self._to_repeat.add(index)
        self._n_bytes_left -= len(payload)
        if self._n_bytes_left < 0 and head["status"] == ExecutionStatus.OK:
            payload = payload[:EXCERPT_BYTES]
            head |= {"status": "output_limit", "lengths": [EXCERPT_BYTES, 0, 0], "n_values": 0}
        self._results[index] = _execution(head, payload)
        self._accept()

    def start_repeats(self) -> list[int]:
        """The indices that are to be run again alone, in order; from now on results are accepted."""
        repeats = sorted(self._to_repeat) if not self.stopped else []
        self._to_repeat.clear()
        for index in repeats:
            self._results[index] = None
        return repeats

    def after_crash(self) -> list[Execution]:
        results = self.all()
        if self._n_accepted < len(results):
            message = "the program brought down the process that ran it"
            results[self._n_accepted] = Execution(ExecutionStatus.RUNTIME_ERROR, stderr=message)
        return results

    def all(self) -> list[Execution]:
        """One an input; NOT_RUN for those that were not accepted."""
        not_run = Execution(ExecutionStatus.NOT_RUN)
        accepted = [result or not_run for result in self._results[: self._n_accepted]]
        return accepted + [not_run] * (len(self._results) - self._n_accepted)

    def _accept(self) -> None:
        while not self.stopped and self._n_accepted < len(self._results):
            result = self._results[self._n_accepted]
            if result is None or self._n_accepted in self._to_repeat:
                return
            self._n_accepted += 1
            self.stopped = bool(self._stop_after and self._stop_after(self._n_accepted - 1, result))


def _job(program: Program, language: Language, limits: Limits, caps: Caps) -> dict[str, Any]:
    return {
        "program": {"code": program.code, "preamble": program.preamble, "entry": program.entry_point},
        "run": language.run,
        "compile": language.compile,
        "source": language.source,
        "parallel": caps.parallel,
        "allowed": {
            "time_s": limits.time_s,
            "wall_s": wall_limit_s(limits),
            "memory_mb": limits.memory_mb,
            "file_bytes": caps.scratch_mb << 20,
            "n_processes": caps.n_processes,
        },
    }


def _input_frames(
    inputs: Sequence[BoxInput], indices: Sequence[int], caps: Caps, *, alone: bool
) -> Iterator[bytes]:
    """Made one at a time: the runner takes one when it has room for a test."""
    for index in indices:
        given = inputs[index]
        calls = [wire_values.encode([list(call.args), dict(call.kwargs)]) for call in given.calls]
        output_bytes = int(caps.output_mb * 2**20) + 2 * given.output_bytes
        head = {"index": index, "alone": alone, "calls": calls, "output_bytes": output_bytes}
        yield pack(head, given.stdin.encode("utf-8", "surrogatepass"))


def _execution(head: dict[str, Any], payload: bytes) -> Execution:
    n_stdout, n_stderr, _ = head["lengths"]
    parts = payload[:n_stdout], payload[n_stdout : n_stdout + n_stderr], payload[n_stdout + n_stderr :]
    stdout, stderr, lines = (part.decode("utf-8", "replace") for part in parts)
    measured = {name: head[name] for name in ("exit_code", "cpu_s", "wall_s", "peak_mb")}
    values = tuple(lines.split("\n")) if head["n_values"] else ()
    return Execution(ExecutionStatus(head["status"]), stdout, stderr, values=values, **measured)
