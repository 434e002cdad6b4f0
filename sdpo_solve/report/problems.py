"""Problem by problem: means and counts of each arm, ratios, and the splits by hardness and difficulty.

The table of the paper's Table 10 (arXiv 2601.20802). Means of different arms are compared only as far as all
of them were watched: a run that was stopped early would look quick. Computes; draws nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sdpo_solve.report.cohort import Axis, Cohort, arm_of, keeps_trying, observations, shared_end
from sdpo_solve.report.runs import RunRecord
from sdpo_solve.report.statistics import CensoredMean, Observation, censored_mean, curve, pass_at_k

# arXiv 2601.20802, section 5: a question is hard below this pass@64 of the base model, very hard below that.
_SCREEN_K = 64
_HARD, _VERY_HARD = 0.5, 0.03
EASIER, HARD, VERY_HARD = "easier", "hard", "very hard"
_UNKNOWN = "not known"
# The orders in which groups of problems are listed; other labels come behind, sorted.
_DIFFICULTIES = ("easy", "medium", "hard")


@dataclass(frozen=True, slots=True)
class Marks:
    """How hard a screening found each problem (EASIER, HARD or VERY_HARD) for `model`, an identity.

    `sampled_with`: what it was made with, by the names of a run's options; a file may not say all of it.
    """

    model: str
    by_problem: Mapping[str, str]
    sampled_with: Mapping[str, Any] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    """Of the problems as they were screened."""

    def changed(self, cohort: Cohort) -> list[str]:
        """The marked problems whose text or tests are not those that were screened, sorted.

        Which tests are visible is part of a digest: digests are compared in the same feedback mode alone, and
        not in `paper`, where the seed decides it.
        """
        mode = cohort.shared.feedback_mode
        if mode == "paper" or mode != self.sampled_with.get("feedback_mode"):
            return []
        now = {run.problem: run.problem_digest for run in (*cohort.runs, *cohort.failed_runs)}
        known = {name: digest for name, digest in now.items() if digest and name in self.by_problem}
        return sorted(name for name, digest in known.items() if self.digests.get(name, digest) != digest)


@dataclass(frozen=True, slots=True)
class Cell:
    """One arm on one problem: means over seeds, and counts. None in `attempts`: nothing observed."""

    attempts: CensoredMean | None
    tokens: CensoredMean | None
    seconds: CensoredMean | None
    n_solved: int
    n_confirmed: int | None
    n_overfits: int
    n_failed: int
    n_collapses: int


@dataclass(frozen=True, slots=True)
class ProblemRow:
    """One problem. `cells` count each arm as far as it was watched, `ratios` as far as both arms were.

    A ratio is baseline over reference in mean censored attempts; NaN where neither had a success that far.
    """

    problem: str
    difficulty: str | None
    hardness: str | None
    cells: Mapping[str, Cell]
    ratios: Mapping[str, float]
    cut: tuple[str, ...]
    """Arms whose ratio counts less than the cells do."""
    gap: float | None = None
    """How far the student was from its teacher at the runs' first updates, mean, nats a token; it predicts
    what there is to learn (arXiv 2605.30070). None without such an update."""


@dataclass(frozen=True, slots=True)
class Split:
    """One group of problems: each arm's discovery rate at x = `limit` and its mean censored attempts.

    The means count each problem as far as every arm was watched there; problems without a run that counts are
    not in `n_problems`.
    """

    label: str
    n_problems: int
    limit: float
    rates: Mapping[str, float]
    means: Mapping[str, CensoredMean]
    cut: tuple[str, ...]
    """Arms that were watched farther than their mean counts."""


def count_confirmed(runs: Sequence[RunRecord]) -> int | None:
    """Runs whose first success passed every held-out test; None where none was held out."""
    if not any(run.header.n_hidden for run in runs):
        return None
    return sum(run.confirmed is True for run in runs)


def problem_rows(cohort: Cohort, reference: str, marks: Marks | None = None) -> tuple[ProblemRow, ...]:
    """One row a problem, in natural order of the names; ratios are against the `reference` arm.

    `marks` say how hard problems are where a screening does; else the runs themselves, where they can.
    """
    arms = {name: runs for name, runs in cohort.arms.items() if runs}
    difficulty = {run.problem: run.header.difficulty for run in cohort.runs}
    hardness = _hardness(cohort)
    if marks is not None:
        changed = marks.changed(cohort)
        hardness |= {name: mark for name, mark in marks.by_problem.items() if name not in changed}
    names = sorted({run.problem for run in (*cohort.runs, *cohort.failed_runs)}, key=natural_key)
    seen = {arm: observations(runs, Axis.ATTEMPTS) for arm, runs in arms.items()}
    rows = []
    for name in names:
        cells = {arm: _cell(arm, name, runs, cohort) for arm, runs in arms.items()}
        found = {
            arm: compare_means(seen[reference][name], seen[arm][name])
            for arm in arms
            if arm != reference and name in seen[arm] and name in seen[reference]
        }
        ratios = {arm: ratio.value for arm, ratio in found.items()}
        cut = tuple(arm for arm, ratio in found.items() if ratio.cut)
        gap = _gap([run for run in cohort.runs if run.problem == name])
        rows.append(ProblemRow(name, difficulty.get(name), hardness.get(name), cells, ratios, cut, gap))
    return tuple(rows)


@dataclass(frozen=True, slots=True)
class MeanRatio:
    """Baseline over reference in mean censored attempts. `cut`: a run counts less than it was watched."""

    value: float
    cut: bool


def compare_means(reference: Sequence[Observation], baseline: Sequence[Observation]) -> MeanRatio:
    """The ratio of two arms on one problem, both cut where one of them was not watched any more.

    NaN where neither has a success that far: two lower bounds have no ratio.
    """
    ends = _shared_ends([reference, baseline])
    one, other = _cut(reference, ends), _cut(baseline, ends)
    cut = one != [*reference] or other != [*baseline]
    if not any(o.found for o in (*one, *other)):
        return MeanRatio(math.nan, cut)
    return MeanRatio(censored_mean(other).value / censored_mean(one).value, cut)


def _shared_ends(arms: Sequence[Sequence[Observation]]) -> dict[int, float]:
    """How far every arm was watched on one problem, by seed; inf where no run was censored.

    Arms with the same seeds end seed by seed, so that a run that has just begun cuts its partners alone; else
    the least end counts for all seeds.
    """
    ends: dict[int, float] = {}
    for seen in arms:
        for o in seen:
            ends[o.seed] = min(ends.get(o.seed, math.inf), math.inf if o.found else o.time)
    if any({o.seed for o in seen} != ends.keys() for seen in arms):
        return dict.fromkeys(ends, min(ends.values()))
    return ends


def _cut(seen: Sequence[Observation], ends: Mapping[int, float]) -> list[Observation]:
    """The runs as they stood at these ends: a later success is not known yet."""
    return [
        replace(o, time=min(o.time, ends[o.seed]), found=o.found and o.time <= ends[o.seed]) for o in seen
    ]


def _cell(arm: str, problem: str, runs: Sequence[RunRecord], cohort: Cohort) -> Cell:
    mine = [run for run in runs if run.problem == problem]

    def mean(axis: Axis) -> CensoredMean | None:
        seen = observations(mine, axis).get(problem)
        return censored_mean(seen) if seen else None

    return Cell(
        attempts=mean(Axis.ATTEMPTS),
        tokens=mean(Axis.TOKENS),
        seconds=mean(Axis.SECONDS),
        n_solved=sum(run.first is not None for run in mine),
        n_confirmed=count_confirmed(mine),
        n_overfits=sum(run.n_overfits for run in mine),
        n_failed=sum(run.problem == problem for run in cohort.failed[arm]),
        n_collapses=sum(run.n_collapses for run in mine),
    )


def _gap(runs: Sequence[RunRecord]) -> float | None:
    """The mean loss of first updates; those without a teacher have none (in earlier journals 0)."""
    firsts = [run.updates[0].loss for run in runs if run.updates]
    losses = [loss for loss in firsts if loss and math.isfinite(loss)]
    return sum(losses) / len(losses) if losses else None


def natural_key(text: str) -> tuple[tuple[bool, int, str], ...]:
    """Sorts Q3 before Q10."""
    parts = re.split(r"(\d{1,18})", text)
    return tuple((not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts if part)


def _hardness(cohort: Cohort) -> dict[str, str]:
    """hard, very hard or easier, by pass@64 of the base model where enough independent tries were made."""
    rates: dict[str, list[float]] = {}
    for run in cohort.runs:
        n, n_solved = len(run.attempts), sum(attempt.solved for attempt in run.attempts)
        if keeps_trying(run) and n >= _SCREEN_K:
            rates.setdefault(run.problem, []).append(pass_at_k(n, n_solved, _SCREEN_K))
    means = {problem: sum(found) / len(found) for problem, found in rates.items()}
    return {
        problem: VERY_HARD if rate < _VERY_HARD else HARD if rate < _HARD else EASIER
        for problem, rate in means.items()
    }


def make_splits(arms: Mapping[str, Sequence[RunRecord]], problems: Sequence[ProblemRow]) -> list[Split]:
    """All problems, then by hardness and by difficulty, each only where it parts the problems."""
    groups = {
        **_groups("base model", {row.problem: row.hardness for row in problems}, (EASIER, HARD, VERY_HARD)),
        **by_difficulty(problems),
    }
    very_hard = groups.get(f"base model: {VERY_HARD}")
    if very_hard:  # as in the paper: the very hard questions are some of the hard ones
        both = groups.pop(f"base model: {HARD}", set()) | very_hard
        del groups[f"base model: {VERY_HARD}"]
        groups = {
            f"base model: {HARD} and {VERY_HARD}": both,
            f"base model: {VERY_HARD}": very_hard,
            **groups,
        }
    everything = _split("all", frozenset(row.problem for row in problems), arms)
    return [everything, *(_split(label, frozenset(names), arms) for label, names in groups.items())]


def by_difficulty(problems: Sequence[ProblemRow]) -> dict[str, set[str]]:
    """The names of the problems by difficulty; nothing where all have the same."""
    return _groups("difficulty", {row.problem: row.difficulty for row in problems}, _DIFFICULTIES)


def _groups(what: str, labels: Mapping[str, str | None], order: Sequence[str]) -> dict[str, set[str]]:
    """The problems by label, listed in `order`; nothing where all have the same."""
    known = [*order, *sorted({label for label in labels.values() if label} - set(order)), _UNKNOWN]
    groups = {
        f"{what}: {label}": {problem for problem, found in labels.items() if (found or _UNKNOWN) == label}
        for label in known
    }
    kept = {label: names for label, names in groups.items() if names}
    return kept if len(kept) > 1 else {}


def _split(label: str, names: frozenset[str], arms: Mapping[str, Sequence[RunRecord]]) -> Split:
    found = {name: arm for name, runs in arms.items() if (arm := arm_of(runs, Axis.ATTEMPTS, names))}
    limit = shared_end(list(found.values()))
    seen = {name: observations(arms[name], Axis.ATTEMPTS) for name in found}
    means: dict[str, list[CensoredMean]] = {name: [] for name in found}
    cut = set()
    for problem in sorted(names):
        here = {name: by_problem[problem] for name, by_problem in seen.items() if problem in by_problem}
        ends = _shared_ends([*here.values()])
        for name, whole in here.items():
            kept = _cut(whole, ends)
            means[name].append(censored_mean(kept))
            cut |= {name} if kept != whole else set()
    return Split(
        label=label,
        n_problems=len(frozenset().union(*seen.values()) & names),
        limit=limit,
        rates={name: float(curve(arm, np.array([limit]))[0]) for name, arm in found.items()},
        means={name: _mean_over_problems(each) for name, each in means.items()},
        cut=tuple(name for name in found if name in cut),
    )


def _mean_over_problems(means: Sequence[CensoredMean]) -> CensoredMean:
    """Over problems, of means over seeds."""
    value = sum(mean.value for mean in means) / len(means)
    return CensoredMean(value, sum(mean.n_censored for mean in means), sum(mean.n for mean in means))
