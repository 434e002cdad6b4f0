"""MBPP and HumanEval rows, plain and plus: tests, tuples restored, expected values from the canonical solution."""

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from sdpo_solve.datasets import mbpp, selection
from sdpo_solve.datasets._mbpp_shapes import restore
from sdpo_solve.datasets.selection import Selected, Selection, Unfit
from sdpo_solve.errors import ConfigError, ProblemError
from sdpo_solve.protocols import Sandbox, StopAfter
from sdpo_solve.sandboxes.wire_values import encode
from sdpo_solve.types import BoxInput, Checker, Execution, ExecutionStatus, Kind, Limits, Program
from tests.helpers.rows import MBPP, never

MBPP_PLUS = {
    "task_id": "Mbpp/11",
    "prompt": '"""\nWrite a function to double a number.\nassert double(2) == 4\n"""\n',
    "entry_point": "double",
    "canonical_solution": "\ndef double(x):\n    return 2 * x\n",
    "base_input": [[2], [-1]],
    "plus_input": [[0], [1.5]],
    "atol": 0,
}
HUMANEVAL = {
    "task_id": "HumanEval/99",
    "prompt": 'def twice(x: int) -> int:\n    """Double x."""\n',
    "entry_point": "twice",
    "canonical_solution": "    return 2 * x\n",
    "test": "\n\nMETADATA = {'author': 'me'}\n\n\ndef check(candidate):\n    assert True, 'runs'\n"
    "    assert candidate(2) == 4, 'two'\n    assert abs(candidate(0.5) - 1) < 1e-6\n",
}


class Box:
    """Runs trusted code of these tests in this process, one namespace an input; counts its runs."""

    def __init__(self) -> None:
        self.n_runs = 0

    def run(
        self,
        program: Program,
        inputs: Sequence[BoxInput],
        limits: Limits,
        stop_after: StopAfter | None = None,
    ) -> list[Execution]:
        self.n_runs += 1
        return [self._one(program, given) for given in inputs]

    def _one(self, program: Program, given: BoxInput) -> Execution:
        space: dict[str, Any] = {}
        exec(program.code, space)
        values: list[str] = []
        try:
            for call in given.calls:
                values.append(encode(space[program.entry_point or ""](*call.args, **call.kwargs)))
        except ZeroDivisionError as exc:
            return Execution(
                ExecutionStatus.RUNTIME_ERROR, stderr=f"Traceback\n{exc!r}", values=tuple(values)
            )
        return Execution(ExecutionStatus.OK, values=tuple(values))

    def identity(self) -> str:
        return "this process"

    def close(self) -> None:
        pass


def take(path: Path, sandbox: Callable[[], Sandbox], **fields: Any) -> Selected:
    found = mbpp.PLUGIN.candidates(str(path), sandbox)
    return selection.select(found, Selection(**fields), str(path))


def select(path: Path, *rows: object, **fields: Any) -> Selected:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return take(path, Box, **fields)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDPO_SOLVE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.jsonl"


def test_mbpp_states_asserts(path: Path) -> None:
    path.write_text(json.dumps(MBPP))
    (problem,) = take(path, never).problems
    assert (problem.id, problem.kind, problem.entry_point) == ("mbpp-11", Kind.ASSERTS, "double")
    assert problem.statement == "Write a function to double a number.\nassert double(2) == 4"
    assert [(test.input, test.visible) for test in problem.tests] == [
        ("assert double(2) == 4", True),
        ("assert double(-1) == -2", True),
        ("assert double(10**6) == 2 * 10**6", False),
    ]
    assert problem.reference == MBPP["code"]


def test_mbpp_plus_expects_what_the_canonical_solution_returns(path: Path) -> None:
    (problem,) = select(path, MBPP_PLUS).problems
    assert (problem.id, problem.kind, problem.checker) == ("mbpp-11", Kind.FUNCTION, Checker("python"))
    assert problem.statement == "Write a function to double a number.\nassert double(2) == 4"
    assert [(test.input, test.expected, test.visible) for test in problem.tests] == [
        ([2], 4, True),
        ([-1], -2, True),
        ([0], 0, False),
        ([1.5], 3.0, False),
    ]


def test_tolerances_and_comparisons_as_sets_are_the_rows_own(path: Path) -> None:
    (near,) = select(path, {**MBPP_PLUS, "atol": 0.0001}).problems
    assert near.checker == Checker("python", 0.0001)
    code = {"entry_point": "Diff", "canonical_solution": "def Diff(x): return [x]"}
    (as_set,) = select(path, {**MBPP_PLUS, **code}).problems
    assert as_set.checker == Checker("set")


