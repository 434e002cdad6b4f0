"""The commands as a person uses them, on scripted replies and a real sandbox."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sdpo_solve.batch.difficulty import Counts
from sdpo_solve.batch.screening_file import read_screening
from sdpo_solve.cli.main import app
from sdpo_solve.errors import ConfigError, EngineError, PrerequisiteError
from tests.helpers.batches import make_problems

pytestmark = pytest.mark.docker


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with two problems and replies of which every third solves the second."""
    monkeypatch.chdir(tmp_path)
    make_problems(tmp_path / "problems", 2)
    texts = ["no code", "no code", "```python\nprint(1)\n```"] * 20
    (tmp_path / "replies").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return tmp_path


def invoke(*given: str) -> Result:
    scripted = () if given[0] == "export" else ("--engine", "scripted", "--replies", "replies")
    result = CliRunner().invoke(app, [*given, *scripted])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_a_dry_run_prints_the_plan_and_leaves_nothing(folder: Path) -> None:
    result = invoke(
        "batch", "problems", "--seeds", "5", "--attempts", "6", "--dry-run", "--out", "runs", "--measure"
    )
    assert result.exit_code == 0
    said = " ".join(result.stdout.split())
    assert "30 = 2 problems × 3 methods × 5 seeds" in said
    assert "at most 180 attempts" in said
    assert "24 measured attempts" in said
    assert not (folder / "runs").exists()


def test_what_was_not_measured_has_a_bound_all_the_same(folder: Path) -> None:
    flags = ("batch", "problems", "--attempts", "6", "--dry-run", "--out", "runs")
    said = " ".join(invoke(*flags).stdout.split())
    assert "at most 36 attempts and 18,432 tokens; time not known (--measure)" in said  # 2 x 3 x 6, 512 each
    assert "disk" in said
    assert "and 600 tokens" in " ".join(invoke(*flags, "--tokens", "100").stdout.split())
    assert not (folder / "runs").exists()


def test_a_plan_for_ray_notices_that_it_is_not_installed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(PrerequisiteError, match=r"pip install 'sdpo-solve\[ray\]'"):
        invoke("batch", "problems", "--attempts", "6", "--executor", "ray", "--dry-run")


def test_a_file_of_options_runs_and_goes_on_and_what_was_found_is_exported(folder: Path) -> None:
    (folder / "b.toml").write_text(
        'sources = "problems"\nmethods = ["best-of-k"]\nattempts = 9\nout = "runs"\n'
    )
    first = invoke("batch", "--file", "b.toml", "--group-size", "3")
    assert first.exit_code == 0
    assert "1 solved · 1 unsolved · 0 failed · 0 stopped of 2 runs" in first.stdout
    record = json.loads((folder / "runs" / "batch.json").read_text())
    assert (record["run"]["attempts"], record["run"]["group_size"]) == (9, 3)
    assert record["problems"] == ["say-0", "say-1"]
    again = invoke("batch", "--file", "b.toml", "--group-size", "3")
    assert "of 2 runs (2 kept)" in again.stdout
    with pytest.raises(ConfigError, match=r"options.group_size = 3, now it is 2"):
        invoke("batch", "--file", "b.toml", "--group-size", "2")
    found = json.loads(invoke("export", "runs").stdout)
    assert found[1] == {"question_id": "say-1", "code_list": ["print(1)"]}


@pytest.mark.slow
def test_runs_of_another_grader_are_not_added_to_a_batch(folder: Path) -> None:
    flags = (
        "batch",
        "problems",
        "--methods",
        "best-of-k",
        "--attempts",
        "3",
        "--out",
        "runs",
    )
    assert invoke(*flags, "--ids", "say-0").exit_code == 0
    other = (*flags, "--sandbox", "bubblewrap")
    with pytest.raises(ConfigError, match=r"say-0.*grader\.identity = 'docker.*now it is 'bubblewrap"):
        invoke(*other)
    assert not (folder / "runs" / "say-1").exists()
    assert "1 kept" in invoke(*other, "--ids", "say-0").stdout  # nothing is left to grade


def test_problems_that_the_language_cannot_state_are_refused_first(folder: Path) -> None:
    problem = {"id": "f", "statement": "?", "kind": "function", "entry_point": "f",
               "tests": [{"input": [], "expected": 1, "visible": True}]}  # fmt: skip
    (folder / "problems" / "f.json").write_text(json.dumps(problem))
    with pytest.raises(ConfigError, match="f is a problem of kind function, which needs --language python"):
        invoke("batch", "problems", "--language", "cpp", "--out", "runs")
    assert not (folder / "runs").exists()


