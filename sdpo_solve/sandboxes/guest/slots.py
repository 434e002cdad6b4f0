"""Where a test runs inside a box: a place of its own, emptied and killed as a whole afterwards.

Two kinds. `UidSlot` needs a runner that may change user ids (Docker): the user id separates tests from each
other and from the runner. `NamespaceSlot` needs no right at all (bubblewrap): each test gets namespaces of
its own. Standard library only, no work at import: its source travels into the box.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, NoReturn

from sdpo_solve.sandboxes.guest.proc import Process, entry, processes

_STACK_MB = 512  # for 50,000 nested calls
_ADDRESS_SPACE_MB = 1 << 16  # some programs reserve gigabytes that they never touch; memory is watched
_KILL_S = 20.0
_ID_BLOCK = 64
_LEAST_ID, _MOST_ID = 4096, 1 << 30


def allow_stack() -> None:
    """A stack for deep recursion; a program may ask for more. Laid out when a program is started."""
    resource.setrlimit(resource.RLIMIT_STACK, (_STACK_MB << 20, resource.getrlimit(resource.RLIMIT_STACK)[1]))


def first_to_go() -> None:
    """Have the kernel end this process before others when memory runs out."""
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


def first_uid(number: int) -> int:
    """The first of a block of 64 user ids that this user namespace maps: 65,536 in all where it is rootless.

    `number` chooses among the blocks. Raises OSError where no block is mapped.
    """
    blocks: set[range] | None = None
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/self/{name}") as file:
            rows = [[int(field) for field in line.split()] for line in file]
        mapped = {
            range(_align(max(first, _LEAST_ID)), min(first + n, _MOST_ID) - _ID_BLOCK, _ID_BLOCK)
            for first, _, n in rows
        }
        blocks = mapped if blocks is None else blocks & mapped
    found = max(blocks or (), key=len, default=range(0))
    if not found:
        raise OSError("this user namespace maps no user ids for tests (/proc/self/uid_map)")
    return found[number % len(found)]


def _align(number: int) -> int:
    return -(-number // _ID_BLOCK) * _ID_BLOCK


class Allowed(NamedTuple):
    """What one test may use."""

    time_s: float
    wall_s: float
    memory_mb: float
    file_bytes: int
    n_processes: int

    def set_rlimits(self) -> None:
        """Those that hold for one process. Memory is watched instead: a big stack is not yet memory."""
        allow_stack()
        for what, most in (
            (resource.RLIMIT_CPU, int(self.time_s * 2) + 2),
            (resource.RLIMIT_FSIZE, self.file_bytes),
            (resource.RLIMIT_NOFILE, 256),
            (resource.RLIMIT_CORE, 0),
        ):
            resource.setrlimit(what, (most, most))


class Slot:
    """A place for one test at a time. `path` is in the box; `home` is the test's working directory."""

    pipes: tuple[str, ...] = ()
    """Pipes that `become` writes to, beyond those that every test has."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.home = path + "/home"

    def prepare(self, files: dict[str, bytes]) -> None:
        """Make an empty home with these files."""

    def pipe(self) -> tuple[int, int]:
        """A pipe that the test may also open by name, such as /dev/stdout: its ends to read and to write."""
        return os.pipe()

    def become(
        self, command: list[str], environment: dict[str, str], allowed: Allowed, ends: dict[str, int]
    ) -> NoReturn:
        """In the forked child: give up every right and turn into the test. Raises OSError."""
        raise NotImplementedError

    def pids(self, pid: int, info: bytes) -> list[int]:
        """The processes whose end is the test's: the child, and those that it names in its `pipes`."""
        return [pid]

    def members(self, pids: list[int], seen: list[Process]) -> list[Process]:
        """The test's processes, all of them."""
        raise NotImplementedError

    def kill(self, pids: list[int], reap: Callable[[], None]) -> None:
        """End every process of the test, and have each of `pids` reaped. Raises TimeoutError."""
        raise NotImplementedError

    def empty(self) -> None:
        """Remove the home and everything in it."""
        raise NotImplementedError

    def n_files(self) -> int:
        """Files and directories in the slot."""
        counts = os.statvfs(self.path)
        return counts.f_files - counts.f_ffree

    def exit_code(self, wait_status: int) -> int:
        """As `subprocess` has it: negative for a signal."""
        return os.waitstatus_to_exitcode(wait_status)


