"""The judge: a verdict on each program of a group, one case a test.

The sandbox runs a program on inputs and returns its outputs; they are compared here, on the host, so that no
program ever holds an expected answer. Visible tests run first; hidden ones only while they can change the
verdict. A box that breaks is tried again and then raises: it is never a verdict.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from pydantic import Field

from sdpo_solve.config import ExtractionRule, FeedbackMode, Free
from sdpo_solve.config import Options as BaseOptions
from sdpo_solve.errors import ConfigError, SandboxError
from sdpo_solve.grading import difference
from sdpo_solve.grading.asserts import ParsedAssert, parse, wire_bytes
from sdpo_solve.grading.checker_program import ToCheck, check
from sdpo_solve.grading.checkers import texts_match, values_match
from sdpo_solve.grading.extract import extract
from sdpo_solve.grading.python_source import entry_name, functions
from sdpo_solve.grading.python_source import parse as parse_source
from sdpo_solve.protocols import OnVerdict, Sandbox, StopAfter
from sdpo_solve.sandboxes import languages
from sdpo_solve.sandboxes.wire_values import NotPlain, decode
from sdpo_solve.sanitize import middle_cut
from sdpo_solve.types import (
    BoxInput,
    Call,
    Case,
    Difference,
    Execution,
    ExecutionStatus,
    Extracted,
    Kind,
    Problem,
    Program,
    Sample,
    Status,
    TestCase,
    Verdict,
)

_TEXT_CHARS = 4000


class Options(BaseOptions):
    """How programs are graded."""

    boxes: Free[int] = Field(
        default=2, ge=1, le=256, description="programs graded at the same time, each in its own box"
    )
    retries: Free[int] = Field(
        default=2, ge=0, le=10, description="fresh boxes tried for a program whose box broke"
    )


def with_feedback_mode(problem: Problem, mode: FeedbackMode, seed: int) -> Problem:
    """`problem` with the tests that feedback may quote under `mode` marked visible, all others held out.

    `public`: as the problem says. `all`: every test. `paper`: a random half of the hidden tests, rounded up,
    drawn from `seed` and the problem's id (arXiv 2601.20802: discoveries count on the half of the private
    tests that feedback quotes); the rest, public tests included, is left to confirm.
    Raises ConfigError for `paper` where there is no hidden test.
    """
    if mode == "public":
        return problem
    if mode == "all":
        return replace(problem, tests=tuple(replace(test, visible=True) for test in problem.tests))
    hidden = [number for number, test in enumerate(problem.tests) if not test.visible]
    if not hidden:
        raise ConfigError(f"{problem.id}: feedback mode paper needs hidden tests; choose public or all")
    quoted = set(random.Random(f"{seed}:{problem.id}").sample(hidden, (len(hidden) + 1) // 2))
    tests = (replace(test, visible=number in quoted) for number, test in enumerate(problem.tests))
    return replace(problem, tests=tuple(tests))


def check_language(problem: Problem, language: str) -> None:
    """Raises ConfigError for a problem whose tests are calls, where the programs can only read and write."""
    if not languages.get(language).makes_calls and problem.kind is not Kind.STDIN:
        raise ConfigError(
            f"{problem.id} is a problem of kind {problem.kind.value}, which needs --language python; "
            f"{language} programs read standard input"
        )


class Judge:
    """Grades groups of programs on a sandbox, several at a time. Implements `protocols.Grader`.

    `quoted_half`: the problems come from feedback mode `paper`, where the quotable tests decide `solved`.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        options: Options | None = None,
        *,
        quoted_half: bool = False,
        language: str = "python",
        rule: ExtractionRule = "program",
    ) -> None:
        self._sandbox = sandbox
        self._options = options or Options()
        self._quoted_half = quoted_half
        self._language = language
        self._rule = rule

    def grade(
        self,
        problem: Problem,
        codes_G: Sequence[str | None],
        *,
        thorough: bool = False,
        on_verdict: OnVerdict | None = None,
    ) -> list[Verdict]:
        """One verdict a code, in order; None stands for an answer without code.

        Every visible test runs. Hidden ones run when all visible ones passed, up to the first failure, or
        all with `thorough`. Raises SandboxError when a box broke again on every retry.
        """
        plan = _plan(problem)

        def judge_one(g: int) -> Verdict:
            verdict = self._verdict(problem, plan, codes_G[g], thorough)
            if on_verdict is not None:
                on_verdict(g, verdict)
            return verdict

        pool = ThreadPoolExecutor(max_workers=self._options.boxes, thread_name_prefix="judge")
        try:
            return list(pool.map(judge_one, range(len(codes_G))))
        finally:
            # Not waited for: after an interrupt, closing the sandbox ends what still runs.
            pool.shutdown(wait=False, cancel_futures=True)

    def extract(self, problem: Problem, sample: Sample) -> Extracted:
        """The program in a sample's answer, by the rule of the run."""
        entry_point = None if problem.kind is Kind.STDIN else problem.entry_point
        language = languages.get(self._language)
        return extract(sample.text, sample.finish, language, entry_point, self._rule)

    def _verdict(
        self, problem: Problem, plan: Sequence[_Planned], code: str | None, thorough: bool
    ) -> Verdict:
        if code is None:
            cases = [Case(n, Status.NO_CODE, test.visible) for n, test in enumerate(problem.tests)]
            return Verdict(tuple(cases), self._quoted_half)
        program = Program(code, _entry_point(problem, code), problem.preamble, self._language)
        for tries_left in range(self._options.retries, -1, -1):
            try:
                cases = self._run(problem, plan, program, thorough)
                break
            except SandboxError:
                if not tries_left:
                    raise
        return Verdict(tuple(sorted(cases, key=lambda case: case.index)), self._quoted_half)

    def _run(
        self, problem: Problem, plan: Sequence[_Planned], program: Program, thorough: bool
    ) -> list[Case]:
        """The cases of one program, in the order of the plan."""
        by_checker = problem.checker.is_program
        cases = (self._run_with_checker if by_checker else self._run_here)(problem, plan, program, thorough)
        broken = next((case for case in cases if case.status is Status.COMPILE_ERROR), None)
        if broken is not None:  # no test ran; the message stands once
            others = (replace(case, status=Status.COMPILE_ERROR, error="") for case in cases[1:])
            return [replace(cases[0], status=Status.COMPILE_ERROR, error=broken.error), *others]
        return cases

    def _run_here(
        self, problem: Problem, plan: Sequence[_Planned], program: Program, thorough: bool
    ) -> list[Case]:
        """The cases of one program, its outputs compared in this process as they come."""
        judged: dict[int, Case] = {}
        n_visible = sum(planned.test.visible for planned in plan)
        failed = False

        def stop_after(position: int, result: Execution) -> bool:
            nonlocal failed
            case = judged[position] = _case(problem, plan[position], result)
            failed = failed or case.status is not Status.ACCEPTED
            if case.status is Status.COMPILE_ERROR:
                return True
            return failed and not thorough and position + 1 >= n_visible

        results = self._results(problem, plan, program, stop_after)
        return [
            judged.get(position) or _case(problem, planned, result)
            for position, (planned, result) in enumerate(zip(plan, results, strict=True))
        ]

    def _run_with_checker(
        self, problem: Problem, plan: Sequence[_Planned], program: Program, thorough: bool
    ) -> list[Case]:
        """The cases of one program, the outputs of visible and then of hidden tests checked in a box of their
        own: what is hidden runs where all before was right, up to one that has no output to check.
        """

        def checked(part: Sequence[_Planned]) -> list[Case]:
            def stop_after(position: int, result: Execution) -> bool:
                goes_on = thorough or part[position].test.visible
                return not goes_on and result.status is not ExecutionStatus.OK

            results = self._results(problem, part, program, stop_after)
            ended = [n for n, result in enumerate(results) if result.status is ExecutionStatus.OK]
            items = [
                ToCheck(part[n].test.input, results[n].stdout, _text(part[n].test.expected)) for n in ended
            ]
            right = dict(zip(ended, check(self._sandbox, problem.id, problem.checker, items), strict=True))
            return [_case(problem, part[n], result, right.get(n)) for n, result in enumerate(results)]

        n_first = len(plan) if thorough else sum(planned.test.visible for planned in plan)
        cases = checked(plan[:n_first]) if n_first else []
        hidden = plan[n_first:]
        if hidden and all(case.status is Status.ACCEPTED for case in cases):
            return cases + checked(hidden)
        return cases + [Case(planned.index, Status.NOT_RUN, visible=False) for planned in hidden]

    def _results(
        self, problem: Problem, plan: Sequence[_Planned], program: Program, stop_after: StopAfter
    ) -> list[Execution]:
        results = self._sandbox.run(program, [each.given for each in plan], problem.limits, stop_after)
        if len(results) != len(plan):
            raise SandboxError(f"the sandbox returned {len(results)} results for {len(plan)} inputs")
        return results


