"""The commands that look at runs, as a user types them: exit codes, mistakes, pipes. Examples: test_examples.py."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from journals import Made, make
from typer.testing import CliRunner

from sdpo_solve.cli import app


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory as the examples think of it: runs/first with an SDPO run and a best-of-k run of `inc`."""
    make(tmp_path / "runs" / "first", Made(solved_at=(6,)))
    make(tmp_path / "runs" / "first", Made(method="best-of-k"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_screening_on_disk_parts_hard_problems_from_easier_ones(place: Path) -> None:
    lines: list[dict[str, object]] = [{"event": "screening", "config": {"model": "tiny at rest"}}]
    counts = {"digest": "d", "teacher_n": 0, "teacher_solved": 0, "tokens": 1}
    lines += [
        {"event": "group", "problem": name, "n": 400, "solved": n, **counts}
        for name, n in (("inc", 0), ("dec", 200))
    ]
    (place / "marks").mkdir()
    (place / "marks" / "screening.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    make(place / "runs" / "first", Made("dec"))
    result = CliRunner().invoke(app, ["report", "runs", "--json", "--screening", "marks"])
    rows = json.loads(result.stdout)["problems"]
    assert {row["problem"]: row["hardness"] for row in rows} == {"inc": "hard", "dec": "easier"}


def test_json_alone_is_on_standard_output(place: Path) -> None:
    result = CliRunner().invoke(app, ["report", "runs", "--json", "--html", "r.html"])
    assert json.loads(result.stdout)["reference"] == "sdpo"
    assert "written: r.html" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["report", "nowhere"], "nowhere is not a directory"),
        (["report", "runs", "--x", "hours"], "--x is attempts, tokens or seconds, not 'hours'"),
        (["report", "runs", "--at", "1,x"], "--at wants numbers"),
        (["report", "runs", "--json", "--csv"], "give one of them"),
        (["report", "runs", "--against", "grpo"], "no arm 'grpo' in these runs (there are: sdpo, best-of-k)"),
        (["report", "runs", "--html", "no/such/place.html"], "cannot write no/such/place.html"),
        (["show", "runs"], "runs holds 2 runs; name one: "),
        (["show", "runs/first/inc/sdpo", "--attempt", "99"], "has no attempt 99; it has 8"),
        (
            ["explain", "runs/first/inc/sdpo", "--update", "7", "--no-model"],
            "has no update 7; it has updates 1 to 1",
        ),
        (["explain", "runs/first/inc/best-of-k", "--attempt", "1"], "best-of-k has no teacher"),
        (["explain", "runs/first/inc/sdpo", "--attempt", "1", "--no-model"], "--attempt stands alone"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(place: Path, arguments: list[str], said: str) -> None:
    code = "from sdpo_solve.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2, result.stderr
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_pipe_gets_plain_text_at_80_columns(place: Path) -> None:
    code = "from sdpo_solve.cli import main; main()"
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "FORCE_COLOR")}
    shown = subprocess.run(
        [sys.executable, "-c", code, "report", "runs"],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    ).stdout
    assert "\x1b" not in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_watch_of_finished_runs_ends_by_itself(place: Path) -> None:
    result = CliRunner().invoke(app, ["watch", "runs"])
    assert "inc/sdpo/seed-0: solved at attempt 6 (8/8 attempts, 80 tokens" in result.output
    assert "inc/best-of-k/seed-0: unsolved (8/8 attempts, 80 tokens" in result.output
