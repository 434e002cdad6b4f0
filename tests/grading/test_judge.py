"""What the judge makes of what a box returns: statuses, order, early stops, broken boxes, quoting modes."""

import json
import threading
from dataclasses import replace

import pytest

from sdpo_solve.errors import ConfigError, ProblemError, SandboxError
from sdpo_solve.grading.judge import Judge, Options, with_feedback_mode
from sdpo_solve.sandboxes.wire_values import encode
from sdpo_solve.types import (
    BoxInput,
    Checker,
    Execution,
    ExecutionStatus,
    Finish,
    Kind,
    Policy,
    Problem,
    Program,
    Prompt,
    Sample,
    Status,
    TestCase,
)
from tests.helpers.boxes import Answer, Box, echo, prints, stdin_problem

FOUR = stdin_problem(("h1", "h1", False), ("v1", "v1", True), ("h2", "h2", False), ("v2", "v2", True))
OK, WA, NOT_RUN = Status.ACCEPTED, Status.WRONG_ANSWER, Status.NOT_RUN


@pytest.mark.parametrize(
    ("bad", "statuses", "thorough"),
    [
        ("", [OK, OK, OK, OK], False),
        ("v1", [NOT_RUN, WA, NOT_RUN, OK], False),
        ("v2", [NOT_RUN, OK, NOT_RUN, WA], False),
        ("h1", [WA, OK, NOT_RUN, OK], False),
        ("h1 v1", [WA, WA, OK, OK], True),
    ],
)
def test_visible_tests_run_first_and_hidden_ones_only_while_they_matter(
    bad: str, statuses: list[Status], thorough: bool
) -> None:
    box = Box(echo)
    (verdict,) = Judge(box).grade(FOUR, [bad], thorough=thorough)
    assert [case.status for case in verdict.cases] == statuses
    assert [case.index for case in verdict.cases] == [0, 1, 2, 3]
    assert [given.stdin for given in box.inputs][:2] == ["v1", "v2"]
    assert verdict.solved is (bad == "")


def test_a_problem_of_hidden_tests_only_stops_at_the_first_failure() -> None:
    problem = stdin_problem(("a", "a", False), ("b", "b", False), ("c", "c", False))
    (verdict,) = Judge(Box(echo)).grade(problem, ["b"])
    assert [case.status for case in verdict.cases] == [OK, WA, NOT_RUN]


def test_expected_outputs_never_reach_the_box() -> None:
    box = Box(lambda program, given: prints("x"))
    problem = stdin_problem(("in", "secret", True))
    Judge(box).grade(problem, ["code"])
    function = Problem("p", "s", Kind.FUNCTION, (TestCase([1], "secret", True),), entry_point="f")
    Judge(box).grade(function, ["code"])
    asserts = Problem("p", "s", Kind.ASSERTS, (TestCase("assert f(1) == 'secret'", None, True),), "f")
    Judge(box).grade(asserts, ["code"])
    assert "secret" not in repr(box.inputs)


def test_an_answer_without_code_runs_nothing() -> None:
    box = Box(echo)
    none, some = Judge(box).grade(FOUR, [None, ""])
    assert {case.status for case in none.cases} == {Status.NO_CODE}
    assert not none.solved
    assert some.solved
    assert len(box.inputs) == 4


@pytest.mark.parametrize(
    "text", ["```python\n```", "```\n\n```", "<think>\n```python\nx = 1\n```\n</think>\n```\n```"]
)
def test_an_empty_block_solves_nothing_where_nothing_is_expected(text: str) -> None:
    judge, problem = Judge(Box(lambda *_: prints(""))), stdin_problem(("in", "", True))
    sample = Sample(Prompt(()), (), (), (), text, Finish.STOP, Policy("base", 0))
    extracted = judge.extract(problem, sample)
    (verdict,) = judge.grade(problem, [extracted.code])
    assert (extracted.code, verdict.solved) == (None, False)


@pytest.mark.parametrize(
    "status", [s for s in ExecutionStatus if s not in (ExecutionStatus.OK, ExecutionStatus.NOT_RUN)]
)
def test_a_run_that_failed_is_never_accepted_whatever_it_printed(status: ExecutionStatus) -> None:
    box = Box(lambda program, given: Execution(status, stdout=given.stdin, stderr="why"))
    (verdict,) = Judge(box).grade(FOUR, ["code"], thorough=True)
    assert {case.status for case in verdict.cases} == {Status(status.value)}
    assert verdict.first_failure is not None
    assert not verdict.solved


