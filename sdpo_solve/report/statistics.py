"""The numbers of a report: discovery curves, unbiased pass@k, intervals, speed-ups (numpy only).

Pure functions over `Arm`s; one arm holds, for each problem, one observation a seed. Axes: `_P` problems, `_S`
seeds (padded), `_K` points of the x axis, `_B` bootstrap replicates. x may be attempts, tokens or seconds.
Nothing here reads a file or prints.

Estimators. Runs stop at their first success, so discovery@x = P(T <= x) is one minus the Kaplan-Meier
survival over the seeds of a problem, averaged over problems; with equal budgets that is the plain share of
solved runs. A problem's curve ends where half of its runs have been cut off unsolved, at the latest where its
last run was. Runs that sampled independently and spent their whole budget use the unbiased pass@k (Chen et
al. 2021, arXiv 2107.03374, section 2.1) instead. Intervals are percentiles over replicates that draw problems
with replacement and, within each drawn problem, seeds; the draws are the same for every arm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MAX_GRID = 400


@dataclass(frozen=True, slots=True)
class Observation:
    """One run on one axis. `time` is x at the first success, or x spent without one (`found` false).

    `tries` and `successes` are given for runs that sampled independently and never stopped early.
    """

    seed: int
    time: float
    found: bool
    tries: int = 0
    successes: int = 0


@dataclass(frozen=True, slots=True)
class Arm:
    """Observations by problem, each sorted by time with successes first; padded along the seed axis.

    `rank_PS` gives each observation's place among the problem's seeds in seed order, so that arms with the
    same seeds draw the same seeds in a bootstrap.
    """

    problems: tuple[str, ...]
    time_PS: Floats
    found_PS: NDArray[np.bool_]
    rank_PS: Ints
    n_seeds_P: Ints
    tries_PS: Ints
    successes_PS: Ints

    @property
    def unbiased(self) -> bool:
        """Every observation counts independent tries, so that pass@k applies."""
        return bool(np.all(self.tries_PS[self.mask_PS] > 0))

    def by_first_success(self) -> Arm:
        """The arm without its tries: pass@k aside, as an arm whose runs stop at their first success."""
        none_PS = np.zeros_like(self.tries_PS)
        return replace(self, tries_PS=none_PS, successes_PS=none_PS)

    @property
    def mask_PS(self) -> NDArray[np.bool_]:
        return np.asarray(np.arange(self.time_PS.shape[1]) < self.n_seeds_P[:, None])

    @property
    def horizon(self) -> float:
        """The largest x at which every problem's curve is known; inf where every problem's is for ever.

        A run that was cut off unsolved says nothing of what comes later; one that found is known for ever. So
        a problem is known until half of its runs have been cut off, or its last one was: 8 for runs cut at 8,
        8, 8 and 8 and one found at 41, for ever for one cut at 4 and four found later.
        """
        if self.unbiased:
            tries_PS = np.where(self.mask_PS, self.tries_PS, np.iinfo(np.int64).max)
            return float(tries_PS.min())
        cut_PS = self.mask_PS & ~self.found_PS
        is_half_PS = 2 * cut_PS.cumsum(axis=1) >= self.n_seeds_P[:, None]
        is_last_PS = np.arange(self.time_PS.shape[1]) == self.n_seeds_P[:, None] - 1
        return float(self.time_PS.min(where=cut_PS & (is_half_PS | is_last_PS), initial=math.inf))


def make_arm(observations: Mapping[str, Sequence[Observation]]) -> Arm:
    """The arm of these observations; problems in the given order.

    Raises ValueError for an empty arm or a problem without observations.
    """
    if not observations or not all(observations.values()):
        raise ValueError("an arm needs at least one observation for each problem")
    shape = (len(observations), max(len(group) for group in observations.values()))
    time_PS, found_PS = np.full(shape, math.inf), np.zeros(shape, dtype=bool)
    rank_PS, tries_PS, successes_PS = (np.zeros(shape, dtype=np.int64) for _ in range(3))
    for p, group in enumerate(observations.values()):
        ranks = {seed: rank for rank, seed in enumerate(sorted(o.seed for o in group))}
        # Successes before censorings at the same x: a run censored there was still at risk.
        for s, o in enumerate(sorted(group, key=lambda o: (o.time, not o.found))):
            time_PS[p, s], found_PS[p, s], rank_PS[p, s] = o.time, o.found, ranks[o.seed]
            tries_PS[p, s], successes_PS[p, s] = o.tries, o.successes
    n_seeds_P = np.array([len(group) for group in observations.values()], dtype=np.int64)
    return Arm(tuple(observations), time_PS, found_PS, rank_PS, n_seeds_P, tries_PS, successes_PS)


def pass_at_k(tries: int, successes: int, k: int) -> float:
    """1 - C(n-c, k) / C(n, k): the chance that k of the n tries, drawn at random, hold a success.

    Raises ValueError for k above `tries`: that many were never sampled.
    """
    if not 0 <= successes <= tries or not 1 <= k <= tries:
        raise ValueError(f"pass@{k} of {successes} successes in {tries} tries")
    if tries - successes < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / n for n in range(tries - successes + 1, tries + 1))


# -- curves --------------------------------------------------------------------------------------------------


def problem_curves(arm: Arm, grid_K: Floats) -> Floats:
    """discovery@x of each problem, shape (P, K).

    Beyond a problem's last observation the curve stays level; `curve` marks what is unknown.
    """
    if arm.unbiased:
        return np.asarray(_pass_curves(arm, grid_K).sum(axis=1) / arm.n_seeds_P[:, None])
    shares_PS = _found_shares(arm.mask_PS.astype(np.float64), arm.found_PS)
    padded_PS = np.concatenate([np.zeros((len(shares_PS), 1)), shares_PS], axis=1)
    return np.asarray(np.take_along_axis(padded_PS, _n_before(arm, grid_K), axis=1))


def curve(arm: Arm, grid_K: Floats) -> Floats:
    """discovery@x, mean over seeds then problems, shape (K,); NaN beyond the arm's horizon."""
    mean_K = problem_curves(arm, grid_K).mean(axis=0)
    return np.where(grid_K <= arm.horizon, mean_K, np.nan)