class UidSlot(Slot):
    """A user id and a small file system. The runner is root with SETUID, SETGID and KILL."""

    def __init__(self, path: str, uid: int, guard_uid: int, seccomp: bytes, *, shown: bool = False) -> None:
        """`shown`: the others may run what lies in its home, by name."""
        super().__init__(path)
        self._home_mode = 0o711 if shown else 0o700
        self._uid = uid
        self._guard_uid = guard_uid  # real id while acting as `uid`, so that its processes cannot signal us
        self._seccomp = seccomp
        self._libc = ctypes.CDLL(None, use_errno=True)

    @contextlib.contextmanager
    def _acting(self) -> Iterator[None]:
        os.setresuid(self._guard_uid, self._uid, 0)
        try:
            yield
        finally:
            os.setresuid(0, 0, 0)

    def prepare(self, files: dict[str, bytes]) -> None:
        os.chmod(self.path, 0o733)
        with self._acting():
            os.mkdir(self.home, 0o700)
            os.chmod(self.home, self._home_mode)
            for name, data in files.items():
                with open(f"{self.home}/{name}", "wb") as file:
                    file.write(data)
        os.chmod(self.path, 0o711)

    def pipe(self) -> tuple[int, int]:
        with self._acting():  # its owner alone may open it
            return os.pipe()

    def become(
        self, command: list[str], environment: dict[str, str], allowed: Allowed, ends: dict[str, int]
    ) -> NoReturn:
        self.give_up_rights(allowed)
        try:
            os.execvpe(command[0], command, environment)
        except FileNotFoundError:  # reported as by the other kind's `prlimit`: the box itself works
            os.write(2, f"{command[0]}: no such program\n".encode())
            os._exit(127)

    def facts(self) -> tuple[str, int, int, bytes]:
        """What makes another of these."""
        return self.path, self._uid, self._guard_uid, self._seccomp

    def give_up_rights(self, allowed: Allowed) -> None:
        """Turn this process into one of the test's, in its home. Raises OSError."""
        first_to_go()
        allowed.set_rlimits()
        resource.setrlimit(resource.RLIMIT_NPROC, (allowed.n_processes, allowed.n_processes))
        os.setgroups([])
        os.setresgid(self._uid, self._uid, self._uid)
        os.setresuid(self._uid, self._uid, self._uid)
        os.chdir(self.home)
        _drop_capabilities(self._libc)
        self._libc.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: /proc/self belongs to the user it now is
        _refuse_system_calls(self._libc, self._seccomp)

    def members(self, pids: list[int], seen: list[Process]) -> list[Process]:
        return [process for process in seen if process.uid == self._uid]

    def kill(self, pids: list[int], reap: Callable[[], None]) -> None:
        deadline = time.monotonic() + _KILL_S
        while True:
            with self._acting(), contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(-1, signal.SIGKILL)
            reap()
            if not self._anyone_left():
                return
            if time.monotonic() > deadline:
                raise TimeoutError("processes of a test cannot be killed")
            time.sleep(0.001)

    def _anyone_left(self) -> bool:
        """Like `members`, but quick: the owner of a process shows, unless it hides from tracing as root."""
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                owner = os.stat(f"/proc/{name}").st_uid
                if owner == self._uid or (owner == 0 and int(name) != os.getpid() and self._owns(name)):
                    return True
        return False

    def _owns(self, pid: str) -> bool:
        with open(f"/proc/{pid}/status", "rb") as status:
            return int(entry(status.read(), b"Uid")) == self._uid

    def empty(self) -> None:
        with self._acting():
            _empty(self.home)
        os.rmdir(self.home)


