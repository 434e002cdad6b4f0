"""Every statistic of a report against a closed form, a brute-force count, or the paper's printed figures."""

import itertools
import math

import numpy as np
import pytest

from sdpo_solve.report import statistics as st
from sdpo_solve.report.statistics import Interval, Observation
from tests.helpers.reports import TABLE_10


def arm(*groups: list[tuple[float, bool]]) -> st.Arm:
    """One problem a group; (x, found) a seed."""
    return st.make_arm(
        {f"p{n}": [Observation(s, t, f) for s, (t, f) in enumerate(group)] for n, group in enumerate(groups)}
    )


def grid(*points: float) -> np.ndarray:
    return np.array(points, dtype=float)


# -- pass@k ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "c"), [(1, 0), (1, 1), (5, 2), (7, 0), (7, 7), (8, 3)])
def test_pass_at_k_is_the_share_of_subsets_that_hold_a_success(n: int, c: int) -> None:
    outcomes = [True] * c + [False] * (n - c)
    for k in range(1, n + 1):
        subsets = list(itertools.combinations(outcomes, k))
        assert st.pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_k_is_exact_for_the_papers_sample_count() -> None:
    n, c, k = 2944, 3, 2750
    assert st.pass_at_k(n, c, k) == pytest.approx(1 - math.comb(n - c, k) / math.comb(n, k), abs=1e-12)


def test_pass_at_k_refuses_more_than_was_sampled() -> None:
    with pytest.raises(ValueError, match="pass@6"):
        st.pass_at_k(5, 1, 6)


def test_a_keep_going_arm_uses_pass_at_k_and_ends_where_its_samples_end() -> None:
    one = st.make_arm({"p": [Observation(0, 3, True, tries=4, successes=1)]})
    assert one.unbiased
    assert st.curve(one, grid(1, 2, 4, 5)).tolist() == pytest.approx([0.25, 0.5, 1.0, math.nan], nan_ok=True)


# -- discovery@k -------------------------------------------------------------------------------------------


def test_with_one_budget_discovery_is_the_share_of_solved_runs() -> None:
    one = arm([(2, True), (5, True), (10, False), (10, False)])
    assert st.curve(one, grid(1, 2, 5, 10)).tolist() == pytest.approx([0, 0.25, 0.5, 0.5])


def test_kaplan_meier_worked_by_hand() -> None:
    """Deaths at 3 of 5 at risk and at 8 of 3 at risk, censored at 5, 9, 12: S = 4/5, then 4/5 * 2/3."""
    one = arm([(3, True), (5, False), (8, True), (9, False), (12, False)])
    assert st.curve(one, grid(2, 3, 7, 8, 12)).tolist() == pytest.approx([0, 0.2, 0.2, 7 / 15, 7 / 15])


def test_a_run_censored_where_another_succeeds_was_still_at_risk() -> None:
    one = arm([(4, False), (4, True), (9, False)])
    assert st.curve(one, grid(4)).tolist() == pytest.approx([1 / 3])


def test_tied_successes_count_together() -> None:
    one = arm([(4, True), (4, True), (4, True), (9, False)])
    assert st.curve(one, grid(3, 4)).tolist() == pytest.approx([0, 0.75])


@pytest.mark.parametrize(
    ("runs", "horizon"),
    [
        ([(64, False)], 64),
        ([(8, False)] * 4 + [(41, True)], 8),  # one of five: not 100 % in 41
        ([(8, False), (41, True)], 8),
        ([(8, False), (9, True), (41, True)], math.inf),
        ([(4, False), (5, True), (6, True), (7, True), (9, True)], math.inf),
        ([(4, False), (12, False), (30, False), (41, True)], 12),
        ([(2, True), (3, True), (8, False)], 8),  # where all were watched 8: not known beyond
    ],
)
def test_a_problem_is_known_until_half_of_its_runs_or_the_last_were_cut_off(
    runs: list[tuple[float, bool]], horizon: float
) -> None:
    assert arm(runs).horizon == horizon


