"""A disk that is full or cannot be written, and a directory that somebody else holds: one line, nothing lost."""

import json
from pathlib import Path

import pytest

from sdpo_solve.run.journal import Journal
from tests.helpers.command import WRONG, Place, one_line
from tests.helpers.disks import Disk, fill, remount


@pytest.fixture
def place(tmp_path: Path) -> Place:
    found = Place(tmp_path)
    found.replies(WRONG, WRONG, WRONG, WRONG)
    return found


ONE_BY_ONE = ("--method", "best-of-k", "--group-size", "1", "--attempts", "2")


@pytest.mark.docker
def test_an_out_that_cannot_be_written_is_one_line(place: Place, disk: Disk) -> None:
    where = disk("size=1m")
    remount(where, "ro")
    done = place("run", "inc.json", "--engine", "scripted", "--replies", "replies.jsonl", "--out", str(where),
                 *ONE_BY_ONE)  # fmt: skip
    assert done.returncode == 2
    assert f"--out {where} cannot be written (Read-only file system); choose another" in one_line(done.stderr)


@pytest.mark.docker
def test_a_run_on_a_full_disk_ends_in_one_line_and_goes_on_later(place: Place, disk: Disk) -> None:
    where = disk("size=64k")
    filler = fill(where, 8192)
    arguments = ("run", "inc.json", "--engine", "scripted", "--replies", "replies.jsonl", "--out", str(where),
                 "--method", "best-of-k", "--group-size", "1", "--attempts", "4", "--json")  # fmt: skip
    done = place(*arguments)
    assert done.returncode == 4, done.stderr
    assert "No space left on device" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    filler.unlink()
    done = place(*arguments)
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["attempts"] == 4


@pytest.mark.docker
def test_a_second_process_on_a_run_is_turned_away_in_one_line(place: Place) -> None:
    run_dir = place.path / "out" / "inc" / "best-of-k" / "seed-0"
    holder = Journal(run_dir, "out/inc/best-of-k/seed-0")
    done = place.run(*ONE_BY_ONE)
    assert done.returncode == 4
    assert "another process is writing" in one_line(done.stderr)
    holder.close()
    assert place.run(*ONE_BY_ONE).returncode == 1
