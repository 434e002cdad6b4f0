"""MBPP, MBPP+, HumanEval and HumanEval+: which of them a file holds is read from its rows.

MBPP and HumanEval state asserts: all visible, but for MBPP's challenge tests; of a HumanEval check that loops
the calls are recorded. The plus editions of EvalPlus (https://github.com/evalplus/evalplus) hold inputs, for
which the row's own canonical solution gives the expected values, computed in the sandbox and kept on disk, or
a suite as Python text; base tests are visible, plus tests hidden. A row that cannot be held faithfully is
left out and named.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from sdpo_solve.datasets import Format
from sdpo_solve.datasets._evalplus_suite import NoSuite, is_suite, read_suite
from sdpo_solve.datasets._expected import Computed, compute
from sdpo_solve.datasets._mbpp_shapes import restore
from sdpo_solve.datasets._recorded import is_recordable, record
from sdpo_solve.datasets._rows import FileRow, row_candidates, safe_id
from sdpo_solve.datasets.selection import Candidate, Unfit
from sdpo_solve.errors import ProblemError
from sdpo_solve.grading.asserts import parse
from sdpo_solve.protocols import Sandbox
from sdpo_solve.sandboxes.wire_values import Match
from sdpo_solve.types import Call, Checker, Kind, Problem, Program, TestCase

_N_VISIBLE = 3  # of a suite that does not say which of its tests are public
_HUMANEVAL_STATEMENT = "Complete the function so that it does what its docstring says."
# Answers of these are compared as sets (EvalPlus, evalplus/eval/_special_oracle.py).
_AS_SETS = {
    *("similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly", "larg_nnum"),
    *("intersection_array", "find_dissimilar", "Diff"),
}
# Of these only whether they return something counts; the canonical ones return an re.Match (the same file).
_AS_NOT_NONE = {"check_str", "text_match_three", "text_starta_endb"}
_KNOWN_BAD = {
    "mbpp-164": "the statement and the canonical solution disagree",
    "mbpp-295": "the statement and the canonical solution disagree",
    "humaneval-32": "any root within a tolerance is right, the tests hold one",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _BenchmarkRow(FileRow):
    """One row with its id as a directory name."""

    id: str

    def text(self, *names: str) -> str:
        """The first of these columns that the row has. Raises ProblemError where it has none."""
        for name in names:
            if isinstance(self.data.get(name), str):
                return str(self.data[name])
        raise ProblemError(
            f"{self.place}: {' or '.join(names)} is missing or no text; see the data set's rows"
        )

    def items(self, name: str) -> list[Any]:
        """A column that is a list, empty where the row has none."""
        items = self.data.get(name) or []  # MBPP+ writes {} where a row has no plus tests
        if not isinstance(items, list):
            raise ProblemError(f"{self.place}: {name} is not a list; see the data set's rows")
        return items

    def unfit(self, reason: str) -> Unfit:
        """The row cannot be held faithfully."""
        return Unfit(f"{self.place}: {self.id}", reason)


class Mbpp(Format):
    """A file of rows of MBPP or HumanEval, plain or plus."""

    schemes: ClassVar = {"mbpp": "mbpp:FILE", "humaneval": "humaneval:FILE"}
    columns: ClassVar = frozenset({"task_id"})

    @classmethod
    def candidates(cls, source: str, sandbox: Callable[[], Sandbox]) -> Iterator[Candidate]:
        """The sandbox is started when a problem is made whose expected values must be computed.

        Raises ProblemError for a bad file; making a problem raises SandboxError too.
        """

        def candidate(raw: FileRow, _: int) -> Candidate:
            row = _benchmark_row(raw)
            make = raw.later(lambda again: _problem(_benchmark_row(again), sandbox))
            return Candidate(make, row.id, str(row.data["task_id"]), fault=_KNOWN_BAD.get(row.id))

        return row_candidates(Path(source), candidate)


PLUGIN = Mbpp


def _benchmark_row(row: FileRow) -> _BenchmarkRow:
    task = row.data.get("task_id")
    if isinstance(task, bool) or not isinstance(task, (int, str)):
        raise ProblemError(f"{row.place}: not a row of MBPP or HumanEval; expected an object with task_id")
    name = f"mbpp-{task}" if isinstance(task, int) else task.lower()
    return _BenchmarkRow(row.data, row.place, id=safe_id(name, row.place))


# -- rows as problems --------------------------------------------------------------------


def _problem(row: _BenchmarkRow, sandbox: Callable[[], Sandbox]) -> Problem:
    if "plus_input" in row.data:
        return _plus(row, sandbox)
    if is_suite(str(row.data.get("test"))):
        return _suite(row, sandbox)
    if "test_list" in row.data:
        return _mbpp(row)
    if "test" in row.data:
        return _humaneval(row, sandbox)
    raise ProblemError(f"{row.place}: neither plus_input, test_list nor test; expected MBPP or HumanEval")


def _mbpp(row: _BenchmarkRow) -> Problem:
    """A row of MBPP: the text with its first assert is the statement, as the data set's authors prompt."""
    code = row.text("code")
    visible, hidden = row.items("test_list"), row.items("challenge_test_list")
    if not visible:
        raise row.unfit("it has no tests")
    entry_point = _called(row, code, str(visible[0]))
    texts = [*((text, True) for text in visible), *((text, False) for text in hidden)]
    tests = _asserts(row, texts, entry_point)
    statement = f"{row.text('text', 'prompt').strip()}\n{visible[0]}"
    return Problem(
        id=row.id,
        statement=statement,
        kind=Kind.ASSERTS,
        tests=tests,
        entry_point=entry_point,
        reference=code,
        preamble=_head(row, entry_point),
        meta=_meta(row),
    )


