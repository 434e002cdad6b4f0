"""Files of rows: where each row lies, and one row read by its place. JSON lines, a JSON list, a parquet
table.

Text files may be gzipped; a byte order mark is skipped. Nothing of a file stays in memory but the places.
"""

from __future__ import annotations

import gzip
import json
import threading
import weakref
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from sdpo_solve.datasets._unchanged import Stamp
from sdpo_solve.errors import PrerequisiteError, ProblemError

_BOM = b"\xef\xbb\xbf"
_CHUNK_BYTES = 1 << 20
_HELD_BYTES = 16 << 20
_PLACES = json.JSONDecoder(parse_int=len)  # the value is not wanted: Python refuses integers of many digits


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row lies. `name`: for messages, `line 3`. `start` and `size` in bytes of the unpacked text;
    in a parquet table `start` is the row within row group `group`."""

    name: str
    start: int
    size: int = 0
    group: int = 0


class RowFile(ABC):
    """One file. `read` is safe to call from several threads, and quick where places come in their order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        with _translated(path):
            self._stamp = Stamp.of(path)

    @abstractmethod
    def places(self) -> Iterator[Place]:
        """Every row's place, in order. Raises ProblemError where the file cannot be read."""

    def read(self, place: Place) -> Any:
        """The row as bytes of JSON, or as the columns of a table.

        Raises ProblemError where it cannot be read, RunError where the file has changed since it was listed.
        """
        with self._lock, _translated(self.path):
            self._stamp.check(self.path)
            return self._read(place)

    @abstractmethod
    def _read(self, place: Place) -> Any: ...

    def rest(self) -> None:  # noqa: B027 -- most hold nothing
        """Free what is held so that the next row comes quickly; for when none is wanted soon."""


def open_rows(path: Path, columns: Sequence[str] | None = None) -> RowFile:
    """The rows of a file by its ending. `columns`: those read of a parquet table, by default all.

    Raises ProblemError where there is no such file, PrerequisiteError for parquet without pyarrow.
    """
    if path.suffix == ".parquet":
        return _Parquet(path, columns)
    return _JsonItems(path) if path.name.removesuffix(".gz").endswith(".json") else _Lines(path)


class _Text(RowFile):
    """A text file. A gzipped one stays open: going on in it is quick, going back means to unpack it anew."""

    _unpacked: IO[bytes] | gzip.GzipFile | None = None

    def _open(self) -> IO[bytes] | gzip.GzipFile:
        return gzip.open(self.path) if self.path.suffix == ".gz" else self.path.open("rb")

    def _read(self, place: Place) -> bytes:
        if self.path.suffix != ".gz":
            with self._open() as file:
                file.seek(place.start)
                return file.read(place.size)
        if self._unpacked is None:
            self._unpacked = self._open()
            weakref.finalize(self, self._unpacked.close)
        self._unpacked.seek(place.start)
        return self._unpacked.read(place.size)


class _Lines(_Text):
    """JSON lines; blank ones are no rows."""

    def places(self) -> Iterator[Place]:
        with _translated(self.path), self._open() as file:
            start = number = 0
            while line := file.readline():
                number += 1
                skipped = len(_BOM) if number == 1 and line.startswith(_BOM) else 0
                size, is_blank = len(line), line[skipped : skipped + _CHUNK_BYTES].isspace()
                del line  # it may be large, and whoever gets the place reads it again
                if size > skipped and not is_blank:
                    yield Place(f"line {number}", start + skipped, size - skipped)
                start += size


class _JsonItems(_Text):
    """A JSON list, an item a row, or one JSON value. Read in pieces, none longer than an item and a half."""

    def places(self) -> Iterator[Place]:
        with _translated(self.path), self._open() as file:
            # As Latin-1 a byte is a character, and JSON's own characters are ASCII: places count bytes.
            text = file.read(_CHUNK_BYTES).removeprefix(_BOM).decode("latin-1")
            gone = len(_BOM) if file.tell() > len(text) else 0
            at = _after_blanks(text, 0)
            if text[at : at + 1] != "[":
                size = len(text) + sum(map(len, iter(lambda: file.read(_CHUNK_BYTES), b"")))
                yield Place("row 1", gone, size)
                return
            number, at = 0, at + 1
            while True:
                at = _after_blanks(text, at, ",")
                if text[at : at + 1] == "]":
                    return
                try:
                    end = _PLACES.raw_decode(text, at)[1]
                except (ValueError, RecursionError):
                    more = file.read(max(_CHUNK_BYTES, len(text) // 2)).decode("latin-1")
                    if not more:
                        yield Place(f"row {number + 1}", gone + at, len(text) - at)
                        return
                    gone, text, at = gone + at, text[at:] + more, 0
                    continue
                number += 1
                place = Place(f"row {number}", gone + at, end - at)
                gone, text, at = gone + end, text[end:], 0
                yield place


def _after_blanks(text: str, at: int, more: str = "") -> int:
    while text[at : at + 1] and text[at] in f" \t\r\n{more}":
        at += 1
    return at


class _Parquet(RowFile):
    """A parquet table, read row by row with pyarrow; the row after the last one read is at hand.

    Where long values lie in a dictionary, pyarrow unpacks that of a whole row group for any row of it.
    """

    def __init__(self, path: Path, columns: Sequence[str] | None) -> None:
        super().__init__(path)
        self._columns = columns
        try:
            import pyarrow.parquet as parquet
            from pyarrow import default_memory_pool
        except ImportError:
            raise PrerequisiteError(
                f"{path}: reading parquet needs pyarrow; run: pip install 'sdpo-solve[parquet]'"
            ) from None
        with _translated(path), _translated_arrow(path):
            self._file = parquet.ParquetFile(path, buffer_size=_CHUNK_BYTES)
        weakref.finalize(self, self._file.close)
        self._free = default_memory_pool().release_unused
        self._rows: Iterator[Any] = iter(())
        self._next = Place("", 0, group=-1)

    def places(self) -> Iterator[Place]:
        number = 0
        for group in range(self._file.num_row_groups):
            for start in range(self._file.metadata.row_group(group).num_rows):
                number += 1
                yield Place(f"row {number}", start, group=group)

    def _read(self, place: Place) -> Mapping[str, Any]:
        with _translated_arrow(self.path):
            names = [n for n in self._file.schema_arrow.names if self._columns is None or n in self._columns]
            if self._next.group != place.group or self._next.start > place.start:
                self._rows = self._file.iter_batches(1, row_groups=[place.group], columns=names)
                self._next = Place("", 0, group=place.group)
            for _ in range(self._next.start, place.start):
                next(self._rows)
            (row,) = next(self._rows).to_pylist()
        self._next = Place("", place.start + 1, group=place.group)
        return {
            key: value.isoformat() if isinstance(value, datetime) else value for key, value in row.items()
        }

    def rest(self) -> None:
        with self._lock:
            group = self._next.group
            if group >= 0 and self._file.metadata.row_group(group).total_byte_size > _HELD_BYTES:
                self._rows, self._next = iter(()), Place("", 0, group=-1)
                self._free()


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error) as exc:
        reason = getattr(exc, "strerror", None) or str(exc)[:120]
        raise ProblemError(f"{path}: cannot be read: {reason}; check the path") from None


@contextmanager
def _translated_arrow(path: Path) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except pyarrow.ArrowException as exc:
        raise ProblemError(f"{path}: not a whole parquet file: {str(exc)[:120]}; fetch it anew") from None