def test_an_arm_is_known_as_far_as_every_problem_is() -> None:
    one = arm([(2, True), (10, False)], [(5, False), (6, False)])
    assert one.horizon == 5
    assert st.curve(one, grid(5, 6)).tolist() == pytest.approx([0.25, math.nan], nan_ok=True)


def test_a_problem_that_every_seed_solved_is_known_for_ever() -> None:
    assert arm([(2, True), (3, True)]).horizon == math.inf


def test_seeds_are_averaged_before_problems() -> None:
    """Four solved seeds of one problem do not outvote one unsolved seed of another: 1/2, not 4/5."""
    one = arm([(1, True)] * 4, [(9, False)])
    assert st.curve(one, grid(9)).tolist() == pytest.approx([0.5])


def test_kaplan_meier_recovers_a_geometric_law_under_random_censoring() -> None:
    """T geometric with p = 0.1, censored uniformly: the curve is 1 - 0.9^k within sampling error."""
    rng = np.random.default_rng(1)
    times, limits = rng.geometric(0.1, 4000), rng.integers(1, 60, 4000)
    one = arm([(float(min(t, c)), bool(t <= c)) for t, c in zip(times, limits, strict=True)])
    ks = grid(1, 3, 10, 20, 30)
    assert st.curve(one, ks) == pytest.approx(1 - 0.9**ks, abs=0.03)
    # The plain share of solved runs, by contrast, is far too low here.
    assert np.mean((times <= limits) & (times <= 30)) < 0.9 * (1 - 0.9**30)


# -- intervals ---------------------------------------------------------------------------------------------


def brute_force_bootstrap(problems: list[list[tuple[float, bool]]], k: float) -> dict[float, float]:
    """The exact law of the resampled discovery@k: every draw of problems, every draw of their seeds."""

    def problem_law(group: list[tuple[float, bool]]) -> dict[float, float]:
        law: dict[float, float] = {}
        for draw in itertools.product(group, repeat=len(group)):
            value = sum(found and t <= k for t, found in draw) / len(draw)
            law[value] = law.get(value, 0) + len(group) ** -len(group)
        return law

    mixed: dict[float, float] = {}
    for group in problems:
        for value, chance in problem_law(group).items():
            mixed[value] = mixed.get(value, 0) + chance / len(problems)
    total = {0.0: 1.0}
    for _ in problems:
        sums: dict[float, float] = {}
        for (a, x), (b, y) in itertools.product(total.items(), mixed.items()):
            sums[round(a + b, 9)] = sums.get(round(a + b, 9), 0) + x * y
        total = sums
    return {round(value / len(problems), 9): chance for value, chance in total.items()}


def test_the_bootstrap_follows_the_exact_law_over_problems_and_seeds() -> None:
    problems = [[(1.0, True), (9.0, False)], [(9.0, False)] * 2, [(2.0, True), (3.0, True)]]
    law = brute_force_bootstrap(problems, 9)
    drawn = st.bootstrap_curves({"a": arm(*problems)}, grid(9), n_replicates=20000)["a"][:, 0]
    for value, chance in law.items():
        assert np.mean(np.abs(drawn - value) < 1e-6) == pytest.approx(chance, abs=0.015)


def test_seeds_of_one_problem_are_not_independent_problems() -> None:
    """Three problems with 20 like seeds each: as uncertain as with one seed each, not twenty times surer."""
    many = arm([(1, True)] * 20, [(9, False)] * 20, [(9, False)] * 20)
    few = arm([(1, True)], [(9, False)], [(9, False)])
    wide = [st.interval(st.bootstrap_curves({"a": a}, grid(9))["a"][:, 0]) for a in (many, few)]
    assert wide[0] == wide[1] == Interval(0.0, pytest.approx(2 / 3))


def test_paired_arms_draw_the_same_problems_and_seeds() -> None:
    """An arm that is the other shifted by one attempt differs by nothing at the horizon, in any replicate."""
    a = arm([(1, True), (9, False)], [(3, True), (5, True)], [(9, False), (9, False)])
    b = arm([(2, True), (9, False)], [(4, True), (6, True)], [(9, False), (9, False)])
    drawn = st.bootstrap_curves({"a": a, "b": b}, grid(9), n_replicates=500)
    assert np.array_equal(drawn["a"], drawn["b"])
    assert np.std(drawn["a"]) > 0.1


