"""One arm against another: how much more a baseline needs to reach the same discovery rate, in words too.

Computes on the problems that both arms have, over attempts, tokens or seconds. Draws nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sdpo_solve.report.cohort import Axis, arm_of, observations, shared_end
from sdpo_solve.report.runs import RunRecord
from sdpo_solve.report.statistics import SpeedUp, curve, speed_ups
from sdpo_solve.report.table import plural

# Fewer independent units than this, and no interval is worth its name.
MIN_UNITS = 5
_SURE = 0.95


@dataclass(frozen=True, slots=True)
class Comparison:
    """The reference arm against one baseline on one axis, on the problems that both have."""

    reference: str
    baseline: str
    axis: Axis
    limit: float
    n_problems: int
    n_seeds: int
    rows: tuple[SpeedUp, ...]
    sentence: str

    @property
    def quicker(self) -> str | None:
        """The arm that needs less to reach the highest rate that both reach; None where that is open."""
        if not self.rows or (self.n_problems < MIN_UNITS and self.n_seeds < MIN_UNITS):
            return None
        low, high = self.rows[0].ratio_interval.low, self.rows[0].ratio_interval.high
        share = self.rows[0].p_faster
        # The interval leaves out resamples in which neither arm gets there; in the share they count half.
        if low > 1 and share >= _SURE:
            return self.reference
        return self.baseline if high < 1 and share <= 1 - _SURE else None


def compare(
    arms: Mapping[str, Sequence[RunRecord]],
    reference: str,
    baseline: str,
    axis: Axis,
    *,
    n_replicates: int,
    seed: int,
) -> Comparison | None:
    """None where the two have no observed problem in common.

    Rates compared: the highest that both reach, and the reference's own at the end. Both arms are counted
    alike: pass@k comes to 100 % only where all tries are drawn, runs that stop do at their last success.
    """
    both = frozenset(observations(arms[reference], axis)) & frozenset(observations(arms[baseline], axis))
    one, other = arm_of(arms[reference], axis, both), arm_of(arms[baseline], axis, both)
    if one is None or other is None:
        return None
    if one.unbiased != other.unbiased:
        one, other = one.by_first_success(), other.by_first_success()
    limit = shared_end([one, other])
    final_one, final_other = (float(curve(arm, np.array([limit]))[0]) for arm in (one, other))
    levels = {min(final_one, final_other), final_one or final_other} - {0.0}
    rows = speed_ups(one, other, sorted(levels), limit=limit, n_replicates=n_replicates, seed=seed)
    n_seeds = int(min(one.n_seeds_P.min(), other.n_seeds_P.min()))
    found = Comparison(reference, baseline, axis, limit, len(both), n_seeds, rows, "")
    return replace(found, sentence=sentence(found))


def sentence(found: Comparison) -> str:
    """What the comparison comes to, in one sentence; undecided where the data is too little."""
    of, unit = f"{found.reference} and {found.baseline}", found.axis.value
    data = f"{plural(found.n_problems, 'problem')}, {plural(found.n_seeds, 'seed')} each"
    if not found.rows:
        return f"Neither {found.reference} nor {found.baseline} solved anything in {_x(found.limit)} {unit}."
    row = found.rows[0]  # the highest rate that both reach, where there is one
    low, high = row.ratio_interval.low, row.ratio_interval.high
    if found.quicker is None:
        # One run each has no interval worth printing.
        single = found.n_problems == found.n_seeds == 1
        ends = [_end(ratio, found.reference, found.baseline) for ratio in (low, high)]
        band = "" if single else f"; 90 % interval of the ratio from {ends[0]} to {ends[1]}"
        return f"Too little data to say which of {of} needs fewer {unit} ({data}{band})."
    quick, slow = (found.reference, found.baseline) if low > 1 else (found.baseline, found.reference)
    ratios = (row.ratio, low, high) if low > 1 else tuple(_inverse(r) for r in (row.ratio, high, low))
    scope = "" if found.n_problems >= MIN_UNITS else f" on {plural(found.n_problems, 'problem')} alone"
    rate = f"{100 * row.level:.0f} %"
    if math.isinf(ratios[0]):
        return f"{quick} reaches {rate} discovery, {slow} does not in {_x(found.limit)} {unit}{scope}."
    return (
        f"{quick} needs {_times(ratios[0])} fewer {unit} than {slow} to reach {rate} discovery{scope} "
        f"(90 % interval {_times(ratios[1])} to {_end(ratios[2], quick, slow)}; {data})."
    )


def _inverse(ratio: float) -> float:
    return 1 / ratio if ratio else math.inf


def _end(ratio: float, below: str, above: str) -> str:
    """An end of an interval of `above` over `below`; 0 and infinity: one does not reach the rate."""
    if ratio == 0 or math.isinf(ratio):
        return f"not reached by {above if ratio else below}"
    return _times(ratio)


def _times(ratio: float) -> str:
    return "unknown" if math.isnan(ratio) else f"{ratio:.{1 if ratio >= 10 else 2}f}x"


def _x(value: float) -> str:
    return f"{value:.0f}"
