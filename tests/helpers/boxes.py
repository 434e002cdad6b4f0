"""A sandbox whose results a function of the test gives."""

from collections.abc import Callable, Sequence

from sdpo_solve.protocols import StopAfter
from sdpo_solve.types import (
    BoxInput,
    Execution,
    ExecutionStatus,
    Kind,
    Limits,
    Problem,
    Program,
    TestCase,
)

Answer = Callable[[Program, BoxInput], Execution]


class Box:
    """A sandbox whose answers are given by a function; keeps what it was asked to run."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.inputs: list[BoxInput] = []

    def run(
        self,
        program: Program,
        inputs: Sequence[BoxInput],
        limits: Limits,
        stop_after: StopAfter | None = None,
    ) -> list[Execution]:
        results = [Execution(ExecutionStatus.NOT_RUN) for _ in inputs]
        for number, given in enumerate(inputs):
            self.inputs.append(given)
            results[number] = self._answer(program, given)
            if stop_after is not None and stop_after(number, results[number]):
                break
        return results

    def identity(self) -> str:
        return "box of a test"

    def close(self) -> None:
        pass


def prints(text: str) -> Execution:
    return Execution(ExecutionStatus.OK, stdout=text, exit_code=0)


def stdin_problem(*tests: tuple[str, str, bool]) -> Problem:
    return Problem("p", "statement", Kind.STDIN, tuple(TestCase(*test) for test in tests))


def echo(program: Program, given: BoxInput) -> Execution:
    """A program that answers with its input, but 'wrong' to inputs that its code lists."""
    return prints("wrong" if given.stdin in program.code.split() else given.stdin)
