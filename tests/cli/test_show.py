"""The commands that look at runs, as a user types them: exit codes, mistakes, pipes. Examples: test_examples.py."""

import csv
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sdpo_solve.cli.main import app
from sdpo_solve.errors import ConfigError, PrerequisiteError
from sdpo_solve.report.archive import pack
from tests.helpers.journals import Made, damage, make


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory as the examples think of it: runs/first with an SDPO run and a best-of-k run of `inc`."""
    make(tmp_path / "runs" / "first", Made(solved_at=(6,)))
    make(tmp_path / "runs" / "first", Made(method="best-of-k"))
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_screening_on_disk_parts_hard_problems_from_easier_ones(place: Path) -> None:
    lines: list[dict[str, object]] = [{"event": "screening", "config": {"model": "tiny at rest"}}]
    counts = {"teacher_n": 0, "teacher_solved": 0, "tokens": 1}
    lines += [
        {"event": "group", "problem": name, "digest": digest, "n": 400, "solved": n, **counts}
        for name, n, digest in (
            ("inc", 0, "digest of inc"),
            ("dec", 200, "digest of dec"),
            ("neg", 0, "of an earlier text"),
        )
    ]
    (place / "marks").mkdir()
    (place / "marks" / "screening.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for problem in ("dec", "neg"):
        make(place / "runs" / "first", Made(problem))
    result = CliRunner().invoke(app, ["report", "runs", "--json", "--screening", "marks"])
    found = json.loads(result.stdout)
    hardness = {row["problem"]: row["hardness"] for row in found["problems"]}
    assert hardness == {"inc": "hard", "dec": "easier", "neg": None}
    assert any("tests of neg have changed" in notice for notice in found["notices"])


def test_json_alone_is_on_standard_output(place: Path) -> None:
    result = CliRunner().invoke(app, ["report", "runs", "--json", "--html", "r.html"])
    assert json.loads(result.stdout)["reference"] == "sdpo"
    assert "written: r.html" in result.stderr


def test_json_holds_what_show_and_explain_print(place: Path) -> None:
    def record(*words: str) -> dict[str, Any]:
        result = CliRunner().invoke(app, [*words, "--json"])
        assert result.exit_code == 0, result.output
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    listed = record("show", "runs")
    assert {(run["arm"], run["status"], run["discovery_time"]) for run in listed["runs"]} == {
        ("sdpo", "solved", 6),
        ("best-of-k", "unsolved", None),
    }
    assert listed["damaged"] == []
    story = record("show", "runs/first/inc/sdpo")
    assert (len(story["attempts"]), len(story["updates"])) == (8, 1)
    assert story["solution"] == record("show", "runs/first/inc/sdpo", "--attempt", "6")["code"]
    both = record("show", "runs/first/inc/sdpo", "runs/first/inc/best-of-k")["runs"]
    assert [run["arm"] for run in both] == ["sdpo", "best-of-k"]
    explained = record("explain", "runs/first/inc/sdpo", "--no-model")
    assert [stage["version"] for stage in explained["stages"]] == [0, 1]
    assert explained["signals"] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["report", "nowhere"], "nowhere is not a directory"),
        (["report", "runs", "--x", "hours"], "--x must be 'attempts', 'tokens' or 'seconds'"),
        (["report", "runs", "--at", "1,x"], "--at must be a number"),
        (["report", "runs", "--json", "--csv"], "give one of them"),
        (["report", "runs", "--against", "grpo"], "no arm 'grpo' in these runs (there are: sdpo, best-of-k)"),
        (["report", "runs", "--html", "no/such/place.html"], "cannot write no/such/place.html"),
        (["show", "runs", "--attempt", "1"], "runs holds 2 runs; name one: "),
        (["show", "runs", "--follow", "--json"], "--follow and --json: give one of them"),
        (["show", "runs", "runs", "runs"], "two runs to compare"),
        (["show", "empty"], "no runs under empty"),
        (["show", "empty", "--json"], "no runs under empty"),
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
    code = "from sdpo_solve.cli.main import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2, result.stderr
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "line",
    [
        "show runs/first/inc/sdpo",
        "show runs/first/inc/sdpo --attempt 1",
        "show runs/first/inc/best-of-k runs/first/inc/sdpo",
        "explain runs/first/inc/sdpo --no-model",
        "show runs/first/inc/sdpo --follow",
        "report runs/first/inc/sdpo",
        "export runs/first --method sdpo",
        "bench lesson runs/first/inc/sdpo",
        "bench forgetting runs/first/inc/sdpo problems",
    ],
)
def test_a_damaged_journal_is_named_and_exits_2_where_nothing_ran(place: Path, line: str) -> None:
    damage(place / "runs" / "first" / "inc" / "sdpo" / "seed-0", 4)
    code = "from sdpo_solve.cli.main import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code, *line.split()], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2, result.stderr
    assert (
        "cannot read runs/first/inc/sdpo/seed-0/journal.jsonl, line 4: not a journal event" in result.stderr
    )
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("line", ["show runs", "show runs --follow"])
def test_one_damaged_journal_hides_no_other_run(place: Path, line: str) -> None:
    damage(place / "runs" / "first" / "inc" / "sdpo" / "seed-0", 4)
    result = CliRunner().invoke(app, line.split(), env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    assert "damaged: runs/first/inc/sdpo/seed-0/journal.jsonl, line 4" in result.output
    assert "best-of-k" in result.output


def test_a_pipe_gets_plain_text_at_80_columns(place: Path) -> None:
    code = "from sdpo_solve.cli.main import main; main()"
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


# A title (OSC 0), a link (OSC 8), the clipboard (OSC 52), a cleared screen, 8-bit codes, reordered text, markup.
EVIL = (
    "\x1b]0;owned\x07\x1b]8;;http://203.0.113.1\x1b\\click\x1b]8;;\x1b\\\x1b]52;c;eA==\x07\x1b[2J\x1b[5A\x1bc\x9b1A\x9d0;x\x9c"
    "\x08\x7f\r\u202e\u2066\u200f[bold]x[/bold][link=http://203.0.113.1]y[/link]"
)


@pytest.mark.parametrize(
    "line",
    [
        "report runs --no-curves",
        "report runs",
        "report runs --csv",
        "report runs --markdown",
        "show runs",
        "show runs --follow",
        "show runs/0/evil/sdpo --follow",
        "show runs/0/evil/sdpo",
        "show runs/0/evil/sdpo --attempt 2",
        "show runs/0/evil/sdpo runs/1/evil/sdpo",
        "explain runs/0/evil/sdpo --no-model",
    ],
)
def test_no_command_passes_on_what_steers_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    """Whatever field of a journal a model, a program or a problem's author filled with it."""
    evil = EVIL.replace("/", "")
    for seed, solved in enumerate(((6,), ())):
        fields = {"problem": evil, "model": evil, "difficulty": evil, "language": evil, "engine": evil}
        settings = {"learner": {"note": f"{seed} {evil}"}} if "runs/1" in line else {}
        made = Made(
            "evil",
            seed=seed,
            solved_at=solved,
            header=fields,
            feedback=EVIL,
            settings=settings,
            code=lambda i: f"# {i} {EVIL}",
        )
        make(tmp_path / "runs" / str(seed), made)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, line.split())
    assert result.exit_code == 0, result.output
    found = set(result.output) & {
        chr(n) for n in (*range(9), *range(11, 32), *range(127, 160), 0x202E, 0x2066, 0x200F)
    }
    assert not found, sorted(map(hex, map(ord, found)))
    if not {"--csv", "--markdown", "--follow"} & set(line.split()):
        assert max(map(len, result.output.splitlines())) <= 80


