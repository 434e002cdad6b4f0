"""A report as one HTML page: facts, curves, tables, and every run with the code and feedback of its attempts.

Gives the template `report.html.j2` what it draws. Very long programs are cut, and of very many attempts a run
shows the first and the last; the page says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sdpo_solve.paths import write_text
from sdpo_solve.report import html
from sdpo_solve.report.chart import Chart, chart
from sdpo_solve.report.cohort import Axis, Cohort
from sdpo_solve.report.figures import Report
from sdpo_solve.report.marks import LEGEND
from sdpo_solve.report.runs import AttemptRow, RunRecord, read_attempts
from sdpo_solve.report.sections import UNITS, answer, sections, shared_facts, summary
from sdpo_solve.run.records import AttemptEvent

# Attempts with their texts on one page, over all runs; a run always shows some.
_MAX_ATTEMPTS = 20_000
_MIN_ATTEMPTS_A_RUN = 40


@dataclass(frozen=True, slots=True)
class AxisChart:
    """The curves on one axis and what the comparisons on it come to."""

    axis: Axis
    chart: Chart
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ShownRun:
    """One run of an arm. `most`: attempts that are shown with their texts, and a solving one besides."""

    arm: str
    run: RunRecord
    most: int

    def is_shown(self, row: AttemptRow) -> bool:
        first, n = self.run.first, len(self.run.attempts)
        is_first = first is not None and row.index == first.index
        return is_first or row.index <= self.most // 2 or row.index > n - self.most // 2

    @property
    def n_left_out(self) -> int:
        return sum(not self.is_shown(row) for row in self.run.attempts)

    def attempts(self) -> Iterator[ShownAttempt]:
        """The shown attempts with their texts, read again from the journal."""
        rows = {row.index: row for row in self.run.attempts if self.is_shown(row)}
        for texts in read_attempts(self.run.run_dir):
            if texts.index in rows:  # a run that goes on may have grown since its rows were read
                yield ShownAttempt(rows[texts.index], texts)


@dataclass(frozen=True, slots=True)
class ShownAttempt:
    """One attempt in short and its texts."""

    row: AttemptRow
    texts: AttemptEvent

    @property
    def verdicts(self) -> str:
        return ", ".join(
            f"{n} {case.status.replace('_', ' ')}{'' if case.visible else ' (hidden)'}"
            for n, case in enumerate(self.texts.cases, start=1)
        )


def write_page(report: Report, cohort: Cohort, path: Path) -> None:
    """Raises UserError where `path` cannot be written."""
    write_text(path, page(report, cohort))


def page(report: Report, cohort: Cohort) -> str:
    """The whole page as text."""
    runs = [(arm, run) for arm in cohort.arms for run in (*cohort.arms[arm], *cohort.failed[arm])]
    most = max(_MIN_ATTEMPTS_A_RUN, _MAX_ATTEMPTS // len(runs))
    axes = [axis for axis in UNITS if report.curves_on(axis)]
    return html.render(
        "report.html.j2",
        script="page.js",
        title=f"{', '.join(list(cohort.arms)[:4])} · sdpo-solve report",
        answer=answer(report),
        summary=summary(report),
        facts=list(shared_facts(report)),
        notices=report.notices,
        charts=[
            AxisChart(
                axis,
                chart(report.curves_on(axis), UNITS[axis]),
                tuple(found.sentence for found in report.comparisons if found.axis is axis),
            )
            for axis in axes
        ],
        sections=sections(report),
        arms=list(cohort.arms),
        statuses=sorted({run.status.value for _, run in runs}),
        runs=[ShownRun(arm, run, most) for arm, run in runs],
        legend=LEGEND,
    )