def test_runs_that_were_cut_off_say_nothing_of_what_comes_later() -> None:
    """Of three runs one was cut at 4: all three draws are that one in 1 of 27 replicates, unknown at 9."""
    runs: list[tuple[float, bool]] = [(4, False), (9, True), (9, True)]
    drawn = st.bootstrap_curves({"a": arm(runs)}, grid(4, 9), n_replicates=20000)["a"]
    assert set(drawn[:, 0]) == {0.0}
    assert set(drawn[~np.isnan(drawn[:, 1]), 1]) == {1.0}
    assert np.mean(np.isnan(drawn[:, 1])) == pytest.approx(1 / 27, abs=0.005)
    # Many such problems: the mean is over those that are known, and the interval holds the rate, 100 %.
    drawn = st.bootstrap_curves({"a": arm(*[runs] * 100)}, grid(9))["a"]
    assert st.interval(drawn[:, 0]) == Interval(pytest.approx(1), pytest.approx(1))


def test_seeds_are_paired_by_their_number_not_by_their_place() -> None:
    """Seed 0 solves in arm a when it does in arm b, though the sorted order of times differs."""
    a = st.make_arm({"p": [Observation(0, 1, True), Observation(1, 9, False), Observation(2, 8, True)]})
    b = st.make_arm({"p": [Observation(2, 1, True), Observation(1, 9, False), Observation(0, 8, True)]})
    drawn = st.bootstrap_curves({"a": a, "b": b}, grid(8.5), n_replicates=300)
    assert np.array_equal(drawn["a"], drawn["b"])


def test_the_interval_of_the_mean_covers_the_truth_about_as_often_as_it_says() -> None:
    """30 problems with solve rates from a uniform law, three seeds: the mean discovery is 1/2."""
    rng = np.random.default_rng(5)
    hits = 0
    for n in range(200):
        rates = rng.random(30)
        groups = [[(1.0, True) if rng.random() < rate else (9.0, False) for _ in range(3)] for rate in rates]
        found = st.interval(
            st.bootstrap_curves({"a": arm(*groups)}, grid(9), n_replicates=300, seed=n)["a"][:, 0]
        )
        hits += found.low <= 0.5 <= found.high
    assert 0.84 <= hits / 200 <= 0.99


def test_pass_at_k_arms_are_resampled_over_seeds_too() -> None:
    one = st.make_arm({"p": [Observation(0, 1, True, 2, 2), Observation(1, 2, False, 2, 0)]})
    drawn = st.bootstrap_curves({"a": one}, grid(1), n_replicates=4000)["a"][:, 0]
    assert {float(v): pytest.approx(np.mean(drawn == v), abs=0.03) for v in (0, 0.5, 1)} == {
        0: 0.25,
        0.5: 0.5,
        1: 0.25,
    }


def test_an_interval_with_unreached_replicates_is_open_above() -> None:
    values = np.array([1.0] * 50 + [math.inf] * 50)
    assert st.interval(values) == Interval(1.0, math.inf)
    assert math.isnan(st.interval(np.array([math.nan])).low)


# -- speed-ups ---------------------------------------------------------------------------------------------


def test_speed_up_of_two_geometric_laws_is_the_ratio_of_their_rates() -> None:
    """p = 0.03 against 0.01: to 50 % discovery ln 2 / p attempts, so about 3 times fewer."""
    rng = np.random.default_rng(2)

    def law(p: float) -> st.Arm:
        return arm(
            *[[(float(min(t, 2750)), bool(t <= 2750)) for t in rng.geometric(p, 20)] for _ in range(40)]
        )

    (found,) = st.speed_ups(law(0.03), law(0.01), [0.5], limit=2750, n_replicates=300)
    assert found.ratio == pytest.approx(3.0, rel=0.2)
    assert found.ratio_interval.low < 3.0 < found.ratio_interval.high * 1.05
    assert found.p_faster == 1.0


