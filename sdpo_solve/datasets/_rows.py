"""Rows of a data file: JSON lines, a JSON list or a parquet table; text files may be gzipped.

Reads one row at a time and knows no format. A byte order mark is skipped.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from sdpo_solve.errors import PrerequisiteError, ProblemError
from sdpo_solve.sanitize import middle_cut

_ROWS_AT_A_TIME = 16  # a row of LiveCodeBench can hold tens of megabytes of tests


@dataclass(frozen=True, slots=True)
class FileRow:
    """One row: its columns, and where it stands (`FILE: line 3`), for messages."""

    data: Mapping[str, Any]
    place: str


def read_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[FileRow]:
    """The rows of a file, in order. `columns`: those read of a parquet table, by default all.

    Raises ProblemError naming the file and the line, PrerequisiteError for parquet without pyarrow.
    """
    if path.suffix == ".parquet":
        yield from _parquet_rows(path, columns)
        return
    try:
        with _open(path) as file:
            if path.name.removesuffix(".gz").endswith(".json"):
                data = parse_json(file.read(), str(path), "the file")
                for number, row in enumerate(data if isinstance(data, list) else [data], 1):
                    yield _row(row, f"{path}: row {number}")
                return
            for number, line in enumerate(file, 1):
                if line.strip():
                    place = f"{path}: line {number}"
                    yield _row(parse_json(line, place, "the row"), place)
    except UnicodeDecodeError as exc:
        raise ProblemError(f"{path}: not UTF-8 near byte {exc.start}; save it as UTF-8") from None
    except (OSError, EOFError, zlib.error) as exc:
        reason = getattr(exc, "strerror", None) or str(exc)
        raise ProblemError(f"{path}: cannot be read: {reason}; check the path") from None


def parse_json(text: str, place: str, what: str) -> Any:
    """`text` as JSON. Raises ProblemError that names `place` and `what`."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        reason = "nested too deep" if isinstance(exc, RecursionError) else middle_cut(str(exc), 120)
        raise ProblemError(f"{place}: {what} is not JSON: {reason}") from None


def safe_id(name: str, place: str) -> str:
    """`name` as a directory name. Raises ProblemError where no letter or digit is left."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:100]
    if not safe:
        raise ProblemError(f"{place}: the id {name[:40]!r} holds no letter or digit")
    return safe


def _open(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="\n")
    return path.open(encoding="utf-8-sig", newline="\n")


def _row(data: object, place: str) -> FileRow:
    if not isinstance(data, dict):
        raise ProblemError(f"{place}: not a JSON object; expected one object a row")
    return FileRow(data, place)


def _parquet_rows(path: Path, columns: Sequence[str] | None) -> Iterator[FileRow]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise PrerequisiteError(
            f"{path}: reading parquet needs pyarrow; run: pip install 'sdpo-solve[parquet]'"
        ) from None
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = [name for name in file.schema_arrow.names if columns is None or name in columns]
            for batch in file.iter_batches(_ROWS_AT_A_TIME, columns=names):
                for row in batch.to_pylist():
                    number += 1
                    yield FileRow({key: _plain(value) for key, value in row.items()}, f"{path}: row {number}")
    except pyarrow.ArrowException as exc:
        raise ProblemError(f"{path}: not a whole parquet file: {str(exc)[:120]}; fetch it anew") from None
    except OSError as exc:
        reason = exc.strerror or str(exc)[:120]
        raise ProblemError(f"{path}: cannot be read: {reason}; check the path") from None


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
