"""`new` writes a problem that `check` refuses until it is filled in, and takes when it is."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sdpo_solve.cli.main import app
from sdpo_solve.cli.new import is_unfilled
from sdpo_solve.datasets import problem_json
from sdpo_solve.errors import UserError

SOLUTIONS = {
    "stdin": "a, b = map(int, input().split())\nprint(a + b)\n",
    "function": "def solve(a, b):\n    return a + b\n",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), env={"COLUMNS": "80"})


@pytest.mark.parametrize("kind", ["stdin", "function"])
def test_a_new_problem_is_one_with_tests_of_both_sorts(folder: Path, kind: str) -> None:
    result = invoke("new", "Two Sums", "--kind", kind)
    assert not result.exit_code
    assert "sdpo-solve check" in result.output
    problem = problem_json.load(folder / "Two Sums.json")
    assert (problem.id, {test.visible for test in problem.tests}) == ("two-sums", {True, False})
    again = invoke("new", "Two Sums")
    assert isinstance(again.exception, UserError)


def test_a_name_with_a_space_or_an_accent_gives_commands_and_an_id_that_work(folder: Path) -> None:
    result = invoke("new", "Élan vital")
    assert "sdpo-solve check 'Élan vital.json'" in result.output
    assert problem_json.load(folder / "Élan vital.json").id == "elan-vital"
    assert max(map(len, result.output.splitlines())) <= 80


@pytest.mark.parametrize(
    ("name", "file", "problem_id"),
    [
        ("v1.1", "v1.1.json", "v1.1"),
        ("v1.1.json", "v1.1.json", "v1.1"),
        ("Sums.JSON", "Sums.json", "sums"),
        ("answers.txt", "answers.txt.json", "answers.txt"),
        ("inside/sums/", "inside/sums.json", "sums"),
    ],
)
def test_only_the_ending_of_the_file_is_no_part_of_the_name(
    folder: Path, name: str, file: str, problem_id: str
) -> None:
    (folder / "inside").mkdir()
    assert not invoke("new", name).exit_code
    assert problem_json.load(folder / file).id == problem_id


@pytest.mark.parametrize("name", ["", ".", "..", "/", "./", "inside/..", ".json", "?", "..."])
def test_a_name_without_a_letter_or_digit_is_refused(folder: Path, name: str) -> None:
    refused = invoke("new", name)
    assert isinstance(refused.exception, UserError)
    assert "is no name for a problem" in str(refused.exception)
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("TODO: say what the function returns.", True),
        ("A TODO list has n entries.", False),
        ("# TODO: faster", False),
    ],
)
def test_a_text_of_ones_own_may_say_todo(text: str, is_one: bool) -> None:
    assert is_unfilled(text) is is_one


@pytest.mark.docker
@pytest.mark.parametrize("kind", ["stdin", "function"])
def test_check_says_what_is_missing_until_nothing_is(folder: Path, kind: str) -> None:
    invoke("new", "sums", "--kind", kind)
    path = folder / "sums.json"
    unfilled = invoke("check", "sums.json")
    assert unfilled.exit_code == 1
    assert "statement and reference still to write" in unfilled.output
    content = {
        **json.loads(path.read_text()),
        "statement": "Add.",
        "reference": SOLUTIONS[kind].replace("+", "-"),
    }
    path.write_text(json.dumps(content))
    wrong = invoke("check", "sums.json")
    assert wrong.exit_code == 1
    assert "-1" in wrong.output, "what the reference answers is shown to its author"
    path.write_text(json.dumps({**content, "reference": SOLUTIONS[kind]}))
    assert not invoke("check", "sums.json").exit_code
