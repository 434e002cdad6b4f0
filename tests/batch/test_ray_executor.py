"""The same plan on a Ray cluster of two worker processes: equal runs, also when a worker is killed.

Lost machines, and places that there are not, are played by a stand-in for Ray.
"""

import os
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sdpo_solve.batch.batch import Executed
from sdpo_solve.batch.event_bus import RunEnded
from sdpo_solve.batch.ray_executor import _Driver
from sdpo_solve.batch.spec import RunKey
from sdpo_solve.batch.stop import StopSignal
from sdpo_solve.errors import ConfigError, PrerequisiteError
from tests.helpers.batches import journals, make_problems, start, until

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


@pytest.mark.ray
@pytest.mark.docker
def test_two_workers_give_the_runs_of_one_process(folder: Path) -> None:
    ray = ("--executor", "ray", "--workers", "2")
    assert start(folder, *FLAGS, *ray, "--out", "there").wait(WAIT_S) == 0, (folder / "said").read_text()
    assert journals(folder / "there") == journals(folder / "here")


@pytest.mark.ray
@pytest.mark.docker
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


@pytest.mark.ray
@pytest.mark.docker
def test_the_runs_of_a_killed_worker_go_on_from_their_journals(folder: Path) -> None:
    flags = ("--executor", "ray", "--workers", "2", "--out", "lost")
    kill_a_worker_of(start(folder, *FLAGS, *flags), folder, "lost")
    assert journals(folder / "lost") == journals(folder / "here")


# -- a stand-in for Ray --------------------------------------------------------------------------------------


class RayError(Exception):
    pass


class RayActorError(RayError):
    pass


class GetTimeoutError(RayError, TimeoutError):
    pass


class RayTaskError(RayError):
    def __init__(self, cause: Exception) -> None:
        super().__init__(f"ray::Worker.close()\n{cause}")
        self.cause = cause


NEVER = inf


@dataclass(eq=False)
class Ref:
    """The answer of a call, there after so many rounds of waiting for it."""

    answer: Any
    rounds: float


class Actor:
    """A worker that is ready after so many rounds; a call that `fails` names raises that."""

    def __init__(self, rounds: float = 0, **fails: Exception) -> None:
        self.did: list[str] = []
        calls: dict[str, Callable[..., Any]] = {
            "prepare": lambda: None,
            "perform": self._perform,
            "events": list,
            "stop": lambda: None,
            "close": lambda: {"engine": 0.5},
        }
        for name, call in calls.items():
            wait = rounds if name == "prepare" or rounds == NEVER else 0
            setattr(self, name, SimpleNamespace(remote=self._remote(call, fails.get(name), wait)))

    def _remote(
        self, call: Callable[..., Any], failure: Exception | None, rounds: float
    ) -> Callable[..., Ref]:
        return lambda *given: Ref(failure or call(*given), rounds)

    def _perform(self, key: RunKey, problem: str) -> RunEnded:
        self.did.append(key.problem)
        return RunEnded.of(key, "finished")


class Ray:
    """Gives out `actors` in turn."""

    exceptions = SimpleNamespace(
        RayError=RayError,
        RayActorError=RayActorError,
        RayTaskError=RayTaskError,
        GetTimeoutError=GetTimeoutError,
    )

    def __init__(self, *actors: Actor) -> None:
        self._actors = iter(actors)
        self._n_waits = 0
        self.killed: list[Actor] = []

    def remote(self, batch: object) -> Actor:
        return next(self._actors)

    def kill(self, actor: Actor) -> None:
        self.killed.append(actor)

    def wait(self, refs: list[Ref], *, num_returns: int = 1, timeout: float) -> tuple[list[Ref], list[Ref]]:
        assert 1 <= num_returns <= len(refs), "as Ray has it"
        self._n_waits += 1
        assert self._n_waits < 200, "the driver waits for ever"
        ready = [ref for ref in refs if ref.rounds <= 0][:num_returns]
        for ref in refs:
            ref.rounds -= 1
        return ready, [ref for ref in refs if ref not in ready]

    def get(self, ref: Ref, timeout: float | None = None) -> Any:
        if ref.rounds > 0:
            raise GetTimeoutError("not there")
        if isinstance(ref.answer, Exception):
            raise ref.answer
        return ref.answer


