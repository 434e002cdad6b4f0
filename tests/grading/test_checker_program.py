"""A checker program decides, in a box of its own; its crash is the problem's fault and no verdict."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sdpo_solve.datasets.load import load
from sdpo_solve.datasets.selection import Selection
from sdpo_solve.errors import PrerequisiteError, ProblemError
from sdpo_solve.grading.checker_program import FAILING_REFUSES, UNUSABLE, ToCheck, check
from sdpo_solve.grading.judge import Judge
from sdpo_solve.sandboxes import docker
from sdpo_solve.types import (
    BoxInput,
    Checker,
    Execution,
    ExecutionStatus,
    Kind,
    Problem,
    Program,
    Status,
    TestCase,
)
from tests.helpers.boxes import Box, prints
from tests.helpers.rows import never

SUM = """
import sys
total = int(open(sys.argv[1]).read())
output, answer = (open(name).read().split() for name in sys.argv[2:4])
assert answer
sys.exit(0 if len(output) == 2 and sum(map(int, output)) == total else 1)
"""
CPP_SUM = """
#include <fstream>
int main(int argc, char* argv[]) {
    std::ifstream in(argv[1]), out(argv[2]);
    long total, a, b;
    in >> total;
    if (!(out >> a >> b)) return 2;
    return a + b == total ? 0 : 1;
}
"""
TESTS = (TestCase("7\n", "3 4\n", True), TestCase("10\n", "5 5\n", False))


def problem(program: str = SUM, language: str = "python") -> Problem:
    checker = Checker("program", program=program, language=language)
    return Problem("split", "Two numbers with this sum.", Kind.STDIN, TESTS, checker=checker)


def box(*codes: int, stderr: str = "") -> Box:
    """The program prints `1 6`; the checker ends with these codes, one a test."""
    ends = iter(codes)

    def run(program: Program, given: BoxInput) -> Execution:
        if "sys.argv" not in program.code:
            return prints("1 6")
        assert len(json.loads(given.stdin)) == 3
        code = next(ends)
        status = ExecutionStatus.OK if code == 0 else ExecutionStatus.RUNTIME_ERROR
        return Execution(status, exit_code=code, stderr=stderr)

    return Box(run)


def test_exit_codes_are_testlibs() -> None:
    (verdict,) = Judge(box(0, 0)).grade(problem(), ["print(1, 6)"])
    assert verdict.solved
    for code in (1, 2, 4, 8):
        (verdict,) = Judge(box(0, code)).grade(problem(), ["print(1, 6)"])
        assert [case.status for case in verdict.cases] == [Status.ACCEPTED, Status.WRONG_ANSWER]


@pytest.mark.parametrize("thorough", [False, True])
def test_hidden_tests_run_where_the_visible_ones_are_right(thorough: bool) -> None:
    tests = (*TESTS, TestCase("12\n", "6 6\n", False))
    three = replace(problem(), tests=tests)
    not_run = [Status.NOT_RUN] * 2
    for code, codes in ((0, [Status.ACCEPTED, Status.ACCEPTED, Status.WRONG_ANSWER]), (1, None)):
        sandbox = box(code, 0, 1)
        (verdict,) = Judge(sandbox).grade(three, ["print(1, 6)"], thorough=thorough)
        every = codes or [Status.WRONG_ANSWER, Status.ACCEPTED, Status.WRONG_ANSWER]
        stops = code and not thorough
        assert [case.status for case in verdict.cases] == (every[:1] + not_run if stops else every)
        assert len(sandbox.inputs) == (2 if stops else 6)


def test_hidden_tests_stop_at_one_without_an_output() -> None:
    tests = (*TESTS, TestCase("12\n", "6 6\n", False))

    def run(program: Program, given: BoxInput) -> Execution:
        return Execution(ExecutionStatus.TIME_LIMIT) if given.stdin == "10\n" else prints("1 6")

    (verdict,) = Judge(Box(run)).grade(replace(problem(), tests=tests), ["print(1, 6)"])
    assert [case.status for case in verdict.cases] == [Status.ACCEPTED, Status.TIME_LIMIT, Status.NOT_RUN]


def test_a_compile_error_is_that_of_every_test() -> None:
    broken = Execution(ExecutionStatus.COMPILE_ERROR, stderr="SyntaxError: invalid syntax")
    (verdict,) = Judge(Box(lambda *_: broken)).grade(problem(), ["x=("])
    assert [case.status for case in verdict.cases] == [Status.COMPILE_ERROR] * 2


@pytest.mark.parametrize(
    ("code", "stderr"), [(3, "bad test"), (-11, ""), (1, "Traceback (most recent call last)")]
)
def test_a_checker_that_fails_is_the_problems_fault(code: int, stderr: str) -> None:
    with pytest.raises(ProblemError, match="split: its checker failed"):
        Judge(box(code, code, stderr=stderr)).grade(problem(), ["print(1, 6)"])


@pytest.mark.parametrize(
    ("stderr", "first"),
    [
        (
            "solution.cpp:2:10: fatal error: testlib.h: No such file or directory\n    2 | #include\n"
            "      |          ^~~~~~~~~~~\ncompilation terminated.\n",
            "fatal error: testlib.h: No such file or directory",
        ),
        (
            "solution.cpp: In function 'int main()':\nsolution.cpp:9:44: error: too many arguments\n   9 |\n"
            "      |                   ~~~^~~\n",
            "error: too many arguments",
        ),
        (
            "/usr/bin/ld: /tmp/a.o: in function `main':\na.cpp:(.text+0x5): undefined reference to `f()'\n"
            "collect2: error: ld returned 1 exit status\n",
            "undefined reference to `f()'",
        ),
        ("no space left on device\n", "no space left on device"),
    ],
)
def test_a_checker_that_does_not_compile_is_named_by_the_first_error(stderr: str, first: str) -> None:
    broken = Execution(ExecutionStatus.COMPILE_ERROR, stderr=stderr)
    checker = Checker("program", program=CPP_SUM, language="cpp")
    with pytest.raises(ProblemError) as raised:
        check(Box(lambda *_: broken), "split", checker, [ToCheck("7\n", "3 4", "3 4\n")])
    assert str(raised.value) == f"split: its checker failed (compile_error): {first}; mend the checker"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (ExecutionStatus.RUNTIME_ERROR, 1),
        (ExecutionStatus.RUNTIME_ERROR, -11),
        (ExecutionStatus.TIME_LIMIT, -9),
        (ExecutionStatus.MEMORY_LIMIT, -9),
        (ExecutionStatus.OUTPUT_LIMIT, -9),
    ],
)
def test_an_untried_checker_that_fails_on_an_output_refuses_it(status: ExecutionStatus, code: int) -> None:
    items = [ToCheck("7\n", "x", "3 4\n")]
    ended = Execution(status, exit_code=code, stderr="Traceback (most recent call last)")
    sandbox = Box(lambda *_: ended)
    checker = Checker("program", program=FAILING_REFUSES + SUM)
    assert check(sandbox, "split", checker, items) == [False]
    with pytest.raises(ProblemError, match="its checker failed"):
        check(sandbox, "split", Checker("program", program=SUM), items)
    with pytest.raises(ProblemError, match="its checker failed"):
        check(box(UNUSABLE), "split", checker, items)


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    sandbox = docker.DockerSandbox(docker.Options(boxes_ready=1, parallel=1))
    yield Judge(sandbox)
    sandbox.close()


@pytest.mark.docker
def test_two_right_programs_and_a_wrong_one(judge: Judge) -> None:
    codes = [
        "n = int(input())\nprint(1, n - 1)",
        "n = int(input())\nprint(n, 0)",
        "n = int(input())\nprint(n, n)",
        "print(open('answer.txt').read())",
        "raise SystemExit(3)",
    ]
    verdicts = judge.grade(problem(), codes)
    assert [verdict.solved for verdict in verdicts] == [True, True, False, False, False]
    with pytest.raises(ProblemError, match="its checker failed"):
        judge.grade(problem("import nothing_such"), codes[:1])


@pytest.mark.docker
def test_no_output_ends_a_run_by_its_generated_checker(judge: Judge, tmp_path: Path) -> None:
    """The first number that is no number, or is more than fits into memory."""
    source = (
        "import sys\na = list(map(int, open(sys.argv[3]).read().split()))\nprint(int(sum([1] * a[0]) == 3))"
    )
    row = {
        "id": "1/A", "description": "Print the sum.", "generated_checker": source,
        "examples": [{"input": "1 2", "output": "3"}], "official_tests": [],
    }  # fmt: skip
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    (one,) = load([f"codeforces:{tmp_path / 'rows.jsonl'}"], Selection(), never).problems
    codes = ["print(3)", "print('NO')", "pass", "print(4)", "print(10**9)"]
    verdicts = judge.grade(one, codes)
    assert [verdict.cases[0].status for verdict in verdicts] == [Status.ACCEPTED] + [Status.WRONG_ANSWER] * 4


@pytest.mark.docker
def test_a_checker_in_cpp() -> None:
    try:
        sandbox = docker.DockerSandbox(docker.Options(boxes_ready=1, parallel=1), "cpp")
    except PrerequisiteError as exc:
        pytest.skip(str(exc))
    with contextlib.closing(sandbox):
        items = [ToCheck("7\n", output, "3 4\n") for output in ("1 6\n", "1 7\n", "x", "")]
        checker = Checker("program", program=CPP_SUM, language="cpp")
        assert check(sandbox, "split", checker, items) == [True, False, False, False]