def test_failed_runs_exit_4_and_are_listed_with_what_to_do(folder: Path) -> None:
    (folder / "replies").write_text(json.dumps({"text": "no code"}) + "\n")
    flags = ("batch", "problems", "--methods", "best-of-k", "--attempts", "2", "--group-size", "2")
    result = invoke(*flags, "--out", "runs")
    assert result.exit_code == 4
    assert "failed: say-0/best-of-k/seed-0" in result.stdout
    assert "larger --tries" in result.stdout


def test_broken_problems_are_left_out_and_the_exit_code_says_so(folder: Path) -> None:
    (folder / "problems" / "broken.json").write_text("{")
    flags = ("batch", "problems", "--methods", "best-of-k", "--attempts", "3", "--out", "runs")
    assert invoke(*flags, "--dry-run").exit_code == 2
    result = invoke(*flags)
    assert result.exit_code == 2
    assert "1 broken, the first" in " ".join(result.stdout.split())
    assert "of 2 runs" in result.stdout


@pytest.mark.slow
def test_json_lines_tell_the_whole_batch(folder: Path) -> None:
    flags = ("batch", "problems", "--methods", "best-of-k", "--attempts", "6", "--json")
    lines = [json.loads(line) for line in invoke(*flags, "--out", "runs").stdout.splitlines()]
    assert [line["event"] for line in lines][:1] == ["batch_started"]
    assert lines[-1]["event"] == "batch_finished"
    assert {line["run"] for line in lines if line["event"] == "run_ended"} == {
        "say-0/best-of-k/seed-0",
        "say-1/best-of-k/seed-0",
    }


@pytest.mark.slow
def test_a_screening_stops_at_its_total_and_goes_on(folder: Path) -> None:
    flags = ("screen", "problems", "--attempts", "12", "--group-size", "3", "--out", "marks")
    invoke(*flags, "--total", "6")
    first = read_screening(folder / "marks").problems
    assert (first["say-0"].base, first["say-1"].base) == (Counts(3, 0), Counts(3, 1))
    invoke(*flags)
    found = read_screening(folder / "marks").problems
    assert found["say-0"].base == Counts(12, 0)
    assert (found["say-0"].mark, found["say-1"].mark) == ("undecided", "not hard")
    assert not list((folder / "marks").rglob("journal.jsonl"))
    with pytest.raises(ConfigError, match=r"screened with system = None, now it is 'Be brief.'"):
        invoke(*flags, "--system", "Be brief.")
    only = ("batch", "problems", "--screening", "marks", "--dry-run", "--only")
    with pytest.raises(ConfigError, match=r"marks was screened with system = None, here it is 'Be brief.'"):
        invoke(*only, "0.9", "--system", "Be brief.")
    assert "say-0" in invoke(*only, "0.9").stdout
    path = folder / "problems" / "say-0.json"
    path.write_text(path.read_text().replace("Print 0.", "Print 0 only."))
    with pytest.raises(ConfigError, match="text or tests of say-0 have changed since marks was screened"):
        invoke(*only, "0.9")
    with pytest.raises(ConfigError, match="leave none of its problems that are marked so"):
        invoke("batch", "problems", "--only", "hard", "--screening", "marks")


@pytest.mark.slow
def test_a_paper_mode_batch_is_screened_by_its_file(folder: Path) -> None:
    (folder / "b.toml").write_text(
        'sources = "problems"\nfeedback-mode = "paper"\nscreening = "marks"\nonly = "0.9"\nattempts = 3\n'
    )
    invoke("screen", "--file", "b.toml", "--attempts", "3", "--group-size", "3")
    found = read_screening(folder / "marks")
    assert found.config["feedback_mode"] == "paper"
    assert (found.problems["say-0"].base, found.problems["say-1"].base) == (Counts(3, 0), Counts(3, 1))
    assert "say-0" in invoke("batch", "--file", "b.toml", "--dry-run").stdout
    with pytest.raises(ConfigError, match="feedback_mode = 'paper', here it is 'public or all'"):
        invoke("batch", "--file", "b.toml", "--feedback-mode", "public", "--dry-run")


@pytest.mark.slow
def test_the_teacher_answers_where_the_student_failed(folder: Path) -> None:
    flags = ("screen", "problems", "--ids", "say-1", "--attempts", "3", "--group-size", "3", "--out", "marks")
    result = invoke(*flags, "--teacher", "--ceiling", "0.5", "--json")
    (row,) = json.loads(result.stdout)["problems"]
    assert (row["samples"], row["solved"], row["teacher_samples"], row["teacher_solved"]) == (3, 1, 2, 0)
    with pytest.raises(EngineError, match="replies"):
        invoke("screen", "problems", "--attempts", "90", "--group-size", "90", "--out", "more")
