"""Which rows are taken: filters, known bad rows, counts that cannot be honoured."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from sdpo_solve.datasets.selection import Candidate, Selection, Unfit, describe_left_out, select
from sdpo_solve.errors import ConfigError, ProblemError
from sdpo_solve.types import Problem
from tests.helpers.parts import PROBLEM


def row(name: str, *facts: Any, fault: str | None = None) -> Candidate:
    return Candidate(lambda: replace(PROBLEM, id=name), name, *facts, fault=fault)


ROWS = [
    row("a", "Apple", date(2025, 1, 1), "easy", "atcoder"),
    row("b", "Bear", date(2025, 2, 1), "hard", "leetcode", fault="interactive"),
    row("c", "Cat", date(2025, 2, 28), "hard", "atcoder"),
    row("d", "Dog", date(2025, 3, 1), "medium", "atcoder"),
]


def taken(
    rows: list[Candidate] = ROWS, among: frozenset[str] | None = None, **fields: Any
) -> tuple[str, list[str]]:
    selected = select(rows, Selection(**fields), "source", among=among)
    return "".join(problem.id for problem in selected.problems), list(selected.left_out)


@pytest.mark.parametrize(
    ("fields", "rows", "left_out"),
    [
        ({}, "acd", ["b"]),
        ({"include_bad": True}, "abcd", []),
        ({"ids": ("d", "a")}, "ad", []),
        ({"ids": ("Cat",)}, "c", []),
        ({"ids": ("b",)}, "b", []),  # asked for by its id, so it is graded
        ({"from_date": date(2025, 2, 1)}, "cd", ["b"]),
        ({"from_date": date(2025, 2, 2)}, "cd", []),
        ({"to_date": date(2025, 2, 28)}, "ac", ["b"]),
        ({"from_date": date(2025, 2, 1), "to_date": date(2025, 2, 28)}, "c", ["b"]),
        ({"difficulty": ("hard", "easy")}, "ac", ["b"]),
        ({"platform": ("atcoder",)}, "acd", []),
        ({"platform": ("atcoder",), "difficulty": ("hard",)}, "c", []),
        ({"first": 2}, "ac", ["b"]),  # counted after the bad ones are gone
        ({"first": 2, "include_bad": True}, "ab", []),
    ],
)
def test_filters(fields: dict[str, Any], rows: str, left_out: list[str]) -> None:
    assert taken(**fields) == (rows, left_out)


def test_a_row_alone_in_its_source_is_graded_whatever_is_known_of_it() -> None:
    assert taken(ROWS[1:2]) == ("b", [])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ids": ("a", "Dgo")}, "no problem has the id 'Dgo'; did you mean 'Dog'?"),
        ({"difficulty": ("tough",)}, "difficulty 'tough'; it has easy, hard, medium"),
        ({"platform": ("leetcod",)}, "did you mean 'leetcode'?"),
        ({"first": 4}, "the filters leave only 3, not 4, of its problems (left out 1 bad problem: b)"),
        ({"from_date": date(2026, 1, 1)}, "the filters leave none"),
        ({"difficulty": ("hard",), "platform": ("leetcode",)}, "the filters leave none"),
    ],
)
def test_what_cannot_be_honoured_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        taken(**fields)
    assert message in str(caught.value)


def test_dates_need_rows_that_have_them() -> None:
    with pytest.raises(ConfigError, match="carry no date"):
        taken([row("a")], from_date=date(2025, 1, 1))


def test_two_rows_of_one_id_are_refused() -> None:
    with pytest.raises(ProblemError, match="two problems have the id 'a'"):
        taken([ROWS[0], ROWS[0]])


def refuses(fault: ProblemError) -> Callable[[], Problem]:
    def make() -> Problem:
        raise fault

    return make


UNFIT = Candidate(refuses(Unfit("line 3", "no tests")), "u")
BROKEN = Candidate(refuses(ProblemError("not JSON")), "x")


def test_an_unfit_problem_is_left_out_and_named_and_the_first_n_are_still_n() -> None:
    assert taken([UNFIT, *ROWS], first=2) == ("ac", ["b", "u"])
    with pytest.raises(Unfit, match="no tests"):
        taken([UNFIT, *ROWS], ids="u")
    with pytest.raises(Unfit, match="no tests"):
        taken([UNFIT])


def test_a_broken_problem_is_left_out_and_named_or_raised_where_it_is_requested() -> None:
    assert taken([BROKEN, *ROWS], first=2) == ("ac", ["b", "x"])
    for alone in ({"ids": ("x",)}, {}):
        with pytest.raises(ProblemError, match="not JSON"):
            taken([BROKEN, *ROWS] if alone else [BROKEN], **alone)
    told: list[ProblemError] = []
    selected = select([BROKEN, *ROWS], Selection(), "source", on_broken=told.append)
    assert ([str(exc) for exc in told], len(selected.problems)) == (["not JSON"], 3)


def test_what_was_left_out_is_counted_and_named_in_one_line() -> None:
    assert describe_left_out({}) == ""
    assert describe_left_out({"b": "x"}) == "left out 1 bad problem: b"
    assert describe_left_out(dict.fromkeys("abcdefghi", "x")).endswith(
        "9 bad problems: a, b, c, d, e, f, g, h, ..."
    )


def test_lists_may_be_one_text() -> None:
    assert Selection(ids="a, b").ids == ("a", "b")  # type: ignore[arg-type]


def test_the_first_n_are_counted_among_those_that_a_screening_marked() -> None:
    assert taken(among=frozenset("bcd"), first=1) == ("c", ["b"])
    with pytest.raises(ConfigError, match="none of its problems that are marked so"):
        taken(among=frozenset("c"), difficulty="easy")


def test_the_halves_are_disjoint_and_whole_and_stay_what_they_are() -> None:
    rows = [row(f"p{n}") for n in range(60)]
    dev = {p.id for p in select(rows, Selection(half="dev"), "source").problems}
    test = {p.id for p in select(rows, Selection(half="test"), "source").problems}
    assert dev | test == {f"p{n}" for n in range(60)}
    assert not dev & test
    assert 20 <= len(dev) <= 40
    fewer = {p.id for p in select(rows[::3], Selection(half="dev"), "source").problems}
    assert fewer == dev & {f"p{n}" for n in range(0, 60, 3)}


def test_a_broken_problem_that_is_named_is_refused_with_its_reason() -> None:
    """It is there: to say that no problem has its id would send its author looking for it."""

    def broken() -> Problem:
        raise ProblemError("typo.json: an unknown key")

    rows = [*ROWS, Candidate(broken, "typo", is_readable=False)]
    with pytest.raises(ProblemError, match=r"typo\.json: an unknown key"):
        list(select(rows, Selection(ids=("typo",)), "source").problems)


def test_a_wrong_id_is_told_how_many_problems_there_are_and_not_how_many_names() -> None:
    rows = [Candidate(lambda: PROBLEM, f"row-{n}", f"Title of {n}") for n in range(20)]
    with pytest.raises(ConfigError, match="no problem has the id 'nope'; it has 20 others"):
        select(rows, Selection(ids=("nope",)), "source")
    with pytest.raises(ConfigError, match=r"did you mean 'Title of 3'\?"):
        select(rows, Selection(ids=("Title af 3",)), "source")
    with pytest.raises(ConfigError, match=r"it has row-0, row-1$"):
        select(rows[:2], Selection(ids=("nope",)), "source")
