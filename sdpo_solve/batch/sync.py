"""A run's directory kept in two places: what changed in one is sent as a parcel and put down in the other.

For workers that share no path with the driver. The journal goes last and in pieces, everything else whole, so
that a copy broken off anywhere is a run that can be taken up again: a policy without its `update` event is an
orphan, a torn last line is forgiven. Moves no bytes itself (see `cluster.py`).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from sdpo_solve.errors import JournalError
from sdpo_solve.run.events import FILE_NAME

_HOME = "sdpo-solve-worker-"


@dataclass(frozen=True, slots=True)
class Piece:
    """The bytes of a file from `start` to its end; `path` is relative to the run's directory."""

    path: str
    start: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Parcel:
    """What is to be written, the journal last, and then the files that are to go."""

    pieces: tuple[Piece, ...] = ()
    gone: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Stamp:
    size: int
    mtime_ns: int


class Sender:
    """Says what changed in a run's directory since it was last asked; at first that is everything."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._sent: dict[str, _Stamp] = {}

    def parcel(self) -> Parcel:
        """To be asked between two groups, when nobody writes there."""
        now = {path: _stamp(self._run_dir / path) for path in _files(self._run_dir)}
        changed = sorted(
            (path for path, stamp in now.items() if self._sent.get(path) != stamp),
            key=lambda path: (path == FILE_NAME, path),
        )
        pieces = tuple(self._piece(path) for path in changed)
        gone = tuple(sorted(set(self._sent) - set(now)))
        self._sent = now
        return Parcel(pieces, gone)

    def _piece(self, path: str) -> Piece:
        """A journal only grows once this has seen it, so its new end is enough."""
        start = self._sent[path].size if path == FILE_NAME and path in self._sent else 0
        with (self._run_dir / path).open("rb") as file:
            file.seek(start)
            return Piece(path, start, file.read())


def put_down(run_dir: Path, parcel: Parcel) -> None:
    """Bring a copy of a run's directory up to date.

    Raises JournalError where it cannot be written.
    """
    try:
        for piece in parcel.pieces:
            path = run_dir / piece.path
            path.parent.mkdir(parents=True, exist_ok=True)
            if piece.path == FILE_NAME:
                _append(path, piece)
            else:
                part = path.with_name(path.name + ".part")
                part.write_bytes(piece.data)
                part.replace(path)
        for name in parcel.gone:
            (run_dir / name).unlink(missing_ok=True)
        _drop_empty(run_dir, parcel.gone)
    except OSError as exc:
        raise JournalError(
            f"cannot write {run_dir}: {exc.strerror or exc}; free the disk and repeat"
        ) from None


def make_home() -> Path:
    """A directory for the runs of this process; those of processes that were killed are removed."""
    for old in Path(tempfile.gettempdir()).glob(f"{_HOME}*-*"):
        owner = old.name.removeprefix(_HOME).split("-")[0]
        if owner.isdecimal() and not _is_alive(int(owner)):
            clear(old)
    return Path(tempfile.mkdtemp(prefix=f"{_HOME}{os.getpid()}-"))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def clear(run_dir: Path) -> None:
    """Remove a worker's copy."""
    shutil.rmtree(run_dir, ignore_errors=True)


def _append(path: Path, piece: Piece) -> None:
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.truncate(piece.start)
        file.seek(piece.start)
        file.write(piece.data)
        file.flush()
        os.fsync(file.fileno())


def _drop_empty(run_dir: Path, gone: tuple[str, ...]) -> None:
    for folder in {(run_dir / name).parent for name in gone} - {run_dir}:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _files(run_dir: Path) -> list[str]:
    return [str(path.relative_to(run_dir)) for path in run_dir.rglob("*") if path.is_file()]


def _stamp(path: Path) -> _Stamp:
    stat = path.stat()
    return _Stamp(stat.st_size, stat.st_mtime_ns)
