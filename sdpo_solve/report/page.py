"""A report as one HTML page: head, curves, tables, and every run with the code and feedback of its attempts.

Draws what `figures.Report` and the cohort hold; the page's form is that of `pages.py`. Very long programs are
cut, and of very many attempts a run shows the first and the last; the page says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sdpo_solve.report import html
from sdpo_solve.report.chart import chart, key
from sdpo_solve.report.cohort import Cohort
from sdpo_solve.report.figures import Report
from sdpo_solve.report.html import Markup, element, join
from sdpo_solve.report.progress import LEGEND
from sdpo_solve.report.runs import AttemptRow, AttemptTexts, RunRecord, attempt_texts
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
from sdpo_solve.sanitize import middle_cut

# Attempts with their texts on one page, over all runs; a run always shows some.
_MAX_ATTEMPTS = 20_000
_MIN_ATTEMPTS_A_RUN = 40
_MAX_CHARS = 20_000


def write_page(report: Report, cohort: Cohort, path: Path) -> None:
    """Raises UserError where `path` cannot be written."""
    html.write(path, page(report, cohort))


def page(report: Report, cohort: Cohort) -> str:
    """The whole page as text."""
    body = join(
        element("h1", "Report"),
        element("dl", [(element("dt", name), element("dd", value)) for name, value in head_lines(report)]),
        [element("p", notice, class_="note") for notice in report.notices],
        _curves(report),
        _tables(report),
        _runs(cohort),
    )
    script = (Path(__file__).parent / "page.js").read_text(encoding="utf-8")
    return html.document("sdpo-solve report", body, script)


def _curves(report: Report) -> Markup:
    axes = [axis for axis in UNITS if report.curves_on(axis)]
    buttons = [
        element("button", UNITS[axis], type="button", data_axis=axis.value, aria_pressed=str(n == 0).lower())
        for n, axis in enumerate(axes)
    ]
    figures = [
        element(
            "figure",
            chart(report.curves_on(axis), UNITS[axis]),
            element("figcaption", f"discovery rate against {UNITS[axis]}; bands are 90 % intervals"),
            [element("p", found.sentence) for found in report.comparisons if found.axis is axis],
            data_chart=axis.value,
        )
        for axis in axes
    ]
    legend = [element("span", key(n), name) for n, name in enumerate(report.rates)]
    return join(
        element("h2", "Discovery"),
        element("div", buttons, class_="tools script", hidden=True),
        element("div", legend, class_="legend"),
        figures,
    )


def _tables(report: Report) -> Markup:
    arms = list(report.rates)
    parts = [element("h2", "Arms"), html.table(ARM_HEADER, [arm_cells(arm) for arm in report.arms])]
    parts.append(element("h2", "Discovery rate (90 % interval)"))
    points = next(iter(report.rates.values()), ())
    rows = [
        [number(p.x), *(rate_text(rates[n]) for rates in report.rates.values())] for n, p in enumerate(points)
    ]
    parts.append(html.table([UNITS[report.options.axis], *arms], rows))
    if report.comparisons:
        parts.append(element("h2", f"What each arm needs against {report.reference}"))
        rows = [comparison_cells(found, row) for found in report.comparisons for row in found.rows]
        parts += [html.table(comparison_header(report), rows), _legend(comparison_legend(report))]
    parts.append(element("h2", f"{SPLIT_TITLE[0].upper()}{SPLIT_TITLE[1:]}"))
    parts.append(html.table(split_header(report), [split_cells(split, arms) for split in report.splits]))
    parts.append(_legend(split_legend(report)))
    parts.append(element("h2", "By problem"))
    rows = [problem_cells(report, row) for row in report.problems]
    parts.append(html.table(problem_header(report), rows))
    parts.append(_legend(["mean attempts over seeds; in brackets the seeds solved", *problem_legend(report)]))
    return join(*parts)


def _legend(lines: Sequence[str]) -> Markup:
    return element("p", " · ".join(lines), class_="soft")


# -- runs ----------------------------------------------------------------------------------------------------


def _runs(cohort: Cohort) -> Markup:
    runs = [
        (arm, run)
        for arm in cohort.arms
        for run in (*cohort.arms[arm], *cohort.failed[arm])
    ]  # fmt: skip
    most = max(_MIN_ATTEMPTS_A_RUN, _MAX_ATTEMPTS // len(runs))
    statuses = sorted({run.status.value for _, run in runs})
    tools = element(
        "div",
        element("input", type="search", id="find", placeholder="problem", aria_label="problem"),
        _choice("arm", list(cohort.arms)),
        _choice("status", statuses),
        _choice("attempts", ["solved", "overfit", "other"]),
        element("span", id="count", class_="soft"),
        class_="tools script",
        hidden=True,
    )
    legend = " · ".join(f"{mark} {meaning}" for mark, meaning in LEGEND.items())
    return join(
        element("h2", "Runs"),
        tools,
        element("p", legend, class_="soft"),
        [_run(arm, run, most) for arm, run in runs],
    )


def _choice(name: str, values: Sequence[str]) -> Markup:
    options = [element("option", value, value=value) for value in values]
    return element("select", element("option", f"{name}: all", value=""), options, id=name, aria_label=name)


def _run(arm: str, run: RunRecord, most: int) -> Markup:
    first = run.first
    said = f"solved at attempt {first.index}" if first else run.status.value
    counts = f"{len(run.attempts)} attempts · {run.n_tokens} tokens · {run.elapsed_s:.0f} s"
    status = run.status.value
    summary = element(
        "summary",
        element("b", run.problem), element("span", f"{arm} · seed {run.seed}", class_="tag"),
        element("span", said, class_=f"tag {status}"), element("span", counts, class_="tag"),
    )  # fmt: skip
    return element(
        "details",
        summary,
        element("p", run.error, class_="note") if run.error else None,
        [
            element("p", f"update {update.version}: {notice}", class_="note")
            for update in run.updates
            for notice in update.notices
        ],
        element("p", [_mark(attempt) for attempt in run.attempts[:4000]], class_="strip"),
        _attempts(run, most),
        data_run=run.problem.lower(),
        data_arm=arm,
        data_status=status,
    )


def _mark(attempt: AttemptRow) -> Markup:
    return element("span", attempt.mark, class_=_kind(attempt), title=f"attempt {attempt.index}")


def _kind(attempt: AttemptRow) -> str:
    return "solved" if attempt.solved else "overfit" if attempt.overfit else "other"


def _attempts(run: RunRecord, most: int) -> Markup:
    n, rows = len(run.attempts), {attempt.index: attempt for attempt in run.attempts}
    first = run.first.index if run.first else 0
    shown = [
        _attempt(rows[texts.index], texts)
        for texts in attempt_texts(run.run_dir)
        # A run that is going on may have grown since its rows were read.
        if texts.index in rows
        and (texts.index <= most // 2 or texts.index > n - most // 2 or texts.index == first)
    ]
    left_out = f"{n - len(shown)} attempts between are left out of this page" if len(shown) < n else None
    return join(element("p", left_out, class_="soft") if left_out else None, shown)


def _attempt(row: AttemptRow, texts: AttemptTexts) -> Markup:
    kind = _kind(row)
    said = {"solved": "solved", "overfit": "passes the visible tests, fails a hidden one"}
    summary = element(
        "summary",
        element("b", f"attempt {row.index}"),
        element("span", said.get(kind, f"{row.n_passed}/{row.n_cases} passed"), class_=f"tag {kind}"),
        element("span", f"{row.n_tokens} tokens · policy {row.version}", class_="tag"),
    )
    verdict = ", ".join(
        f"{n} {status.replace('_', ' ')}{'' if visible else ' (hidden)'}"
        for n, (status, visible) in enumerate(zip(texts.statuses, texts.visible, strict=True), start=1)
    )
    program = texts.code if texts.code is not None else texts.text
    return element(
        "details",
        summary,
        element("p", "no code block in the answer:", class_="soft") if texts.code is None else None,
        element("pre", middle_cut(program, _MAX_CHARS), class_="code"),
        element("p", "tests: ", middle_cut(verdict, 2000), class_="soft"),
        element("p", "feedback:", class_="soft") if texts.feedback else None,
        element("pre", middle_cut(texts.feedback, _MAX_CHARS)) if texts.feedback else None,
        data_kind=kind,
    )
