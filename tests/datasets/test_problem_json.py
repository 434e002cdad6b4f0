"""A problem file is read as written, and a bad one is refused in one line: file, place, remedy."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from sdpo_solve.datasets import problem_json
from sdpo_solve.errors import ProblemError
from sdpo_solve.types import Checker, Kind, Limits

STDIN: dict[str, Any] = {
    "id": "sum-two",
    "statement": "Add two numbers.",
    "kind": "stdin",
    "tests": [
        {"input": "1 2\n", "expected": "3\n", "visible": True},
        {"input": "5 5\n", "expected": "10\n", "visible": False},
    ],
}
FUNCTION: dict[str, Any] = {
    "id": "half",
    "statement": "Halve a number.",
    "kind": "function",
    "entry_point": "half",
    "starter_code": "def half(x):\n    ",
    "tests": [{"input": [3], "expected": 1.5, "visible": True}],
    "limits": {"time_s": 2, "memory_mb": 64},
    "checker": {"float": 1e-6},
    "reference": "def half(x):\n    return x / 2\n",
}
ASSERTS: dict[str, Any] = {
    "id": "pair",
    "statement": "Return a pair.",
    "kind": "asserts",
    "entry_point": "pair",
    "tests": [{"input": "assert pair(1) == (1, 1)", "visible": True}],
}


def without(data: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key not in keys}


def with_test(data: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**data, "tests": [{**data["tests"][0], **changes}]}


def fault(text: str) -> str:
    with pytest.raises(ProblemError) as caught:
        problem_json.parse_text(text, "p.json")
    message = str(caught.value)
    assert message.startswith("p.json: ")
    assert "\n" not in message
    return message


def test_smallest_form_gets_the_defaults() -> None:
    problem = problem_json.parse_text(json.dumps(STDIN), "p.json")
    assert (problem.id, problem.kind, problem.limits) == ("sum-two", Kind.STDIN, Limits(6.0, 512))
    assert problem.checker == Checker("exact")
    assert [(t.input, t.expected, t.visible) for t in problem.tests] == [
        ("1 2\n", "3\n", True),
        ("5 5\n", "10\n", False),
    ]


def test_every_field_arrives() -> None:
    problem = problem_json.parse_text(json.dumps(FUNCTION), "p.json")
    assert problem.entry_point == "half"
    assert problem.limits == Limits(2, 64)
    assert problem.checker == Checker("float", 1e-6)
    assert problem.reference == FUNCTION["reference"]
    assert problem.starter_code == FUNCTION["starter_code"]


@pytest.mark.parametrize("data", [STDIN, FUNCTION, ASSERTS])
def test_dump_and_load_give_the_same_problem(data: dict[str, Any]) -> None:
    problem = problem_json.parse_text(json.dumps(data), "p.json")
    assert problem_json.parse_text(problem_json.dump(problem), "again") == problem


@pytest.mark.parametrize("data", [STDIN, FUNCTION, ASSERTS])
def test_the_published_schema_accepts_what_the_loader_accepts(data: dict[str, Any]) -> None:
    jsonschema.validate(data, problem_json.schema())


@pytest.mark.parametrize(
    "data",
    [
        without(STDIN, "kind"),
        without(FUNCTION, "entry_point"),
        {**STDIN, "tests": []},
        {**STDIN, "colour": "red"},
        with_test(STDIN, input=5),
        with_test(FUNCTION, input="not a list"),
        with_test(ASSERTS, expected=1),
        {**STDIN, "id": "../up"},
        {**STDIN, "checker": {"float": 0}},
        {**STDIN, "limits": {"time_s": 0}},
    ],
)
def test_schema_and_loader_refuse_the_same_files(data: dict[str, Any]) -> None:
    fault(json.dumps(data))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, problem_json.schema())


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(STDIN).encode())
    assert problem_json.load(path).id == "sum-two"


def test_checkers_of_tokens_and_programs_and_several_right_outputs(tmp_path: Path) -> None:
    (tmp_path / "check.py").write_text("import sys\n")
    (tmp_path / "check.cpp").write_text("#include <cstdio>\n")
    path = tmp_path / "p.json"

    def load(checker: object, **changes: Any) -> Any:
        path.write_text(json.dumps({**with_test(STDIN, **changes), "checker": checker}))
        jsonschema.validate(json.loads(path.read_text()), problem_json.schema())
        problem = problem_json.load(path)
        assert problem_json.parse_text(problem_json.dump(problem), "again") == problem
        return problem

    assert load({"tokens": {"case": "ignore"}}).checker == Checker("tokens", ignore_case=True)
    assert load({"program": "check.py"}).checker.program == "import sys\n\n"
    assert load({"program": "check.cpp"}).checker.language == "cpp"
    assert load("exact", expected=["3\n", "5\n"]).tests[0].expected == ["3\n", "5\n"]
    for checker, words in [
        ({"program": "none.py"}, "no program 'none.py'"),
        ({"program": "../../etc/passwd"}, "name a .py or .cpp file"),
        ({"tokens": {"case": "mixed"}}, "unknown checker"),
    ]:
        path.write_text(json.dumps({**STDIN, "checker": checker}))
        with pytest.raises(ProblemError, match=words):
            problem_json.load(path)


def test_every_program_that_is_missing_is_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    named = {**STDIN, "checker": {"program": "none.py"}, "reference": "ref.cpp"}
    path.write_text(json.dumps(named, indent=1))
    with pytest.raises(ProblemError) as raised:
        problem_json.load(path)
    assert {line.partition(", ")[2].partition(";")[0] for line in raised.value.mistakes} == {
        "checker.program: no program 'none.py'",
        "reference: no program 'ref.cpp'",
    }


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    latin = tmp_path / "latin.json"
    latin.write_bytes(b'{"id": "\xe9"}')
    for path, words in [
        (tmp_path / "none.json", "no such file"),
        (latin, "not UTF-8"),
        (tmp_path, "cannot be read"),
    ]:
        with pytest.raises(ProblemError, match=words) as caught:
            problem_json.load(path)
        assert str(path) in str(caught.value)


def test_a_folder_is_read_by_name_and_shared_ids_are_refused(tmp_path: Path) -> None:
    def ids() -> list[str]:
        return [candidate.id for candidate in problem_json.candidates(tmp_path)]

    with pytest.raises(ProblemError, match="no problem files"):
        ids()
    (tmp_path / "b.json").write_text(json.dumps(STDIN))
    (tmp_path / "a.json").write_text(json.dumps(FUNCTION))
    assert ids() == ["half", "sum-two"]
    (tmp_path / "c.json").write_text(json.dumps(STDIN))
    with pytest.raises(ProblemError, match=r"c\.json: id 'sum-two' is also that of .*b\.json"):
        ids()


def test_a_broken_file_of_a_folder_leaves_the_others_readable(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "b.json").write_text(json.dumps(STDIN))
    broken, whole = problem_json.candidates(tmp_path)
    assert (broken.id, whole.make().id) == ("a", "sum-two")
    with pytest.raises(ProblemError, match=r"a\.json: line 1"):
        broken.make()


def test_notes_state_what_a_problem_is_chosen_by(tmp_path: Path) -> None:
    notes = {"contest_date": "2025-02-01T00:00:00", "difficulty": "hard", "platform": "own"}
    (tmp_path / "a.json").write_text(json.dumps({**STDIN, "meta": notes}))
    (tmp_path / "b.json").write_text(json.dumps({**FUNCTION, "meta": {"contest_date": "soon"}}))
    dated, plain = problem_json.candidates(tmp_path)
    assert (dated.day, dated.difficulty, dated.platform) == (date(2025, 2, 1), "hard", "own")
    assert (plain.day, plain.difficulty, plain.platform) == (None, "", "")


def test_the_reference_may_be_a_file_beside_the_problem(tmp_path: Path) -> None:
    (tmp_path / "answer.py").write_text("print(3)")
    (tmp_path / "p.json").write_text(json.dumps({**STDIN, "reference": "answer.py"}))
    assert problem_json.load(tmp_path / "p.json").reference == "print(3)\n"


def test_the_language_of_a_program_is_read_from_it() -> None:
    assert problem_json.language_of("#include <cstdio>\nint main() {}\n") == "cpp"
    assert problem_json.language_of("#include nothing\nprint(3)\n") == "python"


@pytest.mark.parametrize(
    ("checker", "one", "other", "fits"),
    [
        ("exact", "2\n", "2", True),
        ("exact", "1 2", "1  2", False),
        ("tokens", "1 2", "1  2\n", True),
        ("exact", ["2\n", "3\n"], ["3", "4"], True),
        ("exact", ["2\n", "3\n"], "4", False),
    ],
)
def test_tests_with_one_input_contradict_each_other_where_no_output_is_right_by_both(
    checker: str, one: object, other: object, fits: bool
) -> None:
    tests = [{"input": "1", "expected": expected, "visible": True} for expected in (one, other)]
    text = json.dumps({**STDIN, "checker": checker, "tests": tests})
    if fits:
        problem_json.parse_text(text, "p.json")
    else:
        assert "same input" in fault(text)


def test_values_that_are_nested_too_deep_are_not_compared() -> None:
    tests = ",".join(
        f'{{"input": [1], "expected": {"[" * 400}{n}{"]" * 400}, "visible": true}}' for n in (1, 2)
    )
    text = json.dumps({**FUNCTION, "tests": ["TESTS"]}).replace('"TESTS"', tests)
    assert "nested too deep" in fault(text)


def test_a_program_in_the_place_of_a_problem_is_told_as_such() -> None:
    assert "no problem file" in fault("a, b = input().split()\nprint(a + b)\n")
