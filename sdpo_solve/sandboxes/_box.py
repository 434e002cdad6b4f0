"""One box, seen from the host: talks to the runner inside, and decides who is to blame when it falls silent.

Knows no engine: a backend hands in a `Channel` and says afterwards how the box ended.
"""

from __future__ import annotations

import dataclasses
import marshal
import select
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from sdpo_solve.protocols import StopAfter
from sdpo_solve.sandboxes import _seccomp, wire_values
from sdpo_solve.sandboxes.guest.wire import EXCERPT_BYTES, PATIENCE, Unpacker, pack
from sdpo_solve.sandboxes.languages import Language
from sdpo_solve.types import BoxInput, Execution, ExecutionStatus, Limits, Program

START_S = 60.0
_SILENCE_S = 60.0  # beyond a test's wall time: then the runner hangs
_LOOK_AGAIN_S = 1.0
_GUEST_MODULES = ("wire", "slots", "forks", "process", "runner")
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


class Channel(Protocol):
    """The two byte streams of a box."""

    def fileno(self) -> int:
        """For poll."""

    def write_fileno(self) -> int:
        """For poll; may be the same."""

    def send(self, data: memoryview) -> int:
        """Bytes taken, 0 when it would block. Raises OSError when the box is gone."""

    def receive(self) -> bytes | None:
        """What the runner wrote; b"" when there is nothing for us; None at the end. Raises OSError."""


class BoxLost(Exception):
    """The runner fell silent or gave up; the backend finds out why. The message is what was seen."""


@dataclass(frozen=True, slots=True)
class Setting:
    """How a box is laid out, for its runner."""

    n_slots: int
    """Places for tests: the directories /box/0, /box/1 and so on."""
    builds: bool
    """Whether there is a place for a compiler: /box/build."""
    first_uid: int | None
    """The first of `n_slots` + 2 user ids of the box's own; None: namespaces separate the tests."""
    environment: dict[str, str] = field(default_factory=dict)
    """Added to what tests get."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a box allows beyond the problem's own limits."""

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
    """What the backend learnt about a box that fell silent."""

    engine_answers: bool
    removed_from_outside: bool
    out_of_memory: bool
    detail: str


def blame(end: BoxEnd) -> str | None:
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
    return (Path(__file__).parent / "guest" / name).read_text(encoding="utf-8")


@cache
def _values_source() -> str:
    return Path(wire_values.__file__).read_text(encoding="utf-8")


