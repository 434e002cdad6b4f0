"""Reports of made-up runs, with few replicates, and the figures of the paper."""

import io
from pathlib import Path

from rich.console import Console

from sdpo_solve.report import plots
from sdpo_solve.report.cohort import load_cohort
from sdpo_solve.report.figures import Report, ReportOptions, make_report
from sdpo_solve.report.text import report_renderable

FEW = ReportOptions(n_replicates=200)


def report_of(out: Path, options: ReportOptions = FEW) -> Report:
    return make_report(load_cohort([out]), options)


def text_of(report: Report, width: int = 80, *, full: bool = True) -> str:
    console = Console(width=width, file=io.StringIO(), highlight=False)
    curves = plots.terminal_curves(report, width, linear=False)
    console.print(report_renderable(report, curves, full=full))
    return console.file.getvalue()


# arXiv 2601.20802, Table 10: SDPO, best-of-k, multi-turn; 2750 stands for a censored mean; True: very hard.
TABLE_10 = {
    "Q1": (104, 98, 59, False), "Q3": (1987, 2750, 2750, True), "Q10": (938, 2750, 1706, True),
    "Q43": (111, 109, 111, False), "Q46": (1852, 1466, 1315, True), "Q59": (172, 123, 76, False),
    "Q69": (280, 134, 134, False), "Q74": (1948, 1466, 2405, True), "Q86": (85, 421, 335, False),
    "Q91": (1360, 2750, 2384, True), "Q92": (1575, 2750, 2203, True), "Q95": (1948, 1466, 1794, True),
    "Q100": (277, 294, 1596, False), "Q103": (2246, 2750, 2210, True), "Q111": (85, 95, 39, False),
    "Q120": (24, 327, 70, False), "Q125": (1795, 1466, 2320, True), "Q127": (28, 368, 61, False),
    "Q129": (168, 173, 104, False),
}  # fmt: skip
