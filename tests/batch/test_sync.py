"""A run's directory in two places: the copy follows, and one broken off anywhere is still a run."""

import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sdpo_solve.batch.sync import Parcel, Piece, Sender, make_home, put_down
from sdpo_solve.errors import JournalError
from sdpo_solve.run.events import read_state
from sdpo_solve.solve import solve
from sdpo_solve.types import Budget
from tests.helpers.parts import SayEngine, answer, make_run


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write(folder: Path, path: str, text: str) -> None:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text(text)


def test_the_copy_follows_what_is_written_grows_and_goes(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    sender = Sender(here)
    write(here, "journal.jsonl", "one\n")
    write(here, "policies/0001/adapter", "a")
    put_down(there, sender.parcel())
    assert tree(there) == tree(here)
    write(here, "journal.jsonl", "one\ntwo\n")
    write(here, "policies/0002/adapter", "b")
    (here / "policies/0001/adapter").unlink()
    (here / "policies/0001").rmdir()
    parcel = sender.parcel()
    assert parcel.pieces[-1] == Piece("journal.jsonl", 4, b"two\n")
    assert parcel.gone == ("policies/0001/adapter",)
    put_down(there, parcel)
    assert tree(there) == tree(here)
    assert not (there / "policies/0001").exists()
    assert sender.parcel() == Parcel()


def test_a_whole_run_sent_event_by_event_arrives_as_it_is(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    sender = Sender(here)

    def send(event) -> None:
        if event["event"] in ("group", "update"):
            put_down(there, sender.parcel())
            assert tree(there) == tree(here)

    run = make_run(here, SayEngine(lambda *_: answer("wrong")), budget=Budget(attempts=12), listeners=[send])
    solve(run)
    put_down(there, sender.parcel())
    assert tree(there) == tree(here)


def test_a_journal_that_lost_its_torn_tail_is_sent_from_its_beginning(tmp_path: Path) -> None:
    """The driver died while it wrote; the worker cut the tail off and wrote on, past the old length."""
    driver, worker = tmp_path / "driver", tmp_path / "worker"
    write(driver, "journal.jsonl", 'one\n{"torn')
    put_down(worker, Sender(driver).parcel())
    sender = Sender(worker)
    write(worker, "journal.jsonl", "one\ntwo and three\n")
    put_down(driver, sender.parcel())
    assert tree(driver) == tree(worker)


def test_a_copy_broken_off_between_two_files_is_a_run_without_the_last_update(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    run = make_run(here, SayEngine(lambda *_: answer("wrong")), budget=Budget(attempts=8))
    sender = Sender(here)
    put_down(there, sender.parcel())
    before = read_state(there / "journal.jsonl", "test/inc", there)
    solve(run)
    write(here, "policies/0001/adapter", "a")
    parcel = sender.parcel()
    assert parcel.pieces[-1].path == "journal.jsonl"
    for kept in range(len(parcel.pieces)):
        put_down(there, Parcel(parcel.pieces[:kept]))
        assert read_state(there / "journal.jsonl", "test/inc", there) == before


def test_a_journal_torn_anywhere_on_its_way_can_be_read(tmp_path: Path) -> None:
    here, rng = tmp_path / "here", random.Random(3)
    solve(make_run(here, SayEngine(lambda *_: answer("wrong")), budget=Budget(attempts=12)))
    data = (here / "journal.jsonl").read_bytes()
    for number in range(20):
        there = tmp_path / str(number)
        put_down(there, Parcel((Piece("journal.jsonl", 0, data[: rng.randrange(len(data))]),)))
        assert len(read_state(there / "journal.jsonl", "test/inc", there).history) in (0, 4, 8, 12)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="file"):
        put_down(tmp_path / "file", Parcel((Piece("journal.jsonl", 0, b"x"),)))


def test_homes_of_killed_workers_go_when_the_next_one_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    gone = subprocess.Popen([sys.executable, "-c", "pass"])
    gone.wait()
    for name in (
        f"sdpo-solve-worker-{gone.pid}-a",
        f"sdpo-solve-worker-{os.getpid()}-b",
        "sdpo-solve-worker-x-c",
    ):
        write(tmp_path / name, "lcb/journal.jsonl", "one\n")
    home = make_home()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {home.name, f"sdpo-solve-worker-{os.getpid()}-b", "sdpo-solve-worker-x-c"}
