"""A report as JSON, CSV (one row a run) and Markdown. Draws what `figures.Report` holds; computes nothing."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from enum import Enum
from typing import Any

from sdpo_solve.report.cohort import Cohort
from sdpo_solve.report.figures import Report
from sdpo_solve.report.text import (
    ARM_HEADER,
    SPLIT_TITLE,
    UNITS,
    arm_cells,
    comparison_cells,
    comparison_header,
    comparison_legend,
    head_lines,
    number,
    problem_cells,
    problem_header,
    problem_legend,
    rate_text,
    split_cells,
    split_header,
    split_legend,
)
from sdpo_solve.sanitize import clean

CSV_COLUMNS = (
    "arm", "problem", "seed", "status", "discovery_time", "attempts", "tokens", "elapsed_s",
    "tokens_to_discovery", "seconds_to_discovery", "confirmed", "overfits", "updates", "collapses",
    "difficulty", "run_dir",
)  # fmt: skip


def as_json(report: Report) -> dict[str, Any]:
    """The report as plain data; NaN and infinity, which JSON has not, are null."""
    plain: dict[str, Any] = _plain(asdict(report))
    return plain


def _plain(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_plain(value) for value in node]
    if isinstance(node, Enum):
        return node.value
    if isinstance(node, float) and not math.isfinite(node):
        return None
    return node


def as_csv(cohort: Cohort) -> str:
    """One row a run, failed ones included."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for arm in cohort.arms:
        for run in (*cohort.arms[arm], *cohort.failed[arm]):
            first = run.first
            to_discovery = sum(a.n_tokens for a in run.attempts if first and a.index <= first.index)
            row = (
                arm, run.problem, run.seed, run.status.value, first.index if first else None,
                len(run.attempts), run.n_tokens, run.elapsed_s, to_discovery if first else None,
                first.elapsed_s if first else None, run.confirmed, run.n_overfits, len(run.updates),
                run.n_collapses, run.header.get("difficulty"), run.run_dir,
            )  # fmt: skip
            writer.writerow("" if value is None else _cell(value) for value in row)
    return text.getvalue()


def _cell(value: object) -> object:
    """Texts cleaned, and without a first character that a spreadsheet would take for a formula."""
    if not isinstance(value, str):
        return value
    text = clean(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t") else text


def as_markdown(report: Report) -> str:
    """Head, tables, sentences and notices."""
    arms = list(report.rates)
    lines = ["# Report", ""]
    lines += [f"- {name}: {_escape(value)}" for name, value in head_lines(report)]
    lines += _table("Arms", ARM_HEADER, [arm_cells(arm) for arm in report.arms])
    points = next(iter(report.rates.values()), ())
    rows = [
        [number(point.x), *(rate_text(rates[n]) for rates in report.rates.values())]
        for n, point in enumerate(points)
    ]
    title = "Discovery rate (mean over seeds, then problems; 90 % interval)"
    lines += _table(title, [UNITS[report.options.axis], *arms], rows)
    rows = [comparison_cells(found, row) for found in report.comparisons for row in found.rows]
    lines += _table("Speed-up", comparison_header(report), rows)
    lines += _legend(comparison_legend(report) if rows else [])
    lines += ["", *(f"- {_escape(c.sentence)}" for c in report.comparisons)] if report.comparisons else []
    rows = [split_cells(split, arms) for split in report.splits]
    lines += _table(f"{SPLIT_TITLE[0].upper()}{SPLIT_TITLE[1:]}", split_header(report), rows)
    lines += _legend(split_legend(report))
    rows = [problem_cells(report, row) for row in report.problems]
    lines += _table("By problem", problem_header(report), rows)
    lines += _legend(problem_legend(report))
    if report.notices:
        lines += ["", *(f"- note: {_escape(notice)}" for notice in report.notices)]
    return "\n".join(lines)


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    lines = ["", f"## {title}", "", f"| {' | '.join(map(_escape, header))} |"]
    lines.append("|" + " --- |" * len(header))
    return lines + [f"| {' | '.join(map(_escape, row))} |" for row in rows]


def _legend(lines: Sequence[str]) -> list[str]:
    return ["", _escape(" · ".join(lines))] if lines else []


def _escape(text: str) -> str:
    """One line that Markdown shows as it is: no cell is ended, no link, picture or tag begun."""
    flat = " ".join(clean(text).split())
    for character in "\\`*_[]<>|#":
        flat = flat.replace(character, f"\\{character}")
    return flat