def _entry_point(problem: Problem, code: str) -> str | None:
    """The entry point as the program defines it, bare or in a class (as LiveCodeBench decides it)."""
    tree = parse_source(code) if problem.entry_point is not None else None
    if problem.entry_point is None or tree is None:
        return problem.entry_point
    return entry_name(problem.entry_point, functions(tree)) or problem.entry_point


def _text(expected: object) -> str:
    return str(expected[0] if isinstance(expected, (list, tuple)) else expected)


# -- one test ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Planned:
    """A test with its place in the problem, what the box is given, and the host's half of an assert."""

    index: int
    test: TestCase
    given: BoxInput
    rest: ParsedAssert | None = None


def _plan(problem: Problem) -> list[_Planned]:
    """The tests in the order in which they run: visible ones first."""
    planned = [_planned(problem, index, test) for index, test in enumerate(problem.tests)]
    return sorted(planned, key=lambda item: not item.test.visible)


def _planned(problem: Problem, index: int, test: TestCase) -> _Planned:
    if problem.kind is Kind.STDIN:
        texts = test.expected if isinstance(test.expected, (list, tuple)) else [test.expected]
        n_bytes = max(len(text.encode(errors="replace")) for text in texts)
        return _Planned(index, test, BoxInput(stdin=test.input, output_bytes=n_bytes))
    if problem.kind is Kind.FUNCTION:
        n_bytes = wire_bytes(test.expected)
        return _Planned(index, test, BoxInput(calls=(Call(tuple(test.input)),), output_bytes=n_bytes))
    rest = parse(test.input, problem.entry_point or "")
    return _Planned(index, test, BoxInput(calls=rest.calls, output_bytes=rest.expected_bytes), rest)


