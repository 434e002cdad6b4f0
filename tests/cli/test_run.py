"""What `run` says besides its live view: warnings before it starts, and what to do where nothing solved."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sdpo_solve.cli.main import app
from sdpo_solve.errors import EngineError
from sdpo_solve.run.events import last_record
from sdpo_solve.run.records import RunFailed, RunFinished
from tests.helpers.batches import make_problems

pytestmark = pytest.mark.docker


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make_problems(tmp_path / "problems", 1)
    return tmp_path


def run(folder: Path, texts: list[str], *flags: str) -> Result:
    (folder / "replies").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    scripted = ("--engine", "scripted", "--replies", "replies", "--out", "out")
    return CliRunner().invoke(app, ["run", "problems/say-0.json", *scripted, *flags], env={"COLUMNS": "80"})


def test_an_unsolved_run_says_why_and_what_to_try(folder: Path) -> None:
    texts = ["no code", "```python\nprint(1)\n```", "no code", "```python\nprint(2)\n```"]
    result = run(folder, texts, "--attempts", "4", "--group-size", "2")
    assert result.exit_code == 1
    assert "2 without a program" in result.output
    assert "2 wrong answer in a visible test" in result.output
    assert "the best is attempt 2: 0 of 2 tests passed" in result.output
    assert "--attempts 8" in result.output
    assert "warning: sdpo learns nothing here" in result.output
    assert max(map(len, result.output.splitlines())) <= 80


def test_reading_feedback_is_a_hint_where_no_attempt_does(folder: Path) -> None:
    texts, flags = ["no code"] * 4, ("--attempts", "4", "--group-size", "2")
    assert "feedback_share" not in run(folder, texts, *flags).output
    other = run(folder, texts, *flags, "--set", "sdpo.preset=paper", "--out", "other")
    assert "--set sdpo.feedback_share=0.5" in other.output


def test_json_holds_the_program_that_solved(folder: Path) -> None:
    program = "```python\nprint(0)\n```"
    result = run(folder, ["no", program], "--method", "best-of-k", "--group-size", "1", "--json")
    record = json.loads(result.stdout)
    assert (record["solved"], record["program"], record["model"]) == (True, "print(0)", None)
    assert not result.exit_code


def test_advice_after_the_end_holds(folder: Path) -> None:
    texts = ["no", "```python\nprint(0)\n```"]
    flags = ("--method", "best-of-k", "--group-size", "1")
    run(folder, texts, *flags)
    again = run(folder, texts, *flags)
    assert "solved before; another --seed or --out begins a new one" in again.output
    assert "--attempts" not in again.output
    run(folder, texts, *flags, "--keep-going", "--attempts", "2", "--out", "all")
    again = run(folder, texts, *flags, "--keep-going", "--attempts", "2", "--out", "all")
    assert "finished before; --attempts 4 goes on" in again.output


def test_what_goes_on_is_each_limit_that_was_reached(folder: Path) -> None:
    flags = ("--method", "best-of-k", "--group-size", "2", "--attempts", "2", "--tokens", "3")
    result = run(folder, ["no", "no", "no", "no"], *flags)
    assert "--attempts 4 --tokens 7" in result.output
    result = run(folder, ["no", "no", "no", "no"], *flags)
    assert "finished before; --attempts 4 --tokens 7 goes on" in " ".join(result.output.split())


def test_time_that_was_spent_before_the_first_attempt_is_said(folder: Path) -> None:
    program = "```python\nprint(0)\n```"
    flags = ("--method", "best-of-k", "--group-size", "1", "--wall-seconds")
    result = run(folder, [program], *flags, "0.000001")
    assert result.exit_code == 1, result.output
    said = " ".join(result.output.split())
    assert "before the first attempt; the same command with --wall-seconds 1 goes on" in said
    assert run(folder, [program], *flags, "60").exit_code == 0


def test_a_run_that_fails_says_so_in_its_journal_and_goes_on(folder: Path) -> None:
    flags = ("--method", "best-of-k", "--group-size", "2", "--attempts", "4")
    journal = folder / "out" / "say-0" / "best-of-k" / "seed-0" / "journal.jsonl"
    assert isinstance(run(folder, ["no", "no", "no"], *flags).exception, EngineError)
    failed = last_record(journal)
    assert isinstance(failed, RunFailed)
    assert (failed.kind, failed.elapsed_s is not None) == ("EngineError", True)
    assert run(folder, ["no", "no", "no", "no"], *flags).exit_code == 1
    assert isinstance(last_record(journal), RunFinished)
