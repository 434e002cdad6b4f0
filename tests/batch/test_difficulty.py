"""Screening: intervals with known values, marks, where samples go, and the file that keeps them."""

import math
import random
import re
from pathlib import Path

import pytest

from sdpo_solve.batch import difficulty
from sdpo_solve.batch.difficulty import (
    HARD_RATE,
    VERY_HARD_RATE,
    Counts,
    Look,
    Rule,
    Screened,
    below,
    interval,
    next_looks,
    pass_at,
    rate_of,
)
from sdpo_solve.batch.screening_file import (
    ScreenedGroup,
    Screening,
    ScreeningStarted,
    append,
    check_marks,
    read_marks,
    read_screening,
)
from sdpo_solve.errors import ConfigError


def group(problem: str, n: int, solved: int) -> ScreenedGroup:
    return ScreenedGroup(
        problem=problem, digest="d", n=n, solved=solved, teacher_n=0, teacher_solved=0, tokens=7
    )


def test_the_levels_are_those_of_pass_at_64() -> None:
    assert pytest.approx(0.5) == 1 - (1 - HARD_RATE) ** 64
    assert pytest.approx(0.03) == 1 - (1 - VERY_HARD_RATE) ** 64
    assert pytest.approx(0.0108, abs=5e-5) == HARD_RATE
    assert pytest.approx(0.00048, abs=5e-6) == VERY_HARD_RATE


