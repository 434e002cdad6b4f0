"""From comparable runs to the figures of a report; pages and tables are drawn from `Report` alone.

Decides what is computed (curves, comparisons, rows, sentences), with the estimators of `statistics.py`. Reads
no file and draws nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sdpo_solve.errors import ConfigError
from sdpo_solve.report.cohort import Axis, Cohort, SharedFacts, arm_of, differing_settings, end, observations
from sdpo_solve.report.comparison import Comparison, compare
from sdpo_solve.report.problems import (
    Marks,
    ProblemRow,
    Split,
    by_difficulty,
    count_confirmed,
    make_splits,
    problem_rows,
)
from sdpo_solve.report.runs import RunRecord, RunStatus
from sdpo_solve.report.statistics import Arm, Floats, Interval, bootstrap_curves, curve, event_grid, interval
from sdpo_solve.report.table import plural

# What decides how often a problem is solved besides model and grader, by the names of a run's options.
_OF_SAMPLING = ("temperature", "max_tokens", "system", "thinking")


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """What to compute. `at`: the attempts (tokens, seconds) of the table, None for a sensible few."""

    axis: Axis = Axis.ATTEMPTS
    at: tuple[float, ...] | None = None
    reference: str | None = None
    """The arm that is compared with each other one; None: the first that learns, else the first."""
    common: bool = False
    """Only problems and seeds that every arm has."""
    n_replicates: int = 1000
    seed: int = 0
    marks: Marks | None = None
    """How hard a screening found the problems; None: by the runs, where they sampled enough."""


@dataclass(frozen=True, slots=True)
class ArmCounts:
    """What an arm is, how many runs it has, and what became of them."""

    name: str
    method: str
    budget: str
    """What its runs may spend, as text."""
    dates: str
    """The days on which its runs began, first and last (UTC)."""
    settings: Mapping[str, str]
    """Options in which it differs from another arm."""
    n_problems: int
    n_runs: int
    n_seeds_min: int
    n_seeds_max: int
    n_solved: int
    n_confirmed: int | None
    """First successes that passed every held-out test; None where no run held any out."""
    n_unfinished: int
    n_failed: int
    n_attempts: int
    n_without_program: int
    """Attempts in whose answers no program was found; `n_cut_off` of them ended at the token limit."""
    n_cut_off: int
    per_success: Mapping[Axis, float]
    """All that its runs spent up to their first success or their end, over the runs solved; inf for none."""
    unbiased: bool
    """discovery@k is the unbiased pass@k: independent samples, never stopped early."""


@dataclass(frozen=True, slots=True)
class Curve:
    """discovery@x of one arm with its 90 % interval; ends where it is no longer known.

    `place` among the report's arms decides how it looks.
    """

    arm: str
    axis: Axis
    place: int
    x_K: tuple[float, ...]
    y_K: tuple[float, ...]
    low_K: tuple[float, ...]
    high_K: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Rate:
    """discovery@x at one x; NaN where it is not known."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class GroupRate:
    """One arm on the problems of one difficulty: discovery@k at attempts; at 1 it is pass@1."""

    label: str
    arm: str
    n_problems: int
    rates: tuple[Rate, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """The content of a report."""

    options: ReportOptions
    shared: SharedFacts
    reference: str
    arms: tuple[ArmCounts, ...]
    curves: tuple[Curve, ...]
    rates: Mapping[str, tuple[Rate, ...]]
    comparisons: tuple[Comparison, ...]
    problems: tuple[ProblemRow, ...]
    splits: tuple[Split, ...]
    by_difficulty: tuple[GroupRate, ...]
    notices: tuple[str, ...]

    def curves_on(self, axis: Axis) -> list[Curve]:
        return [found for found in self.curves if found.axis is axis]

    def first_at(self, rate: Rate) -> Rate:
        """Where the reference arm first came to `rate`, on the report's axis; `rate` itself where it is 0.

        pass@k nears a rate long before it is there: it has come to it where whole percents are the same.
        """
        is_attempts = self.options.axis is Axis.ATTEMPTS
        nears = is_attempts and any(arm.unbiased for arm in self.arms if arm.name == self.reference)
        for found in self.curves_on(self.options.axis):
            for point in map(Rate, found.x_K, found.y_K, found.low_K, found.high_K):
                is_there = rate.y <= point.y + 1e-9 or (nears and round(100 * rate.y) <= round(100 * point.y))
                if found.arm == self.reference and point.x < rate.x and point.y > 0 and is_there:
                    return point
        return rate


def make_report(cohort: Cohort, options: ReportOptions) -> Report:
    """Compute the report.

    Raises ConfigError for an unknown reference arm, where `common` leaves nothing, and for a screening of
    another model or with other sampling.
    """
    if options.marks is not None:
        _check_marks(options.marks, cohort)
    if options.common:
        cohort = _common_only(cohort)
    arms = {name: runs for name, runs in cohort.arms.items() if runs}
    reference = _reference(arms, options)
    problems = problem_rows(cohort, reference, options.marks)
    counts = _arm_counts(cohort)
    at = options.at or _chosen_points(arms, options.axis)
    return Report(
        options=options,
        shared=cohort.shared,
        reference=reference,
        arms=counts,
        curves=tuple(found for axis in Axis for found in _curves(arms, axis, options)),
        rates={name: _rates(runs, at, options) for name, runs in arms.items()},
        comparisons=tuple(
            found
            for axis in Axis
            for name in arms
            if name != reference
            and (
                found := compare(
                    arms, reference, name, axis, n_replicates=options.n_replicates, seed=options.seed
                )
            )
        ),
        problems=problems,
        splits=tuple(make_splits(arms, problems)),
        by_difficulty=tuple(_by_difficulty(arms, problems, options)),
        notices=(*_notices(cohort, arms), *_notices_of_counting(counts, cohort, options.marks)),
    )


def _check_marks(marks: Marks, cohort: Cohort) -> None:
    """Raises ConfigError naming every difference; what a file or a journal does not say agrees."""
    if marks.model != cohort.shared.model_identity:
        raise ConfigError(
            f"the screening is of {marks.model}, these runs are of {cohort.shared.model_identity}"
        )
    run = next(run for runs in (*cohort.arms.values(), *cohort.failed.values()) for run in runs)
    here = {name: run.header.options[name] for name in _OF_SAMPLING if name in run.header.options}
    here |= {"language": cohort.shared.language, "extract": cohort.shared.extract}
    then = marks.sampled_with
    differing = [name for name in here if name in then and then[name] != here[name]]
    if differing:
        said = ", ".join(f"{name} = {then[name]!r}, in these runs it is {here[name]!r}" for name in differing)
        raise ConfigError(f"the screening was made with {said}; screen as the runs sampled")


def _reference(arms: Mapping[str, Sequence[RunRecord]], options: ReportOptions) -> str:
    if options.reference is not None and options.reference not in arms:
        raise ConfigError(f"no arm {options.reference!r} in these runs (there are: {', '.join(arms)})")
    return options.reference or next(iter(arms), "")  # methods that learn come first


def _common_only(cohort: Cohort) -> Cohort:
    """The cohort on problems and seeds that every arm has, failed and unstarted runs counted as absent.

    An arm that has no other runs is in no rate, and does not count.
    """
    seen = [{(run.problem, run.seed) for run in runs if run.attempts} for runs in cohort.arms.values()]
    kept = [each for each in seen if each]
    if not kept:
        return cohort
    shared = set.intersection(*kept)
    if not shared:
        raise ConfigError("--common: the arms share no problem and seed")
    arms = {
        name: tuple(run for run in runs if (run.problem, run.seed) in shared)
        for name, runs in cohort.arms.items()
    }
    return replace(cohort, arms={name: runs for name, runs in arms.items() if runs or cohort.failed[name]})


# -- arms and curves -----------------------------------------------------------------------------------------


def _arm_counts(cohort: Cohort) -> tuple[ArmCounts, ...]:
    members = {name: (*runs, *cohort.failed[name]) for name, runs in cohort.arms.items()}
    settings = differing_settings(members)
    return tuple(_counts(name, cohort, runs, settings[name]) for name, runs in members.items())


def _budget_text(run: RunRecord) -> str:
    units = {"attempts": "attempts", "tokens": "tokens", "wall_s": "s"}
    limits = [
        f"{run.header.budget[key]:g} {unit}" for key, unit in units.items() if run.header.budget.get(key)
    ]
    return ", ".join(limits) + (", keep going" if run.header.keep_going else "") or "none"


def _counts(
    name: str, cohort: Cohort, members: Sequence[RunRecord], settings: Mapping[str, str]
) -> ArmCounts:
    """`members`: all runs of the arm, failed ones included."""
    runs = cohort.arms[name]
    days = sorted(time.strftime("%Y-%m-%d", time.gmtime(run.header.time)) for run in members)
    seeds: dict[str, int] = {}
    for run in runs:
        seeds[run.problem] = seeds.get(run.problem, 0) + 1
    arm = arm_of(runs, Axis.ATTEMPTS)
    return ArmCounts(
        name=name,
        method=members[0].method,
        budget=" / ".join(sorted({_budget_text(run) for run in members})),
        dates=" to ".join(dict.fromkeys((days[0], days[-1]))),
        settings=settings,
        n_problems=len(seeds),
        n_runs=len(runs),
        n_seeds_min=min(seeds.values(), default=0),
        n_seeds_max=max(seeds.values(), default=0),
        n_solved=sum(run.first is not None for run in runs),
        n_confirmed=count_confirmed(runs),
        n_unfinished=sum(run.status is RunStatus.UNFINISHED for run in runs),
        n_failed=len(cohort.failed[name]),
        n_attempts=sum(len(run.attempts) for run in runs),
        n_without_program=sum(run.n_without_program for run in runs),
        n_cut_off=sum(run.n_cut_off for run in runs),
        per_success={axis: _per_success(runs, axis) for axis in Axis},
        unbiased=arm is not None and arm.unbiased,
    )


def _per_success(runs: Sequence[RunRecord], axis: Axis) -> float:
    seen = [one for group in observations(runs, axis).values() for one in group]
    n_found = sum(one.found for one in seen)
    return sum(one.time for one in seen) / n_found if n_found else math.inf


def _curves(arms: Mapping[str, Sequence[RunRecord]], axis: Axis, options: ReportOptions) -> Iterator[Curve]:
    """The curve of each arm that was observed, as far as it is known."""
    observed = {name: arm for name, runs in arms.items() if (arm := arm_of(runs, axis)) is not None}
    farthest = max((end(arm) for arm in observed.values()), default=0.0)
    for place, name in enumerate(arms):
        if name in observed:
            arm = observed[name]
            # An arm that solved everything is known for ever: it is drawn as far as any other.
            last = farthest if math.isinf(arm.horizon) else arm.horizon
            grid_K = event_grid([arm], [0.0, last])
            points = _points(arm, grid_K[grid_K <= last], options)
            columns = (tuple(getattr(p, column) for p in points) for column in ("x", "y", "low", "high"))
            yield Curve(name, axis, place, *columns)


def _points(arm: Arm, grid_K: Floats, options: ReportOptions) -> list[Rate]:
    """The arm's rate at each x of the grid, with its interval over replicates."""
    drawn = bootstrap_curves({"": arm}, grid_K, n_replicates=options.n_replicates, seed=options.seed)
    points = []
    for x, y, replicates_B in zip(grid_K, curve(arm, grid_K), drawn[""].T, strict=True):
        band = Interval(math.nan, math.nan) if math.isnan(y) else interval(replicates_B)
        points.append(Rate(float(x), float(y), band.low, band.high))
    return points


def _rates(runs: Sequence[RunRecord], at: Sequence[float], options: ReportOptions) -> tuple[Rate, ...]:
    arm = arm_of(runs, options.axis)
    if arm is None:
        return tuple(Rate(x, math.nan, math.nan, math.nan) for x in at)
    return tuple(_points(arm, np.array(at, dtype=float), options))


def _by_difficulty(
    arms: Mapping[str, Sequence[RunRecord]], problems: Sequence[ProblemRow], options: ReportOptions
) -> Iterator[GroupRate]:
    """pass@1 and discovery@k of each arm by difficulty; nothing where all problems have the same."""
    options = replace(options, axis=Axis.ATTEMPTS)
    points = _chosen_points(arms, Axis.ATTEMPTS)
    # Without the end of each arm: so many columns fit no page of a paper.
    at = tuple(sorted({1.0, *points[-1:], *(x for x in points if math.log2(x) % 2 == 0)}))
    for label, names in by_difficulty(problems).items():
        for arm, runs in arms.items():
            mine = [run for run in runs if run.problem in names]
            if mine:
                n_problems = len(observations(mine, Axis.ATTEMPTS))
                yield GroupRate(label, arm, n_problems, _rates(mine, at, options))


def _chosen_points(arms: Mapping[str, Sequence[RunRecord]], axis: Axis) -> tuple[float, ...]:
    """Powers of four (attempts) or of ten (tokens, seconds), and the last x of each arm."""
    ends = {end(arm) for runs in arms.values() if (arm := arm_of(runs, axis)) is not None}
    base = 4 if axis is Axis.ATTEMPTS else 10
    powers = [float(base**n) for n in range(12) if base**n < max(ends, default=1.0)]
    return tuple(sorted({*powers[-5:], *ends}))


# -- notices -------------------------------------------------------------------------------------------------


def _notices(cohort: Cohort, arms: Mapping[str, Sequence[RunRecord]]) -> list[str]:
    notices = []
    if cohort.failed_runs:
        n = plural(len(cohort.failed_runs), "run")
        notices.append(f"{n} failed; in no rate, neither as solved nor as unsolved.")
    unfinished = sum(run.status is RunStatus.UNFINISHED for run in cohort.runs)
    if unfinished:
        notices.append(f"{plural(unfinished, 'run')} not finished; counted as far as they have come.")
    if cohort.unreadable:
        n = plural(len(cohort.unreadable), "journal")
        notices.append(f"{n} damaged and left out; the first: {cohort.unreadable[0]}")
    sets = [{(run.problem, run.seed) for run in runs if run.attempts} for runs in arms.values()]
    if any(each != sets[0] for each in sets):
        notices.append(
            "The arms hold different problems or seeds; curves and rates cover what each arm has, "
            "comparisons the problems that both have. --common keeps what all share."
        )
    differing = [f"{name} {', '.join(found)}" for name, found in cohort.shared.versions.items() if found[1:]]
    if differing:
        notices.append(f"Versions differ between runs: {'; '.join(differing)}.")
    if "," in cohort.shared.engine:
        notices.append("Engines differ between runs: seconds are not comparable.")
    problems = {run.problem for run in cohort.runs}
    if len(problems) == 1:
        notices.append("One problem: intervals cover its seeds, other problems may differ.")
    elif all(len({run.seed for run in runs}) == 1 for runs in arms.values()):
        notices.append("One seed: intervals cover the choice of problems, not the luck of a run.")
    return notices


def _notices_of_counting(arms: Sequence[ArmCounts], cohort: Cohort, marks: Marks | None) -> Iterator[str]:
    """Where figures are not counted as others beside them are."""
    unbiased = [arm.name for arm in arms if arm.unbiased]
    if unbiased and any(arm.n_attempts and not arm.unbiased for arm in arms):
        yield (
            f"Rates of {', '.join(unbiased)} are pass@k from all samples; the attempts that it needs against "
            "another kind of arm are counted to first successes."
        )
    changed = marks.changed(cohort) if marks else []
    if changed:
        names = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if changed[3:] else "")
        yield f"The text or tests of {names} have changed since the screening; its marks there are left out."
