"""A report as JSON, CSV (one row a run), Markdown and LaTeX. Computes nothing."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from typing import Any

from pydantic_core import to_json

from sdpo_solve.report.cohort import Cohort
from sdpo_solve.report.figures import Report
from sdpo_solve.report.runs import RunRecord, read_attempt
from sdpo_solve.report.sections import Section, answer, sections, shared_facts, summary
from sdpo_solve.sanitize import clean

CSV_COLUMNS = (
    "arm", "problem", "seed", "status", "discovery_time", "attempts", "tokens", "elapsed_s",
    "tokens_to_discovery", "seconds_to_discovery", "confirmed", "overfits", "updates", "collapses",
    "difficulty", "without_program", "cut_off", "run_dir",
)  # fmt: skip


def as_json(report: Report) -> dict[str, Any]:
    """The report as plain data; NaN and infinity, which JSON has not, are null."""
    return dict(plain_record(report))


def plain_record(record: object) -> Any:
    """Dataclasses and pydantic models as plain data; NaN and infinity are null."""
    return json.loads(to_json(record, inf_nan_mode="null"))


def run_summary(run: RunRecord) -> dict[str, Any]:
    """What a list of runs shows of one, as plain data; `discovery_time`: the first solving attempt."""
    return {
        "run_dir": str(run.run_dir),
        "problem": run.problem,
        "arm": run.arm,
        "seed": run.seed,
        "model": run.header.model,
        "status": run.status.value,
        "error": run.error,
        "discovery_time": run.first.index if run.first else None,
        "confirmed": run.confirmed,
        "n_attempts": len(run.attempts),
        "n_without_program": run.n_without_program,
        "n_cut_off": run.n_cut_off,
        "attempts_limit": run.header.attempts_limit,
        "n_tokens": run.n_tokens,
        "elapsed_s": run.elapsed_s,
        "last_event_time": run.last_event_time,
    }


def run_story(run: RunRecord) -> dict[str, Any]:
    """One run with its attempts (without their texts), its updates and the solution."""
    solution = read_attempt(run, run.first.index).code if run.first else None
    rows = {"attempts": plain_record(run.attempts), "updates": plain_record(run.updates)}
    return {**run_summary(run), **rows, "solution": solution}


def as_csv(cohort: Cohort, named: Callable[[str], str] = str) -> str:
    """One row a run, failed ones included. `named`: how the user calls the path of a run."""
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
                run.n_collapses, run.header.difficulty, run.n_without_program, run.n_cut_off,
                named(str(run.run_dir)),
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
    """Facts, tables, sentences and notices."""
    lines = ["# Report", "", *(f"- {name}: {_escape(value)}" for name, value in shared_facts(report))]
    lines += ["", _escape(answer(report))]
    for section in sections(report):
        lines += _section(section)
    if report.notices:
        lines += ["", *(f"- note: {_escape(notice)}" for notice in report.notices)]
    return "\n".join(lines)


def _section(section: Section) -> list[str]:
    lines = ["", f"## {_escape(section.title[0].upper() + section.title[1:])}"]
    if section.rows:
        lines += ["", _row(section.header), "|" + " --- |" * len(section.header), *map(_row, section.rows)]
    if section.notes:
        lines += ["", _escape(" · ".join(section.notes))]
    if section.sentences:
        lines += ["", *(f"- {_escape(sentence)}" for sentence in section.sentences)]
    return lines


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_escape, cells))} |"


def as_latex(report: Report) -> str:
    """The tables of arms, rates and difficulties for a paper; they need the package booktabs."""
    wanted = [section for section in sections(report) if section.for_papers]
    tables = [_latex_table(section) for section in [summary(report), *wanted]]
    return "\n\n".join([r"% needs \usepackage{booktabs}", *tables])


def _latex_table(section: Section) -> str:
    names = {0, *(n for n, title in enumerate(section.header) if title in section.names)}
    columns = "".join("l" if n in names else "r" for n in range(len(section.header)))
    rows = [" & ".join(map(_latex, cells)) + r" \\" for cells in section.rows]
    lines = [
        r"\begin{table}", r"\centering", rf"\caption{{{_latex(section.title)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule", " & ".join(map(_latex, section.header)) + r" \\", r"\midrule", *rows, r"\bottomrule",
        r"\end{tabular}", r"\end{table}",
    ]  # fmt: skip
    return "\n".join(lines)


def _latex(text: str) -> str:
    """One line that LaTeX sets as it is."""
    flat = " ".join(clean(text).split())
    return "".join(_LATEX.get(character, character) for character in flat)


_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--",
    "≥": r"$\geq$", "∞": r"$\infty$", "<": r"\textless{}", ">": r"\textgreater{}", "·": r"$\cdot$",
}  # fmt: skip


def _escape(text: str) -> str:
    """One line that Markdown shows as it is: no cell is ended, no link, picture or tag begun."""
    flat = " ".join(clean(text).split())
    for character in "\\`*_[]<>|#":
        flat = flat.replace(character, f"\\{character}")
    return flat
