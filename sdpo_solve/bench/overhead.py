"""`bench plan`: what a plan of many runs costs the orchestrator itself, and whether it grows with the plan.

Carries out plans of growing size with scripted replies that hold no code: no model samples and no box runs,
so all that is left is ours: opening runs, the loop, journals, summaries. Then reads them back for a report.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from sdpo_solve.batch.batch import LocalExecutor, prepare, run_batch
from sdpo_solve.batch.locks import Gate
from sdpo_solve.batch.spec import PAPER_ARMS, make_spec
from sdpo_solve.report.cohort import load_cohort
from sdpo_solve.report.figures import ReportOptions, make_report

# The smaller plans, as shares of the whole; the first is short, to have everything imported before.
_SHARES = (0.02, 0.25, 0.5, 1.0)
_ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class Size:
    """A plan: problems x the three methods x seeds."""

    problems: int
    seeds: int


@dataclass(frozen=True, slots=True)
class Cost:
    """One plan. `peak_mb`: the most memory that this process has had so far, `report_s`: reading all its runs
    and computing the report. Times are seconds of processor, which do not depend on who else is busy."""

    runs: int
    cpu_ms_a_run: float
    peak_mb: float
    again_ms_a_run: float
    report_s: float
    journals_mb: float


def measure_plans(size: Size, sandbox: str | None) -> list[Cost]:
    """A quarter, a half and the whole of the plan, each in a directory of its own that goes afterwards."""
    rows = []
    for share in _SHARES:
        with tempfile.TemporaryDirectory(prefix="sdpo-solve-bench-") as folder:
            part = Size(max(1, round(share * size.problems)), size.seeds)
            rows.append(_measure(part, Path(folder), sandbox))
    return rows[1:]


def _measure(size: Size, folder: Path, sandbox: str | None) -> Cost:
    flags = {
        "sources": [str(_write_problems(folder / "problems", size.problems))],
        "methods": PAPER_ARMS,
        "seeds": size.seeds,
        "attempts": _ATTEMPTS,
        "group_size": _ATTEMPTS,
        "engine": "scripted",
        "replies": _write_replies(folder / "replies"),
        "sandbox": sandbox,
    }
    batch = prepare(make_spec({}, flags, "bench plan"), folder / "runs")
    with LocalExecutor(batch) as executor:
        executor.crew(batch, lambda event: None, Gate())  # the sandbox, outside the clock
        began_s = time.process_time()
        run_batch(batch, executor, lambda event: None, Gate())
        ran_s = time.process_time()
        run_batch(batch, executor, lambda event: None, Gate())  # all are kept
        again_s = time.process_time()
        peak_mb = _peak_mb()
    before_s = time.process_time()
    make_report(load_cohort([batch.out]), ReportOptions())
    n = len(batch.keys)
    return Cost(
        runs=n,
        cpu_ms_a_run=1e3 * (ran_s - began_s) / n,
        peak_mb=peak_mb,
        again_ms_a_run=1e3 * (again_s - ran_s) / n,
        report_s=time.process_time() - before_s,
        journals_mb=sum(path.stat().st_size for path in batch.out.rglob("journal.jsonl")) / 1e6,
    )


def _write_problems(folder: Path, n: int) -> Path:
    folder.mkdir()
    for number in range(n):
        problem = {
            "id": f"p{number}",
            "statement": "Print one.",
            "kind": "stdin",
            "tests": [{"input": "", "expected": "1\n", "visible": True}],
        }
        (folder / f"p{number}.json").write_text(json.dumps(problem))
    return folder


def _write_replies(path: Path) -> Path:
    path.write_text("".join(json.dumps({"text": "An answer without code."}) + "\n" for _ in range(_ATTEMPTS)))
    return path


def _peak_mb() -> float:
    unit = 1e6 if sys.platform == "darwin" else 1e3  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def table(rows: Sequence[Cost]) -> Table:
    page = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("runs", "CPU ms a run", "kept, ms a run", "peak MB", "report CPU s", "journals MB"):
        page.add_column(column, justify="right")
    for row in rows:
        page.add_row(
            str(row.runs),
            f"{row.cpu_ms_a_run:.1f}",
            f"{row.again_ms_a_run:.2f}",
            f"{row.peak_mb:.0f}",
            f"{row.report_s:.2f}",
            f"{row.journals_mb:.1f}",
        )
    return page


def as_record(rows: Sequence[Cost]) -> dict[str, Any]:
    return {"plans": [asdict(row) for row in rows]}
