"""The fork server: tests as forks of one process that holds the interpreter ready.

Python's start is paid once a box. The process is started before any job arrives and never sees one: what a
test runs reaches the fork alone, in a file of its own, so a test finds nothing of another in its memory.
`ForkServer` is the runner's side, `serve` the other. Only where user ids keep tests apart: a namespace needs
a start of its own. Standard library only, no work at import: its source travels into the box.
"""

from __future__ import annotations

import _socket
import ctypes
import gc
import io
import marshal
import os
import sys
from types import CodeType
from typing import Any, cast

from sdpo_solve.sandboxes.guest.slots import Allowed, UidSlot, allow_stack

_MODULES = ("proc", "slots", "forkserver")
_TARGETS = 5  # files that every test has: input, output, errors, its program, its values
_LOW_FDS = 10
_REQUEST_BYTES = 1 << 16
_BOOTSTRAP = r"""
import marshal, sys
with open(3, "rb") as f:
    modules, own, fd = marshal.load(f)
for name, code in modules:
    sys.modules[name] = type(sys)(name)
    exec(code, sys.modules[name].__dict__)
job = sys.modules[modules[-1][0]].serve(own, fd)
for name, code in modules:
    del sys.modules[name]
own["main"](job)
"""


class ForkServer:
    """Starts the process, and requests forks from it. Raises OSError or RuntimeError when it is gone."""

    def __init__(self, environment: dict[str, str], launcher: CodeType, values: CodeType) -> None:
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: the runner adopts the forks
        self._socket, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        package = __name__.rpartition(".")[0]
        modules = [(f"{package}.{name}", sys.modules[f"{package}.{name}"].CODE) for name in _MODULES]
        given = os.memfd_create("modules")
        os.write(given, marshal.dumps((modules, {"launcher": launcher, "values": values}, theirs.fileno())))
        os.lseek(given, 0, os.SEEK_SET)
        if os.fork() == 0:
            self._become(environment, given, theirs.fileno())
        os.close(given)
        theirs.close()
        self._answer()

    def _become(self, environment: dict[str, str], given: int, own_fd: int) -> None:
        try:
            os.setsid()
            null = os.open("/dev/null", os.O_RDWR)
            for target, fd in enumerate((null, null, 2, given)):
                os.dup2(fd, target)
            os.set_inheritable(own_fd, True)
            allow_stack()
            flags = ["-s", "-P", "-X", "utf8"]
            os.execve(sys.executable, [sys.executable, *flags, "-c", _BOOTSTRAP], environment)
        finally:
            os._exit(127)

    def warm(self, preamble: str) -> None:
        """Have it import what a job's preamble imports: the runner's preamble, not the program's."""
        self._ask({"preamble": preamble}, [])

    def fork(self, slot: UidSlot, allowed: Allowed, fds: list[int]) -> int:
        """Start a test. `fds`: its five files in order, and where to write what keeps it from starting."""
        return self._ask({"slot": slot.facts(), "allowed": tuple(allowed)}, fds)

    def _ask(self, request: dict[str, Any], fds: list[int]) -> int:
        packed = b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds)
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed)] if fds else []
        self._socket.sendmsg([marshal.dumps(request)], rights)
        return self._answer()

    def _answer(self) -> int:
        answer = self._socket.recv(64)
        if not answer:
            raise RuntimeError("the process that starts tests is gone")
        return int(answer)


def serve(own: dict[str, Any], fd: int) -> dict[str, Any]:
    """Answer requests until the runner is gone. Returns only in a fork that has become a test: its job."""
    import json  # noqa: F401 (what a launcher imports once it runs)
    import linecache  # noqa: F401
    import traceback  # noqa: F401

    wire: dict[str, Any] = {"__name__": "values"}
    exec(own.pop("values"), wire)
    exec(own.pop("launcher"), own)
    for low in range(3, _LOW_FDS):
        os.dup2(2, low, inheritable=False)
    line = _socket.socket(fileno=fd)
    gc.collect()
    gc.freeze()
    line.send(b"0")
    while True:
        request, fds = _receive(line)
        if "preamble" in request:
            exec(compile(request["preamble"], "<preamble>", "exec", dont_inherit=True), {})
            gc.freeze()
            line.send(b"0")
            continue
        between = os.fork()
        if between == 0:
            pid = os.fork()  # whose parent ends at once, so that the runner adopts it
            if pid == 0:
                return _become_test(request, fds) | {"wire": wire}
            line.send(str(pid).encode())
            os._exit(0)
        for given in fds:
            os.close(given)
        os.waitpid(between, 0)


def _receive(line: _socket.socket) -> tuple[dict[str, Any], list[int]]:
    data, rights, _, _ = line.recvmsg(_REQUEST_BYTES, _socket.CMSG_SPACE(4 * (_TARGETS + 1)))
    if not data:
        os._exit(0)
    packed = b"".join(bytes(part) for _, _, part in rights)
    fds = [int.from_bytes(packed[at : at + 4], sys.byteorder) for at in range(0, len(packed), 4)]
    return marshal.loads(data), fds


def _become_test(request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """In the fork: its own files, rights and standard streams, as if it had just been started."""
    *given, setup = fds
    try:
        os.setsid()
        for target, fd in enumerate(given):
            os.dup2(fd, target)
        slot = UidSlot(*request["slot"])
        slot.give_up_rights(Allowed(*request["allowed"]))
        os.environ |= {"HOME": slot.home, "TMPDIR": slot.home}
        with open(_TARGETS - 2, "rb") as file:
            job: dict[str, Any] = marshal.load(file)
        sys.stdin, sys.stdout, sys.stderr = _streams()
        sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]
        os.closerange(_TARGETS, 256)  # `setup` too, whose end says that all went well
        return job
    except BaseException as exc:
        os.write(setup, f"{type(exc).__name__}: {exc}".encode())
        os._exit(127)


def _streams() -> tuple[io.TextIOWrapper, io.TextIOWrapper, io.TextIOWrapper]:
    """The three that Python makes at its start."""
    return (
        _stream(0, "<stdin>", "r", "surrogateescape"),
        _stream(1, "<stdout>", "w", "surrogateescape"),
        _stream(2, "<stderr>", "w", "backslashreplace"),
    )


def _stream(fd: int, name: str, mode: str, errors: str) -> io.TextIOWrapper:
    raw: Any = io.FileIO(fd, mode, closefd=False)
    raw.name = name
    buffer: Any = io.BufferedWriter(raw) if mode == "w" else io.BufferedReader(raw)
    newline = "\n" if mode == "w" else None
    stream: Any = io.TextIOWrapper(buffer, "utf-8", errors, newline=newline, line_buffering=fd == 2)
    stream.mode = mode
    return cast(io.TextIOWrapper, stream)