def _case(problem: Problem, planned: _Planned, result: Execution, right: bool | None = None) -> Case:
    """`right`: what a checker program decided, None where the comparison is made here."""
    status = None if result.status is ExecutionStatus.OK else Status(result.status.value)
    values = None
    if problem.kind is not Kind.STDIN:
        values = _values(result)
        if status is None and len(result.values) != len(planned.given.calls):
            status = Status.RUNTIME_ERROR
    if status is None:
        right = _is_right(problem, planned, result.stdout, values) if right is None else right
        status = Status.ACCEPTED if right else Status.WRONG_ANSWER
    case = Case(
        index=planned.index,
        status=status,
        visible=planned.test.visible,
        cpu_s=result.cpu_s,
        wall_s=result.wall_s,
        peak_mb=result.peak_mb,
    )
    if status is Status.ACCEPTED:  # what a right answer printed is not worth its room
        return case
    output = result.stdout if problem.kind is Kind.STDIN else _shown(values)
    wrong = case.visible and status is Status.WRONG_ANSWER
    return replace(
        case,
        output=middle_cut(output, _TEXT_CHARS),
        error=middle_cut(result.stderr, _TEXT_CHARS),
        difference=_difference(problem, planned, result.stdout, values) if wrong else None,
    )


def _is_right(problem: Problem, planned: _Planned, stdout: str, values: Sequence[object] | None) -> bool:
    if problem.kind is Kind.STDIN:
        return texts_match(problem.checker, planned.test.expected, stdout)
    if values is None:
        return False
    if planned.rest is not None:
        return planned.rest.holds(values)
    return values_match(problem.checker, planned.test.expected, values[0])


def _difference(
    problem: Problem, planned: _Planned, stdout: str, values: Sequence[object] | None
) -> Difference | None:
    """Where the answer to a visible test is wrong; None for asserts, and where there is no answer."""
    expected = planned.test.expected
    if problem.checker.is_program:
        return None
    if problem.kind is Kind.STDIN:
        return difference.of_texts(problem.checker, expected, stdout)
    if problem.kind is Kind.FUNCTION and values:
        return difference.of_values(problem.checker, expected, values[0])
    return None


def _values(result: Execution) -> list[object] | None:
    """What the calls returned; None where a text is not in wire form, which only a forger writes."""
    try:
        return [decode(text) for text in result.values]
    except NotPlain:
        return None


def _shown(values: Sequence[object] | None) -> str:
    return "(not a plain value)" if values is None else ", ".join(map(difference.shown_value, values))
