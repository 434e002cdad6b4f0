"""Codeforces by open-r1 (https://huggingface.co/datasets/open-r1/codeforces): a problem a row, the statement
in parts, `examples` and `official_tests` as lists of {"input", "output"}.

A generated checker judges the outputs of its row: a program called as `checker.py INPUT EXPECTED OUTPUT` that
prints 1 for a right one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar

from sdpo_solve.datasets import Format
from sdpo_solve.datasets import _contest_rows as contest
from sdpo_solve.datasets._contest_rows import Facts
from sdpo_solve.datasets._rows import FileRow, safe_id
from sdpo_solve.datasets._statements import INTERACTIVE
from sdpo_solve.datasets.selection import Candidate
from sdpo_solve.protocols import Sandbox
from sdpo_solve.types import Checker, Problem

# From the arguments and exit codes of testlib's checkers to those of the data set's.
_CHECKER = """\
import contextlib, io, sys
sys.argv = ["checker.py", "input.txt", "answer.txt", "output.txt"]
printed = io.StringIO()
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(printed):
    exec(compile({source!r}, "checker.py", "exec"), {{"__name__": "__main__"}})
sys.exit(0 if printed.getvalue().strip() == "1" else 1)
"""


class Codeforces(Format):
    """Rows of open-r1/codeforces in a file."""

    schemes: ClassVar = {"codeforces": "codeforces:FILE"}
    columns: ClassVar = frozenset({"description", "examples", "official_tests"})

    @classmethod
    def candidates(cls, source: str, sandbox: Callable[[], Sandbox]) -> Iterator[Candidate]:
        """Examples are visible, official tests hidden. Raises ProblemError for a bad file."""
        return contest.candidates(source, _facts, _problem)


PLUGIN = Codeforces


def _facts(row: FileRow, number: int) -> Facts:
    sections = (("", "description"), ("Input", "input_format"), ("Output", "output_format"), ("Note", "note"))
    parts = [f"{title}\n\n{row.data[name]}".strip() for title, name in sections if row.data.get(name)]
    rating = row.data.get("rating")
    fault = None
    if row.data.get("interaction_format"):
        fault = INTERACTIVE
    elif row.data.get("input_mode") == "file":
        fault = "it reads or writes a file"
    return Facts(
        id=safe_id(contest.text(row, "id"), row.place),
        statement="\n\n".join([str(row.data.get("title") or ""), *parts]).strip(),
        difficulty=str(rating) if rating else "",
        platform="codeforces",
        fault=fault,
        has_checker=bool(row.data.get("generated_checker")),
    )


def _problem(row: FileRow, facts: Facts) -> Problem:
    visible = contest.pairs_of(row.data.get("examples"))
    hidden = [pair for pair in contest.pairs_of(row.data.get("official_tests")) if pair not in visible]
    tests = contest.stdin_tests(visible, True) + contest.stdin_tests(hidden, False)
    limits = contest.limits(row.data.get("time_limit"), row.data.get("memory_limit"))
    source = row.data.get("generated_checker")
    checker = {"checker": Checker("program", program=_CHECKER.format(source=str(source)))} if source else {}
    return contest.stdin_problem(row, facts, tests, limits, **checker)