def _head(row: _BenchmarkRow, entry_point: str) -> str:
    """What stands before an answer: MBPP's imports and set-up, HumanEval's prompt up to the function."""
    prompt = row.data.get("prompt")
    if not row.id.startswith("humaneval") or not isinstance(prompt, str):
        setup = row.data.get("test_setup_code") or ""
        return "\n".join([*map(str, row.items("test_imports")), str(setup)]).strip()
    return re.split(rf"^def {re.escape(entry_point)}\b", prompt, maxsplit=1, flags=re.MULTILINE)[0].strip()


def _suite(row: _BenchmarkRow, sandbox: Callable[[], Sandbox]) -> Problem:
    """A row whose suite is Python text: the hub's MBPP+ and HumanEvalPlus-OriginFmt; the suite is hidden."""
    try:
        suite = read_suite(row.text("test"))
    except NoSuite as exc:
        raise row.unfit(str(exc)) from None
    expected = suite.expected
    if suite.reference is not None:
        computed = compute(suite.reference, [Call(tuple(args)) for args in suite.inputs], sandbox)
        if not isinstance(computed, Computed):
            raise row.unfit(f"its ref_func fails on input {computed.index}: {computed.error}")
        expected = list(computed.values)
    hidden = [TestCase(args, value, False) for args, value in zip(suite.inputs, expected or [], strict=True)]
    is_mbpp = "test_list" in row.data
    if is_mbpp:
        texts = [str(text) for text in row.items("test_list")]
        entry_point = _called(row, row.text("code"), "\n".join(texts[:1]))
        visible = list(filter(None, (_function_test(text, entry_point) for text in texts)))
        statement = f"{row.text('text', 'prompt').strip()}\n{''.join(texts[:1])}"
        reference = row.text("code")
    else:  # which inputs are HumanEval's own is not said; the first ones are
        entry_point, statement = row.text("entry_point"), _HUMANEVAL_STATEMENT
        visible = [replace(test, visible=True) for test in hidden[:_N_VISIBLE]]
        hidden = hidden[_N_VISIBLE:]
        reference = row.text("prompt") + row.text("canonical_solution")
    return Problem(
        id=row.id,
        statement=statement,
        kind=Kind.FUNCTION,
        tests=(*visible, *hidden),
        entry_point=entry_point,
        starter_code=None if is_mbpp else row.text("prompt").strip("\n"),
        checker=suite.checker,
        reference=reference,
        preamble=_head(row, entry_point),
        meta=_meta(row),
    )


def _function_test(text: str, entry_point: str) -> TestCase | None:
    """`assert f(ARGS) == VALUE` as a visible test of a call; None for other asserts."""
    try:
        parsed = parse(text, entry_point)
    except ProblemError:
        return None
    if len(parsed.calls) != 1 or len(parsed.constants) != 1 or parsed.calls[0].kwargs:
        return None
    return TestCase(list(parsed.calls[0].args), parsed.constants[0], visible=True)


def _humaneval(row: _BenchmarkRow, sandbox: Callable[[], Sandbox]) -> Problem:
    """A row of HumanEval: the asserts of its `check(candidate)`, or the calls of one that loops."""
    prompt, entry_point = row.text("prompt"), row.text("entry_point")
    reference = prompt + row.text("canonical_solution")
    body = _check_body(row)
    if all(isinstance(statement, (ast.Assert, ast.Expr, ast.Pass)) for statement in body):
        kind, tests, checker = Kind.ASSERTS, _asserts_of_check(row, body, entry_point), Checker()
    elif is_recordable(body):
        recorded = record(reference, entry_point, row.text("test"), sandbox)
        if not isinstance(recorded, list):
            raise row.unfit(f"its canonical solution fails its tests: {recorded.error}")
        kind, tests, checker = Kind.FUNCTION, tuple(recorded), Checker("python")
    else:
        raise row.unfit("its tests are more than asserts")
    return Problem(
        id=row.id,
        statement=_HUMANEVAL_STATEMENT,
        kind=kind,
        tests=tests,
        entry_point=entry_point,
        starter_code=prompt.strip("\n"),
        checker=checker,
        reference=reference,
        preamble=_head(row, entry_point),
        meta=_meta(row),
    )