def test_where_only_some_answer_is_due_a_match_is_one(path: Path) -> None:
    code = {
        "entry_point": "check_str",
        "canonical_solution": "import re\ndef check_str(x): return re.match('1', str(x))",
    }
    row = {**MBPP_PLUS, **code, "base_input": [[12]], "plus_input": [[3]]}
    (problem,) = select(path, row).problems
    assert problem.checker == Checker("not-none")
    assert [test.expected for test in problem.tests] == [True, False]
    row |= {
        "entry_point": "other",
        "canonical_solution": code["canonical_solution"].replace("check_str", "other"),
    }
    with pytest.raises(Unfit, match=r"its canonical solution returns an re\.Match"):
        select(path, row)


def test_humaneval_states_the_asserts_of_its_check(path: Path) -> None:
    (problem,) = select(path, HUMANEVAL).problems
    assert (problem.id, problem.kind, problem.entry_point) == ("humaneval-99", Kind.ASSERTS, "twice")
    assert problem.starter_code == 'def twice(x: int) -> int:\n    """Double x."""'
    assert [test.input for test in problem.tests] == [
        "assert twice(2) == 4, 'two'",
        "assert abs(twice(0.5) - 1) < 1e-06",
    ]
    assert problem.reference == 'def twice(x: int) -> int:\n    """Double x."""\n    return 2 * x\n'


def test_a_check_of_humaneval_that_loops_becomes_the_calls_it_makes(path: Path) -> None:
    test = (
        "def check(candidate):\n    import random\n    assert candidate([]) == []\n    for _ in range(3):\n"
        "        x = [random.randint(0, 99)]\n        assert candidate(x) == 2 * x, 'twice'\n"
    )
    (problem,) = select(path, {**HUMANEVAL, "test": test}).problems
    assert (problem.kind, problem.checker, problem.entry_point) == (Kind.FUNCTION, Checker("python"), "twice")
    first, *drawn = problem.tests
    assert (first.input, first.expected) == ([[]], [])
    assert [each.expected for each in drawn] == [2 * each.input[0] for each in drawn]
    assert len({each.input[0][0] for each in drawn}) > 1
    assert all(each.visible for each in problem.tests)
    assert select(path, {**HUMANEVAL, "test": test}).problems[0] == problem


def test_humaneval_plus_completes_its_prompt(path: Path) -> None:
    row = {**HUMANEVAL, "base_input": [[2]], "plus_input": [[3]], "atol": 0}
    (problem,) = select(path, row).problems
    assert problem.kind is Kind.FUNCTION
    assert [(test.input, test.expected) for test in problem.tests] == [([2], 4), ([3], 6)]
    assert problem.starter_code is not None
    assert "docstring" in problem.statement


@pytest.mark.parametrize(
    ("number", "args", "restored"),
    [
        (2, [[1, 2], []], [(1, 2), ()]),
        (63, [[[1, 2], [3]]], [[(1, 2), (3,)]]),
        (75, [[[1, 2]], 5], [[(1, 2)], 5]),
        (106, [[1], [2]], [[1], (2,)]),
        (307, [[1, [2]], 0, 3], [(1, [2]), 0, 3]),
        (259, [[[1, 2]], [[3]]], [((1, 2),), ((3,),)]),
        (278, [[1, [2, [3]]]], [(1, (2, [3]))]),
        (580, [[1, [2, [3]]]], [(1, (2, (3,)))]),
        (722, [{"a": [1, 2]}, 6.0, 70], [{"a": (1, 2)}, 6.0, 70]),
        (115, [[[1, 2], []]], [[{1, 2}, {}]]),
        (124, ["0", "1j"], [0.0, 1j]),
        (252, ["1+2j"], [1 + 2j]),
        (3, [[[1]]], [[[1]]]),
    ],
)
def test_what_json_lost_is_restored(number: int, args: list[Any], restored: list[Any]) -> None:
    found = restore(number, args)
    assert found == restored
    assert repr(found) == repr(restored)


@pytest.mark.parametrize("args", [5, "ab", {"a": 1}, None])
def test_arguments_that_are_no_list_are_refused(args: Any) -> None:
    with pytest.raises(TypeError, match="no list"):
        restore(3, args)


@pytest.mark.parametrize(
    ("sound", "changes"),
    [
        (MBPP, {"test_imports": 5}),
        (MBPP, {"test_imports": "import math"}),
        (MBPP, {"test_list": 5}),
        (MBPP_PLUS, {"base_input": [5]}),
        (MBPP_PLUS, {"plus_input": ["ab"]}),
        (MBPP_PLUS, {"plus_input": {"a": 1}}),
        (MBPP_PLUS, {"atol": "close"}),
        (MBPP_PLUS, {"atol": [1]}),
        (MBPP_PLUS, {"atol": float("nan")}),
        (MBPP_PLUS, {"atol": float("inf")}),
        (MBPP_PLUS, {"task_id": "Mbpp/252", "base_input": [["one"]]}),
        (MBPP_PLUS, {"task_id": "Mbpp/115", "base_input": [[[5]]]}),
    ],
)
def test_an_odd_row_is_left_out_by_its_name(
    sound: dict[str, Any], changes: dict[str, Any], path: Path
) -> None:
    odd = {**sound, "task_id": "Mbpp/99" if sound is MBPP_PLUS else 99, **changes}
    path.write_text("\n".join(map(json.dumps, (sound, odd))))
    taken = take(path, Box)
    assert taken.problems.ids == ("mbpp-11",)
    (name,) = taken.broken
    assert "line 2: " in taken.left_out[name]