def test_a_compile_error_stands_for_every_test_and_its_message_once() -> None:
    error = Execution(ExecutionStatus.COMPILE_ERROR, stderr="SyntaxError: line 1")
    (verdict,) = Judge(Box(lambda program, given: error)).grade(FOUR, ["("])
    assert {case.status for case in verdict.cases} == {Status.COMPILE_ERROR}
    assert [case.error for case in verdict.cases] == ["", "SyntaxError: line 1", "", ""]


def returns(*values: object) -> Execution:
    return Execution(ExecutionStatus.OK, exit_code=0, values=tuple(encode(value) for value in values))


FUNCTION = Problem("p", "s", Kind.FUNCTION, (TestCase([1, "a"], [1, [2]], True),), entry_point="f")


@pytest.mark.parametrize(
    ("result", "status", "output"),
    [
        (returns((1, (2,))), OK, ""),
        (returns([1, [3]]), WA, "[1, [3]]"),
        (returns(None), WA, "None"),
        (returns("[1, [2]]"), WA, "'[1, [2]]'"),
        (returns(), Status.RUNTIME_ERROR, ""),
        (returns([1, [2]], [1, [2]]), Status.RUNTIME_ERROR, "[1, [2]], [1, [2]]"),
        (Execution(ExecutionStatus.OK, values=("forged",)), WA, "(not a plain value)"),
        (Execution(ExecutionStatus.OK, values=('{"Liar": 1}',)), WA, "(not a plain value)"),
        (returns([10**5000]), WA, "(a value that holds a very large integer)"),
        (returns(1 << 999_999), WA, "(an integer of 1000000 bits)"),
        (returns(10**2000), WA, f"1{'0' * 2000}"),
    ],
)
def test_function_results_are_decoded_and_compared_here(
    result: Execution, status: Status, output: str
) -> None:
    box = Box(lambda program, given: result)
    (verdict,) = Judge(box).grade(FUNCTION, ["code"])
    assert verdict.cases[0].status is status
    assert verdict.cases[0].output == output
    assert box.inputs[0].calls[0].args == (1, "a")


def test_an_assert_is_decided_from_the_values_of_its_calls() -> None:
    problem = Problem(
        "p", "s", Kind.ASSERTS, (TestCase("assert f(1) == f(2) and f(1)", None, True),), entry_point="f"
    )
    right = Judge(Box(lambda program, given: returns(*[7 for _ in given.calls])))
    wrong = Judge(Box(lambda program, given: returns(7, 8, 7)))
    assert right.grade(problem, ["code"])[0].solved
    (case,) = wrong.grade(problem, ["code"])[0].cases
    assert (case.status, case.output) == (WA, "7, 8, 7")


def test_an_assert_of_another_form_is_the_problems_fault() -> None:
    problem = Problem("p", "s", Kind.ASSERTS, (TestCase("assert open('x')", None, True),), entry_point="f")
    with pytest.raises(ProblemError, match="open"):
        Judge(Box(echo)).grade(problem, ["code"])


def test_texts_are_capped_and_dropped_where_the_test_passed() -> None:
    box = Box(lambda program, given: Execution(ExecutionStatus.OK, stdout="x" * 10**6, stderr="e" * 10**6))
    (verdict,) = Judge(box).grade(stdin_problem(("i", "y", True), ("i", "x" * 10**6, True)), ["code"])
    failed, passed = verdict.cases
    assert (len(failed.output), len(failed.error)) == (4000, 4000)
    assert (passed.status, passed.output, passed.error) == (OK, "", "")


def breaks(times: int) -> Answer:
    left = [times]

    def answer(program: Program, given: BoxInput) -> Execution:
        if given.stdin == "v2" and left[0]:
            left[0] -= 1
            raise SandboxError("the daemon is gone")
        return echo(program, given)

    return answer


def test_a_broken_box_is_tried_again_and_leaves_no_trace_in_the_verdict() -> None:
    (verdict,) = Judge(Box(breaks(2)), Options(retries=2)).grade(FOUR, [""])
    assert verdict.solved


def test_a_box_that_stays_broken_raises_and_is_no_verdict() -> None:
    with pytest.raises(SandboxError, match="the daemon is gone"):
        Judge(Box(breaks(3)), Options(retries=2)).grade(FOUR, [""])


def test_a_sandbox_that_loses_results_is_broken() -> None:
    class Loses(Box):
        def run(self, *args: object, **kwargs: object) -> list[Execution]:
            return []

    with pytest.raises(SandboxError, match="0 results for 4 inputs"):
        Judge(Loses(echo)).grade(FOUR, [""])


