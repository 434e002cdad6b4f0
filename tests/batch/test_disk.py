"""Disks that are full or cannot be written, and directories that somebody else holds: one line, nothing lost."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from sdpo_solve.errors import JournalError, LearnerError
from sdpo_solve.model.adapted import AdaptedModel
from sdpo_solve.run.identity import write_config
from sdpo_solve.run.journal import Journal
from tests.helpers.command import WRONG, Place, one_line
from tests.helpers.tiny_model import save_tiny_model
from tests.helpers.updates import SPEC, group, learner

Disk = Callable[[str], Path]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Makes a real small file system with mount options, and takes it away again."""
    mounted: list[Path] = []

    def make(options: str) -> Path:
        place = tmp_path / f"disk-{len(mounted)}"
        place.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip("mounting a small file system needs root")
        mounted.append(place)
        return place

    if os.geteuid():
        pytest.skip("mounting a small file system needs root")
    yield make
    for place in mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path, leave_bytes: int) -> Path:
    """Fill a file system up to so many bytes."""
    free = os.statvfs(place)
    filler = place / "filler"
    filler.write_bytes(b"\0" * (free.f_bavail * free.f_frsize - leave_bytes))
    return filler


def remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)


# -- the learner -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> AdaptedModel:
    path = save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")
    return AdaptedModel.load(path, "cpu", torch.float32)


@pytest.mark.parametrize("leave_bytes", [0, 8 << 10, 100 << 10, 300 << 10])
def test_a_full_disk_loses_the_step_and_nothing_else(
    disk: Disk, host: AdaptedModel, leave_bytes: int
) -> None:
    """The disk fills up before, or in the middle of, one of the files of a version."""
    place = disk("size=8m")
    found = learner(host)
    first = found.learn(group(host, found.start("run", place / "policies", 0)), SPEC).policy
    filler = fill(place, leave_bytes)
    with pytest.raises(LearnerError, match=r"cannot write .*policies/0002: .*No space left on device"):
        found.learn(group(host, first), SPEC)
    assert [path.name for path in (place / "policies").iterdir()] == ["0001"]
    filler.unlink()
    again = learner(host)
    assert again.learn(group(host, again.resume("run", place / "policies", 0, 1)), SPEC).policy.version == 2


def test_a_disk_that_turns_read_only_is_named(disk: Disk, host: AdaptedModel) -> None:
    place = disk("size=8m")
    found = learner(host)
    first = found.learn(group(host, found.start("run", place / "policies", 0)), SPEC).policy
    remount(place, "ro")
    with pytest.raises(LearnerError, match=r"cannot write .*policies/0002: Read-only file system"):
        found.learn(group(host, first), SPEC)
    with pytest.raises(LearnerError, match=r"cannot write .*kept\.json: Read-only file system"):
        found.keep(first)
    (place / "policies" / "0001" / "state.json").read_text()


# -- the record --------------------------------------------------------------------------------------------


def test_a_configuration_is_written_whole_or_not_at_all(disk: Disk) -> None:
    place = disk("size=64k")
    filler = fill(place, 4096)
    with pytest.raises(JournalError, match=r"cannot write .*config\.json: No space left on device"):
        write_config(place, {"long": "x" * 20_000})
    assert [path.name for path in place.iterdir()] == ["filler"]
    filler.unlink()
    write_config(place, {"long": "x" * 20_000})
    assert len(json.loads((place / "config.json").read_text())["long"]) == 20_000


def test_a_journal_on_a_real_full_disk_keeps_what_it_has(disk: Disk) -> None:
    place = disk("size=64k")
    journal = Journal(place, "run")
    journal.start({"problem": "p", "method": "m", "seed": 0})
    whole = journal.path.read_bytes()
    fill(place, 0)
    with pytest.raises(JournalError, match="No space left on device; free the disk and repeat"):
        journal._write([{"event": "group", "text": "x" * 30_000}])
    assert journal.path.read_bytes().startswith(whole)
    journal.close()


# -- the command -------------------------------------------------------------------------------------------


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