class Carried:
    """Runs, one a problem, carried out by `actors`: the first `n_workers` at once, the others as replacements."""

    def __init__(self, *actors: Actor, n_workers: int, n_runs: int = 6, stop: bool = False) -> None:
        self.said: list[str] = []
        self.ray = Ray(*actors)
        options = SimpleNamespace(in_flight=1, tries=2)
        batch = SimpleNamespace(
            spec=SimpleNamespace(batch=options), problems=SimpleNamespace(named=lambda name: name)
        )
        self._stop = StopSignal()
        if stop:
            self._stop.set()
        self._driver = _Driver(self.ray, self.ray, batch, self._hear, self._stop)
        self._keys = [RunKey(0, f"p{n}", "sdpo") for n in range(n_runs)]
        self._n_workers = n_workers

    def _hear(self, event: Mapping[str, Any]) -> None:
        self.said += [event["text"]] if event["event"] == "notice" else []

    def __call__(self) -> Executed:
        return self._driver.run(self._keys, self._n_workers)


def statuses(executed: Executed) -> Counter[str]:
    return Counter(end.status for end in executed.ends)


DIED = RayActorError("The actor died.\n\tits node: 7")


def test_a_lost_machine_that_nothing_replaces_stops_nobody() -> None:
    lost, other, without_place = Actor(perform=DIED), Actor(), Actor(NEVER)
    batch = Carried(lost, other, without_place, n_workers=2)
    executed = batch()
    assert statuses(executed) == {"finished": 6}
    assert sorted(other.did) == [f"p{n}" for n in range(6)]
    assert batch.said == ["a worker is lost, its runs go on elsewhere: The actor died."]
    assert set(map(id, batch.ray.killed)) == {id(lost), id(other), id(without_place)}
    assert executed.busy == {"engine": 0.5}


def test_a_replacement_works_once_it_is_ready() -> None:
    lost, other, replacement = Actor(perform=DIED), Actor(), Actor(rounds=2)
    batch = Carried(lost, other, replacement, n_workers=2, n_runs=12)
    assert statuses(batch()) == {"finished": 12}
    assert other.did
    assert replacement.did


def test_the_last_worker_is_waited_for() -> None:
    batch = Carried(Actor(perform=DIED), Actor(rounds=20), n_workers=1)
    assert statuses(batch()) == {"finished": 6}
    assert "go on once Ray has a place for another" in batch.said[0]


def test_work_begins_where_not_every_worker_has_a_place() -> None:
    batch = Carried(Actor(), Actor(NEVER), n_workers=2)
    assert statuses(batch()) == {"finished": 6}


def test_a_batch_that_is_stopped_before_a_worker_is_ready_ends() -> None:
    assert statuses(Carried(Actor(NEVER), n_workers=1, stop=True)()) == {"stopped": 6}


def test_a_worker_that_dies_as_it_starts_is_missed_by_nobody_but_the_last() -> None:
    batch = Carried(Actor(prepare=DIED), Actor(rounds=3), n_workers=2)
    assert statuses(batch()) == {"finished": 6}
    assert batch.said == ["a worker is lost as it started, the others go on: The actor died."]
    with pytest.raises(PrerequisiteError, match=r"^a worker died as it started: The actor died\.$"):
        Carried(Actor(prepare=DIED), Actor(prepare=DIED), n_workers=2)()


def test_a_replacement_on_a_machine_that_is_lost_too_is_replaced_but_not_for_ever() -> None:
    other, third = Actor(), Actor()
    assert statuses(Carried(Actor(perform=DIED), other, Actor(prepare=DIED), third, n_workers=2)()) == {
        "finished": 6
    }
    assert other.did
    assert third.did
    unborn = [Actor(prepare=DIED) for _ in range(3)]
    batch = Carried(Actor(perform=DIED), Actor(), *unborn, n_workers=2, n_runs=12)
    assert statuses(batch()) == {"finished": 12}
    assert len(batch.said) == 4


def test_what_a_worker_lacks_ends_the_batch() -> None:
    with pytest.raises(ConfigError, match="no such model"):
        Carried(Actor(prepare=RayTaskError(ConfigError("no such model"))), Actor(), n_workers=2)()


@pytest.mark.parametrize(
    ("failure", "cause"),
    [
        (DIED, "The actor died."),
        (GetTimeoutError("Get timed out"), "Get timed out"),
        (RayTaskError(OSError("no space left")), "no space left"),
    ],
)
def test_a_worker_lost_after_the_last_run_takes_no_end_with_it(failure: Exception, cause: str) -> None:
    batch = Carried(Actor(close=failure), Actor(), n_workers=2)
    executed = batch()
    assert statuses(executed) == {"finished": 6}
    assert executed.busy == {"engine": 0.5}
    assert batch.said == [f"a worker did not close after the last run, the ends are kept: {cause}"]
    assert len(batch.ray.killed) == 2
