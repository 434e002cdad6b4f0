"""What a user may write as a source, on the command line too: schemes, mistakes in one line, filters, counts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sdpo_solve.datasets import load
from sdpo_solve.datasets.selection import Selection
from sdpo_solve.errors import ConfigError, ProblemError
from tests.helpers.rows import FUNCTIONAL, MBPP, never, row

STDIN = {
    "id": "double",
    "statement": "Double it.",
    "kind": "stdin",
    "tests": [{"input": "2", "expected": "4", "visible": True}],
}


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    """A problem file, LiveCodeBench rows of which one is known to be bad, and a row of MBPP."""
    rows = [row(), row(**FUNCTIONAL, question_id="f", difficulty="hard"), row(question_id="abc337_e")]
    texts = {
        "own.json": json.dumps(STDIN),
        "rows.jsonl": "\n".join(map(json.dumps, rows)),
        "mbpp.jsonl": json.dumps(MBPP),
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return {name: tmp_path / name for name in texts}


def test_schemes_and_paths_may_be_mixed_and_filters_go_over_all(places: dict[str, Path]) -> None:
    names = [str(places["own.json"]), f"lcb:{places['rows.jsonl']}", f"mbpp:{places['mbpp.jsonl']}"]
    taken = load.load(names, Selection(), never)
    assert [problem.id for problem in taken.problems] == ["double", "abc001_a", "f", "mbpp-11"]
    assert taken.left_out == {"abc337_e": "interactive"}
    two = load.load(names, Selection(ids=("mbpp-11", "double")), never).problems
    assert [problem.id for problem in two] == ["double", "mbpp-11"]


def test_one_problem_is_named_by_its_file_or_id_bad_ones_too(places: dict[str, Path]) -> None:
    assert load.load_one(str(places["own.json"]), Selection(), never).id == "double"
    lcb = f"lcb:{places['rows.jsonl']}"
    assert load.load_one(lcb, Selection(ids=("abc337_e",)), never).id == "abc337_e"
    with pytest.raises(ConfigError, match=r"holds 2 problems .*--ids abc001_a"):
        load.load_one(lcb, Selection(), never)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("foo:bar", "unknown source 'foo:bar'; write a problem file"),
        ("lcb:", "names no file"),
        ("lcb:v9", "no release 'v9'"),
    ],
)
def test_a_source_that_is_none_says_what_to_write(source: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load.load([source], Selection(), never)


def test_an_empty_file_holds_no_problem(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").touch()
    with pytest.raises(ProblemError, match="no problems in it"):
        load.load([f"lcb:{tmp_path / 'rows.jsonl'}"], Selection(), never)


def test_a_source_that_cannot_be_read_is_told_once_and_passed_over(places: dict[str, Path]) -> None:
    with places["rows.jsonl"].open("a") as file:
        file.write("\n{torn")
    told: list[ProblemError] = []
    names = [f"lcb:{places['rows.jsonl']}", "none.json", str(places["own.json"])]
    taken = load.load(names, Selection(), never, on_broken=told.append)
    assert [problem.id for problem in taken.problems] == ["abc001_a", "f", "double"]
    assert [str(exc).split(": ")[1] for exc in told] == ["line 4", "no such file; check the path"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from sdpo_solve.cli.main import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_mistakes_on_the_command_line_are_one_line_and_exit_code_2(
    places: dict[str, Path], tmp_path: Path
) -> None:
    lcb = f"lcb:{places['rows.jsonl']}"
    program = tmp_path / "answer.py"
    program.write_text("print(1)")
    for flags in (["--ids", "nosuch"], ["--from", "soon"], ["--platform", "moon"], ["--first", "9"]):
        done = run("grade", lcb, str(program), *flags)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr


@pytest.mark.docker
def test_check_counts_what_is_right_broken_and_left_out(places: dict[str, Path]) -> None:
    done = run("check", f"lcb:{places['rows.jsonl']}", "none.json", f"mbpp:{places['mbpp.jsonl']}")
    lines = done.stdout.splitlines()
    assert done.returncode == 2
    assert "✗ none.json: no such file; check the path" in lines
    assert lines[-2:] == [
        "3 of 4 problems are right, 2 without a reference",
        "left out 1 bad problem: abc337_e",
    ]
