"""The bubblewrap sandbox: the same boxes without a daemon, for clusters and machines without Docker.

A box is one `bwrap` with the programs of this machine's /usr, read-only, and nothing else of it: no home, no
/etc beyond the loader's files, no site-packages but the contest libraries. As root, tests are kept apart by
user ids as in Docker; otherwise each gets namespaces of its own. What it does not do: limit the memory of a
box as a whole (tests are watched one by one), or pin versions (they are the machine's).
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal, cast

from sdpo_solve.config import Free
from sdpo_solve.errors import PrerequisiteError
from sdpo_solve.sandboxes import languages
from sdpo_solve.sandboxes._base import BoxOptions, PooledSandbox
from sdpo_solve.sandboxes._box import COMMAND, Box, BoxEnd, Layout
from sdpo_solve.sandboxes._engine import is_root
from sdpo_solve.sandboxes.languages import Language

_SYSTEM = ("bin", "sbin", "lib", "lib64", "lib32", "libexec", "include")
_LOADER_FILES = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives")
_LIBRARIES = ("numpy", "numpy.libs", "sortedcontainers")
_LIBRARY_ROOT = "/opt/libraries"
_BUILD_MB = 64


class Options(BoxOptions):
    """Options of `--sandbox bubblewrap`."""

    separate: Free[Literal["auto", "uid", "namespace"]] = "auto"
    """What keeps tests apart: user ids (needs root), namespaces, or `auto`: user ids where possible."""


class BubblewrapSandbox(PooledSandbox):
    """Implements `protocols.Sandbox`.

    Raises PrerequisiteError where bubblewrap is missing or may not make namespaces.
    """

    options_type = Options
    auto_order = 1 if sys.platform == "linux" else None

    def __init__(self, options: Options, language: str = languages.DEFAULT) -> None:
        super().__init__(options, language)
        if self.auto_order is None:
            raise PrerequisiteError("bubblewrap exists for Linux alone; use --sandbox docker")
        if shutil.which("bwrap") is None:
            raise PrerequisiteError("bubblewrap is not installed; run: sudo apt-get install bubblewrap")
        if options.separate == "uid" and not is_root():
            raise PrerequisiteError("separate=uid needs root; leave it out to separate tests by namespaces")
        tool = (self.language.compile or (None,))[0]
        if tool is not None and shutil.which(tool) is None:
            raise PrerequisiteError(f"{tool} is not installed; run: sudo apt-get install {tool}")
        self._by_uid = is_root() and options.separate != "namespace"
        try:
            self._open()
        except PrerequisiteError:
            if not self._by_uid or options.separate == "uid":
                raise
            self._by_uid = False
            self._open()

    def _open(self) -> None:
        self._interpreter = _find_interpreter(for_everyone=is_root() and not self._by_uid)
        self.open()

    def make_box(self, language: Language, memory_mb: int) -> BubblewrapBox:
        """See `PooledSandbox`. `memory_mb` is not enforced on the whole box: each test is watched."""
        wrap = self._wrap(builds=language.compile is not None)
        return BubblewrapBox([*wrap, "--", self._interpreter.executable, *COMMAND[1:]], self._runner_uid())

    def layout(self, language: Language) -> Layout:
        """See `PooledSandbox`."""
        libraries = {"PYTHONPATH": _LIBRARY_ROOT}
        return replace(super().layout(language), by_uid=self._by_uid, environment=libraries)

    def identity(self) -> str:
        """Backend, way of separation and Python, for the record."""
        way = "user ids" if self._by_uid else "namespaces"
        return f"bubblewrap ({way}), {self._interpreter.executable} {self._interpreter.version}"

    def remedy(self, cause: str) -> str:
        """See `PooledSandbox`: what forbids namespaces here, by the kernel's settings and bwrap's message."""
        if _sysctl("kernel.unprivileged_userns_clone") == "0" and not is_root():
            return "run: sudo sysctl kernel.unprivileged_userns_clone=1"
        if _sysctl("user.max_user_namespaces") == "0":
            return "run: sudo sysctl user.max_user_namespaces=15000"
        if _in_container():
            return (
                "this container's profile forbids namespaces: start it with "
                "--security-opt seccomp=unconfined --security-opt apparmor=unconfined "
                "--security-opt systempaths=unconfined (Kubernetes: see sdpo_solve/sandboxes/README.md)"
            )
        if _sysctl("kernel.apparmor_restrict_unprivileged_userns") == "1" and not is_root():
            return "AppArmor forbids it; run: sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"
        return "allow user namespaces, or use --sandbox docker"

    def is_own_fault(self, stderr: str) -> bool:
        """See `PooledSandbox`: a test may have a bwrap of its own, which may be forbidden what it needs."""
        return stderr.startswith("bwrap: ")

    def _runner_uid(self) -> int | None:
        """The user that bwrap runs as: root where tests get ids, an unused one where root stays out of it."""
        if not is_root() or self._by_uid:
            return None
        from sdpo_solve.sandboxes.guest.slots import first_uid

        return first_uid(random.SystemRandom().randrange(1 << 24))

    def _wrap(self, *, builds: bool) -> list[str]:
        command = ["bwrap", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
        command += ["--unshare-cgroup-try", "--die-with-parent", "--new-session", "--as-pid-1", "--clearenv"]
        if self._by_uid:
            command += ["--cap-drop", "ALL"]
            for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_KILL"):
                command += ["--cap-add", capability]
        else:
            command += ["--unshare-user"]
        command += ["--setenv", "PATH", "/usr/bin:/bin"]
        command += _system_mounts() + self._interpreter.mounts()
        sizes = {f"/box/{i}": self.options.scratch_mb for i in range(self.options.parallel)}
        if builds:
            sizes["/box/build"] = _BUILD_MB
        for place, size_mb in sizes.items():
            command += ["--perms", "0711", "--size", str(size_mb << 20), "--tmpfs", place]
        return [*command, "--dev", "/dev", "--proc", "/proc", "--chdir", "/"]


def _sysctl(name: str) -> str:
    """A kernel setting; empty where the kernel does not have it."""
    try:
        return Path("/proc/sys", *name.split(".")).read_text().strip()
    except OSError:
        return ""


def _in_container() -> bool:
    marks = ("/.dockerenv", "/run/.containerenv")
    return "KUBERNETES_SERVICE_HOST" in os.environ or any(os.path.exists(mark) for mark in marks)


def _as_user(uid: int | None) -> dict[str, Any]:
    """Arguments of Popen that give up root; none where there is no other user to be."""
    return {} if uid is None else {"user": uid, "group": uid, "extra_groups": []}


def _open_folders(*paths: str) -> list[str]:
    """Empty folders that tests may pass through; those that bwrap makes by itself they may not."""
    return [argument for path in paths for argument in ("--perms", "0755", "--dir", path)]


def _system_mounts() -> list[str]:
    """The machine's programs and libraries, read-only; places for locally installed packages are empty."""
    mounts = _open_folders("/usr", "/etc", "/tmp")
    for name in _SYSTEM:
        place = Path("/usr", name)
        if place.is_dir():
            mounts += ["--ro-bind", str(place), str(place)]
        top = Path("/", name)
        if top.is_symlink():
            mounts += ["--symlink", os.readlink(top), str(top)]
        elif top.is_dir():
            mounts += ["--ro-bind", str(top), str(top)]
    for packages in Path("/usr/lib").glob("python3*/*-packages"):
        mounts += ["--tmpfs", str(packages), "--remount-ro", str(packages)]
    for path in _LOADER_FILES:
        if Path(path).exists():
            mounts += ["--ro-bind", path, path]
    return mounts


