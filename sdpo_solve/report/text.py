"""A report for the terminal: calm at 80 columns, without colour, and in a pipe.

Draws what `figures.Report` holds and computes nothing. Names that came from files are cleaned before they
reach a terminal.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sdpo_solve.report.cohort import Axis
from sdpo_solve.report.comparison import Comparison
from sdpo_solve.report.figures import ArmCounts, Rate, Report
from sdpo_solve.report.problems import Cell, ProblemRow, Split
from sdpo_solve.report.statistics import CensoredMean, SpeedUp
from sdpo_solve.report.table import NONE, Sheet
from sdpo_solve.sanitize import clean

UNITS = {Axis.ATTEMPTS: "attempts", Axis.TOKENS: "generated tokens", Axis.SECONDS: "seconds"}


def report_renderable(report: Report, curves: Text | None = None) -> RenderableType:
    """The whole report; `curves` is the plot, None for none."""
    parts: list[RenderableType] = [_head(report), Text(), _arms(report)]
    parts += [Text(), _rates(report)]
    if curves:
        parts += [Text(), curves]
    if report.comparisons:
        parts += [Text(), *_comparisons(report)]
    parts += [Text(), *_splits(report), Text(), *_problems(report)]
    parts += _trouble(report)
    if report.notices:
        parts.append(Text())
        parts += [Text(f"note: {clean(notice)}", style="yellow") for notice in report.notices]
    return Group(*parts)


def head_lines(report: Report) -> Iterator[tuple[str, str]]:
    """Name and value of each line of the head."""
    head = report.head
    yield "model", f"{head.model} · engine {head.engine}"
    grader = re.sub(r"(sha256:[0-9a-f]{12})[0-9a-f]+", r"\1", head.grader)  # --json has it whole
    yield "grader", f"{grader} · feedback mode {head.feedback_mode} · {head.language}"
    if head.sampling:
        yield (
            "sampling",
            ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in head.sampling.items()),
        )
    if head.versions:
        yield "versions", ", ".join(f"{name} {'/'.join(found)}" for name, found in head.versions.items())


def number(value: float) -> str:
    """Three digits at least, whole numbers from 100, infinity and the unknown as words would be too wide."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞"
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def rate_text(rate: Rate) -> str:
    """`53 % (40–66)`; – where it is not known."""
    if math.isnan(rate.y):
        return "–"
    return f"{100 * rate.y:.0f} % ({100 * rate.low:.0f}–{100 * rate.high:.0f})"


def mean_text(mean: CensoredMean | None) -> str:
    """The mean, with ≥ where some run was censored."""
    if mean is None:
        return "–"
    return f"{'≥' if mean.n_censored else ''}{number(mean.value)}"


def ratio_text(ratio: float) -> str:
    """Two decimals; 0 and ∞ say that one of the two is not reached at all."""
    if math.isnan(ratio):
        return "–"
    return "∞" if math.isinf(ratio) else f"{ratio:.2f}" if ratio else "0"


def _head(report: Report) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", min_width=8)
    table.add_column(overflow="fold")
    for name, value in head_lines(report):
        table.add_row(name, Text(clean(value)))
    return table


def _arms(report: Report) -> RenderableType:
    sheet = Sheet(ARM_HEADER)
    for arm in report.arms:
        sheet.add(arm_cells(arm))
    return sheet


ARM_HEADER = ("arm", "problems", "seeds", "runs", "solved", "confirmed", "unfinished", "failed")


def arm_cells(arm: ArmCounts) -> list[str]:
    seeds = str(arm.n_seeds_min)
    if arm.n_seeds_max != arm.n_seeds_min:
        seeds += f"–{arm.n_seeds_max}"
    confirmed = "–" if arm.n_confirmed is None else str(arm.n_confirmed)
    counts = (arm.n_unfinished, arm.n_failed)
    return [
        clean(arm.name), str(arm.n_problems), seeds, str(arm.n_runs), str(arm.n_solved), confirmed,
        *(str(count) for count in counts),
    ]  # fmt: skip