def _found_shares(weights_xPS: Floats, found_xPS: NDArray[np.bool_]) -> Floats:
    """One minus the Kaplan-Meier survival after each observation (last axis sorted by time).

    Tied successes one after the other give the same product as together:
    (1 - a/n)(1 - b/(n-a)) = (n-a-b)/n.
    """
    at_risk = np.cumsum(weights_xPS[..., ::-1], axis=-1)[..., ::-1]
    hazard = np.where(found_xPS & (at_risk > 0), weights_xPS / np.maximum(at_risk, 1e-300), 0.0)
    return np.asarray(1.0 - np.cumprod(1.0 - hazard, axis=-1))


def _n_before(arm: Arm, grid_K: Floats) -> Ints:
    """How many observations of each problem lie at or before each point of the grid, shape (P, K)."""
    return np.stack([np.searchsorted(times_S, grid_K, side="right") for times_S in arm.time_PS])


def _pass_curves(arm: Arm, grid_K: Floats) -> Floats:
    """Unbiased pass@k of every run, shape (P, S, K); level beyond its tries, 0 for x below 1."""
    out_PSK = np.zeros((*arm.time_PS.shape, len(grid_K)))
    for p, s in zip(*np.nonzero(arm.mask_PS), strict=True):
        n, c = int(arm.tries_PS[p, s]), int(arm.successes_PS[p, s])
        for i, x in enumerate(grid_K):
            out_PSK[p, s, i] = pass_at_k(n, c, min(int(x), n)) if x >= 1 else 0.0
    return out_PSK


def event_grid(arms: Sequence[Arm], extra: Sequence[float] = ()) -> Floats:
    """Every x at which some run succeeded, `extra`, and of the k of pass@k at most MAX_GRID."""
    found = [arm.time_PS[arm.mask_PS & arm.found_PS] for arm in arms]
    last_k = int(max((arm.horizon for arm in arms if arm.unbiased), default=0))
    return np.unique(np.concatenate([*found, _ks(last_k), np.array(extra, dtype=float)]))


def _ks(last_k: int) -> Floats:
    """1 .. `last_k`, at most MAX_GRID of them: the first half without a gap, then in equal ratios."""
    if last_k <= MAX_GRID:
        return np.arange(1.0, last_k + 1)
    half = MAX_GRID // 2
    return np.concatenate([np.arange(1.0, half), np.geomspace(half, last_k, half).round()])


# -- bootstrap -----------------------------------------------------------------------------------------------