@dataclass(frozen=True, slots=True)
class _Interpreter:
    """A Python for the box, with what it needs beyond /usr."""

    executable: str
    version: str
    paths: tuple[str, ...]
    """Bound at their own places."""
    packages: tuple[str, ...]
    """Directories of installed packages within them, to be emptied."""
    libraries: tuple[str, ...]
    """Directories of the contest libraries."""

    def mounts(self) -> list[str]:
        mounts = []
        for path in self.paths:
            mounts += _open_folders(*(str(folder) for folder in reversed(Path(path).parents[:-1])))
            mounts += ["--ro-bind", path, path]
        for path in self.packages:
            mounts += ["--tmpfs", path, "--remount-ro", path]
        mounts += _open_folders("/opt", _LIBRARY_ROOT)
        for path in self.libraries:
            mounts += ["--ro-bind", path, f"{_LIBRARY_ROOT}/{Path(path).name}"]
        return mounts


def _find_interpreter(*, for_everyone: bool) -> _Interpreter:
    """This process's own Python without its packages; the system's where another user could not reach it."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    executable = os.path.realpath(sys.executable)
    if for_everyone and not _reachable(executable):
        executable = shutil.which(f"python{version}", path="/usr/bin") or ""
        if not executable:
            remedy = f"run: apt-get install python{version}"
            raise PrerequisiteError(f"other users cannot reach {sys.executable}; {remedy}")
    libraries = tuple(path for path in _library_folders() if not for_everyone or _reachable(path))
    if executable.startswith("/usr/bin/"):
        return _Interpreter(executable, version, (), (), libraries)
    stdlib = sysconfig.get_path("stdlib")
    shared = Path(sysconfig.get_config_var("LIBDIR") or "", sysconfig.get_config_var("INSTSONAME") or "")
    paths = [executable, stdlib] + ([str(shared)] if ".so" in shared.name and shared.is_file() else [])
    packages = tuple(str(path) for path in Path(stdlib).glob("*-packages"))
    return _Interpreter(executable, sys.version.split()[0], tuple(paths), packages, libraries)


def _library_folders() -> list[str]:
    """Where this process's own contest libraries lie; those that are not installed are not in the box."""
    found = []
    for name in _LIBRARIES:
        beside = importlib.util.find_spec(name.partition(".")[0])
        if beside is not None and beside.origin is not None:
            folder = Path(beside.origin).parent.with_name(name)
            found += [str(folder)] if folder.is_dir() else []
    return found


