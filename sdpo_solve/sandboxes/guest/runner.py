"""The runner inside a box: starts every test as a fresh process and reports what came out of it.

Standard library only: its source travels into the box over the stream, so that images hold nothing but
languages. It never sees an expected output and compares nothing. Where a test runs and how it is ended stands
in `slots.py`; what it uses, when it is killed and its status in `process.py`.

Frames in: the layout, one job, its inputs. Out: `ready`; `result`, one an input, in the order they end;
`broken` with the cause. The end of the incoming stream ends the box, whatever it is doing.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import platform
import select
import signal
import sys
import time
from typing import Any, NoReturn

from sdpo_solve.sandboxes.guest.forkserver import ForkServer
from sdpo_solve.sandboxes.guest.proc import processes
from sdpo_solve.sandboxes.guest.process import CHUNK, TICK_S, Test
from sdpo_solve.sandboxes.guest.slots import Allowed, NamespaceSlot, Slot, UidSlot, first_uid
from sdpo_solve.sandboxes.guest.wire import Unpacker, pack

ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"}
ENVIRONMENT |= {"OPENBLAS_NUM_THREADS": "1"}  # one test, one processor: its threads would only wait
_LAUNCH = "import marshal\nwith open(3, 'rb') as f: c, j = marshal.load(f), marshal.load(f)\nexec(c)\nmain(j)"
_LOW_FDS = 10
_NAMED = ("stdout", "stderr")  # that programs open by name, /dev/stdout
_BUILD = -1  # the index of the compiler's run
_BUILD_OUTPUT_BYTES = 1 << 22
_BUILD_ALLOWED = Allowed(time_s=30, wall_s=90, memory_mb=1536, file_bytes=64 << 20, n_processes=64)


class Job:
    """What all tests of an attempt have in common."""

    def __init__(self, head: dict[str, Any]) -> None:
        self.program: dict[str, Any] = head["program"]
        self.has_launcher: bool = head["run"] is None
        self.run: list[str] = head["run"] or [sys.executable, "-s", "-P", "-X", "utf8", "-c", _LAUNCH]
        self.compile: list[str] | None = head["compile"]
        self.files = {head["source"]: self.program["code"].encode("utf-8", "replace")}
        self.parallel: int = head["parallel"]
        self.allowed = Allowed(**head["allowed"])
        self.compile_error: dict[str, Any] | None = None
        self.compile_stderr = b""


class Launch:
    """How Python programs are started: compiled once, not in each test."""

    def __init__(self, layout: dict[str, Any], environment: dict[str, str]) -> None:
        launcher, self._values = (
            compile(layout[name], "<launcher>", "exec", dont_inherit=True) for name in ("launcher", "values")
        )
        self._launcher = marshal.dumps(launcher)
        by_uid = layout["by_uid"] and not layout["builds"]
        self.forks = ForkServer(environment, launcher, self._values) if by_uid else None

    def program(self, job: Job, calls: list[str]) -> bytes:
        """What a test reads on file 3."""
        given = {**job.program, "calls": calls, "wire": None}
        if self.forks is not None:
            return marshal.dumps(given)
        return self._launcher + marshal.dumps(given | {"values": self._values if calls else None})


class Runner:
    """Serves one job. One thread, one poll: nothing that a test does can keep it from the others."""

    def __init__(self, layout: dict[str, Any], incoming: Unpacker) -> None:
        self._environment = ENVIRONMENT | layout["environment"]
        self._launch = Launch(layout, self._environment)
        self._slots = _slots(layout)
        self._build_slot = self._slots.pop() if layout["builds"] else None
        self._incoming = incoming
        self._tests: dict[int, Test] = {}
        self._adopts = any(slot.pipes for slot in self._slots)  # what it adopts, some test will name
        self._ended: dict[int, tuple[int, float, float]] = {}
        self._job: Job | None = None
        self._last_watch = 0.0
        self._poll = select.poll()
        self._wake_fd, wake_write_fd = os.pipe()
        for fd in (self._wake_fd, wake_write_fd):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wake_write_fd, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._poll.register(self._wake_fd, select.POLLIN)

    def serve(self) -> NoReturn:
        """Until the incoming stream ends."""
        self._take_frames()
        while True:
            self._poll.register(0, select.POLLIN if self._has_room() else 0)  # 0: only its end
            for fd, event in self._poll.poll(TICK_S * 1000 if self._tests else None):
                if fd == 0:
                    self._receive(event)
                elif fd == self._wake_fd:
                    os.read(fd, CHUNK)
                else:
                    self._drain(fd)
            self._reap()
            if self._tests and time.monotonic() - self._last_watch >= TICK_S:
                self._watch()
            for test in list(self._tests.values()):
                if test.killed_for or test.pid in self._ended:
                    self._finish(test)
            self._take_frames()

    # -- the incoming stream ---------------------------------------------------------------------------------

    def _has_room(self) -> bool:
        building = any(test.index == _BUILD for test in self._tests.values())
        return not building and len(self._tests) < (self._job.parallel if self._job else 1)

    def _receive(self, event: int) -> None:
        data = os.read(0, CHUNK) if event & select.POLLIN else b""
        if not data:
            os._exit(0)  # whoever wanted the results is gone; the box ends with its first process
        self._incoming.feed(data)

    def _take_frames(self) -> None:
        while self._has_room() and (frame := self._incoming.next()):
            head, payload = frame
            if "program" in head:
                self._job = Job(head)
                if self._launch.forks is not None and self._job.program["preamble"]:
                    self._launch.forks.warm(self._job.program["preamble"])
                if self._job.compile:
                    self._start_build(self._job)
            else:
                assert self._job is not None
                self._start_test(self._job, head, payload)

    # -- starting --------------------------------------------------------------------------------------------

    def _start_build(self, job: Job) -> None:
        assert self._build_slot is not None
        assert job.compile is not None
        test = Test(_BUILD, self._build_slot, _BUILD_ALLOWED, _BUILD_OUTPUT_BYTES)
        self._start(test, job.compile, job.files, b"", b"")

    def _start_test(self, job: Job, head: dict[str, Any], stdin: bytes) -> None:
        if job.compile_error is not None:
            send(job.compile_error | {"result": head["index"]}, job.compile_stderr)
            return
        busy = {test.slot for test in self._tests.values()}
        slot = next(slot for slot in self._slots if slot not in busy)
        test = Test(head["index"], slot, job.allowed, head["output_bytes"])
        test.alone, test.n_calls = head["alone"], len(head["calls"])
        program = self._launch.program(job, head["calls"]) if job.has_launcher else b""
        self._start(test, job.run, {} if job.compile else job.files, stdin, program)

    def _start(
        self, test: Test, command: list[str], files: dict[str, bytes], stdin: bytes, program: bytes
    ) -> None:
        test.slot.prepare(files)
        given = [_memory_file(stdin), _memory_file(program)]
        ends = {}
        for name in test.written:
            read_fd, ends[name] = test.slot.pipe() if name in _NAMED else os.pipe()
            os.set_blocking(read_fd, False)
            test.fds[read_fd] = name
            self._poll.register(read_fd, select.POLLIN)
        forks = self._launch.forks if program else None
        if forks is not None and isinstance(test.slot, UidSlot):
            fds = [given[0], ends["stdout"], ends["stderr"], given[1], ends["values"], ends["setup"]]
            test.pid = forks.fork(test.slot, test.allowed, fds)
        else:
            test.pid = os.fork()
            if test.pid == 0:
                self._become(test, command, given, ends)
        for fd in (*given, *ends.values()):
            os.close(fd)
        self._tests[test.pid] = test

    def _become(self, test: Test, command: list[str], given: list[int], ends: dict[str, int]) -> NoReturn:
        """In the child: arrange its files and turn into the test."""
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and that is inherited
                signal.signal(number, signal.SIG_DFL)
            stdin_fd, program_fd = given
            for target, fd in enumerate(
                (stdin_fd, ends["stdout"], ends["stderr"], program_fd, ends["values"])
            ):
                os.dup2(fd, target)
            places = {"HOME": test.slot.home, "TMPDIR": test.slot.home}
            test.slot.become(command, self._environment | places, test.allowed, ends)
        except BaseException as exc:
            os.write(ends["setup"], f"{type(exc).__name__}: {exc}".encode())
        os._exit(127)

    # -- running ---------------------------------------------------------------------------------------------

    def _drain(self, fd: int) -> None:
        for test in self._tests.values():
            if fd in test.fds:
                test.drain(fd)
                if fd not in test.fds:
                    self._poll.unregister(fd)
                return

    def _reap(self) -> None:
        """Take the exit status of every child that ended, adopted ones included."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid in self._tests or self._adopts:
                    self._ended[pid] = (status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)

    def _watch(self) -> None:
        """What each test uses, with all its processes; decides which ones must go."""
        self._last_watch = time.monotonic()
        seen = processes()
        for test in self._tests.values():
            test.watch(test.slot.members(test.pids(), seen))

    # -- ending ----------------------------------------------------------------------------------------------

    def _finish(self, test: Test) -> None:
        assert self._job is not None
        wall_s = time.monotonic() - test.started
        for fd in [fd for fd, name in test.fds.items() if name in test.slot.pipes]:
            self._drain(fd)  # written before the program began
        pids = test.pids()
        test.slot.kill(pids, self._reap)
        for fd in list(test.fds):
            self._poll.unregister(fd)
            test.drain_to_end(fd)
        if test.written["setup"]:
            raise RuntimeError(f"a test could not be started: {test.written['setup'].decode()}")
        if test.index != _BUILD:
            test.slot.empty()
        wait_status = self._ended[test.pid][0]
        del self._tests[test.pid]
        for _, cpu_s, peak_mb in [self._ended.pop(pid) for pid in pids if pid in self._ended]:
            test.cpu_s, test.peak_mb = max(cpu_s, test.cpu_s), max(peak_mb, test.peak_mb)
        exit_code = test.slot.exit_code(wait_status)
        head = {"cpu_s": test.cpu_s, "wall_s": wall_s, "peak_mb": test.peak_mb, "exit_code": exit_code}
        if test.index == _BUILD:
            self._finish_build(self._job, test, head)
        else:
            self._report(self._job, test, head)

    def _report(self, job: Job, test: Test, head: dict[str, Any]) -> None:
        compiled, values = _split_values(bytes(test.written["values"]), job.has_launcher)
        status, again = test.status(head["exit_code"], compiled=compiled, n_values=len(values))
        if status == "runtime_error":
            test.written["stderr"] += _ending(test, head["exit_code"], len(values))
        texts = [bytes(test.written["stdout"]), bytes(test.written["stderr"]), b"\n".join(values)]
        head |= {"result": test.index, "status": status, "again": again, "n_values": len(values)}
        send(head | {"lengths": [len(text) for text in texts]}, b"".join(texts))

    def _finish_build(self, job: Job, test: Test, head: dict[str, Any]) -> None:
        """Keep the compiler's messages if it failed; every input then gets them."""
        if test.killed_for is None and head["exit_code"] == 0:
            return
        text = bytes(test.written["stderr"])
        if test.killed_for:
            text += f"\nthe compiler was stopped: too much {test.killed_for}\n".encode()
        job.compile_stderr = text
        job.compile_error = head | {"status": "compile_error", "again": False, "n_values": 0}
        job.compile_error["lengths"] = [0, len(text), 0]


