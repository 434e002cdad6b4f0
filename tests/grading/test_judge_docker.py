"""The judge on real containers: every kind of problem, every status, benchmark rows, computed expectations."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdpo_solve.datasets import livecodebench, mbpp
from sdpo_solve.datasets._rows import FileRow
from sdpo_solve.grading.judge import Judge
from sdpo_solve.protocols import Sandbox
from sdpo_solve.sandboxes import docker
from sdpo_solve.types import Kind, Limits, Problem, Status, TestCase

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    found = docker.DockerSandbox(docker.Options())
    yield found
    found.close()


@pytest.fixture(scope="module")
def judge(sandbox: Sandbox) -> Judge:
    return Judge(sandbox)


STDIN = Problem(
    "sum",
    "Add.",
    Kind.STDIN,
    (TestCase("1 2\n", "3\n", True), TestCase("5 6\n", "11\n", False), TestCase("0 0\n", "0\n", False)),
    limits=Limits(1.0, 128),
)
RIGHT = "a, b = map(int, input().split())\nprint(a + b)\n"


def test_statuses_of_real_programs_in_the_order_of_the_codes(judge: Judge) -> None:
    programs = {
        RIGHT: Status.ACCEPTED,
        "print(3)": Status.WRONG_ANSWER,  # a lookup table of what feedback quoted: fails the hidden tests
        "print(1 / 0)": Status.RUNTIME_ERROR,
        "print(": Status.COMPILE_ERROR,
        "while True: pass": Status.TIME_LIMIT,
        "x = bytearray(10**9)\nprint(3)": Status.MEMORY_LIMIT,
        "while True: print('x' * 10**6)": Status.OUTPUT_LIMIT,
    }
    *verdicts, none = judge.grade(STDIN, [*programs, None])
    for verdict, status in zip(verdicts, programs.values(), strict=True):
        first = verdict.first_failure
        assert (first.status if first else Status.ACCEPTED) is status
    assert [verdict.solved for verdict in verdicts] == [True] + [False] * 6
    assert [case.status for case in verdicts[1].cases] == [
        Status.ACCEPTED,
        Status.WRONG_ANSWER,
        Status.NOT_RUN,
    ]
    assert none.cases[0].status is Status.NO_CODE


def test_an_error_names_the_line_of_the_program_itself_below_a_preamble(judge: Judge) -> None:
    row = {
        **dict.fromkeys(livecodebench.FIELDS, ""),
        "question_id": "q",
        "question_content": "Q",
        "starter_code": "class Solution:\n    def pick(self, xs: List[int]) -> int:\n        ",
        "metadata": '{"func_name": "pick"}',
        "public_test_cases": json.dumps([{"input": "[3, 1]", "output": "1", "testtype": "functional"}]),
        "private_test_cases": json.dumps([{"input": "[]", "output": "[0, 1]", "testtype": "functional"}]),
    }
    problem = livecodebench.to_problem(livecodebench.check_row(FileRow(row, "row")))
    head = "class Solution:\n    def pick(self, xs: List[int]) -> int:\n"
    right = head + "        heapify(xs)\n        return xs[0] if xs else (0, True)\n"
    deep = head + "        f = lambda n: n and f(n - 1)\n        f(40_000)\n        return self.pick2(xs)\n"
    good, bad = judge.grade(problem, [right, deep])
    assert good.solved
    error = bad.cases[0].error
    assert bad.cases[0].status is Status.RUNTIME_ERROR
    assert 'File "solution.py", line 5' in error
    assert "AttributeError" in error


def test_asserts_are_split_between_box_and_host(judge: Judge) -> None:
    tests = (
        TestCase("assert f(2, [3]) == (2, [3])", None, True),
        TestCase("assert not f(0, None)[0] and abs(f(0.1, 1)[0] - 0.1) < 1e-9", None, False),
    )
    problem = Problem("pair", "s", Kind.ASSERTS, tests, entry_point="f")
    right, as_list, liar = judge.grade(
        problem,
        [
            "def f(a, b): return a, b",
            "def f(a, b): return [a, b]",
            "class L(tuple):\n    def __eq__(self, o): return True\n"
            "    def __getitem__(self, i): return 0\ndef f(a, b): return L((9, 9))",
        ],
    )
    assert right.solved
    assert not as_list.solved
    assert not liar.solved
    assert as_list.cases[0].output == "[2, [3]]"


def test_expected_values_come_from_the_canonical_solution_in_the_box(
    sandbox: Sandbox, judge: Judge, tmp_path: Path
) -> None:
    row = {
        "task_id": "Mbpp/2",
        "prompt": '"""\nShared elements.\nassert set(similar_elements((3, 4),(4, 5))) == set((4,))\n"""',
        "entry_point": "similar_elements",
        "canonical_solution": "def similar_elements(a, b):\n    assert type(a) is tuple\n    return tuple(set(a) & set(b))",
        "base_input": [[[3, 4], [4, 5]]],
        "plus_input": [[[], []], [[1, 2, 3], [3, 2]]],
        "atol": 0,
    }
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    (candidate,) = mbpp.PLUGIN.candidates(str(tmp_path / "rows.jsonl"), lambda: sandbox)
    problem = candidate.make()
    assert [test.expected for test in problem.tests] == [(4,), (), (2, 3)]
    codes = [
        row["canonical_solution"],
        "def similar_elements(a, b): return [x for x in b if x in a]",
        "def similar_elements(a, b): return a",
    ]
    assert [verdict.solved for verdict in judge.grade(problem, codes)] == [True, True, False]
