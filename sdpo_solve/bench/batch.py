"""`bench batch`: how busy sampling, grading and learning are, and what the orchestrator itself takes.

Runs the same small batch with different numbers of runs under way, in one process, in temporary directories.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from sdpo_solve.batch.batch import LocalExecutor, prepare, run_batch
from sdpo_solve.batch.locks import Gate
from sdpo_solve.batch.spec import BatchSpec
from sdpo_solve.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Shares:
    """One batch: shares of its wall time, 0..1. `own`: runs neither in a resource nor waiting for one."""

    in_flight: int
    runs: int
    wall_s: float
    sampling: float
    grading: float
    learning: float
    own: float


def parse_numbers(text: str) -> list[int]:
    """`1,2,4` as numbers.

    Raises ConfigError for anything else.
    """
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise ConfigError(f"--in-flight wants numbers such as 1,2; got {text!r}")
    return numbers


def measure_shares(spec: BatchSpec, numbers: Sequence[int]) -> list[Shares]:
    """The shares of one batch for each number of runs under way; weights are loaded once, before."""
    rows: list[Shares] = []
    with tempfile.TemporaryDirectory(prefix="sdpo-solve-bench-") as folder:
        batch = prepare(spec, Path(folder) / "first")
        with LocalExecutor(batch) as executor:
            executor.crew(batch, lambda event: None, Gate())  # sandbox and weights, outside the clock
            for number in numbers:
                options = spec.batch.model_copy(update={"in_flight": number})
                one = replace(batch, spec=replace(spec, batch=options), out=Path(folder) / f"{len(rows)}")
                result = run_batch(one, executor, lambda event: None, Gate())
                rows.append(Shares(number, result.runs, result.wall_s, **result.busy))
    return rows


def table(rows: Sequence[Shares]) -> Table:
    page = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("under way", "runs", "seconds", "sampling", "grading", "learning", "orchestrator"):
        page.add_column(column, justify="right")
    for row in rows:
        shares = [f"{100 * share:.1f} %" for share in (row.sampling, row.grading, row.learning, row.own)]
        page.add_row(str(row.in_flight), str(row.runs), f"{row.wall_s:.1f}", *shares)
    return page


def as_record(rows: Sequence[Shares]) -> dict[str, Any]:
    return {"batches": [asdict(row) for row in rows]}
