"""SandboxFusion (https://bytedance.github.io/SandboxFusion): columns id, content, test, labels; a test is
{"input": {"stdin": ...}, "output": {"stdout": ...}}.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

from sdpo_solve.datasets import Format
from sdpo_solve.datasets import _contest_rows as contest
from sdpo_solve.datasets._contest_rows import N_VISIBLE, Facts
from sdpo_solve.datasets._rows import FileRow, safe_id
from sdpo_solve.datasets.selection import Candidate, Unfit
from sdpo_solve.protocols import Sandbox
from sdpo_solve.types import Problem


class SandboxFusion(Format):
    """Rows over standard input in a file."""

    schemes: ClassVar = {"sandboxfusion": "sandboxfusion:FILE"}
    columns: ClassVar = frozenset({"content", "test", "labels"})

    @classmethod
    def candidates(cls, source: str, sandbox: Callable[[], Sandbox]) -> Iterator[Candidate]:
        """The first tests are visible. Raises ProblemError for a bad file."""
        return contest.candidates(source, _facts, _problem)


PLUGIN = SandboxFusion


def _facts(row: FileRow, number: int) -> Facts:
    labels = contest.loaded(row, "labels")
    labels = labels if isinstance(labels, Mapping) else {}
    return Facts(
        id=safe_id(str(row.data.get("id", number)), row.place),
        statement=contest.text(row, "content"),
        difficulty=str(labels.get("difficulty") or "").lower(),
        platform=str(labels.get("source") or "").lower(),
    )


def _problem(row: FileRow, facts: Facts) -> Problem:
    try:
        tests = contest.loaded(row, "test")
        pairs = [(test["input"]["stdin"], test["output"]["stdout"]) for test in tests]
    except (TypeError, KeyError, Unfit):  # such as a program of asserts, which other judges of it run
        reason = "its tests are not texts of standard input and output"
        raise Unfit(f"{row.place}: {facts.id}", reason) from None
    cases = contest.stdin_tests(pairs[:N_VISIBLE], True) + contest.stdin_tests(pairs[N_VISIBLE:], False)
    return contest.stdin_problem(row, facts, cases, contest.limits(None, None))
