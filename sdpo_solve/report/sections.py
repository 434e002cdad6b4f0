"""The tables of a report as titled rows of text, which terminal, page and Markdown draw alike.

Makes words of what `figures.Report` holds; computes nothing. Names are those of the files: whoever draws them
cleans or escapes them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sdpo_solve.report.cohort import Axis
from sdpo_solve.report.comparison import Comparison
from sdpo_solve.report.figures import ArmCounts, Rate, Report
from sdpo_solve.report.problems import Cell, ProblemRow, Split
from sdpo_solve.report.statistics import CensoredMean, SpeedUp
from sdpo_solve.report.table import NONE

UNITS = {Axis.ATTEMPTS: "attempts", Axis.TOKENS: "generated tokens", Axis.SECONDS: "seconds"}
TROUBLES = ("overfits", "unconfirmed", "failed runs", "collapses")
_CUT = "*"


@dataclass(frozen=True, slots=True)
class Section:
    """A table with a title, notes that explain it, and sentences that sum it up.

    `names`: columns besides the first that hold names, not figures.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    sentences: Sequence[str] = ()
    names: Sequence[str] = ()
    for_papers: bool = False
    """It is among the tables that `--latex` prints."""


def sections(report: Report) -> list[Section]:
    """Every table of the report that has rows, in the order in which they are read."""
    made = (
        _arms(report),
        _costs(report),
        _settings(report),
        _rates(report),
        _comparisons(report),
        _by_difficulty(report),
        _splits(report),
        _problems(report),
        _trouble(report),
    )
    return [section for section in made if section.rows or section.sentences]


def shared_facts(report: Report) -> Iterator[tuple[str, str]]:
    """Name and value of what all runs of the report have in common."""
    shared = report.shared
    yield "model", f"{shared.model} · engine {shared.engine}"
    grader = re.sub(r"(sha256:[0-9a-f]{12})[0-9a-f]+", r"\1", shared.grader)  # --json has it whole
    yield (
        "grader",
        f"{grader} · feedback mode {shared.feedback_mode} · {shared.language} · extract {shared.extract}",
    )
    if shared.sampling:
        yield (
            "sampling",
            ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in shared.sampling.items()),
        )
    if shared.versions:
        yield "versions", ", ".join(f"{name} {'/'.join(found)}" for name, found in shared.versions.items())


# -- figures as text -----------------------------------------------------------------------------------------


