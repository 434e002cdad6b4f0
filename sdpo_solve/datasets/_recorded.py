"""HumanEval's checks that loop or draw inputs, as tests of calls: those that `check` makes are recorded in a
box, with the row's own solution and a fixed seed.

Only a check whose every comparison is `candidate(...) == VALUE` is recorded: the value expected of a call is
then what the solution returned.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence

from sdpo_solve.datasets._expected import Computed, Failed, compute
from sdpo_solve.protocols import Sandbox
from sdpo_solve.types import Call, Program, TestCase

_ENTRY = "_recorded_calls"
_RECORDER = """

def {entry}():
    import copy, random
    random.seed(0)
    calls = []
    def candidate(*args):
        given = copy.deepcopy(list(args))
        calls.append([given, {solution}(*args)])
        return calls[-1][1]
    check(candidate)
    return calls
"""


def is_recordable(body: Sequence[ast.stmt]) -> bool:
    """Whether every use of `candidate` in the body of a check is a call that an assert compares with `==`."""
    nodes = [node for statement in body for node in ast.walk(statement)]
    asserts = [node for node in nodes if isinstance(node, ast.Assert)]
    uses = [node for node in nodes if isinstance(node, ast.Name) and node.id == "candidate"]
    return bool(asserts) and len(uses) == len(asserts) and all(map(_compares_a_call, asserts))


def _compares_a_call(statement: ast.Assert) -> bool:
    match statement.test:
        case ast.Compare(left=ast.Call(func=ast.Name(id="candidate"), keywords=[]), ops=[ast.Eq()]):
            return True
    return False


def record(
    solution: str, entry_point: str, test: str, sandbox: Callable[[], Sandbox]
) -> list[TestCase] | Failed:
    """The calls as visible tests. `test`: the source that defines `check`. Raises SandboxError."""
    recorder = _RECORDER.format(entry=_ENTRY, solution=entry_point)
    computed = compute(Program(f"{solution}\n\n{test}{recorder}", _ENTRY), [Call()], sandbox)
    if not isinstance(computed, Computed):
        return computed
    (calls,) = computed.values
    assert isinstance(calls, list)
    return [TestCase(args, value, True) for args, value in calls]
