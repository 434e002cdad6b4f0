"""Formats of contest problems: tests, limits and faults arrive; files are recognised by their columns."""

import gzip
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sdpo_solve.datasets import load
from sdpo_solve.datasets.selection import Selected, Selection
from sdpo_solve.errors import ConfigError
from sdpo_solve.grading.checker_program import FAILING_REFUSES, UNUSABLE
from sdpo_solve.grading.checkers import texts_match
from sdpo_solve.sandboxes import languages
from sdpo_solve.types import Checker, Kind, Limits, Problem
from tests.helpers.rows import MBPP, never, row

APPS = {
    "problem_id": 7,
    "question": "Add two numbers.",
    "solutions": json.dumps(["print(sum(map(int, input().split())))"]),
    "input_output": json.dumps({"inputs": ["1 2\n", ["3 4"], "5 6"], "outputs": ["3\n", ["7"], "11"]}),
    "difficulty": "introductory",
    "starter_code": "",
}
TACO = {
    **{key: value for key, value in APPS.items() if key != "problem_id"},
    "difficulty": "EASY", "time_limit": "2.0 seconds", "memory_limit": "256.0 megabytes",
}  # fmt: skip
CODECONTESTS = {
    "name": "12_A. Sum",
    "description": "Add two numbers.",
    "public_tests": {"input": ["1 2"], "output": ["3"]},
    "private_tests": {"input": ["3 4"], "output": ["7"]},
    "generated_tests": {"input": ["5 6"], "output": ["11"]},
    "solutions": {"language": [2, 3], "solution": ["int main", "print(3)"]},
    "time_limit": {"seconds": 1, "nanos": 500000000},
    "memory_limit_bytes": 256 * 2**20,
    "input_file": "",
    "output_file": "",
}
CODEFORCES = {
    "id": "852/A",
    "title": "Sum",
    "description": "Add two numbers.",
    "input_format": "Two integers.",
    "output_format": "Their sum.",
    "interaction_format": None,
    "note": None,
    "time_limit": 2.0,
    "memory_limit": 256.0,
    "rating": 800,
    "input_mode": "stdio",
    "examples": [{"input": "1 2", "output": "3"}],
    "official_tests": [{"input": "1 2", "output": "3"}, {"input": "3 4", "output": "7"}],
    "generated_checker": None,
}
COMPANION = {
    "name": "A. Sum",
    "group": "Codeforces - Round 1",
    "url": "https://codeforces.com/problemset/problem/1/A",
    "interactive": False,
    "memoryLimit": 256,
    "timeLimit": 2000,
    "tests": [{"input": "1 2\n", "output": "3\n"}],
    "testType": "single",
    "input": {"type": "stdin"},
    "output": {"type": "stdout"},
    "languages": {},
    "batch": {"id": "x", "size": 1},
}
FUSION = {
    "id": 5,
    "content": "Add two numbers.",
    "labels": {"difficulty": "easy"},
    "test": [{"input": {"stdin": f"{n} 1"}, "output": {"stdout": f"{n + 1}"}} for n in range(3)],
}
ROWS = {
    "apps": APPS, "taco": TACO, "codecontests": CODECONTESTS, "codeforces": CODEFORCES,
    "companion": COMPANION, "sandboxfusion": FUSION,
}  # fmt: skip


def select(path: Path, *rows: object, scheme: str = "") -> Selected:
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8-sig")
    return load.load([f"{scheme}:{path}" if scheme else str(path)], Selection(), never)


def one(path: Path, data: object, scheme: str = "") -> Problem:
    return select(path, data, scheme=scheme).problems[0]


