"""The same plan on a Ray cluster of two worker processes: equal runs, also when a worker is killed."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.helpers.batches import journals, make_problems, start, until

pytestmark = [pytest.mark.ray, pytest.mark.docker]

FLAGS = ("--attempts", "24", "--in-flight", "1")
WAIT_S = 400


def workers_of(driver: int) -> list[int]:
    """Process ids of the actors that a local cluster of this driver started."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            name = (entry / "cmdline").read_bytes()
            session = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[3])
        except (OSError, ValueError, IndexError):
            continue
        if name.startswith(b"ray::Worker") and session == os.getsid(driver):
            found.append(int(entry.name))
    return found


def kill_a_worker_of(process: subprocess.Popen, folder: Path, out: str) -> None:
    """Kill one worker once a group is on the driver's disk, and wait for the batch to end well."""
    at_work = (folder / out).glob
    until(
        process, lambda: any('"group"' in path.read_text() for path in at_work("*/*/*/journal.jsonl")), WAIT_S
    )
    victims = workers_of(process.pid)
    assert victims, "no worker of this driver was found"
    os.kill(victims[0], signal.SIGKILL)
    assert process.wait(WAIT_S) == 0, (folder / "said").read_text()
    assert "a worker is lost" in (folder / "said").read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the problems and `here`, the plan carried out by one process."""
    root = tmp_path_factory.mktemp("cluster")
    make_problems(root / "problems", 2)
    assert start(root, *FLAGS, "--out", "here").wait(WAIT_S) == 0, (root / "said").read_text()
    return root


def test_two_workers_give_the_runs_of_one_process(folder: Path) -> None:
    ray = ("--executor", "ray", "--workers", "2")
    assert start(folder, *FLAGS, *ray, "--out", "there").wait(WAIT_S) == 0, (folder / "said").read_text()
    assert journals(folder / "there") == journals(folder / "here")


def test_a_plan_for_ray_is_measured_on_one_of_its_workers(folder: Path) -> None:
    """The short runs lie beside the results for a while, where every worker sees them."""
    flags = ("--attempts", "24", "--methods", "sdpo", "--executor", "ray", "--workers", "2")
    before = (folder / "said").read_text()
    assert start(folder, *flags, "--dry-run", "--measure", "--out", "plan").wait(WAIT_S) == 0, (
        folder / "said"
    ).read_text()
    said = " ".join((folder / "said").read_text().removeprefix(before).split())
    assert "on one worker" in said
    assert "(by 8 measured attempts" in said
    assert "disk at most" in said
    assert not (folder / "plan").exists()
    assert not list(folder.glob(".sdpo-solve-measure-*"))


def test_the_runs_of_a_killed_worker_go_on_from_their_journals(folder: Path) -> None:
    flags = ("--executor", "ray", "--workers", "2", "--out", "lost")
    kill_a_worker_of(start(folder, *FLAGS, *flags), folder, "lost")
    assert journals(folder / "lost") == journals(folder / "here")