def test_expected_values_are_computed_once(path: Path, tmp_path: Path) -> None:
    path.write_text(json.dumps(MBPP_PLUS))
    box = Box()
    first = take(path, lambda: box)
    again = take(path, never)
    assert list(again.problems) == list(first.problems)
    assert box.n_runs == 1
    (kept,) = (tmp_path / "cache" / "expected").iterdir()
    kept.write_text('["torn')
    assert list(take(path, lambda: box).problems) == list(first.problems)
    assert box.n_runs == 2


FAILING = {**MBPP_PLUS, "task_id": "Mbpp/12", "canonical_solution": "def double(x):\n    return 2 / x\n"}


def test_a_row_whose_own_solution_fails_is_left_out_and_named(path: Path) -> None:
    selected = select(path, MBPP_PLUS, FAILING)
    assert [problem.id for problem in selected.problems] == ["mbpp-11"]
    assert selected.left_out == {
        "mbpp-12": "its canonical solution fails on input 2: ZeroDivisionError('division by zero')"
    }
    with pytest.raises(ProblemError, match="line 2: mbpp-12: its canonical solution fails on input 2"):
        select(path, MBPP_PLUS, FAILING, ids=("Mbpp/12",))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"test_list": ["assert double(x) == 4"]}, "assert not supported"),
        ({"test_list": ["assert triple(2) == 4"]}, "calls no function of its code"),
        ({"test_list": []}, "no tests"),
        ({"code": "def double(:"}, "does not parse"),
    ],
)
def test_rows_that_do_not_fit_are_left_out_with_the_reason(
    changes: dict[str, Any], reason: str, path: Path
) -> None:
    selected = select(path, {**MBPP, "task_id": 1}, {**MBPP, **changes})
    assert [problem.id for problem in selected.problems] == ["mbpp-1"]
    assert reason in selected.left_out["mbpp-11"]


@pytest.mark.parametrize(
    "test",
    [
        "def check(candidate):\n    for x in range(3):\n        assert abs(candidate(x) - 2 * x) < 1e-6\n",
        "def check(candidate):\n    x = candidate(2)\n    assert candidate(2) == x\n",
        "def check(candidate):\n    for x in range(3):\n        assert candidate(x) == 1 // 0\n",
        "def check(candidate):\n    assert all(candidate(x) for x in [1])\n",
        "def test(candidate):\n    assert candidate(1) == 2\n",
        "def check(candidate):\n    pass\n",
        "def check(",
    ],
)
def test_humaneval_rows_with_other_tests_are_left_out(test: str, path: Path) -> None:
    selected = select(path, HUMANEVAL, {**HUMANEVAL, "task_id": "HumanEval/1", "test": test})
    assert list(selected.left_out) == ["humaneval-1"]


def test_selection_by_id_first_and_known_faults(path: Path) -> None:
    rows = [{**MBPP, "task_id": number} for number in (1, 164, 3)]
    assert [p.id for p in select(path, *rows).problems] == ["mbpp-1", "mbpp-3"]
    assert [p.id for p in select(path, *rows, ids=("164", "mbpp-3")).problems] == ["mbpp-164", "mbpp-3"]
    assert [p.id for p in select(path, *rows, first=1).problems] == ["mbpp-1"]
    with pytest.raises(ConfigError, match="no problem has the difficulty 'hard'"):
        select(path, *rows, difficulty=("hard",))


def test_gzip_and_json_lists_are_read_too(tmp_path: Path) -> None:
    packed = tmp_path / "rows.jsonl.gz"
    packed.write_bytes(gzip.compress(json.dumps(MBPP).encode()))
    plain = tmp_path / "rows.json"
    plain.write_text(json.dumps([MBPP]))
    assert list(take(packed, never).problems) == list(take(plain, never).problems)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "line 1: the row is not JSON"),
        ("[]", "line 1: not a JSON object"),
        ('{"task_id": true}', "line 1: not a row"),
        ('{"task_id": "//"}', "line 1: the id"),
        ('{"task_id": 1}', "line 1: neither plus_input"),
        ('{"task_id": 1, "test_list": "x", "code": ""}', "line 1: test_list is not a list"),
        ('{"task_id": 1, "test_list": ["assert f()"]}', "line 1: code is missing"),
    ],
)
def test_bad_rows_name_their_line(text: str, message: str, path: Path) -> None:
    path.write_text(text)
    with pytest.raises(ProblemError, match=message):
        take(path, Box)