def _slots(layout: dict[str, Any]) -> list[Slot]:
    """The places of a box; the last one is the compiler's where the language has one."""
    seccomp = bytes.fromhex(layout["seccomp"].get(platform.machine(), ""))
    paths = [f"/box/{i}" for i in range(layout["n_slots"])] + (["/box/build"] if layout["builds"] else [])
    if not layout["by_uid"]:
        return [NamespaceSlot(path, seccomp) for path in paths]
    guard = first_uid(layout["uid_number"])
    return [
        UidSlot(path, guard + 1 + i, guard, seccomp, shown=path == "/box/build")
        for i, path in enumerate(paths)
    ]


def _ending(test: Test, exit_code: int, n_values: int) -> bytes:
    """A last line for standard error, where it would not name the cause of a runtime error."""
    if test.killed_for == "processes":
        return b"\nthe program was stopped: too many processes\n"
    if exit_code < 0:
        return f"\nthe program was ended by signal {-exit_code} ({signal.strsignal(-exit_code)})\n".encode()
    if exit_code > 1 or (exit_code == 1 and not test.written["stderr"]):
        return f"\nthe program ended with exit code {exit_code}\n".encode()
    if exit_code == 0 and n_values < test.n_calls:
        return b"\nthe program ended before its function had returned\n"
    return b""


