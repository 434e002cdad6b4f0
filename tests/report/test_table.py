"""Tables of figures that become paragraphs where a terminal is narrow: no figure and no name is ever cut."""

import io

import pytest
from rich.console import Console

from sdpo_solve.report.table import AlignedTable, Phrases


def shown(renderable: object, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(renderable)
    return console.file.getvalue()


def sheet() -> AlignedTable:
    found = AlignedTable(("problems", "solved", "needs", "ratio"))
    found.add(("base model: hard", "12", "\x1b[2J1234567", "1.14 (0.89–1.52)"))
    found.add(("all", "·", "–", "∞"))
    return found


def test_a_wide_terminal_gets_a_table() -> None:
    lines = shown(sheet(), 80).splitlines()
    assert [line.split() for line in lines] == [
        ["problems", "solved", "needs", "ratio"],
        ["base", "model:", "hard", "12", "1234567", "1.14", "(0.89–1.52)"],
        ["all", "·", "–", "∞"],
    ]


@pytest.mark.parametrize("width", [20, 30, 40, 50])
def test_a_narrow_terminal_gets_every_figure_whole(width: int) -> None:
    text = shown(sheet(), width)
    assert max(map(len, text.splitlines())) <= width
    lines = [line.strip() for line in text.splitlines()]
    if width >= 30:
        assert lines[0] == "problems base model: hard"
        assert any("ratio 1.14 (0.89–1.52)" in line for line in lines)
    assert "1234567" in text
    assert "\x1b" not in text
    assert "solved ·" not in text


def test_names_fold_before_a_table_is_given_up_at_80_columns() -> None:
    found = AlignedTable(("run", "attempts"))
    found.add(("a" * 100, "1/2"))
    lines = shown(found, 80).splitlines()
    assert lines[0].split() == ["run", "attempts"]
    assert "".join(line.split()[0] for line in lines[1:]) == "a" * 100


def test_phrases_are_parted_between_and_never_inside() -> None:
    text = shown(Phrases(["3 wrong answer", "12 runtime error", "1 solved"]), 30)
    assert [line.rstrip() for line in text.splitlines()] == ["3 wrong answer", "12 runtime error · 1 solved"]