class NamespaceSlot(Slot):
    """Namespaces of its own, made by bubblewrap inside the box, which show it no home but its own.

    The child is an outer bwrap that ends without waiting for the namespace's first process. The runner adopts
    that one, and what it and everything that it waited for has used is known only once it is reaped.
    """

    pipes = ("info",)

    def __init__(self, path: str, seccomp: bytes) -> None:
        super().__init__(path)
        self._seccomp = seccomp

    def prepare(self, files: dict[str, bytes]) -> None:
        os.mkdir(self.home, 0o700)
        for name, data in files.items():
            with open(f"{self.home}/{name}", "wb") as file:
                file.write(data)

    def become(
        self, command: list[str], environment: dict[str, str], allowed: Allowed, ends: dict[str, int]
    ) -> NoReturn:
        first_to_go()
        allowed.set_rlimits()
        most = int(allowed.memory_mb + _ADDRESS_SPACE_MB) << 20
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        filter_fd = os.memfd_create("filter", 0)
        os.write(filter_fd, self._seccomp)
        os.lseek(filter_fd, 0, os.SEEK_SET)
        wrapped = ["bwrap", "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/"]
        wrapped += ["--dev", "/dev", "--bind", self.home, "/dev/shm", "--remount-ro", "/dev"]
        wrapped += ["--proc", "/proc", "--tmpfs", "/box"]
        wrapped += ["--ro-bind-try", "/box/build", "/box/build", "--bind", self.home, self.home]
        wrapped += ["--remount-ro", "/box", "--chdir", self.home]
        os.set_inheritable(ends["info"], True)  # bwrap closes it before the program starts
        wrapped += ["--info-fd", str(ends["info"])]
        wrapped += ["--seccomp", str(filter_fd), "--", "prlimit", f"--nproc={allowed.n_processes}", *command]
        os.execvpe(wrapped[0], wrapped, environment)

    def pids(self, pid: int, info: bytes) -> list[int]:
        _, found, rest = info.partition(b'"child-pid": ')
        number, whole, _ = rest.partition(b",")  # bwrap writes piece by piece
        return [pid, int(number)] if found and whole else [pid]

    def members(self, pids: list[int], seen: list[Process]) -> list[Process]:
        """Everything below: orphans are adopted by the namespace's first process."""
        children: dict[int, list[Process]] = {}
        for process in seen:
            children.setdefault(process.parent, []).append(process)
        found = {process.pid: process for process in seen if process.pid in pids}
        new = list(found.values())
        while new:
            new = [child for process in new for child in children.get(process.pid, ())]
            new = [child for child in new if child.pid not in found]
            found |= {child.pid: child for child in new}
        return list(found.values())

    def kill(self, pids: list[int], reap: Callable[[], None]) -> None:
        """The namespace's first process dies with the outer bwrap, and takes every other one with it."""
        born = {process.born for process in self.members(pids, processes())}
        deadline = time.monotonic() + _KILL_S
        while left := [process for process in processes() if process.born in born]:
            for process in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
            reap()
            if time.monotonic() > deadline:
                raise TimeoutError("processes of a test cannot be killed")
            time.sleep(0.001)

    def empty(self) -> None:
        _empty(self.home)
        os.rmdir(self.home)

    def exit_code(self, wait_status: int) -> int:
        code = os.waitstatus_to_exitcode(wait_status)
        return 128 - code if code > 128 else code  # bwrap exits with 128 + signal


def _empty(path: str) -> None:
    """Remove what is in a directory, however its owner left it and however deep it goes."""
    os.chmod(path, 0o700)
    top_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    n_moved = 0
    try:
        while entries := os.listdir(top_fd):
            for entry in entries:
                if not _unlink(entry, top_fd):
                    n_moved = _flatten(entry, top_fd, n_moved)
    finally:
        os.close(top_fd)


def _flatten(name: str, top_fd: int, n_moved: int) -> int:
    """Remove a directory after moving those in it up to the top; gives the number used for the last one."""
    os.chmod(name, 0o700, dir_fd=top_fd)
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top_fd)
    try:
        for child in os.listdir(fd):
            moved = _unlink(child, fd)
            while not moved:
                os.chmod(child, 0o700, dir_fd=fd)
                n_moved += 1
                with contextlib.suppress(FileExistsError, NotADirectoryError):  # the name is taken
                    os.rename(child, f"{n_moved}", src_dir_fd=fd, dst_dir_fd=top_fd)
                    moved = True
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=top_fd)
    return n_moved


def _unlink(name: str, dir_fd: int) -> bool:
    """Remove a file or link; false for a directory."""
    try:
        os.unlink(name, dir_fd=dir_fd)
    except (IsADirectoryError, PermissionError):
        return False
    return True


class _SockFprog(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    """The inheritable ones too, which a change of user leaves alone (linux/capability.h)."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    if libc.capset(header, (ctypes.c_uint32 * 6)()) != 0:
        raise OSError(ctypes.get_errno(), "capabilities cannot be given up")


def _refuse_system_calls(libc: ctypes.CDLL, program: bytes) -> None:
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    if program:
        fprog = _SockFprog(len(program) // 8, program)
        if libc.prctl(22, 2, ctypes.byref(fprog), 0, 0) != 0:  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
            raise OSError(ctypes.get_errno(), "the system call filter was refused")