def _rates(report: Report) -> RenderableType:
    unit = UNITS[report.options.axis]
    sheet = Sheet([unit, *report.rates])
    for n, first in enumerate(next(iter(report.rates.values()), ())):
        sheet.add([number(first.x), *(rate_text(rates[n]) for rates in report.rates.values())])
    parts: list[RenderableType] = [
        _title("discovery rate: mean over seeds, then problems (90 % interval)"),
        sheet,
    ]
    unbiased = [arm.name for arm in report.arms if arm.unbiased]
    if unbiased and report.options.axis is Axis.ATTEMPTS:
        parts.append(Text(f"{clean(', '.join(unbiased))}: unbiased pass@k from all samples", style="dim"))
    return Group(*parts)


def _comparisons(report: Report) -> Iterator[RenderableType]:
    sheet = Sheet(comparison_header(report), names=("of", "arm"))
    for found in report.comparisons:
        for row in found.rows:
            sheet.add(comparison_cells(found, row))
    if sheet.rows:
        yield _title(f"what each arm needs against {clean(report.reference)}")
        yield sheet
        yield from (Text(line, style="dim") for line in comparison_legend(report))
    for found in report.comparisons:
        if found.axis is report.options.axis:
            yield Text(clean(found.sentence))


def comparison_header(report: Report) -> list[str]:
    return ["to reach", "of", "arm", report.reference, "arm needs", "ratio", "P(faster)"]


def comparison_legend(report: Report) -> list[str]:
    """What the ratios say, and what 0 and ∞ among them do."""
    rows = [row for found in report.comparisons for row in found.rows]
    seen = {x for row in rows for x in (row.ratio, row.ratio_interval.low, row.ratio_interval.high)}
    reference = clean(report.reference)
    never = [f"0: rate not reached by {reference}"] if 0.0 in seen else []
    never += ["∞: rate not reached by the other arm"] if math.inf in seen else []
    return [
        "ratio above 1: the other arm needs more (90 % interval)",
        *([" · ".join(never)] if never else []),
        f"P(faster): share of resamples in which {reference} needs less",
    ]


def comparison_cells(found: Comparison, row: SpeedUp) -> list[str]:
    limit = f"not in {number(found.limit)}"
    needs = [limit if math.isinf(x) else number(x) for x in (row.method_needs, row.baseline_needs)]
    band = f"({ratio_text(row.ratio_interval.low)}–{ratio_text(row.ratio_interval.high)})"
    return [
        f"{100 * row.level:.0f} %", found.axis.value, clean(found.baseline), *needs,
        f"{ratio_text(row.ratio)} {band}", f"{100 * row.p_faster:.0f} %",
    ]  # fmt: skip


def _splits(report: Report) -> Iterator[RenderableType]:
    sheet = Sheet(split_header(report))
    for split in report.splits:
        sheet.add(split_cells(split, list(report.rates)))
    yield _title(SPLIT_TITLE)
    yield sheet
    yield from (Text(line, style="dim") for line in split_legend(report))


SPLIT_TITLE = "mean attempts to the first success, censored (discovery rate)"


def split_header(report: Report) -> list[str]:
    return ["problems", "n", "rate at", *report.rates]


def split_cells(split: Split, arms: list[str]) -> list[str]:
    cells = [split.label, str(split.n_problems), number(split.limit)]
    for arm in arms:
        mean, rate = split.means.get(arm), split.rates.get(arm, math.nan)
        known = "" if math.isnan(rate) else f" ({100 * rate:.0f} %)"
        cells.append(f"{mean_text(mean)}{_CUT * (arm in split.cut)}{known}" if mean else "–")
    return cells


def split_legend(report: Report) -> list[str]:
    lines = ["rate at: attempts at which the rate in brackets is taken"]
    if any(split.cut for split in report.splits):
        lines.append(f"{_CUT} each problem counts as far as every arm was watched there")
    return lines


_CUT = "*"