@pytest.mark.parametrize(
    ("n", "solved", "low", "high"),
    [
        (10, 1, 0.00512, 0.39416),  # Clopper-Pearson, 90 %
        (10, 0, 0.0, 0.25887),  # 1 - 0.05 ** (1 / 10)
        (10, 10, 0.74113, 1.0),
        (20, 10, 0.30195, 0.69805),
    ],
)
def test_intervals_are_exact(n: int, solved: int, low: float, high: float) -> None:
    got = interval(Counts(n, solved))
    assert (got.low, got.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_an_interval_covers_the_rate_at_least_as_often_as_it_says() -> None:
    rng, covered = random.Random(5), 0
    known: dict[int, bool] = {}
    for _ in range(2000):
        solved = sum(rng.random() < 0.05 for _ in range(60))
        if solved not in known:
            got = interval(Counts(60, solved))
            known[solved] = got.low <= 0.05 <= got.high
        covered += known[solved]
    assert covered / 2000 > 0.9


def test_no_success_says_hard_only_after_277_samples() -> None:
    assert below(Counts(276, 0), HARD_RATE) is None
    assert below(Counts(277, 0), HARD_RATE) is True
    assert Screened("p", Counts(277, 0)).mark == "hard, very hard undecided"


def test_the_papers_2944_samples_do_not_settle_very_hard_and_6300_do() -> None:
    assert below(Counts(2944, 0), VERY_HARD_RATE) is None
    assert Screened("p", Counts(6300, 0)).mark == "very hard"


@pytest.mark.parametrize(
    ("counts", "mark"),
    [
        (Counts(), "undecided"),
        (Counts(16, 0), "undecided"),
        (Counts(16, 3), "not hard"),
        (Counts(2944, 12), "hard"),
    ],
)
def test_marks(counts: Counts, mark: str) -> None:
    assert Screened("p", counts).mark == mark


def test_pass_at_k_counts_the_draws_that_hold_a_success() -> None:
    assert pass_at(2, Counts(4, 1)) == pytest.approx(1 - 3 / 6)  # 3 of the 6 pairs hold no success
    assert pass_at(64, Counts(16, 1)) is None
    assert pass_at(3, Counts(4, 3)) == 1.0


RULE = Rule(group=16, most=512)
README = (Path(difficulty.__file__).parent / "README.md").read_text("utf-8")
# Of the README's table: times the rate of `hard`, called hard, called not hard, samples.
ERROR_RATES = re.findall(r"^\| ([\d/]+) \| ([\d.]+ %) \| ([\d.]+ %) \| (\d+) \|$", README, re.MULTILINE)


def test_the_problems_with_the_fewest_samples_come_first() -> None:
    few, many, done = (
        Screened("few", Counts(8, 1)),
        Screened("many", Counts(64, 1)),
        Screened("done", Counts(64, 20)),
    )
    screened = [many, few, done, Screened("new"), Screened("newer")]
    assert next_looks(screened, {"newer"}, RULE, 64) == [Look("new", 4), Look("few", 8), Look("many", 16)]
    assert next_looks([many, few, Screened("new")], set(), RULE, 6) == [Look("new", 4), Look("few", 2)]
    assert next_looks([done], set(), RULE, 64) == []


def test_looks_grow_with_the_samples_and_never_pass_the_most() -> None:
    assert [RULE.look_size(Counts(n, 0)) for n in (0, 4, 8, 16, 64, 510)] == [4, 4, 8, 16, 16, 2]
    assert Rule(group=3, most=12).look_size(Counts(0, 0)) == 3


def test_one_success_among_the_first_four_settles_a_problem_and_one_among_eight_does_not() -> None:
    assert RULE.is_settled(Counts(4, 1))
    assert RULE.open_level(Counts(8, 1)) == HARD_RATE


def test_very_hard_is_asked_about_only_where_the_samples_can_tell() -> None:
    assert RULE.is_settled(Counts(277, 0))  # it would take 6,300
    assert Rule(group=16, most=6300).open_level(Counts(277, 0)) == VERY_HARD_RATE


def test_a_ceiling_asks_first_whether_the_rate_lies_below_it() -> None:
    rule = Rule(group=16, most=512, ceiling=0.1)
    assert rule.open_level(Counts(4, 1)) == 0.1  # 25 %, but the interval begins at 1.3 %
    assert rule.open_level(Counts(8, 3)) is None
    assert rule.open_level(Counts(64, 2)) == HARD_RATE  # surely below a tenth; hard or not is open
    assert rule.open_level(Counts(128, 5)) is None


def test_samples_are_spent_until_the_interval_tells() -> None:
    assert not Rule(group=16, most=64).is_settled(Counts(48, 0))
    assert Rule(group=16, most=64).is_settled(Counts(64, 0))
    assert not RULE.is_settled(Counts(276, 0))


@pytest.mark.parametrize("row", ERROR_RATES, ids=lambda row: row[0])
def test_the_stop_rule_errs_as_often_as_the_readme_says(row: tuple[str, str, str, str]) -> None:
    """Exact: every way that looks of 4, 4, 8, 16, ... samples up to 512 can come out."""
    rate = {"1": 1.0, "1/3": 1 / 3, "2": 2.0, "30": 30.0}[row[0]] * HARD_RATE
    ends = ends_of(rate, RULE)
    hard, not_hard = (f"{100 * ends[mark]:.1f} %" for mark in ("hard", "not hard"))
    assert (hard, not_hard, f"{ends['samples']:.0f}") == row[1:]


def ends_of(rate: float, rule: Rule) -> dict[str, float]:
    """The exact probabilities of the marks of a problem of this rate, and its mean number of samples."""
    ends = {"hard": 0.0, "not hard": 0.0, "samples": 0.0}
    open_ones, n = {0: 1.0}, 0
    while open_ones and n < rule.most:
        more = rule.look_size(Counts(n, 0))
        ends["samples"] += more * sum(open_ones.values())
        spread: dict[int, float] = {}
        for solved, share in open_ones.items():
            for k in range(more + 1):
                chance = math.comb(more, k) * rate**k * (1 - rate) ** (more - k)
                spread[solved + k] = spread.get(solved + k, 0.0) + share * chance
        n, open_ones = n + more, {}
        for solved, share in spread.items():
            is_hard = below(Counts(n, solved), HARD_RATE)
            if is_hard is not None:
                ends["hard" if is_hard else "not hard"] += share
            else:
                open_ones[solved] = share
    return ends


@pytest.mark.parametrize(
    ("level", "rate"), [("hard", HARD_RATE), ("very-hard", VERY_HARD_RATE), ("0.05", 0.05)]
)
def test_a_level_is_a_word_or_a_rate(level: str, rate: float) -> None:
    assert rate_of(level) == rate


@pytest.mark.parametrize("level", ["easy", "0", "1", "nan", "-0.1"])
def test_other_levels_are_refused(level: str) -> None:
    with pytest.raises(ConfigError, match="a level is hard, very-hard, or a rate"):
        rate_of(level)


def test_the_file_adds_up_and_forgives_a_torn_last_line(tmp_path: Path) -> None:
    append(tmp_path, ScreeningStarted(config={"model": "m"}))
    append(tmp_path, group("a", 16, 0))
    append(tmp_path, group("b", 16, 2))
    with (tmp_path / "screening.jsonl").open("a") as file:
        file.write('{"event": "group", "problem": "a", "n"')
    assert read_screening(tmp_path).problems["a"].base == Counts(16, 0)
    append(tmp_path, group("a", 300, 0))
    found = read_screening(tmp_path)
    assert found.config == {"feedback_mode": "public", "model": "m", "seed": 0}
    assert found.problems["a"].base == Counts(316, 0)
    assert found.problems["a"].tokens == 14
    assert found.named(HARD_RATE) == {"a"}
    assert found.named(VERY_HARD_RATE) == frozenset()


def test_reading_marks_without_a_screening_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sdpo-solve screen"):
        read_marks(tmp_path)


def test_a_foreign_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "screening.jsonl").write_text('{"event": "screening", "config": {}}\nhello\n')
    with pytest.raises(ConfigError, match="line 2"):
        read_screening(tmp_path)


