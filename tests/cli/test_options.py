"""`options` lists what can be set as the models declare it, and a shell completes names."""

import json
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from sdpo_solve import methods
from sdpo_solve.cli import completion
from sdpo_solve.cli.main import app
from sdpo_solve.cli.options import all_parts


def test_every_part_that_set_takes_is_listed() -> None:
    parts = {title.split(" ")[0] for title in all_parts()}
    assert parts >= {"engine", "sandbox", "judge", "feedback", "learner", *methods.REGISTRY.names()}
    listed = json.loads(CliRunner().invoke(app, ["options", "--json"]).stdout)
    rows = {row["option"]: row for row in listed["learner"]}
    assert (rows["lr"]["default"], rows["lr"]["range"]) == ("5e-05", "> 0")
    assert {row["option"] for row in listed["run"]} >= {"max-tokens", "method"}
    assert all(row["about"] for rows in listed.values() for row in rows)


def test_a_page_of_options_fits_80_columns() -> None:
    result = CliRunner().invoke(app, ["options"], env={"COLUMNS": "80"})
    assert not result.exit_code
    assert max(map(len, result.output.splitlines())) <= 80
    assert CliRunner().invoke(app, ["options", "nothing"]).exit_code


@pytest.mark.parametrize(
    ("command", "option", "begun", "offered"),
    [
        ("run", "method", "b", "best-of-k"),
        ("batch", "methods", "sdpo,m", "sdpo,multi-turn"),
        ("run", "engine", "", "hf"),
        ("run", "model", "qwen", "qwen2.5-coder-0.5b"),
        ("check", "problems", "mbpp", "mbpp:"),
        ("report", "x", "t", "tokens"),
    ],
)
def test_a_shell_is_offered_names(command: str, option: str, begun: str, offered: str) -> None:
    parameter = next(one for one in get_command(app).commands[command].params if one.name == option)
    with get_command(app).commands[command].make_context(command, [], resilient_parsing=True) as context:
        assert offered in [item.value for item in parameter.shell_complete(context, begun)]


@pytest.mark.parametrize(
    ("begun", "offered"),
    [
        ("", ["runs"]),
        ("runs/", ["runs/first", "runs/second"]),
        ("runs/f", ["runs/first"]),
        ("runs/first", ["runs/first", "runs/first/inc"]),
        ("second", ["runs/second"]),
        ("inc", ["runs/first/inc"]),
        ("best", ["runs/first/inc/best-of-k"]),
        ("other/", ["other/sum"]),
        ("nothing", []),
    ],
)
def test_a_shell_is_offered_runs_by_path_and_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: str, offered: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    places = ("runs/first/inc/best-of-k", "runs/first/inc/sdpo", "runs/second/sum/sdpo", "other/sum/sdpo")
    for place in places:
        (tmp_path / place / "seed-0").mkdir(parents=True)
        (tmp_path / place / "seed-0/journal.jsonl").touch()
    assert completion.runs(begun) == offered