def test_a_baseline_that_does_not_get_there_is_not_reached() -> None:
    (found,) = st.speed_ups(arm([(2, True)], [(4, True)]), arm([(3, True)], [(9, False)]), [1.0], limit=9)
    assert (found.method_needs, found.baseline_needs, found.ratio) == (4, math.inf, math.inf)


def test_equal_arms_are_a_coin_toss() -> None:
    same = arm([(2, True), (9, False)], [(4, True), (9, False)])
    (found,) = st.speed_ups(same, same, [0.5], limit=9)
    assert found.p_faster == 0.5


def keeps_going(n: int) -> st.Arm:
    """One of n independent tries passes, the last; pass@k rises at every k."""
    return st.make_arm({"p0": [Observation(0, n, True, tries=n, successes=1)]})


def test_the_grid_keeps_every_success_and_the_points_asked_for_when_it_is_thinned() -> None:
    one = arm(*[[(float(t), True)] for t in range(1, 2001)])
    assert st.event_grid([one], [0.0]).tolist() == list(range(2001))
    points = st.event_grid([keeps_going(2000), arm([(2, True), (7, True)])], [777.5, 2750.0])
    assert {2, 7, 777.5, 2000, 2750} <= set(points)
    assert len(points) <= st.MAX_GRID + 4


def test_what_pass_at_k_needs_is_found_near_the_beginning_of_a_long_budget() -> None:
    def needs(n: int, c: int, level: float) -> int:
        return next(k for k in range(1, n + 1) if st.pass_at_k(n, c, k) >= level)

    def samples(c: int) -> st.Arm:
        return st.make_arm({"p": [Observation(0, 1, True, tries=2750, successes=c)]})

    (found,) = st.speed_ups(samples(687), samples(137), [2 / 3], limit=2750, n_replicates=100)
    assert (found.method_needs, found.baseline_needs) == (needs(2750, 687, 2 / 3), needs(2750, 137, 2 / 3))
    (late,) = st.speed_ups(samples(5), samples(3), [2 / 3], limit=2750, n_replicates=100)
    exact = (needs(2750, 5, 2 / 3), needs(2750, 3, 2 / 3))
    assert (late.method_needs, late.baseline_needs) == pytest.approx(exact, rel=0.015)


def test_a_long_baseline_does_not_move_where_the_method_succeeds() -> None:
    (found,) = st.speed_ups(arm([(2, True)]), keeps_going(2000), [1.0], limit=2000, n_replicates=100)
    assert (found.method_needs, found.baseline_needs, found.ratio) == (2, 2000, 1000)


# -- the paper ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("very_hard_only", "printed"), [(False, (894, 1145, 1141)), (True, (1739, 2180, 2121))]
)
def test_the_papers_table_10_gives_its_printed_means_and_ratios(
    very_hard_only: bool, printed: tuple[int, int, int]
) -> None:
    rows = [row for row in TABLE_10.values() if row[3] or not very_hard_only]
    assert len(rows) == (9 if very_hard_only else 19)
    means = [
        st.censored_mean([Observation(0, row[a], row[a] < 2750) for row in rows]).value for a in range(3)
    ]
    assert means == pytest.approx(printed, abs=1)
    assert [m / means[0] for m in means] == pytest.approx([p / printed[0] for p in printed], abs=0.06)


def test_a_mean_with_a_censored_run_says_so() -> None:
    mean = st.censored_mean([Observation(0, 4, True), Observation(1, 10, False)])
    assert (mean.value, mean.n_censored, mean.n) == (7.0, 1, 2)


@pytest.mark.parametrize(("n_pairs", "factor"), [(22, 3.0), (157, 1.5)])
def test_the_speed_up_that_a_number_of_pairs_can_show(n_pairs: int, factor: float) -> None:
    assert st.visible_speed_up(n_pairs) == pytest.approx(factor, rel=0.02)
    rng = np.random.default_rng(0)
    slow, fast = rng.exponential(factor, (4000, n_pairs)), rng.exponential(1.0, (4000, n_pairs))
    gap = np.log(slow) - np.log(fast)
    z = gap.mean(1) / (math.pi / math.sqrt(3 * n_pairs))
    assert np.mean(z > 1.96) == pytest.approx(0.8, abs=0.03)
