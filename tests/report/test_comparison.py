"""One arm against another where the two are not counted alike by themselves."""

from dataclasses import replace
from pathlib import Path

import pytest

from sdpo_solve.report import sections
from sdpo_solve.report.cohort import Axis
from sdpo_solve.report.figures import Report
from sdpo_solve.report.statistics import pass_at_k
from tests.helpers.journals import Made, make
from tests.helpers.reports import FEW, report_of

N = 512


@pytest.fixture
def mixed(tmp_path: Path) -> Report:
    """best-of-k solves with every fourth of 512 tries and keeps going; multi-turn stops at its first, the second."""
    often = tuple(range(4, N + 1, 4))
    for p in range(6):
        made = Made(f"p{p}", "best-of-k", limit=N, group=N, solved_at=often, keep_going=True)
        make(tmp_path, made)
        make(tmp_path, Made(f"p{p}", "multi-turn", limit=N, group=1, solved_at=(2,)))
    return report_of(tmp_path, replace(FEW, reference="best-of-k"))


def test_pass_at_k_is_not_compared_with_first_successes(mixed: Report) -> None:
    assert [arm.unbiased for arm in mixed.arms] == [True, False]
    (found,) = [c for c in mixed.comparisons if c.axis is Axis.ATTEMPTS]
    (row,) = found.rows
    assert (row.method_needs, row.baseline_needs, row.ratio) == (4, 2, 0.5)
    assert "multi-turn needs 2.00x fewer attempts than best-of-k to reach 100 %" in found.sentence
    assert any("pass@k from all samples" in notice for notice in mixed.notices)


def test_the_answer_names_where_pass_at_k_comes_to_a_rate_not_its_tail(mixed: Report) -> None:
    k = next(k for k in range(1, N + 1) if round(100 * pass_at_k(N, N // 4, k)) == 100)
    assert sections.answer(mixed).startswith(f"best-of-k reaches 100 % discovery in {k} attempts")


def test_two_arms_of_pass_at_k_are_compared_by_it(tmp_path: Path) -> None:
    for p in range(6):
        for temperature, every in (("hot", 2), ("cold", 8)):
            solved = tuple(range(every, N + 1, every))
            made = Made(f"p{p}", "best-of-k", limit=N, group=N, solved_at=solved, keep_going=True)
            make(tmp_path / temperature, replace(made, header={"arm": temperature}))
    found = report_of(tmp_path, replace(FEW, reference="hot"))
    (comparison,) = [c for c in found.comparisons if c.axis is Axis.ATTEMPTS]
    # By first successes it would be 8 against 2.
    assert comparison.rows[0].baseline_needs > 8
    assert not any("pass@k" in notice for notice in found.notices)
