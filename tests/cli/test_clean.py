"""`clean` says sizes first, removes only with --yes, and leaves the policy that a run goes on from."""

import fcntl
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sdpo_solve.cli.clean import list_others
from sdpo_solve.cli.main import app
from sdpo_solve.errors import UserError

RUN = "runs/p/sdpo/seed-0"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SDPO_SOLVE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    for path in ("cache/models/tiny/weights", "cache/expected/a.json", "runs/p/sdpo/seed-0/policies/0001/w",
                 "runs/p/sdpo/seed-0/policies/0002/w"):  # fmt: skip
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(bytes(1_000_000))
    (tmp_path / RUN / "journal.jsonl").touch()
    return tmp_path


def invoke(*words: str) -> Result:
    return CliRunner().invoke(app, ["clean", *words], env={"COLUMNS": "80"})


def test_nothing_is_removed_without_a_word(folder: Path) -> None:
    result = invoke()
    assert "3.0 MB in all" in result.output
    assert "nothing was removed" in result.output
    assert (folder / "cache/models/tiny/weights").exists()


def test_what_is_named_goes_and_a_runs_newest_policy_stays(folder: Path) -> None:
    assert "1.0 MB are free again" in invoke("policies", "--yes").output
    left = sorted(path.parent.name for path in (folder / "runs").rglob("w"))
    assert left == ["0002"]
    invoke("models", "caches", "--yes")
    assert not [path for path in (folder / "cache").rglob("*") if path.is_file()]


def test_the_policy_that_a_run_would_go_back_to_stays(folder: Path) -> None:
    policies = folder / RUN / "policies"
    (policies / "0003").mkdir()
    (policies / "0003" / "state.json").write_text('{"facts": {"health": {"best_version": 1}}}')
    invoke("policies", "--yes")
    assert sorted(path.name for path in policies.iterdir()) == ["0001", "0003"]


def test_the_policy_that_a_journal_goes_on_from_stays(folder: Path) -> None:
    """Version 4 is on disk, its update was never recorded: the run goes on from 3, which fell back to 1."""
    policies = folder / RUN / "policies"
    for number, best in ((3, 1), (4, 4)):
        (policies / f"000{number}").mkdir()
        state = {"facts": {"health": {"best_version": best}}}
        (policies / f"000{number}" / "state.json").write_text(json.dumps(state))
    updates = [{"event": "update", "version": version} for version in (1, 2, 3)]
    (folder / RUN / "journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in updates))
    invoke("policies", "--yes")
    assert sorted(path.name for path in policies.iterdir()) == ["0001", "0003", "0004"]


def test_a_run_whose_journal_is_damaged_keeps_all_its_policies(folder: Path) -> None:
    (folder / RUN / "journal.jsonl").write_text("broken\n")
    invoke("policies", "--yes")
    assert sorted(path.name for path in (folder / RUN / "policies").iterdir()) == ["0001", "0002"]


def test_a_run_that_is_being_written_is_left_alone(folder: Path) -> None:
    with (folder / RUN / "journal.jsonl").open() as journal:
        fcntl.flock(journal, fcntl.LOCK_EX)
        assert "nothing was removed" not in invoke("policies").output
    assert "1.0 MB in all" in invoke("policies").output


def test_an_unknown_kind_is_refused(folder: Path) -> None:
    assert isinstance(invoke("everything").exception, UserError)


def test_a_folder_of_runs_that_is_not_there_is_refused_unless_it_is_the_default(folder: Path) -> None:
    mistyped = invoke("policies", "--runs", "run")
    assert isinstance(mistyped.exception, UserError)
    assert "run is not a directory" in str(mistyped.exception)
    (folder / "runs").rename(folder / "elsewhere")
    nothing = invoke("policies")
    assert (nothing.exit_code, nothing.output.split()[:2]) == (0, ["0", "bytes"])


def test_a_file_called_policies_is_left_alone(folder: Path) -> None:
    (folder / "runs" / "policies").write_text("of the house")
    assert "1.0 MB in all" in invoke("policies", "--yes").output
    assert (folder / "runs" / "policies").exists()


def test_a_folder_called_policies_beside_no_journal_is_left_alone(folder: Path) -> None:
    for name in ("0001", "0002"):
        (folder / "runs" / "policies" / name).mkdir(parents=True)
    invoke("policies", "--yes")
    assert len(list((folder / "runs" / "policies").iterdir())) == 2


def test_what_clean_leaves_is_counted_once(folder: Path) -> None:
    """Runs without the policies that `clean` removes, and the environment."""
    others = {one.kind: one.n_bytes for one in list_others(folder / "runs")}
    assert others["runs"] == 1_000_000
    assert others["environment"] > 1_000_000
