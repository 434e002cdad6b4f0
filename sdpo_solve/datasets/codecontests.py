"""CodeContests (https://huggingface.co/datasets/deepmind/code_contests): columns name, description, and
public, private and generated tests as tables {"input": [...], "output": [...]}; times as seconds and nanos.

Also as the data set's own `convert_riegeli_to_json.py` writes it: tests and solutions as lists of objects,
times as the text of a protobuf Duration.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

from sdpo_solve.datasets import Format
from sdpo_solve.datasets import _contest_rows as contest
from sdpo_solve.datasets._contest_rows import Facts
from sdpo_solve.datasets._rows import FileRow, safe_id
from sdpo_solve.datasets.selection import Candidate
from sdpo_solve.protocols import Sandbox
from sdpo_solve.types import Checker, Problem

_PYTHON3 = 3  # the language number of the data set's solutions
_RULE = Checker("codecontests", ignore_case=True)


class CodeContests(Format):
    """Rows of CodeContests in a file."""

    schemes: ClassVar = {"codecontests": "codecontests:FILE"}
    columns: ClassVar = frozenset({"description", "public_tests", "private_tests"})

    @classmethod
    def candidates(cls, source: str, sandbox: Callable[[], Sandbox]) -> Iterator[Candidate]:
        """Public tests are visible. Raises ProblemError for a bad file."""
        return contest.candidates(source, _facts, _problem)


PLUGIN = CodeContests


def _facts(row: FileRow, number: int) -> Facts:
    reads_file = row.data.get("input_file") or row.data.get("output_file")
    rating = row.data.get("cf_rating")
    return Facts(
        id=safe_id(contest.text(row, "name"), row.place),
        statement=contest.text(row, "description"),
        difficulty=str(rating) if rating else "",
        fault=f"it reads or writes a file ({reads_file})" if reads_file else None,
    )


def _problem(row: FileRow, facts: Facts) -> Problem:
    visible = contest.stdin_tests(contest.pairs_of(row.data.get("public_tests")), True)
    hidden = [
        pair for name in ("private_tests", "generated_tests") for pair in contest.pairs_of(row.data.get(name))
    ]
    memory = contest.number(row.data.get("memory_limit_bytes"))
    limits = contest.limits(_seconds(row.data.get("time_limit")), memory / 2**20 if memory else None)
    tests = visible + contest.stdin_tests(hidden, False)
    reference = _reference(row.data.get("solutions"))
    return contest.stdin_problem(row, facts, tests, limits, _RULE, reference=reference)


def _seconds(duration: Any) -> object:
    """Seconds of {"seconds": 1, "nanos": 500000000}, or of the same as text; any other limit as it is."""
    if isinstance(duration, str):
        duration = dict(re.findall(r"(seconds|nanos): (\d+)", duration)) or duration
    if not isinstance(duration, Mapping):
        return duration
    seconds, nanos = (contest.number(duration.get(name)) or 0.0 for name in ("seconds", "nanos"))
    return seconds + nanos / 1e9


def _reference(solutions: Any) -> str | None:
    """The first solution in Python 3, of a table or a list of objects."""
    if isinstance(solutions, Mapping):
        columns = [contest.items(solutions.get(name)) for name in ("language", "solution")]
        pairs = list(zip(*columns, strict=False))
    else:
        objects = filter(lambda each: isinstance(each, Mapping), contest.items(solutions))
        pairs = [(each.get("language"), each.get("solution")) for each in objects]
    return next((str(code) for language, code in pairs if language in (_PYTHON3, "PYTHON3")), None)