def _split_values(written: bytes, has_launcher: bool) -> tuple[bool, list[bytes]]:
    """Whether the program compiled, and the value lines; a torn last line is no value."""
    if not has_launcher:
        return True, []
    first, *rest = written.split(b"\n")
    return first == b"ok" and bool(rest), rest[:-1]


def _memory_file(data: bytes) -> int:
    """A file of its own in memory, at its start: reads like a pipe's end, and no writer can block."""
    fd = os.memfd_create("input")
    while data:
        data = data[os.write(fd, data) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def send(head: dict[str, Any], payload: bytes = b"") -> None:
    """Write one frame to the host."""
    data = memoryview(pack(head, payload))
    while data:
        data = data[os.write(1, data) :]


def main() -> NoReturn:
    """Take the layout, report that the box is ready, serve."""
    for fd in range(3, _LOW_FDS):  # so that no pipe takes a number that a test's own files will have
        os.dup2(2, fd, inheritable=False)
    with contextlib.suppress(OSError):
        os.chmod("/dev/mqueue", 0)
    with contextlib.suppress(OSError):  # each test's shared memory lies in its own directory
        if os.path.isdir("/dev/shm"):
            os.rmdir("/dev/shm")
        os.symlink("/proc/self/cwd", "/dev/shm")
    incoming = Unpacker()
    while (frame := incoming.next()) is None:
        data = os.read(0, CHUNK)
        if not data:
            os._exit(0)
        incoming.feed(data)
    try:
        runner = Runner(frame[0], incoming)
        send({"ready": platform.python_version()})
        runner.serve()
    except BaseException as exc:
        send({"broken": f"{type(exc).__name__}: {exc}"})
        os._exit(1)