def _reachable(path: str) -> bool:
    """Whether every user may read it, and search the folders above it."""
    place = Path(path)
    needed = 0o005 if place.is_dir() else 0o004
    above = all(folder.stat().st_mode & 0o001 for folder in place.parents)
    return above and place.stat().st_mode & needed == needed


class BubblewrapBox(Box):
    """One bwrap process and its pipes."""

    def __init__(self, command: list[str], uid: int | None) -> None:
        super().__init__()
        info_fd, info_write_fd = os.pipe()
        self._info = open(info_fd, encoding="utf-8")  # noqa: SIM115 (closed in `end`)
        try:
            self._process = subprocess.Popen(
                [command[0], "--info-fd", str(info_write_fd), *command[1:]],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
                cwd="/",
                pass_fds=(info_write_fd,),
                **_as_user(uid),
            )
        except OSError:
            self._info.close()
            raise
        finally:
            os.close(info_write_fd)
        self._runner_fd: int | None = None
        self._stdin, self._stdout, self._stderr = (
            cast(IO[bytes], stream)
            for stream in (self._process.stdin, self._process.stdout, self._process.stderr)
        )
        for stream in (self._stdin, self._stdout, self._stderr):
            os.set_blocking(stream.fileno(), False)
        self._end_lock = threading.Lock()

    def start(self, layout: Layout) -> None:
        """See `Box`; also takes hold of the runner's process."""
        super().start(layout)
        self._runner_fd = os.pidfd_open(json.load(self._info)["child-pid"])

    # -- the stream ------------------------------------------------------------------------------------------

    def fileno(self) -> int:
        return self._stdout.fileno()

    def write_fileno(self) -> int:
        return self._stdin.fileno()

    def send(self, data: memoryview) -> int:
        return self._stdin.write(data[: 1 << 16]) or 0

    def receive(self) -> bytes | None:
        data = self._stdout.read(1 << 18)
        return b"" if data is None else data or None

    def errors(self) -> bytes:
        with contextlib.suppress(OSError, ValueError):
            return self._stderr.read(2048) or b""
        return b""

    # -- its end ---------------------------------------------------------------------------------------------

    def alive(self) -> bool:
        return self._process.poll() is None

    def how_it_ended(self, seen: str) -> BoxEnd:
        """No test can reach the runner: whatever ended it came from outside or from itself."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(2)
        detail = f"{seen}{self.last_error()}, exit code {self._process.returncode}"
        killed = self._process.returncode in (-9, 128 + 9)
        return BoxEnd(True, removed_from_outside=killed, out_of_memory=False, detail=detail)

    def end(self) -> None:
        with self._end_lock:
            if self._runner_fd is not None:  # the first process of its namespace: every other goes with it
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._runner_fd, signal.SIGKILL)
                os.close(self._runner_fd)
                self._runner_fd = None
            self._process.kill()
            self._process.wait()
            for stream in (self._stdin, self._stdout, self._stderr, self._info):
                with contextlib.suppress(OSError):
                    stream.close()


PLUGIN = BubblewrapSandbox