class Conversation:
    """Frames to and from one runner over a channel that may block either way."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._incoming = Unpacker()
        self._outgoing = memoryview(b"")
        self._collected: _Collected | None = None
        self.at_rest = False
        """Whether every test of the job has ended."""

    def start(self, setting: Setting) -> None:
        """Send the runner and its setting into a box that runs COMMAND; `greeting` waits for the answer."""
        modules = [(f"{__package__}.guest.{name}", _source(f"{name}.py")) for name in _GUEST_MODULES]
        runner = marshal.dumps(modules, 2)
        head = dataclasses.asdict(setting) | {"seccomp": _seccomp.filters()}
        head |= {"launcher": _source("launcher.py"), "values": _values_source()}
        self._say(str(len(runner)).encode() + b"\n" + runner + pack(head))

    def greeting(self) -> dict[str, Any]:
        """What the runner says of itself once it is ready. Raises BoxLost."""
        deadline = time.monotonic() + START_S
        while self._outgoing:
            self._step(deadline)
        ready: dict[str, Any] = self._next_frame(START_S)[0]["ready"]
        return ready

    def run(
        self,
        program: Program,
        language: Language,
        inputs: Sequence[BoxInput],
        limits: Limits,
        allowance: Allowance,
        stop_after: StopAfter | None,
        quiet: AbstractContextManager[None],
    ) -> list[Execution]:
        """All tests of one attempt. `quiet` is entered while a test is repeated alone. Raises BoxLost."""
        self._say(pack(_job(program, language, limits, allowance)))
        collected = self._collected = _Collected(len(inputs), allowance, stop_after)
        silence_s = PATIENCE * wall_limit_s(limits) + _SILENCE_S
        frames = _input_frames(inputs, range(len(inputs)), alone=False)
        self._exchange(frames, len(inputs), collected, silence_s)
        if again := collected.start_repeats():
            with quiet:
                for index in again:
                    if not collected.stopped:
                        self._exchange(_input_frames(inputs, [index], alone=True), 1, collected, silence_s)
        self.at_rest = not collected.stopped
        return collected.results()

    def without_runner(self) -> list[Execution]:
        """The results of a program that brought its own runner down: an error in the test that was next."""
        assert self._collected is not None
        return self._collected.broken_off()

    def _exchange(self, frames: Iterator[bytes], n: int, collected: _Collected, silence_s: float) -> None:
        while n and not collected.stopped:
            head, payload = self._next_frame(silence_s, frames)
            collected.add(head, payload)
            n -= 1

    def _say(self, data: bytes) -> None:
        self._outgoing = memoryview(bytes(self._outgoing) + data)

    def _next_frame(self, silence_s: float, more: Iterator[bytes] = iter(())) -> tuple[dict[str, Any], bytes]:  # noqa: B008
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
            read_fd, write_fd = self._channel.fileno(), self._channel.write_fileno()
            poll = select.poll()
            poll.register(read_fd, select.POLLIN)
            if self._outgoing:
                poll.register(write_fd, select.POLLOUT | (select.POLLIN if read_fd == write_fd else 0))
        except ValueError:  # what a closed file or socket says of its number
            raise BoxLost("its stream was closed") from None
        ready = poll.poll(min(left_s, _LOOK_AGAIN_S) * 1000)
        try:
            if self._outgoing and any(event & ~select.POLLIN for _, event in ready):
                self._outgoing = self._outgoing[self._channel.send(self._outgoing) :]
            if any(event & ~select.POLLOUT for _, event in ready):
                data = self._channel.receive()
                if data is None:
                    raise BoxLost("its stream ended")
                self._incoming.feed(data)
        except OSError as exc:
            raise BoxLost(f"its stream broke: {exc}") from None


class _Collected:
    """Results as they come in, believed in input order."""

    def __init__(self, n: int, allowance: Allowance, stop_after: StopAfter | None) -> None:
        self._results: list[Execution | None] = [None] * n
        self._doubtful: set[int] = set()
        self._n_believed = 0
        self._n_bytes_left = int(allowance.total_output_mb * 2**20)
        self._stop_after = stop_after
        self.stopped = False

    def add(self, head: dict[str, Any], payload: bytes) -> None:
        index = head["result"]
        if head["again"]:
            self._doubtful.add(index)
        self._n_bytes_left -= len(payload)
        if self._n_bytes_left < 0 and head["status"] == ExecutionStatus.OK:
            head["status"] = ExecutionStatus.OUTPUT_LIMIT
            payload, head["lengths"] = payload[:EXCERPT_BYTES], [EXCERPT_BYTES, 0, 0]
            head["n_values"] = 0
        self._results[index] = _result(head, payload)
        self._believe()

    def start_repeats(self) -> list[int]:
        """The indices that are to be run again alone, in order; from now on results are believed."""
        again = sorted(self._doubtful) if not self.stopped else []
        self._doubtful.clear()
        for index in again:
            self._results[index] = None
        return again

    def broken_off(self) -> list[Execution]:
        results = self.results()
        if self._n_believed < len(results):
            words = "the program brought down the process that ran it"
            results[self._n_believed] = Execution(ExecutionStatus.RUNTIME_ERROR, stderr=words)
        return results

    def results(self) -> list[Execution]:
        none = Execution(ExecutionStatus.NOT_RUN)
        believed = [result or none for result in self._results[: self._n_believed]]
        return believed + [none] * (len(self._results) - self._n_believed)

    def _believe(self) -> None:
        while not self.stopped and self._n_believed < len(self._results):
            result = self._results[self._n_believed]
            if result is None or self._n_believed in self._doubtful:
                return
            self._n_believed += 1
            self.stopped = bool(self._stop_after and self._stop_after(self._n_believed - 1, result))


def _job(program: Program, language: Language, limits: Limits, allowance: Allowance) -> dict[str, Any]:
    texts = {"code": program.code, "preamble": program.preamble, "entry": program.entry_point}
    return {
        "program": texts,
        "run": language.run,
        "compile": language.compile,
        "source": language.source,
        "output_bytes": int(allowance.output_mb * 2**20),
        "parallel": allowance.parallel,
        "allowed": {
            "time_s": limits.time_s,
            "wall_s": wall_limit_s(limits),
            "memory_mb": limits.memory_mb,
            "file_bytes": allowance.scratch_mb << 20,
            "n_processes": allowance.n_processes,
        },
    }


def _input_frames(inputs: Sequence[BoxInput], indices: Sequence[int], *, alone: bool) -> Iterator[bytes]:
    """Made one at a time: the runner takes one when it has room for a test."""
    for index in indices:
        calls = [wire_values.encode([list(call.args), dict(call.kwargs)]) for call in inputs[index].calls]
        head = {"index": index, "alone": alone, "calls": calls}
        yield pack(head, inputs[index].stdin.encode("utf-8", "surrogatepass"))


def _result(head: dict[str, Any], payload: bytes) -> Execution:
    n_stdout, n_stderr, _ = head["lengths"]
    texts = [payload[:n_stdout], payload[n_stdout : n_stdout + n_stderr], payload[n_stdout + n_stderr :]]
    stdout, stderr, lines = (text.decode("utf-8", "replace") for text in texts)
    return Execution(
        status=ExecutionStatus(head["status"]),
        stdout=stdout,
        stderr=stderr,
        exit_code=head["exit_code"],
        cpu_s=head["cpu_s"],
        wall_s=head["wall_s"],
        peak_mb=head["peak_mb"],
        values=tuple(lines.split("\n")) if head["n_values"] else (),
    )
