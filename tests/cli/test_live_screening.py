"""What is seen of a screening: counts by mark, the frame at 80 columns, a table without its easy rows."""

import io
from collections.abc import Mapping
from pathlib import Path

import pytest
from rich.console import Console

from sdpo_solve.batch.difficulty import Counts, Rule, Screened
from sdpo_solve.batch.screening_file import Screening
from sdpo_solve.cli.live_screening import (
    ScreenView,
    as_record,
    marks_line,
    print_table,
)
from sdpo_solve.datasets.selection import Problems, Selected
from sdpo_solve.errors import ConfigError

SCREENED = {
    "easy": Screened("easy", Counts(4, 3), tokens=200),
    "open": Screened("open", Counts(64, 1), tokens=3000),
    "hard": Screened("hard", Counts(300, 0), Counts(300, 12), tokens=9000),
    "new": Screened("new"),
}
RULE = Rule(group=16, most=512)


def view_of(screened: Mapping[str, Screened], console: Console | None = None) -> ScreenView:
    view = ScreenView(console or Console(file=io.StringIO(), width=80), RULE)
    view.on_start(screened, Selected(Problems(), {}))
    return view


def drawn(thing: object, width: int = 80) -> str:
    said = io.StringIO()
    Console(file=said, width=width, force_terminal=False).print(thing)
    return said.getvalue()


def test_problems_never_looked_at_are_no_undecided_ones() -> None:
    assert marks_line(SCREENED) == "1 not hard · 1 undecided · 1 hard, very hard undecided · 1 not looked at"
    assert view_of(SCREENED).n_settled == 2


def test_the_frame_fits_80_columns_and_shows_the_hardest_first() -> None:
    now = view_of(SCREENED)
    now.phase = "sampling 64 of 9 problems: 12 ended, 1,034 tokens"
    text = drawn(now.frame())
    assert max(len(line) for line in text.splitlines()) <= 80
    lines = [line.split() for line in text.splitlines()]
    assert ["hardest", "hard", "0/300", "hard,", "very", "hard", "undecided"] in lines
    assert text.index("0/300") < text.index("1/64")
    assert "3/4" not in text


def test_names_cannot_colour_the_terminal() -> None:
    now = view_of({"a\x1b[31mb": Screened("a\x1b[31mb", Counts(16, 0))})
    assert "\x1b" not in drawn(now.frame())


def test_a_round_that_changed_nothing_says_nothing() -> None:
    said = io.StringIO()
    view = view_of(SCREENED, Console(file=said, width=80))
    view.on_round()
    assert said.getvalue() == ""
    view.on_look(Screened("new", Counts(4, 0), tokens=120), 4)
    view.on_round()
    view.on_round()
    assert len(said.getvalue().splitlines()) == 1
    assert (
        "2/4 done: 2 undecided · 1 not hard · 1 hard, very hard undecided · 0:00 · 4 samples"
        in said.getvalue()
    )


def test_a_long_table_leaves_the_easy_ones_out_and_says_so() -> None:
    many = {f"e{n}": Screened(f"e{n}", Counts(4, 4)) for n in range(50)} | SCREENED
    said = io.StringIO()
    print_table(Console(file=said, width=80), many, Path("marks"))
    text = said.getvalue()
    assert "e7" not in text
    assert "0/300" in text
    assert "52 not hard or not looked at are left out" in text


def test_the_record_lists_all() -> None:
    rows = {row["problem"]: row for row in as_record(Screening({}, SCREENED))["problems"]}
    assert (rows["hard"]["hard"], rows["hard"]["very_hard"], rows["easy"]["hard"]) == (True, None, False)
    assert (rows["hard"]["teacher_samples"], rows["hard"]["teacher_solved"]) == (300, 12)
    assert rows["new"]["rate"] is None


def screened_with_teacher(**told: tuple[int, int]) -> dict[str, Screened]:
    return {name: Screened(name, Counts(16, 0), Counts(*counts)) for name, counts in told.items()}


def test_the_table_says_where_feedback_teaches_something() -> None:
    """A quarter of the samples with feedback, of eight at least, and four times as many as without."""
    screened = screened_with_teacher(quarter=(16, 4), less=(16, 3), few=(7, 7), half=(8, 4))
    screened["known"] = Screened("known", Counts(16, 3), Counts(16, 11))
    said = io.StringIO()
    print_table(Console(file=said, width=80), screened, Path("marks"))
    want = "sdpo has something to learn from feedback (batch --only taught): quarter, half"
    assert want in " ".join(said.getvalue().split())
    assert Screening({}, screened).marked("taught") == {"quarter", "half"}


def test_the_table_says_that_feedback_teaches_nothing_only_where_it_was_tried() -> None:
    few, less = screened_with_teacher(few=(4, 4)), screened_with_teacher(less=(16, 3), few=(7, 7))
    for screened, want in ((less, True), (few, False), ({"new": Screened("new")}, False)):
        said = io.StringIO()
        print_table(Console(file=said, width=80), screened, Path("marks"))
        assert ("feedback opens none of those tried (1)" in said.getvalue()) == want
    with pytest.raises(ConfigError, match="nothing was sampled with feedback; screen with --teacher first"):
        Screening({}, {"new": Screened("new", Counts(4, 0))}).marked("taught")
    with pytest.raises(ConfigError, match=r"--only is hard, very-hard, taught, .* got 'thought'"):
        Screening({}, SCREENED).marked("thought")
