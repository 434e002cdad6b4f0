"""References of public benchmarks solve their own problems: on files that are not part of this repository.

SDPO_SOLVE_DATA names a directory with

- `lcb/*hidden*.jsonl`: LiveCodeBench rows with private tests, and `lcb/reference_solutions.jsonl`: a line
  `{"question_id", "prompt", "completion"}` for each, where prompt and completion together are the program;
- `mbpp/MbppPlus.jsonl.gz`: EvalPlus's file, whose canonical solutions are its references.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdpo_solve.datasets import load
from sdpo_solve.datasets.selection import Selection
from sdpo_solve.grading.judge import Judge
from sdpo_solve.sandboxes import docker
from sdpo_solve.types import Problem

VARIABLE = "SDPO_SOLVE_DATA"
# Its solution returns a list of more than a gigabyte on one input (see the README).
TOO_BIG = {"mbpp-255"}
pytestmark = [pytest.mark.slow, pytest.mark.docker]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[docker.DockerSandbox]:
    found = docker.DockerSandbox(docker.Options())
    yield found
    found.close()


def data(pattern: str) -> Path:
    """The one file that the pattern names."""
    if VARIABLE not in os.environ:
        pytest.skip(f"{VARIABLE} names no directory of benchmark files")
    found = sorted(Path(os.environ[VARIABLE]).glob(pattern))
    if len(found) != 1:
        pytest.skip(f"{VARIABLE} holds {len(found)} files like {pattern}, not one")
    return found[0]


def unsolved(judge: Judge, pairs: list[tuple[Problem, str]]) -> dict[str, str]:
    """Ids of problems whose program does not pass every test, with what became of it."""
    found = {}
    for problem, code in pairs:
        (verdict,) = judge.grade(problem, [code], thorough=True)
        if not verdict.passed_all:
            case = verdict.first_failure
            found[problem.id] = f"test {case.index}: {case.status.value}" if case else "no test ran"
    return found


def test_livecodebench_references_solve_their_rows(sandbox: docker.DockerSandbox) -> None:
    rows = data("lcb/*hidden*.jsonl")
    lines = data("lcb/reference_solutions.jsonl").read_text(encoding="utf-8").splitlines()
    codes = {
        line["question_id"]: f"{line['prompt']}\n{line['completion']}" for line in map(json.loads, lines)
    }
    taken = load.load([f"lcb:{rows}"], Selection(), lambda: sandbox)
    assert len(taken.problems) >= 1
    assert taken.left_out == {}
    assert unsolved(Judge(sandbox), [(problem, codes[problem.id]) for problem in taken.problems]) == {}


def test_mbpp_plus_solutions_solve_their_own_problems(sandbox: docker.DockerSandbox) -> None:
    taken = load.load([f"mbpp:{data('mbpp/MbppPlus.jsonl.gz')}"], Selection(), lambda: sandbox)
    pairs = [(problem, problem.reference) for problem in taken.problems if problem.reference is not None]
    assert len(pairs) == len(taken.problems) >= 1
    assert set(taken.left_out) <= TOO_BIG
    assert unsolved(Judge(sandbox), pairs) == {}