def _asserts_of_check(row: _BenchmarkRow, body: Sequence[ast.stmt], entry_point: str) -> tuple[TestCase, ...]:
    asserts = (ast.unparse(statement) for statement in body if isinstance(statement, ast.Assert))
    texts = (re.sub(r"\bcandidate\b", entry_point, text) for text in asserts)
    return _asserts(row, [(text, True) for text in texts if entry_point in text], entry_point)


def _check_body(row: _BenchmarkRow) -> list[ast.stmt]:
    try:
        tree = ast.parse(row.text("test"))
    except (SyntaxError, ValueError, RecursionError) as exc:
        raise row.unfit(f"its tests do not parse: {type(exc).__name__}") from None
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "check":
            return node.body
    raise row.unfit("its tests define no function check")


def _plus(row: _BenchmarkRow, sandbox: Callable[[], Sandbox]) -> Problem:
    """A row of EvalPlus: expected values are those that its canonical solution returns."""
    entry_point, prompt = row.text("entry_point"), row.text("prompt")
    is_mbpp = row.id.startswith("mbpp")
    reference = row.text("canonical_solution") if is_mbpp else prompt + row.text("canonical_solution")
    number = int(re.sub(r"\D", "", row.id) or -1) if is_mbpp else -1
    base, plus = (
        [restore(number, args) for args in row.items(name)] for name in ("base_input", "plus_input")
    )
    calls = [Call(tuple(args)) for args in (*base, *plus)]
    computed = compute(Program(reference, entry_point), calls, sandbox)
    if not isinstance(computed, Computed):
        raise row.unfit(f"its canonical solution fails on input {computed.index}: {computed.error}")
    values = list(computed.values)
    checker = _plus_checker(row, entry_point if is_mbpp else "")
    if checker.name == "not-none":
        values = [value if isinstance(value, bool) else value is not None for value in values]
    elif any(isinstance(value, Match) for value in values):
        raise row.unfit("its canonical solution returns an re.Match")
    tests = [
        TestCase(list(call.args), value, visible=place < len(base))
        for place, (call, value) in enumerate(zip(calls, values, strict=True))
    ]
    return Problem(
        id=row.id,
        statement=_docstring(prompt) if is_mbpp else _HUMANEVAL_STATEMENT,
        kind=Kind.FUNCTION,
        tests=tuple(tests),
        entry_point=entry_point,
        starter_code=None if is_mbpp else prompt.strip("\n"),
        checker=checker,
        reference=reference,
        preamble="" if is_mbpp else _head(row, entry_point),
        meta=_meta(row),
    )


def _plus_checker(row: _BenchmarkRow, entry_point: str) -> Checker:
    """EvalPlus's special cases of MBPP+, or its usual rule. Raises ProblemError for a bad `atol`."""
    if entry_point in _AS_SETS:
        return Checker("set")
    if entry_point in _AS_NOT_NONE:
        return Checker("not-none")
    tolerance = float(row.data.get("atol") or 0.0)
    if not 0 <= tolerance < math.inf:
        raise ProblemError(f"{row.place}: atol is {tolerance}; expected a tolerance such as 1e-6")
    return Checker("python", tolerance)


def _docstring(prompt: str) -> str:
    """The text of an MBPP+ prompt, which is a docstring."""
    return prompt.strip().removeprefix('"""').removesuffix('"""').strip()


def _meta(row: _BenchmarkRow) -> dict[str, Any]:
    return {"source": row.id.partition("-")[0], "task_id": row.data["task_id"]}


def _asserts(
    row: _BenchmarkRow, texts: Sequence[tuple[object, bool]], entry_point: str
) -> tuple[TestCase, ...]:
    """`texts`: asserts, and whether each is visible. Raises Unfit for an assert that the judge
    cannot split between box and host.
    """
    tests = []
    for text, visible in texts:
        try:
            parse(str(text), entry_point)
        except ProblemError as exc:
            raise row.unfit(str(exc)) from None
        tests.append(TestCase(str(text), None, visible))
    if not tests:
        raise row.unfit("it has no tests")
    return tuple(tests)


def _called(row: _BenchmarkRow, code: str, text: str) -> str:
    """The function of `code` that the assert calls."""
    try:
        defined = {node.name for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)}
        calls = [node.func for node in ast.walk(ast.parse(text.strip())) if isinstance(node, ast.Call)]
    except (SyntaxError, ValueError, RecursionError) as exc:
        raise row.unfit(f"its code or its first assert does not parse: {type(exc).__name__}") from None
    for func in calls:
        if isinstance(func, ast.Name) and func.id in defined:
            return func.id
    raise row.unfit("its first assert calls no function of its code")
