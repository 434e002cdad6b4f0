"""What every sandbox must do: one list of behaviours, filled by the modules of this folder.

A behaviour is a function that takes a started sandbox. What a program is judged to be is not in here (see the
trials and the judge): a sandbox only says what came out.
"""

from collections.abc import Callable

from sdpo_solve.protocols import Sandbox
from sdpo_solve.sandboxes import wire_values
from sdpo_solve.types import BoxInput, Call, Execution, ExecutionStatus, Limits, Program

LIMITS = Limits(time_s=1.0, memory_mb=128)

Behaviour = Callable[[Sandbox], None]
BEHAVIOURS: dict[str, Behaviour] = {}
LANGUAGES: dict[str, str] = {}
"""Of behaviours that need another language than Python: which."""


def behaviour(function: Behaviour) -> Behaviour:
    BEHAVIOURS[function.__name__] = function
    return function


def needs_cpp(function: Behaviour) -> Behaviour:
    LANGUAGES[function.__name__] = "cpp"
    return function


def one(sandbox: Sandbox, code: str, stdin: str = "", limits: Limits = LIMITS) -> Execution:
    (result,) = sandbox.run(Program(code), [BoxInput(stdin)], limits)
    return result


def call(sandbox: Sandbox, code: str, *args: object, entry: str = "f", preamble: str = "") -> Execution:
    (result,) = sandbox.run(Program(code, entry, preamble), [BoxInput(calls=(Call(args),))], LIMITS)
    return result


def returned(result: Execution) -> list[object]:
    assert result.status is ExecutionStatus.OK, result
    return [wire_values.decode(text) for text in result.values]