@pytest.mark.parametrize(
    ("scheme", "limits", "shown", "hidden"),
    [
        ("apps", Limits(), ["1 2\n", "3 4"], ["5 6"]),
        ("taco", Limits(2.0, 256), ["1 2\n", "3 4"], ["5 6"]),
        ("codecontests", Limits(1.5, 256), ["1 2"], ["3 4", "5 6"]),
        ("codeforces", Limits(2.0, 256), ["1 2"], ["3 4"]),
        ("companion", Limits(2.0, 256), ["1 2\n"], []),
        ("sandboxfusion", Limits(), ["0 1", "1 1"], ["2 1"]),
    ],
)
def test_rows_by_scheme_and_by_their_columns(
    scheme: str, limits: Limits, shown: list[str], hidden: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    problem = one(path, ROWS[scheme], scheme)
    assert one(path, ROWS[scheme]) == problem
    rules = {
        "codecontests": Checker("codecontests", ignore_case=True),
        **dict.fromkeys(("apps", "taco"), Checker("apps")),
    }
    checker = rules.get(scheme, Checker("tokens"))
    assert (problem.kind, problem.limits, problem.checker) == (Kind.STDIN, limits, checker)
    assert [test.input for test in problem.tests if test.visible] == shown
    assert [test.input for test in problem.tests if not test.visible] == hidden
    packed = tmp_path / "rows.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert list(load.load([str(packed)], Selection(), never).problems) == [problem]


def test_calls_of_apps_are_functions(tmp_path: Path) -> None:
    calls = {"fn_name": "add", "inputs": [[1, 2], [3, 4], [5, 6]], "outputs": [[3], [7], [11]]}
    problem = one(tmp_path / "rows.jsonl", {**APPS, "input_output": json.dumps(calls)})
    assert (problem.kind, problem.entry_point) == (Kind.FUNCTION, "add")
    assert [(test.input, test.expected) for test in problem.tests] == [([1, 2], 3), ([3, 4], 7), ([5, 6], 11)]
    starter = "class Solution:\n    def add(self, a: int, b: int) -> int:\n"
    changed = {**APPS, "input_output": json.dumps(calls), "starter_code": starter}
    assert one(tmp_path / "rows.jsonl", changed).entry_point == "Solution.add"
    assert "from typing import List" in problem.preamble  # solutions use it without importing it


@pytest.mark.parametrize(
    ("returned", "outputs", "expected"),
    [
        ("", [[[1, 2]], [[3]]], [[1, 2], [3]]),
        ("List[int]", [[1], [2]], [[1], [2]]),
        ("List[int]", [[[1]], [[2]]], [[1], [2]]),
        ("List[List[int]]", [[[1]], [[2]]], [[[1]], [[2]]]),
        ("bool", [[True], [False]], [True, False]),
    ],
)
def test_a_list_of_one_is_a_wrapping_unless_lists_are_returned(
    returned: str, outputs: list[Any], expected: list[Any], tmp_path: Path
) -> None:
    calls = {"fn_name": "pick", "inputs": [[1], [2]], "outputs": outputs}
    starter = f"class Solution:\n    def pick(self, a: int) -> {returned}:\n        " if returned else ""
    row = {**APPS, "input_output": json.dumps(calls), "starter_code": starter}
    assert [test.expected for test in one(tmp_path / "rows.jsonl", row).tests] == expected


def test_keys_that_spell_integers_are_integers_in_calls_of_apps(tmp_path: Path) -> None:
    calls = {
        "fn_name": "swap",
        "inputs": [[{"1": "a", "-2": "b"}], [{"x": 1}]],
        "outputs": [[{"3": 4}], [{"y": 1}]],
    }
    tests = one(tmp_path / "rows.jsonl", {**APPS, "input_output": json.dumps(calls)}).tests
    assert [(test.input, test.expected) for test in tests] == [
        ([{1: "a", -2: "b"}], {3: 4}),
        ([{"x": 1}], {"y": 1}),
    ]


@pytest.mark.parametrize("is_text", [True, False])
def test_integers_of_many_digits_are_read_whole(is_text: bool, tmp_path: Path) -> None:
    """Python's own reader refuses more than 4300 digits."""
    digits = "7" * 5000
    calls = (
        f'{{"fn_name": "same", "inputs": [[{digits}], [-{digits}]], "outputs": [[{digits}], [-{digits}]]}}'
    )
    row = json.dumps({**APPS, "input_output": calls if is_text else "CALLS"}).replace('"CALLS"', calls)
    big = 7 * (10**5000 - 1) // 9
    for name, text in (("rows.jsonl", row), ("rows.json", f"[{row}, {row.replace('7,', '8,', 1)}]")):
        (tmp_path / name).write_text(text)
        first, *others = load.load([f"apps:{tmp_path / name}"], Selection(), never).problems
        assert [(test.input, test.expected) for test in first.tests] == [([big], big), ([-big], -big)]
        assert len(others) == (name == "rows.json")


def test_integers_longer_than_boxes_allow_are_left_out_with_the_reason(tmp_path: Path) -> None:
    calls = f'{{"fn_name": "same", "inputs": [[1]], "outputs": [[{"7" * 60000}]]}}'
    bad = {**APPS, "problem_id": 99, "input_output": calls}
    taken = select(tmp_path / "rows.jsonl", APPS, bad, scheme="apps")
    assert "60000 digits" in taken.left_out["apps-99"]
    assert "not JSON" not in taken.left_out["apps-99"]


@pytest.mark.parametrize(
    ("scheme", "changes", "reason"),
    [
        ("codeforces", {"interaction_format": "Ask."}, "interactive"),
        ("codeforces", {"input_mode": "file"}, "file"),
        ("codecontests", {"input_file": "in.txt"}, "file"),
        ("codecontests", {"description": "If there are many, print any of them."}, "several outputs"),
        ("companion", {"interactive": True}, "interactive"),
        ("companion", {"input": {"type": "file", "fileName": "a.in"}}, "file"),
        ("apps", {"input_output": ""}, "no tests"),
        ("apps", {"input_output": "{"}, "input_output is not JSON"),
        ("apps", {"input_output": "{}"}, "no tests"),
        ("apps", {"starter_code": "def f(head: ListNode) -> int:"}, "ListNode"),
        ("sandboxfusion", {"test": [{"x": 1}]}, "not texts"),
        ("sandboxfusion", {"test": "assert add(1, 2) == 3"}, "not texts"),
    ],
)
def test_rows_that_cannot_be_judged_are_left_out_by_name(
    scheme: str, changes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    names = {"id": "other", "name": "other", "problem_id": "other"}
    bad = {**ROWS[scheme], **{key: name for key, name in names.items() if key in ROWS[scheme]}, **changes}
    taken = select(tmp_path / "rows.jsonl", ROWS[scheme], bad)
    assert len(taken.problems) == 1
    (left_out,) = taken.left_out.values()
    assert reason in left_out


def test_codecontests_as_its_own_converter_writes_it(tmp_path: Path) -> None:
    """Tests and solutions as lists of objects, the time limit as a protobuf Duration's text."""
    row = {
        **CODECONTESTS,
        "public_tests": [{"input": "1 2", "output": "3"}],
        "private_tests": [{"input": "3 4", "output": "7"}],
        "generated_tests": [],
        "solutions": [{"language": 2, "solution": "int main"}, {"language": 3, "solution": "print(3)"}],
        "time_limit": "seconds: 1\nnanos: 500000000\n",
        "memory_limit_bytes": str(256 * 2**20),
    }
    problem = one(tmp_path / "rows.jsonl", row)
    assert (problem.limits, problem.reference) == (Limits(1.5, 256), "print(3)")
    assert [(test.input, test.visible) for test in problem.tests] == [("1 2", True), ("3 4", False)]


def test_names_that_differ_in_other_characters_are_two_problems(tmp_path: Path) -> None:
    names = {"A+B": "a/1", "A/B": "a/2", "合計": "t/sum_a", "A - 合計": "t/sum_b"}
    rows = [{**COMPANION, "name": name, "url": f"https://judge.test/{at}"} for name, at in names.items()]
    found = select(tmp_path / "rows.jsonl", *rows).problems
    assert [problem.id for problem in found] == ["A-B-a-1", "A-B-a-2", "t-sum_a", "A----t-sum_b"]


GENERATED = (
    "import sys\n"
    "given, right, found = (list(map(int, open(name).read().split())) for name in sys.argv[1:])\n"
    "print(int(given == [2] and sorted(found) == sorted(right)))\n"
    "sys.exit(0)\n"
)


def generated(checker: str, output: str, folder: Path) -> tuple[int, str]:
    """Exit code and standard error of a generated checker on an output."""
    row = {**CODEFORCES, "generated_checker": checker, "note": "If there are many, print any of them."}
    found = one(folder / "rows.jsonl", row).checker
    form = languages.get("python").checker
    assert found.is_program
    assert found.program.startswith(FAILING_REFUSES)
    assert form is not None
    done = subprocess.run(
        [sys.executable, "-c", form.program(found.program)],
        input=form.stdin(["2", output, "1 2"]), text=True, cwd=folder, capture_output=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("output", "is_right"),
    [("2 1", True), ("1 2\n", True), ("3", False), ("", False), ("NO", False), ("1 2.5", False)],
)
def test_a_generated_checker_of_codeforces_decides(output: str, is_right: bool, tmp_path: Path) -> None:
    """One that crashes on an output, as on NO for a number, refuses it."""
    assert generated(GENERATED, output, tmp_path) == (0 if is_right else 1, "")


@pytest.mark.parametrize(
    ("checker", "code"),
    [
        ("print(1)", 0),
        ("import sys; sys.stdout.buffer.write(b'1'); sys.stdout.flush()", 0),
        ("import os; print(1, flush=True); os._exit(0)", 0),
        ("def main():\n    print(1)\n    exit()\nif __name__ == '__main__':\n    main()", 0),
        ("print(0)", 1),
        ("print(1); print(1)", 1),
        ("pass", 1),
        ("print(1); raise SystemExit(1)", 1),
        ("print(1); raise SystemExit('wrong')", 1),
        ("print(1); assert False", 1),
        ("import os; os._exit(0)", 1),
        ("def f(): f()\nf()", 1),
        ("eval('1 2')", 1),
        ("print(1", UNUSABLE),
        ("import no_such_module; print(1)", UNUSABLE),
    ],
)
def test_how_a_generated_checker_ends_is_its_word(checker: str, code: int, tmp_path: Path) -> None:
    """As open-r1's own judge has it: right is only exit code 0 and 1 printed. What cannot run is told."""
    found, error = generated(checker, "1 2", tmp_path)
    assert found == code
    assert bool(error) == (code == UNUSABLE)


def test_a_contest_and_a_folder_of_competitive_companion(tmp_path: Path) -> None:
    (tmp_path / "contest.json").write_text(json.dumps([COMPANION, {**COMPANION, "name": "B. Other"}]))
    found = load.load([str(tmp_path / "contest.json")], Selection(), never).problems
    assert [problem.id for problem in found] == ["A.-Sum", "B.-Other"]
    (tmp_path / "contest.md").write_text("Add the numbers.")
    assert (
        load.load([f"companion:{tmp_path}"], Selection(), never).problems[0].statement == "Add the numbers."
    )


def test_a_granted_error_becomes_a_tolerance(tmp_path: Path) -> None:
    statement = "The absolute error must not exceed 10^{-6}."
    for data in ({**CODEFORCES, "note": statement}, {**FUSION, "content": statement}):
        checker = one(tmp_path / "r.jsonl", data).checker
        assert checker == Checker("float", 1e-6)
        assert texts_match(checker, "2", "2.0000001")
    checker = one(tmp_path / "r.jsonl", {**APPS, "question": statement}).checker
    assert checker == Checker("apps", 1e-6)


def test_a_granted_error_only_widens_the_data_sets_own_rule(tmp_path: Path) -> None:
    """CodeContests takes numbers less than 1e-5 apart, integers written as decimals too."""
    for power in (9, 6, 3):
        statement = f"The absolute or relative error must not exceed 10^{{-{power}}}."
        checker = one(tmp_path / "r.jsonl", {**CODECONTESTS, "description": statement}).checker
        assert checker == Checker("codecontests", 10.0**-power, ignore_case=True)
        assert texts_match(checker, "0.333333", "0.33333")
        assert texts_match(checker, "123456789.5", "123456789.7") is (power < 9)  # relative: 1.6e-9
    for expected, output in (("2", "2.0000000001"), ("10", "9.999999999"), ("3.14159", "3.1415926535")):
        assert texts_match(checker, expected, output)
    assert texts_match(checker, "0.5", "0.5009")


IN_ANY_CASE = [
    "You can print each letter in any case (upper or lower).",
    "You can print each letter in any register.",
    'You can output the answer in any case (for example, "yEs" and "Yes" are positive responses).',
    'You may print every letter in any case you want (so, for example, the strings "yEs" and "yes" are fine).',
    "You can print YES and NO in any case.",
    "You may print each character in uppercase or lowercase.",
    "You may output letters in either upper or lower case.",
    "Print the answer (case-insensitive).",
    "The output is not case-sensitive.",
    "The case of letters in the output does not matter.",
    'Strings "yEs", "yes" and "YES" will be recognized as positive.',
    "Letters can be printed\nin any case.",
    "Print YES or NO (in any case).",
    "Print YES or NO; uppercase or lowercase letters are both accepted.",
    "Both upper and lower case are accepted in the answer.",
    "The text goes on\n" * 50 + "without a full stop\nYou can print each letter in any case",
]
IN_ONE_CASE = [
    "Print Yes or No.",
    "In any case, print the number of pairs.",
    "Print -1 in any case where there is none.",
    "You can assume that in any case the answer fits into 64 bits.",
    "The string consists of upper or lower case letters. Print its length.",
    "Write the word in upper or lower case, whichever needs fewer changes.",
    "Print the words sorted case-insensitively.",
    "The case of letters does not matter when names are compared. Print the first name.",
    "The answer is case-sensitive. Print Yes or No.",
    "A password of uppercase and lowercase letters is accepted. Print Yes or No.",
    "Print an answer for each test case.",
    "You can print any string of upper or lower case letters.",
]


@pytest.mark.parametrize("scheme", ["apps", "codeforces", "companion", "sandboxfusion", "codecontests"])
def test_letters_may_be_in_any_case_where_the_statement_grants_it(scheme: str, tmp_path: Path) -> None:
    column = {"apps": "question", "companion": "name", "sandboxfusion": "content"}.get(scheme, "description")
    for sentences, is_granted in ((IN_ANY_CASE, True), (IN_ONE_CASE, scheme == "codecontests")):
        for sentence in sentences:
            row = {**ROWS[scheme], column: f"Print YES if so. {sentence} Then stop."}
            checker = one(tmp_path / "rows.jsonl", row).checker
            assert checker.ignore_case is is_granted, sentence
            assert texts_match(checker, "YES", "Yes") is is_granted


def test_codecontests_compares_as_its_own_grader(tmp_path: Path) -> None:
    checker = one(tmp_path / "rows.jsonl", CODECONTESTS).checker
    for output, is_right in (
        ("possible 0.333333", True),
        ("POSSIBLE\n.33334", True),
        ("POSSIBLE 0.4", False),
    ):
        assert texts_match(checker, "Possible 0.33333333", output) is is_right


def test_a_granted_error_and_any_case_together(tmp_path: Path) -> None:
    statement = "Print No, or the value with an error of at most 1e-6. You can print letters in any case."
    checker = one(tmp_path / "r.jsonl", {**FUSION, "content": statement}).checker
    assert checker == Checker("float", 1e-6, ignore_case=True)
    assert texts_match(checker, "No 0.5", "NO 0.50000001")


# Columns that a sound row does not have; what is said of the row, or its limits where it is still sound.
ODD: list[tuple[str, dict[str, Any], str | Limits]] = [
    ("taco", {"memory_limit": math.nan}, Limits(2.0)),
    ("taco", {"time_limit": math.inf}, Limits(memory_mb=256)),
    ("taco", {"time_limit": "1e999 seconds", "memory_limit": "nan"}, Limits()),
    ("taco", {"time_limit": [1], "memory_limit": {"mb": 1}}, Limits()),
    ("codecontests", {"memory_limit_bytes": -math.inf}, Limits(1.5)),
    ("codecontests", {"time_limit": {"seconds": math.nan}}, Limits(memory_mb=256)),
    ("codeforces", {"time_limit": 10**400}, Limits(memory_mb=256)),
    ("codecontests", {"public_tests": 5}, "a list is due"),
    ("codecontests", {"private_tests": {"input": 5, "output": ["7"]}}, "a list is due"),
    ("codecontests", {"private_tests": {"input": "12", "output": "34"}}, "a list is due"),
    ("codecontests", {"solutions": True}, "a list is due"),
    ("codeforces", {"examples": "1 2"}, "a list is due"),
    ("codeforces", {"official_tests": 1.5}, "a list is due"),
    ("apps", {"input_output": {"inputs": 5, "outputs": [1]}}, "a list is due"),
    ("apps", {"input_output": {"inputs": "12", "outputs": "34"}}, "a list is due"),
    ("apps", {"input_output": {"inputs": [1], "outputs": {"a": 1}}}, "a list is due"),
]


@pytest.mark.parametrize(("scheme", "changes", "found"), ODD)
def test_an_odd_row_ends_nothing(
    scheme: str, changes: dict[str, Any], found: str | Limits, tmp_path: Path
) -> None:
    names = {"id": "other", "name": "other", "problem_id": "other"}
    odd = {**ROWS[scheme], **{key: name for key, name in names.items() if key in ROWS[scheme]}, **changes}
    taken = select(tmp_path / "rows.jsonl", ROWS[scheme], odd, scheme=scheme)
    if isinstance(found, Limits):
        assert [problem.limits for problem in taken.problems][1:] == [found]
    else:
        (name,) = taken.broken
        assert "rows.jsonl: line 2: its columns are not as the data set has them (" in taken.left_out[name]
        assert found in taken.left_out[name]


def test_benchmarks_are_recognised_and_unknown_rows_list_what_was_seen(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    assert one(path, row()).id == "abc001_a"
    assert one(path, MBPP).id == "mbpp-11"
    with pytest.raises(ConfigError, match=r"columns: colour, size.*taco:FILE.*lcb:v6"):
        select(path, {"colour": "red", "size": 3})


@pytest.mark.parametrize("blank", ["", " \n", None, "[]"])
def test_a_row_of_apps_without_solutions_has_no_reference(blank: str | None, tmp_path: Path) -> None:
    """A quarter of the test split has none."""
    problem = one(tmp_path / "rows.jsonl", {**APPS, "solutions": blank}, "apps")
    assert problem.reference is None
    assert len(problem.tests) == 3


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"input_output": ""}, "no tests"),
        ({"input_output": "{}"}, "no tests"),
        ({"input_output": "{torn"}, "not JSON"),
        ({"starter_code": "class Solution:\n    def least(self, a):\n        "}, "do not name the function"),
    ],
)
def test_rows_of_apps_that_cannot_be_judged_are_left_out(
    changes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    bad = {**APPS, "problem_id": 99, **changes}
    taken = select(tmp_path / "rows.jsonl", APPS, bad, scheme="apps")
    assert len(taken.problems) == 1
    assert reason in taken.left_out["apps-99"]
    assert taken.broken == ()
