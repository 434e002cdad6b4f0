"""Means of arms that were watched unequally far, and what the marks beside figures say."""

import math
from pathlib import Path

import pytest

from sdpo_solve.report import files
from sdpo_solve.report.figures import ReportOptions
from sdpo_solve.report.problems import compare_means
from sdpo_solve.report.statistics import Observation
from tests.helpers.journals import Made, make
from tests.helpers.reports import TABLE_10, report_of, text_of


def seen(*runs: tuple[int, float, bool]) -> list[Observation]:
    return [Observation(seed, time, found) for seed, time, found in runs]


def test_means_are_compared_only_as_far_as_both_arms_were_watched() -> None:
    # Watched 32 attempts and 64, neither solved: two bounds have no ratio, 2.00 would praise the first.
    assert math.isnan(compare_means(seen((0, 32, False)), seen((0, 64, False))).value)
    # Solved at 70, where the other arm was watched 64 attempts only.
    assert math.isnan(compare_means(seen((0, 64, False)), seen((0, 70, True))).value)
    # Two solved at 10 and 20, the third stopped at 32: the other arm's 100 counts as 32 there, and there alone.
    sdpo = seen((0, 10, True), (1, 20, True), (2, 32, False))
    other = seen((0, 40, True), (1, 128, False), (2, 100, True))
    ratio = compare_means(sdpo, other)
    assert (ratio.value, ratio.cut) == (pytest.approx((40 + 128 + 32) / (10 + 20 + 32)), True)
    # Other seeds have no partner: the least end counts for all.
    ratio = compare_means(sdpo, seen((3, 40, True), (4, 128, False)))
    assert (ratio.value, ratio.cut) == (pytest.approx(32 / ((10 + 20 + 32) / 3)), True)
    # Equal budgets, as in the paper, are left as they are (its Table 10, Q3).
    ratio = compare_means(seen((0, 1987, True)), seen((0, 2750, False)))
    assert (ratio.value, ratio.cut) == (pytest.approx(2750 / 1987), False)


def test_the_papers_table_10_comes_out_of_a_report(tmp_path: Path) -> None:
    """A run of one group stands for each mean: the row "all" gives the printed means, rows their ratios."""
    for problem, row in TABLE_10.items():
        for method, x in zip(("sdpo", "best-of-k", "multi-turn"), row[:3], strict=True):
            run_dir = make(tmp_path, Made(problem, method, limit=1, solved_at=(1,) if x < 2750 else ()))
            path = run_dir / "journal.jsonl"
            path.write_text(path.read_text().replace('"index": 1,', f'"index": {x},'))
    found = report_of(tmp_path, ReportOptions(n_replicates=100))
    (everything,) = found.splits
    assert [mean.value for mean in everything.means.values()] == pytest.approx((894, 1145, 1141), abs=1)
    assert not everything.cut
    rows = {row.problem: row for row in found.problems}
    assert rows["Q3"].ratios == {
        "best-of-k": pytest.approx(2750 / 1987),
        "multi-turn": pytest.approx(2750 / 1987),
    }
    assert rows["Q1"].ratios == {"best-of-k": pytest.approx(98 / 104), "multi-turn": pytest.approx(59 / 104)}


def test_an_unfinished_run_never_looks_quick(tmp_path: Path) -> None:
    make(tmp_path, Made("a", stops_after=4))
    make(tmp_path, Made("a", "best-of-k", solved_at=(7,)))
    make(tmp_path, Made("b", solved_at=(4,)))
    make(tmp_path, Made("b", "best-of-k", solved_at=(8,)))
    found = report_of(tmp_path)
    assert math.isnan(found.problems[0].ratios["best-of-k"])
    assert found.problems[1].ratios == {"best-of-k": 2.0}
    (everything,) = found.splits
    means = {arm: (mean.value, mean.n_censored) for arm, mean in everything.means.items()}
    assert means == {"sdpo": (4, 1), "best-of-k": (6, 1)}
    assert everything.cut == ("best-of-k",)
    text = text_of(found)
    assert "≥6* (0 %)" in text
    assert "* each problem counts as far as every arm was watched there" in text
    assert "ratio –: neither had a success as far as both were watched" in text
    assert files.as_json(found)["problems"][0]["ratios"] == {"best-of-k": None}


def test_problems_without_a_run_that_counts_are_not_counted(tmp_path: Path) -> None:
    """Both runs of b failed, c has runs of one arm only: the means are over a and c."""
    for method in ("sdpo", "best-of-k"):
        make(tmp_path, Made("a", method, solved_at=(2,), header={"difficulty": "easy"}))
        make(tmp_path, Made("b", method, fails_after=4, header={"difficulty": "hard"}))
    make(tmp_path, Made("c", solved_at=(2,), header={"difficulty": "easy"}))
    found = report_of(tmp_path)
    assert [row.problem for row in found.problems] == ["a", "b", "c"]
    assert (found.splits[0].label, found.splits[0].n_problems) == ("all", 2)


def test_marks_are_explained_only_where_they_stand(tmp_path: Path) -> None:
    make(tmp_path / "solved", Made(solved_at=(3,)))
    make(tmp_path / "solved", Made(method="best-of-k", solved_at=(5,)))
    text = text_of(report_of(tmp_path / "solved"))
    for mark in ("≥", "∞", "*", "0: rate", "ratio –"):
        assert mark not in text
    make(tmp_path / "open", Made(stops_after=4))
    text = text_of(report_of(tmp_path / "open"))
    assert "≥4 (0/1)" in text
    assert "≥ some runs had no success as far as they were watched" in text
    assert "spent" not in text


def test_the_rate_beside_a_mean_says_at_how_many_attempts(tmp_path: Path) -> None:
    make(tmp_path, Made(solved_at=(3,)))
    make(tmp_path, Made(method="best-of-k"))
    lines = [line.split() for line in text_of(report_of(tmp_path)).splitlines()]
    header = lines.index(["problems", "n", "rate", "at", "sdpo", "best-of-k"])
    assert lines[header + 1] == ["all", "1", "8", "3", "(100", "%)", "≥8", "(0", "%)"]


def test_an_interval_that_ends_where_an_arm_is_not_reached_says_so(tmp_path: Path) -> None:
    """Each arm solves one problem of six, another one: in many resamples one of the two solves none."""
    for p in range(6):
        make(tmp_path, Made(f"p{p}", solved_at=(4,) if p == 0 else ()))
        make(tmp_path, Made(f"p{p}", "best-of-k", solved_at=(4,) if p == 1 else ()))
    found = report_of(tmp_path)
    text = text_of(found)
    assert "1.00 (0–∞)" in text
    assert "0: rate not reached by sdpo · ∞: rate not reached by the other arm" in text
    assert found.comparisons[0].sentence.endswith(
        "90 % interval of the ratio from not reached by sdpo to not reached by best-of-k)."
    )
    assert "∞: rate not reached by the other arm" in files.as_markdown(found)