SAMPLED = {"model": "m", "max_tokens": 512, "temperature": 1.0, "language": "python", "system": None,
           "thinking": False, "feedback_mode": "public"}  # fmt: skip


def test_marks_serve_only_runs_that_sample_as_the_screening_did(tmp_path: Path) -> None:
    found = Screening({**SAMPLED, "engine": "hf", "seed": 3}, {"a": Screened("a", digest="d")})
    check_marks(found, tmp_path, SAMPLED, {"a": "d"})
    check_marks(found, tmp_path, {**SAMPLED, "feedback_mode": "all"}, {"a": "d"})
    for changed in ({"max_tokens": 77}, {"model": "n"}, {"thinking": True}, {"feedback_mode": "paper"}):
        with pytest.raises(ConfigError, match=next(iter(changed))):
            check_marks(found, tmp_path, {**SAMPLED, **changed}, {"a": "d"})
    with pytest.raises(
        ConfigError, match=r"max_tokens = 512, here it is 77.*temperature = 1\.0, here it is 0\.5"
    ):
        check_marks(found, tmp_path, {**SAMPLED, "max_tokens": 77, "temperature": 0.5}, {"a": "d"})
    with pytest.raises(
        ConfigError, match=r"the text or tests of a have changed since .* name the problems with"
    ):
        check_marks(found, tmp_path, SAMPLED, {"a": "e"})


def test_marks_that_come_from_feedback_serve_only_runs_with_the_same_feedback(tmp_path: Path) -> None:
    told = {"feedback": {"failing_tests": 2}}
    found = Screening({**SAMPLED, **told})
    check_marks(found, tmp_path, SAMPLED, {}, feedback=told)
    with pytest.raises(ConfigError, match="feedback_mode = 'public', here it is 'all'"):
        check_marks(found, tmp_path, {**SAMPLED, "feedback_mode": "all"}, {}, feedback=told)
    with pytest.raises(ConfigError, match=r"'failing_tests': 2\}, here it is \{'failing_tests': 1\}"):
        check_marks(found, tmp_path, SAMPLED, {}, feedback={"feedback": {"failing_tests": 1}})


def test_an_early_screening_that_says_less_is_taken_at_its_word(tmp_path: Path) -> None:
    append(tmp_path, ScreeningStarted(config={"model": "m", "max_tokens": 128}))
    found = read_screening(tmp_path)
    assert found.config["feedback_mode"] == "public"
    check_marks(found, tmp_path, {**SAMPLED, "max_tokens": 128, "thinking": True}, {})
    with pytest.raises(ConfigError, match="feedback_mode = 'public or all', here it is 'paper'"):
        check_marks(found, tmp_path, {**SAMPLED, "max_tokens": 128, "feedback_mode": "paper"}, {})
