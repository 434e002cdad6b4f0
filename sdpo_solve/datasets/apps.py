"""APPS (https://huggingface.co/datasets/codeparrot/apps) and TACO (https://huggingface.co/datasets/BAAI/TACO):
columns question, input_output (JSON of inputs, outputs and fn_name), starter_code, solutions, difficulty.

Neither says which tests are samples: the first ones are visible. Values are read and compared, and programs
prepared, as by the data sets' own judge (https://github.com/hendrycks/apps, eval/testing_util.py): a call's
expected value may stand in a list of one, keys of dicts that spell integers are integers, and what solutions
use without importing it is there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from sdpo_solve.datasets import Format
from sdpo_solve.datasets import _contest_rows as contest
from sdpo_solve.datasets._contest_rows import N_VISIBLE, Facts
from sdpo_solve.datasets._rows import FileRow, safe_id
from sdpo_solve.datasets.selection import Candidate, Unfit
from sdpo_solve.protocols import Sandbox
from sdpo_solve.types import Checker, Kind, Problem, TestCase

# The own judge's imports but for numpy, which would cost every test its start.
_PREAMBLE = """\
import sys
import time
import itertools
from itertools import accumulate, product, permutations, combinations
import collections
from collections import Counter, OrderedDict, deque, defaultdict, ChainMap
from functools import lru_cache
import math
from math import sqrt, sin, cos, tan, ceil, fabs, floor, gcd, exp, log, log2
import fractions
from typing import List, Tuple
import random
import heapq
from heapq import *
"""
_RULE = Checker("apps")
_RETURNED = re.compile(r"->\s*([^\n:]+):")


class Apps(Format):
    """Rows of APPS or TACO in a file."""

    schemes: ClassVar = {"apps": "apps:FILE", "taco": "taco:FILE"}
    columns: ClassVar = frozenset({"question", "input_output"})

    @classmethod
    def candidates(cls, source: str, sandbox: Callable[[], Sandbox]) -> Iterator[Candidate]:
        """Tests are read when a row is made a problem. Raises ProblemError for a bad file."""
        return contest.candidates(source, _facts, _problem)


PLUGIN = Apps


def _facts(row: FileRow, number: int) -> Facts:
    is_taco = "problem_id" not in row.data
    name = row.data.get("problem_id", row.data.get("id", number))
    return Facts(
        id=safe_id(f"{'taco' if is_taco else 'apps'}-{name}", row.place),
        statement=contest.text(row, "question"),
        difficulty=str(row.data.get("difficulty") or "").lower(),
        platform=str(row.data.get("source") or ""),
    )


def _problem(row: FileRow, facts: Facts) -> Problem:
    tests = contest.loaded(row, "input_output")
    if not isinstance(tests, Mapping) or not tests.get("inputs"):
        raise Unfit(f"{row.place}: {facts.id}", "it has no tests")
    inputs, outputs = contest.items(tests["inputs"]), contest.items(tests.get("outputs"))
    pairs = list(zip(inputs, outputs, strict=False))
    limits = contest.limits(row.data.get("time_limit"), row.data.get("memory_limit"))
    reference = _reference(row)
    starter = str(row.data.get("starter_code") or "")
    if not tests.get("fn_name"):
        if "def " in starter:  # TACO's rows from GeeksforGeeks
            raise Unfit(f"{row.place}: {facts.id}", "its tests do not name the function of its starter code")
        cases = contest.stdin_tests(pairs[:N_VISIBLE], True) + contest.stdin_tests(pairs[N_VISIBLE:], False)
        return contest.stdin_problem(
            row, facts, cases, limits, _RULE, reference=reference, preamble=_PREAMBLE
        )
    name = str(tests["fn_name"])
    values = _unwrapped(outputs, starter)
    calls = [
        TestCase(
            [_keyed(arg) for arg in args] if isinstance(args, list) else [args],
            _keyed(value),
            number < N_VISIBLE,
        )
        for number, (args, value) in enumerate(zip(inputs, values, strict=False))
    ]
    return Problem(
        id=facts.id,
        statement=facts.statement,
        kind=Kind.FUNCTION,
        tests=tuple(calls),
        entry_point=f"Solution.{name}" if "class Solution" in starter else name,
        starter_code=starter.rstrip() or None,
        limits=limits,
        checker=_RULE,
        reference=reference,
        preamble=_PREAMBLE,
        meta={"difficulty": facts.difficulty} if facts.difficulty else {},
    )


def _unwrapped(values: Sequence[Any], starter: str) -> list[Any]:
    """Expected values; where every one stands in a list of one, that list is the data set's wrapping, unless
    the starter code says that a list is returned and without it there would be none."""
    returned = _RETURNED.search(starter)
    due = len(re.findall(r"\blist\b", returned[1], re.IGNORECASE)) if returned else 0
    wrapped = all(isinstance(value, list) and len(value) == 1 for value in values)
    if wrapped and max(map(_depth, values), default=0) > due:
        return [value[0] for value in values]
    return list(values)


def _depth(value: Any) -> int:
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


def _keyed(value: Any) -> Any:
    """A dict whose keys all spell integers, with integers as keys: JSON has texts alone."""
    if isinstance(value, dict) and value and all(re.fullmatch(r"-?\d{1,18}", key) for key in value):
        return {int(key): item for key, item in value.items()}
    return value


def _reference(row: FileRow) -> str | None:
    solutions = contest.loaded(row, "solutions")
    first = solutions[0] if isinstance(solutions, list) and solutions else None
    return first if isinstance(first, str) and first.strip() else None