def bootstrap_curves(
    arms: Mapping[str, Arm], grid_K: Floats, *, n_replicates: int = 1000, seed: int = 0
) -> dict[str, Floats]:
    """Curves of every arm over resampled problems and seeds, each (B, K), drawn alike for all arms.

    All arms must hold the same problems in the same order (ValueError). Where the runs drawn of a problem
    were all cut off before x, the mean of the replicate is over the others; NaN where none is left.
    """
    first = next(iter(arms.values()))
    if any(arm.problems != first.problems for arm in arms.values()):
        raise ValueError("paired arms need the same problems in the same order")
    rng = np.random.default_rng(seed)
    n_problems, n_seeds = len(first.problems), max(arm.time_PS.shape[1] for arm in arms.values())
    sums, n_ended = ({name: np.zeros((n_replicates, len(grid_K))) for name in arms} for _ in range(2))
    curves_PSK = {name: _pass_curves(arm, grid_K) for name, arm in arms.items() if arm.unbiased}
    for _ in range(n_problems):  # one drawn problem at a time keeps memory at B x K
        drawn_B = rng.integers(n_problems, size=n_replicates)
        uniform_BS = rng.random((n_replicates, n_seeds))
        for name, arm in arms.items():
            weights_BS = _seed_weights(uniform_BS, arm, drawn_B)
            if arm.unbiased:
                _add_levels(sums[name], weights_BS, arm, drawn_B, curves_PSK[name])
            else:
                _add_rises(sums[name], n_ended[name], weights_BS, arm, drawn_B, grid_K)
    return {
        name: total / n_problems if arms[name].unbiased else _mean_of_rises(total, n_ended[name], n_problems)
        for name, total in sums.items()
    }


def _mean_of_rises(rises_BK: Floats, n_ended_BK: Floats, n_problems: int) -> Floats:
    n_known_BK = n_problems - n_ended_BK.cumsum(axis=1)
    mean_BK = np.full(rises_BK.shape, np.nan)
    np.divide(rises_BK.cumsum(axis=1), n_known_BK, out=mean_BK, where=n_known_BK > 0)
    return mean_BK


def _add_levels(
    sums_BK: Floats, weights_BS: Floats, arm: Arm, drawn_B: Ints, curves_PSK: NDArray[Any]
) -> None:
    """Add the pass@k curve of each replicate's drawn problem, its seeds drawn with replacement."""
    for p in np.unique(drawn_B):
        sums_BK[drawn_B == p] += weights_BS[drawn_B == p] @ curves_PSK[p] / arm.n_seeds_P[p]


def _add_rises(
    sums_BK: Floats, n_ended_BK: Floats, weights_BS: Floats, arm: Arm, drawn_B: Ints, grid_K: Floats
) -> None:
    """Add by how much the curve of each replicate's drawn problem rises at each point of the grid.

    A curve rises at a few successes only, so that this is far less work than adding whole curves. Where the
    last run drawn was cut off, the curve is taken out again behind it, and counted in `n_ended_BK`.
    """
    shares_BS = _found_shares(weights_BS, arm.found_PS[drawn_B])
    rises_BS = np.diff(shares_BS, axis=1, prepend=0.0)
    at_BS = np.searchsorted(grid_K, arm.time_PS)[
        drawn_B
    ]  # the first point that the success lies at or before
    b_N, s_N = np.nonzero((rises_BS != 0.0) & (at_BS < len(grid_K)))
    n_points = sums_BK.size
    cells_N = b_N * len(grid_K) + at_BS[b_N, s_N]
    sums_BK += np.bincount(cells_N, rises_BS[b_N, s_N], minlength=n_points).reshape(sums_BK.shape)
    last_B = weights_BS.shape[1] - 1 - np.argmax(weights_BS[:, ::-1] > 0, axis=1)
    end_B = np.searchsorted(grid_K, arm.time_PS[drawn_B, last_B], side="right")
    (b_N,) = np.nonzero(~arm.found_PS[drawn_B, last_B] & (end_B < len(grid_K)))
    sums_BK[b_N, end_B[b_N]] -= shares_BS[b_N, -1]
    n_ended_BK[b_N, end_B[b_N]] += 1