def test_boxes_says_how_many_programs_run_at_the_same_time() -> None:
    barrier = threading.Barrier(3, timeout=10)

    def meet(program: Program, given: BoxInput) -> Execution:
        barrier.wait()  # passes only when three programs are here together
        return prints(given.stdin)

    verdicts = Judge(Box(meet), Options(boxes=3)).grade(stdin_problem(("a", "a", True)), ["1", "2", "3"])
    assert [verdict.solved for verdict in verdicts] == [True, True, True]


def test_verdicts_come_in_the_order_of_the_codes() -> None:
    verdicts = Judge(Box(echo)).grade(FOUR, ["v1", "", "h2", None, ""])
    assert [verdict.solved for verdict in verdicts] == [False, True, False, False, True]


TEN = stdin_problem(*((str(n), str(n), n < 2) for n in range(13)))


def test_mode_public_changes_nothing_and_all_quotes_everything() -> None:
    assert with_feedback_mode(TEN, "public", 0) is TEN
    assert not with_feedback_mode(TEN, "all", 0).has_hidden


def test_mode_paper_quotes_a_seeded_half_of_the_hidden_tests() -> None:
    halves = []
    for seed in (0, 0, 1):
        problem = with_feedback_mode(TEN, "paper", seed)
        assert [(test.input, test.expected) for test in problem.tests] == [
            (str(n), str(n)) for n in range(13)
        ]
        halves.append([n for n, test in enumerate(problem.tests) if test.visible])
    assert [len(half) for half in halves] == [6, 6, 6]  # of 11 hidden ones, rounded up
    assert halves[0] == halves[1] != halves[2]
    assert not {0, 1} & {n for half in halves for n in half}  # public tests are left to confirm
    other = with_feedback_mode(replace(TEN, id="q"), "paper", 0)
    assert [n for n, test in enumerate(other.tests) if test.visible] != halves[0]


def test_mode_paper_solves_on_the_quoted_half_and_confirms_on_all() -> None:
    problem = with_feedback_mode(TEN, "paper", 0)
    held_out = next(test.input for test in problem.tests if not test.visible)
    quoted = next(test.input for test in problem.tests if test.visible)
    lookup, failing, right = Judge(Box(echo), quoted_half=True).grade(problem, [held_out, quoted, ""])
    assert (lookup.solved, lookup.confirmed) == (True, False)
    assert (failing.solved, failing.confirmed) == (False, False)
    assert (right.solved, right.confirmed) == (True, True)


def test_mode_paper_without_hidden_tests_is_refused() -> None:
    with pytest.raises(ConfigError, match="paper needs hidden tests"):
        with_feedback_mode(stdin_problem(("a", "a", True)), "paper", 0)


def test_the_checker_of_the_problem_decides() -> None:
    problem = stdin_problem(("i", json.dumps(1 / 3), True))
    box = Box(lambda program, given: prints("0.3333333"))
    assert not Judge(box).grade(problem, ["code"])[0].solved
    assert Judge(box).grade(replace(problem, checker=Checker("float", 1e-6)), ["code"])[0].solved


@pytest.mark.parametrize(
    ("entry_point", "code", "called"),
    [
        ("Solution.add", "def add(a, b): return a + b", "add"),
        ("Solution.add", "class Solution:\n    def add(self, a, b): return a + b", "Solution.add"),
        ("add", "class Solution:\n    def add(self, a, b): return a + b", "Solution.add"),
        ("add", "def add(a, b): return a + b", "add"),
        ("add", "def add(a, b: return", "add"),
        ("Solution.add", "x = 1", "Solution.add"),
        ("Solution.add", "class Other:\n    def add(self): pass", "Solution.add"),
    ],
)
def test_the_program_decides_whether_a_class_or_a_function_is_called(
    entry_point: str, code: str, called: str
) -> None:
    entries: list[str | None] = []

    def note(program: Program, given: BoxInput) -> Execution:
        entries.append(program.entry_point)
        return Execution(ExecutionStatus.OK, values=("3",))

    problem = Problem("p", "s", Kind.FUNCTION, (TestCase([1, 2], 3, True),), entry_point)
    Judge(Box(note)).grade(problem, [code])
    assert entries == [called]


def test_the_box_knows_how_long_a_right_answer_is() -> None:
    box = Box(echo)
    Judge(box).grade(stdin_problem(("a", "b" * 5000, True)), ["1"])
    assert box.inputs[0].output_bytes == 5000