def number(value: float) -> str:
    """Three digits at least, whole numbers from 100; – for what is not known."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞"
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def rate_text(rate: Rate) -> str:
    """`53 % (40–66)`; – where it is not known. A bootstrap of equal outcomes has no width."""
    if math.isnan(rate.y):
        return "–"
    if rate.low == rate.high:
        return f"{100 * rate.y:.0f} %"
    return f"{100 * rate.y:.0f} % ({100 * rate.low:.0f}–{100 * rate.high:.0f})"


def mean_text(mean: CensoredMean | None) -> str:
    """The mean, with ≥ where some run was censored."""
    return "–" if mean is None else f"{'≥' if mean.n_censored else ''}{number(mean.value)}"


def ratio_text(ratio: float) -> str:
    """Two decimals; 0 and ∞ say that one of the two is not reached at all."""
    if math.isnan(ratio):
        return "–"
    return "∞" if math.isinf(ratio) else f"{ratio:.2f}" if ratio else "0"


# -- the tables ----------------------------------------------------------------------------------------------


def _arms(report: Report) -> Section:
    header = ("arm", "problems", "seeds", "runs", "solved", "confirmed", "unfinished", "failed", "no program")
    note = (
        "no program: share of the attempts in whose answers none was found (of these, cut off by the limit)"
    )
    return Section("arms", header, [_arm_cells(arm) for arm in report.arms], [note])


def _costs(report: Report) -> Section:
    """What each arm spends for a success, on every axis."""
    rows = [
        [arm.name, f"{arm.n_solved}/{arm.n_runs}", *(number(arm.per_success[axis]) for axis in Axis)]
        for arm in report.arms
    ]
    header = ["arm", "solved", *(UNITS[axis] for axis in Axis)]
    return Section("what a success costs, unsolved runs included", header, rows)


def _arm_cells(arm: ArmCounts) -> list[str]:
    seeds = str(arm.n_seeds_min)
    if arm.n_seeds_max != arm.n_seeds_min:
        seeds += f"–{arm.n_seeds_max}"
    confirmed = "–" if arm.n_confirmed is None else str(arm.n_confirmed)
    return [
        arm.name, str(arm.n_problems), seeds, str(arm.n_runs), str(arm.n_solved), confirmed,
        str(arm.n_unfinished), str(arm.n_failed),
        share_without_program(arm.n_attempts, arm.n_without_program, arm.n_cut_off),
    ]  # fmt: skip


def share_without_program(n: int, n_without: int, n_cut_off: int) -> str:
    """`12 % (8 % cut off)` of n attempts; – where there are none."""
    if not n:
        return "–"
    cut_off = f" ({100 * n_cut_off / n:.0f} % cut off)" if n_cut_off else ""
    return f"{100 * n_without / n:.0f} %{cut_off}"


def _settings(report: Report) -> Section:
    """What each arm is: its method, what it may spend, and the options in which arms differ."""
    keys = list(report.arms[0].settings)
    header = ("arm", "method", "budget", "begun", *keys)
    rows = [[arm.name, arm.method, arm.budget, arm.dates, *arm.settings.values()] for arm in report.arms]
    return Section("what the arms are", header, rows, names=header[1:])


def _by_difficulty(report: Report) -> Section:
    points = report.by_difficulty[0].rates if report.by_difficulty else ()
    header = [
        "problems",
        "arm",
        "n",
        *(f"{'pass' if p.x == 1 else 'discovery'}@{number(p.x)}" for p in points),
    ]
    rows = [
        [group.label, group.arm, str(group.n_problems), *map(rate_text, group.rates)]
        for group in report.by_difficulty
    ]
    title = "pass@1 and discovery by difficulty, at attempts (90 % interval)"
    return Section(title, header, rows, names=("arm",), for_papers=True)


def summary(report: Report) -> Section:
    """One row an arm: successes, and discovery at three points, one of them the last of every arm."""
    points = [rate.x for rate in next(iter(report.rates.values()), ())]
    known = [n for n in range(len(points)) if not any(math.isnan(r[n].y) for r in report.rates.values())]
    picked = dict.fromkeys([0, len(points) - 1, *known[-1:], len(points) // 2] if points else [])
    shown = sorted([*picked][:3])
    unit = UNITS[report.options.axis]
    header = ["arm", "solved", *(f"at {number(points[n])}" for n in shown)]
    counts = {arm.name: arm for arm in report.arms}
    rows = [
        [name, f"{counts[name].n_solved}/{counts[name].n_runs}", *(rate_text(rates[n]) for n in shown)]
        for name, rates in report.rates.items()
    ]
    return Section(f"runs solved, and discovery rate at {unit} (90 % interval)", header, rows)


def answer(report: Report) -> str:
    """What the report comes to: how far the reference arm got, and how that compares."""
    found = [c for c in report.comparisons if c.axis is report.options.axis]
    last, unit = _last_known(report), UNITS[report.options.axis]
    if last is None:
        return _nothing_known(report)
    nothing = [c.baseline for c in found if not c.rows]
    if last.y == 0 and len(nothing) == len(found):
        arms = " or ".join([report.reference, *nothing]) if len(found) < 2 else "any arm"
        seen = min([last.x, *(c.limit for c in found)])  # a bootstrap of failures alone has no width
        solved = any(arm.n_solved for arm in report.arms if arm.name == report.reference)
        is_open = solved and any(math.isnan(rate.y) for rate in report.rates[report.reference])
        later = f"; beyond {number(last.x)} it is not known" if is_open else ""
        return f"Nothing was solved by {arms} in {number(seen)} {unit}{later}."
    first = report.first_at(last)
    reached = (
        f"{report.reference} reaches {100 * first.y:.0f} % discovery in {number(first.x)} {unit} "
        f"(90 % interval {100 * first.low:.0f} to {100 * first.high:.0f} %)"
        f"{f'; beyond {number(last.x)} it is not known' if _ends_before_the_table(report) else ''}."
    )
    if len(found) < 2:
        return " ".join([reached, *(comparison.sentence for comparison in found)])
    fewer = [c.baseline for c in found if c.quicker == report.reference]
    more = [c.baseline for c in found if c.quicker == c.baseline]
    still_open = [c.baseline for c in found if c.quicker is None]
    needed = [(word, names) for word, names in (("fewer", fewer), ("more", more)) if names]
    # The first part names the unit of both.
    parts = [f"{word}{'' if n else f' {unit}'} than {_and(names)}" for n, (word, names) in enumerate(needed)]
    needs = f" It needs {', and '.join(parts)}." if parts else ""
    undecided = (
        f" Against {_and(still_open)} there is too little data to say which is quicker." if still_open else ""
    )
    return reached + needs + undecided


def _last_known(report: Report) -> Rate | None:
    """The reference arm at the last point of the table where it is known, else where its curve ends."""
    for rate in reversed(report.rates.get(report.reference, ())):
        if not math.isnan(rate.y) and math.isfinite(rate.x):
            return rate
    for curve in report.curves_on(report.options.axis):
        if curve.arm == report.reference:
            return Rate(curve.x_K[-1], curve.y_K[-1], curve.low_K[-1], curve.high_K[-1])
    return None


def _ends_before_the_table(report: Report) -> bool:
    """Whether every point of the table lies beyond what is known of the reference arm."""
    return all(math.isnan(rate.y) for rate in report.rates[report.reference])


def _nothing_known(report: Report) -> str:
    """The answer where no run of the reference arm counts."""
    if not report.reference:
        return "Every run failed; none is in a rate."
    return f"Nothing of {report.reference} was graded yet." if report.curves else "Nothing was graded yet."


def _and(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)


def _rates(report: Report) -> Section:
    points = next(iter(report.rates.values()), ())
    rows = [
        [number(point.x), *(rate_text(rates[n]) for rates in report.rates.values())]
        for n, point in enumerate(points)
    ]
    unbiased = [arm.name for arm in report.arms if arm.unbiased]
    is_counted = bool(unbiased) and report.options.axis is Axis.ATTEMPTS
    notes = [f"{', '.join(unbiased)}: unbiased pass@k from all samples"] if is_counted else []
    title = "discovery rate: mean over seeds, then problems (90 % interval)"
    return Section(title, [UNITS[report.options.axis], *report.rates], rows, notes)


def _comparisons(report: Report) -> Section:
    header = ["to reach", "of", "arm", report.reference, "arm needs", "ratio", "P(faster)"]
    speed_ups = [(found, row) for found in report.comparisons for row in found.rows]
    seen = {x for _, row in speed_ups for x in (row.ratio, row.ratio_interval.low, row.ratio_interval.high)}
    never = [f"0: rate not reached by {report.reference}"] if 0.0 in seen else []
    never += ["∞: rate not reached by the other arm"] if math.inf in seen else []
    notes = [
        "ratio above 1: the other arm needs more (90 % interval)",
        *([" · ".join(never)] if never else []),
        f"P(faster): share of resamples in which {report.reference} needs less",
    ]
    return Section(
        title=f"what each arm needs against {report.reference}",
        header=header,
        rows=[_comparison_cells(found, row) for found, row in speed_ups],
        notes=notes if speed_ups else [],
        sentences=[found.sentence for found in report.comparisons if found.axis is report.options.axis],
        names=("of", "arm"),
    )


def _comparison_cells(found: Comparison, row: SpeedUp) -> list[str]:
    limit = f"not in {number(found.limit)}"
    needs = [limit if math.isinf(x) else number(x) for x in (row.method_needs, row.baseline_needs)]
    band = f"({ratio_text(row.ratio_interval.low)}–{ratio_text(row.ratio_interval.high)})"
    ratio = f"{ratio_text(row.ratio)} {band}"
    level, faster = f"{100 * row.level:.0f} %", f"{100 * row.p_faster:.0f} %"
    return [level, found.axis.value, found.baseline, *needs, ratio, faster]


def _splits(report: Report) -> Section:
    notes = ["rate at: attempts at which the rate in brackets is taken"]
    if any(split.cut for split in report.splits):
        notes.append(f"{_CUT} each problem counts as far as every arm was watched there")
    return Section(
        title="mean attempts to the first success, censored (discovery rate)",
        header=["problems", "n", "rate at", *report.rates],
        rows=[_split_cells(split, list(report.rates)) for split in report.splits],
        notes=notes,
        for_papers=True,
    )


def _split_cells(split: Split, arms: Sequence[str]) -> list[str]:
    cells = [split.label, str(split.n_problems), number(split.limit)]
    for arm in arms:
        mean, rate = split.means.get(arm), split.rates.get(arm, math.nan)
        known = "" if math.isnan(rate) else f" ({100 * rate:.0f} %)"
        cells.append(f"{mean_text(mean)}{_CUT * (arm in split.cut)}{known}" if mean else "–")
    return cells


def _problems(report: Report) -> Section:
    """Mean censored attempts and solved seeds of each arm, and the ratios."""
    others = [arm for arm in report.rates if arm != report.reference]
    ratios = [f"ratio {n}: {arm} over {report.reference}" for n, arm in enumerate(others, 1)]
    rows = [
        [row.problem, *map(_cell_text, row.cells.values()), *(_ratio_text(row, arm) for arm in others)]
        for row in report.problems
    ]
    header = ["problem", *report.rates, *(f"ratio {n}" for n in range(1, len(others) + 1))]
    if any(row.gap is not None for row in report.problems):
        header.append("gap")
        ratios.append("gap: of student and teacher at a run's first update, nats a token")
        for cells, row in zip(rows, report.problems, strict=True):
            cells.append("–" if row.gap is None else f"{row.gap:.3f}")
    title = "mean attempts to the first success, by problem (seeds solved)"
    return Section(title, header, rows, [*_problem_notes(report), *ratios])


def _cell_text(cell: Cell) -> str:
    n = cell.attempts.n if cell.attempts else 0
    return f"{mean_text(cell.attempts)} ({cell.n_solved}/{n})"


def _ratio_text(row: ProblemRow, arm: str) -> str:
    text = ratio_text(row.ratios.get(arm, math.nan))
    # A space where no mark stands keeps the points of the figures below each other.
    return f"{text}{_CUT if arm in row.cut and text != '–' else ' ' * bool(row.cut)}"


def _problem_notes(report: Report) -> list[str]:
    """What the marks in the means and ratios stand for; nothing for one that stands nowhere."""
    means = [cell.attempts for row in report.problems for cell in row.cells.values()]
    means += [mean for split in report.splits for mean in split.means.values()]
    ratios = [(row, arm, ratio) for row in report.problems for arm, ratio in row.ratios.items()]
    notes = []
    if any(mean and mean.n_censored for mean in means):
        notes.append("≥ some runs had no success as far as they were watched")
    if any(math.isnan(ratio) for _, _, ratio in ratios):
        notes.append("ratio –: neither had a success as far as both were watched")
    if any(arm in row.cut and not math.isnan(ratio) for row, arm, ratio in ratios):
        notes.append(f"ratio{_CUT}: both counted only as far as both were watched")
    return notes


def _trouble(report: Report) -> Section:
    """What went wrong, and how hard the problem is where that is known; only problems with either."""
    labels = {
        "difficulty": [row.difficulty for row in report.problems],
        "hardness": [row.hardness for row in report.problems],
    }
    known = {name: values for name, values in labels.items() if any(values)}
    rows = []
    for n, row in enumerate(report.problems):
        counts = _trouble_counts(row)
        if any(counts) or known:
            rows.append(
                [
                    row.problem,
                    *(values[n] or "–" for values in known.values()),
                    *(str(c or NONE) for c in counts),
                ]
            )
    note = (
        "overfits: attempts that pass the visible tests and fail a hidden one · unconfirmed: solutions that "
        "fail a held-out test · collapses: updates at which a health rule saw a collapsed policy or an "
        "unsafe step; 'show RUN' says what followed"
    )
    return Section(
        "trouble, all arms together", ["problem", *known, *TROUBLES], rows, [note], names=tuple(known)
    )


def _trouble_counts(row: ProblemRow) -> tuple[int, ...]:
    """One count for each of `TROUBLES`, all arms together."""
    cells = row.cells.values()
    unconfirmed = sum(cell.n_solved - cell.n_confirmed for cell in cells if cell.n_confirmed is not None)
    return (
        sum(cell.n_overfits for cell in cells),
        unconfirmed,
        sum(cell.n_failed for cell in cells),
        sum(cell.n_collapses for cell in cells),
    )