def _problems(report: Report) -> Iterator[RenderableType]:
    """Per problem: mean censored attempts and solved seeds of each arm, and the ratios."""
    others = [arm for arm in report.rates if arm != report.reference]
    sheet = Sheet(["problem", *report.rates, *(f"ratio {n + 1}" for n in range(len(others)))])
    for row in report.problems:
        cells = [f"{mean_text(c.attempts)} ({solved_text(c)})" for c in row.cells.values()]
        sheet.add([row.problem, *cells, *(_problem_ratio(row, arm) for arm in others)])
    yield _title("mean attempts to the first success, by problem (seeds solved)")
    yield sheet
    ratios = [f"ratio {n}: {clean(arm)} over {clean(report.reference)}" for n, arm in enumerate(others, 1)]
    yield from (Text(line, style="dim") for line in (*problem_legend(report), *ratios))


def _problem_ratio(row: ProblemRow, arm: str) -> str:
    text = ratio_text(row.ratios.get(arm, math.nan))
    # A space where no mark stands keeps the points of the figures below each other.
    return f"{text}{_CUT if arm in row.cut and text != '–' else ' ' * bool(row.cut)}"


def problem_legend(report: Report) -> list[str]:
    """What the marks in the means and ratios stand for; nothing for one that stands nowhere."""
    means = [cell.attempts for row in report.problems for cell in row.cells.values()]
    means += [mean for split in report.splits for mean in split.means.values()]
    ratios = [(row, arm, ratio) for row in report.problems for arm, ratio in row.ratios.items()]
    lines = []
    if any(mean and mean.n_censored for mean in means):
        lines.append("≥ some runs had no success as far as they were watched")
    if any(math.isnan(ratio) for _, _, ratio in ratios):
        lines.append("ratio –: neither had a success as far as both were watched")
    if any(arm in row.cut and not math.isnan(ratio) for row, arm, ratio in ratios):
        lines.append(f"ratio{_CUT}: both counted only as far as both were watched")
    return lines


def _trouble(report: Report) -> Iterator[RenderableType]:
    """What went wrong, by problem; nothing where nothing did."""
    sheet = Sheet(["problem", *TROUBLES])
    for row in report.problems:
        counts = trouble_counts(row)
        if any(counts):
            sheet.add([row.problem, *(str(count or NONE) for count in counts)])
    if sheet.rows:
        yield from (Text(), _title("trouble, all arms together"), sheet)
        yield Text(
            "overfits: attempts that pass the visible tests and fail a hidden one · unconfirmed: "
            "solutions that fail a held-out test · collapses: updates at which a health rule saw a "
            "collapsed policy or an unsafe step; 'show RUN' says what followed",
            style="dim",
        )


def problem_header(report: Report) -> list[str]:
    """Columns of the whole table by problem; difficulty and hardness only where some problem has one."""
    others = [f"{arm} / {report.reference}" for arm in report.rates if arm != report.reference]
    return ["problem", *_labels(report), *report.rates, *others, *TROUBLES]


def problem_cells(report: Report, row: ProblemRow) -> list[str]:
    known = {"difficulty": row.difficulty, "hardness": row.hardness}
    others = [arm for arm in report.rates if arm != report.reference]
    return [
        row.problem,
        *(known[name] or "–" for name in _labels(report)),
        *(f"{mean_text(cell.attempts)} ({solved_text(cell)})" for cell in row.cells.values()),
        *(_problem_ratio(row, arm).strip() for arm in others),
        *(str(count or NONE) for count in trouble_counts(row)),
    ]


def _labels(report: Report) -> list[str]:
    rows = report.problems
    seen = {"difficulty": any(r.difficulty for r in rows), "hardness": any(r.hardness for r in rows)}
    return [name for name, is_known in seen.items() if is_known]


def solved_text(cell: Cell) -> str:
    n = cell.attempts.n if cell.attempts else 0
    return f"{cell.n_solved}/{n}"


TROUBLES = ("overfits", "unconfirmed", "failed runs", "collapses")


def trouble_counts(row: ProblemRow) -> tuple[int, ...]:
    """One count for each of `TROUBLES`, all arms together."""
    cells = row.cells.values()
    unconfirmed = sum(cell.n_solved - cell.n_confirmed for cell in cells if cell.n_confirmed is not None)
    return (
        sum(cell.n_overfits for cell in cells),
        unconfirmed,
        sum(cell.n_failed for cell in cells),
        sum(cell.n_collapses for cell in cells),
    )


def _title(text: str) -> Text:
    return Text(text, style="bold")