def test_what_answers_may_use_stands_before_the_program(path: Path) -> None:
    row = {**MBPP, "test_imports": ["import math"], "test_setup_code": "root = 5"}
    assert select(path, row).problems[0].preamble == "import math\nroot = 5"
    head = "from typing import List\n\n\ndef helper(x):\n    return x\n\n\n"
    row = {**HUMANEVAL, "prompt": head + HUMANEVAL["prompt"]}
    for each in (row, {**row, "base_input": [[2]], "plus_input": [[3]], "atol": 0}):
        assert select(path, each).problems[0].preamble == head.strip()
    assert select(path, MBPP, HUMANEVAL).problems[1].preamble == ""


SUITE = """import numpy as np
from math import inf

def assertion(out, exp, atol):
    assert out == exp

inputs = [[2], [-1], [(1, 2.5)], [inf], [10**20]]
results = [4, -2, (1, 2.5, 1, 2.5), inf, 2 * 10**20]
for i, (inp, exp) in enumerate(zip(inputs, results)):
    assertion(double(*inp), exp, 0)
"""
HUB = {**MBPP, "test": SUITE, "test_imports": [], "prompt": "Double a number."}


def test_rows_of_the_hubs_mbpp_plus_have_the_suite_as_hidden_tests(path: Path) -> None:
    path.write_text(json.dumps(HUB))
    (problem,) = take(path, never).problems
    assert (problem.kind, problem.checker, problem.entry_point) == (
        Kind.FUNCTION,
        Checker("python"),
        "double",
    )
    assert [(test.input, test.expected) for test in problem.tests if test.visible] == [([2], 4), ([-1], -2)]
    hidden = [(test.input, test.expected) for test in problem.tests if not test.visible]
    assert hidden[2:] == [
        ([(1, 2.5)], (1, 2.5, 1, 2.5)),
        ([float("inf")], float("inf")),
        ([10**20], 2 * 10**20),
    ]
    assert "assert double(2) == 4" in problem.statement


@pytest.mark.parametrize(
    ("old", "new", "checker"),
    [
        ("double(*inp), exp, 0)", "double(*inp), exp, 1e-4)", Checker("python", 1e-4)),
        ("double(*inp), exp, 0)", "set(double(*inp)), set(exp), 0)", Checker("set")),
        ("double(*inp), exp, 0)", "double(*inp) is not None, exp, 0)", Checker("not-none")),
    ],
)
def test_suites_compare_as_they_say(path: Path, old: str, new: str, checker: Checker) -> None:
    path.write_text(json.dumps({**HUB, "test": SUITE.replace(old, new)}))
    assert take(path, never).problems[0].checker == checker


def test_a_suite_with_a_solution_of_its_own_is_computed(path: Path) -> None:
    loop = "for i, inp in enumerate(inputs):\n    assertion(double(*inp), ref_func(*inp), 0)\n"
    text = "def ref_func(x):\n    return x * 2\n\ninputs = [[1], [2]]\n" + loop
    (problem,) = select(path, {**HUB, "test": "def assertion(a, b, c): pass\n" + text}).problems
    assert [test.expected for test in problem.tests if not test.visible] == [2, 4]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("double(*inp), exp, 0)", "poly(double(*inp), inp) < 1, True, 0)", "in a way that is not known"),
        ("10**20]", "open(0)]", "no plain literals"),
        ("results = [4, ", "results = [", "one result an input"),
        ("results =", "outputs =", "neither results nor ref_func"),
    ],
)
def test_suites_of_other_forms_are_left_out(path: Path, old: str, new: str, reason: str) -> None:
    left_out = select(path, MBPP, {**HUB, "task_id": 12, "test": SUITE.replace(old, new)}).left_out
    assert reason in left_out["mbpp-12"]


def test_humaneval_plus_in_the_original_format_is_read(path: Path) -> None:
    body = "".join(f"    {line}\n" for line in SUITE.split("\n")[6:])
    check = "def assertion(out, exp, atol):\n    assert out == exp\n\n\ndef check(candidate):\n"
    test = check + body.replace("double(", "candidate(")
    path.write_text(json.dumps({**HUMANEVAL, "test": test}))
    (problem,) = take(path, never).problems
    assert (problem.kind, problem.entry_point, problem.checker) == (Kind.FUNCTION, "twice", Checker("python"))
    assert [test.visible for test in problem.tests] == [True] * 3 + [False] * 2
    assert problem.tests[3].expected == float("inf")
