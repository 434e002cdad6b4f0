"""Rows of a parquet file, a batch at a time. Needs the optional package pyarrow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sdpo_solve.errors import PrerequisiteError, ProblemError

_ROWS_AT_A_TIME = 16  # a row of LiveCodeBench can hold tens of megabytes of tests


def read_parquet(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Each row with those of `columns` that the file has; times become ISO texts.

    Raises PrerequisiteError without pyarrow, ProblemError for a file that is not parquet.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise PrerequisiteError(
            f"{path}: reading parquet needs pyarrow; run: pip install 'sdpo-solve[parquet]'"
        ) from None
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = [name for name in columns if name in file.schema_arrow.names]
            for batch in file.iter_batches(_ROWS_AT_A_TIME, columns=names):
                for row in batch.to_pylist():
                    yield {
                        key: value.isoformat() if isinstance(value, datetime) else value
                        for key, value in row.items()
                    }
    except pyarrow.ArrowException as exc:
        raise ProblemError(f"{path}: not a whole parquet file: {str(exc)[:120]}; fetch it anew") from None
    except OSError as exc:
        reason = exc.strerror or str(exc)[:120]
        raise ProblemError(f"{path}: cannot be read: {reason}; check the path") from None
