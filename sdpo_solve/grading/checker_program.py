"""Checkers that are programs: run in a box of their own, with input, output and expected answer as files.

Arguments and exit codes are those of testlib (https://github.com/MikeMirzayanov/testlib): `checker INPUT
OUTPUT ANSWER`; 0: right; 1, 2, 4 and 8: wrong. Any other end, such as a crash or a time-out, is an error of
the problem, never a verdict. It is trusted like the problem file; the judged program is not in its box.

A checker that nobody has tried, such as a data set's generated one, begins with `FAILING_REFUSES`: an output
on which it crashes or does not come to an end is a wrong one, as the data set's own judge has it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sdpo_solve.errors import ProblemError
from sdpo_solve.protocols import Sandbox
from sdpo_solve.sandboxes import languages
from sdpo_solve.types import BoxInput, Checker, Execution, ExecutionStatus, Limits, Program

LIMITS = Limits(time_s=30.0, memory_mb=1024)
FAILING_REFUSES = "# sdpo-solve: an output on which this checker fails is wrong\n"
UNUSABLE = 3  # testlib's exit code for a checker at fault itself; FAILING_REFUSES does not hide it
_WRONG = (1, 2, 4, 8)
# An error of g++ or its linker, without the place: the checker is compiled inside a program around it.
_COMPILERS = re.compile(r"(?:fatal )?error: .*|undefined reference to .*")


@dataclass(frozen=True, slots=True)
class ToCheck:
    """What one run of the checker reads."""

    input: str
    output: str
    answer: str


def check(sandbox: Sandbox, problem_id: str, checker: Checker, items: Sequence[ToCheck]) -> list[bool]:
    """Whether each output is right.

    Raises ProblemError where the checker neither accepts nor refuses, and for a language without checkers;
    SandboxError where the box broke.
    """
    if not items:
        return []
    form = languages.get(checker.language).checker
    if form is None:
        raise ProblemError(f"{problem_id}: checkers cannot be written in {checker.language}")
    program = Program(form.program(checker.program), language=checker.language)
    inputs = [BoxInput(stdin=form.stdin([item.input, item.output, item.answer])) for item in items]
    refuses = checker.program.startswith(FAILING_REFUSES)
    return [_verdict(problem_id, each, refuses) for each in sandbox.run(program, inputs, LIMITS)]


def _verdict(problem_id: str, result: Execution, failing_refuses: bool) -> bool:
    if result.status is ExecutionStatus.OK and not result.exit_code:
        return True
    crashed = "Traceback (most recent call last)" in result.stderr
    if result.status is ExecutionStatus.RUNTIME_ERROR and result.exit_code in _WRONG and not crashed:
        return False
    started = result.status not in (ExecutionStatus.NOT_RUN, ExecutionStatus.COMPILE_ERROR)
    if failing_refuses and started and result.exit_code != UNUSABLE:
        return False
    raise ProblemError(
        f"{problem_id}: its checker failed ({result.status.value}): {_reason(result)[:200]}; mend the checker"
    )


def _reason(result: Execution) -> str:
    """One line on why a checker failed: a compiler's first error, else the last line of standard error."""
    if result.status is ExecutionStatus.COMPILE_ERROR and (first := _COMPILERS.search(result.stderr)):
        return first[0]
    lines = result.stderr.strip().splitlines()
    said = [line for line in lines if line and not line.startswith("the program ended with exit code")]
    return (said or [f"exit code {result.exit_code}"])[-1]