def test_following_finished_runs_ends_by_itself(place: Path) -> None:
    result = CliRunner().invoke(app, ["show", "runs", "--follow"])
    assert "inc/sdpo/seed-0: solved at attempt 6 (8/8 attempts, 80 tokens" in result.output
    assert "inc/best-of-k/seed-0: unsolved (8/8 attempts, 80 tokens" in result.output


def test_runs_of_packed_files_that_must_not_be_mixed_go_by_the_files(
    place: Path,
) -> None:
    for name, fields in (("a", {}), ("b", {"language": "cpp"})):
        make(place / name, Made(header=fields))
        pack([place / name], place / f"{name}.zip")
    result = CliRunner().invoke(app, ["report", "a.zip", "b.zip"])
    assert isinstance(result.exception, ConfigError)
    assert "a.zip/" in str(result.exception)
    assert "b.zip/" in str(result.exception)


def test_rows_and_notices_of_packed_runs_name_the_file(place: Path) -> None:
    make(place / "made", Made(solved_at=(6,)))
    path = make(place / "made", Made(seed=1)) / "journal.jsonl"
    pack([place / "made"], place / "made.zip")
    with zipfile.ZipFile("made.zip", "a") as file:
        file.writestr("made/inc/sdpo/seed-2/journal.jsonl", "no event\n" + path.read_text())
    table = CliRunner().invoke(app, ["report", "made.zip", "--csv"])
    rows = list(csv.DictReader(io.StringIO(table.stdout)))
    assert [row["run_dir"] for row in rows] == [f"made.zip/made/inc/sdpo/seed-{n}" for n in (0, 1)]
    record = json.loads(CliRunner().invoke(app, ["report", "made.zip", "--json"]).stdout)
    first = "1 journal damaged and left out; the first: made.zip/made/inc/sdpo/seed-2/journal.jsonl, line 1: "
    assert any(notice.startswith(first) for notice in record["notices"])


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({}, "no runs under a.zip"),
        ({"notes.txt": "no runs"}, "no runs under a.zip"),
        (
            {"x/journal.jsonl": "no event\n"},
            "no runs under a.zip; cannot read a.zip/x/journal.jsonl, line 1: not",
        ),
    ],
)
def test_packed_files_without_runs_are_named(place: Path, members: dict[str, str], said: str) -> None:
    with zipfile.ZipFile("a.zip", "w") as file:
        for name, text in members.items():
            file.writestr(name, text)
    result = CliRunner().invoke(app, ["report", "a.zip"])
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception).startswith(said)
    assert "sdpo-solve-" not in str(result.exception)


def test_the_same_run_in_two_packed_files_goes_by_the_files(place: Path) -> None:
    for name in ("a.zip", "b.zip"):
        pack([place / "runs"], place / name)
    result = CliRunner().invoke(app, ["report", "a.zip", "b.zip"])
    assert isinstance(result.exception, ConfigError)
    twice = "is there twice: a.zip/runs/first/inc/sdpo/seed-0 and b.zip/runs/first/inc/sdpo/seed-0;"
    assert twice in str(result.exception)


def test_a_missing_library_is_one_message_for_all_pictures(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = CliRunner().invoke(app, ["report", "runs/first", "--png", "a.png", "--pdf", "a.pdf"])
    assert isinstance(result.exception, PrerequisiteError)
    assert str(result.exception).count("matplotlib") == 1