def _seed_weights(uniform_BS: Floats, arm: Arm, drawn_B: Ints) -> Floats:
    """How often each observation of the drawn problem is drawn, shape (B, S of the arm).

    By its seed's rank: the same draw for arms with the same seeds.
    """
    n_seeds_B, width = arm.n_seeds_P[drawn_B], arm.time_PS.shape[1]
    draws_BD = np.floor(uniform_BS * n_seeds_B[:, None]).astype(np.int64)
    used_BD = np.arange(uniform_BS.shape[1]) < n_seeds_B[:, None]
    cells_BD = np.arange(len(drawn_B))[:, None] * width + draws_BD
    counts_BS = np.bincount(cells_BD[used_BD], minlength=len(drawn_B) * width).reshape(-1, width)
    counts_BS = np.take_along_axis(counts_BS, arm.rank_PS[drawn_B], axis=1)
    return np.asarray(np.where(arm.mask_PS[drawn_B], counts_BS, 0), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Interval:
    """A percentile interval; `high` may be inf (beyond what was observed)."""

    low: float
    high: float


def interval(values_B: Floats, level: float = 0.9) -> Interval:
    """The central `level` interval of the replicates, NaN left out; both NaN where all are."""
    kept = values_B[~np.isnan(values_B)]
    if not len(kept):
        return Interval(math.nan, math.nan)
    tail = (1.0 - level) / 2.0
    # Observed values only, no interpolation: that would turn inf - inf into NaN.
    low = np.quantile(kept, tail, method="inverted_cdf")
    return Interval(float(low), float(np.quantile(kept, 1.0 - tail, method="inverted_cdf")))


# -- comparisons ---------------------------------------------------------------------------------------------


def needed(curve_xK: Floats, grid_K: Floats, level: float) -> Floats:
    """The smallest x whose discovery rate is at least `level`, along the last axis; inf where not reached."""
    reached = np.nan_to_num(curve_xK, nan=-1.0) >= level - 1e-9
    first = np.argmax(reached, axis=-1)
    return np.asarray(np.where(reached.any(axis=-1), grid_K[first], math.inf))


@dataclass(frozen=True, slots=True)
class SpeedUp:
    """How much more x a baseline needs than the method to reach one discovery rate.

    `ratio` > 1: the method needs less. inf in `baseline_needs` or `ratio`: the baseline does not get there.
    `p_faster`: share of replicates in which the method needs less, ties counted half.
    """

    level: float
    method_needs: float
    baseline_needs: float
    ratio: float
    ratio_interval: Interval
    p_faster: float


def speed_ups(
    method: Arm,
    baseline: Arm,
    levels: Sequence[float],
    *,
    limit: float = math.inf,
    n_replicates: int = 1000,
    seed: int = 0,
) -> tuple[SpeedUp, ...]:
    """The speed-up of `method` over `baseline` at each discovery rate, both seen up to x = `limit`."""
    extra = [limit] if math.isfinite(limit) else []
    grid_K = event_grid([method, baseline], extra)
    grid_K = grid_K[grid_K <= limit]
    curves = [curve(arm, grid_K) for arm in (method, baseline)]
    replicates = bootstrap_curves({"m": method, "b": baseline}, grid_K, n_replicates=n_replicates, seed=seed)
    found = []
    for level in levels:
        m, b = (float(needed(curve_K, grid_K, level)) for curve_K in curves)
        m_B, b_B = (needed(replicates[name], grid_K, level) for name in ("m", "b"))
        faster = np.mean(m_B < b_B) + 0.5 * np.mean(m_B == b_B)
        found.append(SpeedUp(level, m, b, _ratio(m, b), interval(_ratios(m_B, b_B)), float(faster)))
    return tuple(found)


def _ratio(method: float, baseline: float) -> float:
    return float(_ratios(np.array([method]), np.array([baseline]))[0])


def _ratios(method_B: Floats, baseline_B: Floats) -> Floats:
    """baseline / method; NaN where neither gets there, 0 where only the baseline does."""
    neither_B = np.isinf(method_B) & np.isinf(baseline_B)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(neither_B, np.nan, baseline_B / method_B)


def visible_speed_up(n_pairs: int) -> float:
    """The speed-up that `n_pairs` paired discovery times show with 80 % power at a two-sided level of 5 %.

    The logarithm of an exponential (or rare geometric) time has the deviation pi / sqrt 6, the difference of
    two independent ones pi / sqrt 3. Censored runs say less, so the speed-up needed is larger with them.
    """
    level, power = 1.960, 0.842  # normal quantiles of 0.975 and 0.80
    return math.exp((level + power) * math.pi / math.sqrt(3 * n_pairs))


@dataclass(frozen=True, slots=True)
class CensoredMean:
    """The mean over runs of min(x at the first success, x spent); a lower bound where a run was censored."""

    value: float
    n_censored: int
    n: int


def censored_mean(observations: Sequence[Observation]) -> CensoredMean:
    """As in the paper's Table 10 (arXiv 2601.20802): an unsolved run counts what it spent."""
    times = [o.time for o in observations]
    n_censored = sum(not o.found for o in observations)
    return CensoredMean(sum(times) / len(times), n_censored, len(times))
