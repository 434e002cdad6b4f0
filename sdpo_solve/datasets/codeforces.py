"""Codeforces by open-r1 (https://huggingface.co/datasets/open-r1/codeforces): a problem a row, the statement
in parts, `examples` and `official_tests` as lists of {"input", "output"}.

A generated checker judges the outputs of its row: a program called as `checker.py INPUT EXPECTED OUTPUT` that
prints 1 and ends with exit code 0 for a right one. A language model wrote it, and many crash on outputs of
another form: those are wrong, as for the data set's own judge (https://github.com/huggingface/open-r1,
src/open_r1/utils/competitive_programming/cf_scoring.py).
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
from sdpo_solve.grading.checker_program import FAILING_REFUSES, UNUSABLE
from sdpo_solve.protocols import Sandbox
from sdpo_solve.types import Checker, Problem

# From the arguments and exit codes of testlib's checkers to those of the data set's. One that cannot run
# at all says nothing of any output: an error of the row.
_CHECKER = (
    FAILING_REFUSES
    + """\
import contextlib, io, os, sys
def unusable(exc):
    print(f"{{type(exc).__name__}}: {{exc}}", file=sys.stderr)
    sys.exit({unusable})
try:
    checker = compile({source!r}, "checker.py", "exec")
except Exception as exc:
    unusable(exc)
sys.argv = ["checker.py", "input.txt", "answer.txt", "output.txt"]
os._exit = sys.exit  # what was printed is still to be read
printed, code = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True), 0
try:
    with contextlib.redirect_stdout(printed):
        exec(checker, {{"__name__": "__main__"}})
except SystemExit as exc:
    code = exc.code
except ImportError as exc:
    unusable(exc)
except Exception:
    code = 1
sys.exit(0 if not code and printed.buffer.getvalue().strip() == b"1" else 1)
"""
)


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
    if not source:
        return contest.stdin_problem(row, facts, tests, limits)
    program = _CHECKER.format(source=str(source), unusable=UNUSABLE)
    return contest.stdin_problem(row, facts, tests, limits, checker=Checker("program", program=program))
