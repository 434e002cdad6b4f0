"""The verdicts that `grade` and `check` print, at every width; the commands themselves: test_main.py."""

import io

import pytest
from rich.console import Console
from rich.padding import Padding

from sdpo_solve.cli.grade import verdict_table
from sdpo_solve.types import Case, Kind, Problem, Status, TestCase, Verdict

PROBLEM = Problem("inc", "Add one.", Kind.FUNCTION, (TestCase([1], 2, True), TestCase([2], 3, False)))
VERDICT = Verdict((Case(0, Status.ACCEPTED, True), Case(1, Status.MEMORY_LIMIT, True)))


@pytest.mark.parametrize("indent", [0, 4])
@pytest.mark.parametrize("width", [24, 32, 40, 56, 80])
def test_no_verdict_is_cut_however_narrow_the_terminal(width: int, indent: int) -> None:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(Padding(verdict_table(PROBLEM, VERDICT), (0, 0, 0, indent)))
    text = console.file.getvalue()
    said = Status.MEMORY_LIMIT.value.replace("_", " ").split()
    assert {"visible", "hidden", "accepted", *said} <= set(text.split())
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
