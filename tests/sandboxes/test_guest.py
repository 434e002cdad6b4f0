"""What a test in a box is charged with: sleep and processor time, never the wait for a busy machine."""

import os
from types import SimpleNamespace
from typing import Any

import pytest

from sdpo_solve.sandboxes.guest import process as guest_process
from sdpo_solve.sandboxes.guest.process import TICK_S
from sdpo_solve.sandboxes.guest.slots import Allowed, Slot

ALLOWED = Allowed(time_s=1.0, wall_s=3.0, memory_mb=100, file_bytes=1, n_processes=8)


class Place(Slot):
    def n_files(self) -> int:
        return 1


def process(*, asleep: bool, cpu_s: float = 0.1, own_mb: float = 1.0, n_threads: int = 1) -> Any:
    return SimpleNamespace(
        cpu_s=cpu_s, own_mb=own_mb, files_mb=1.0, n_threads=n_threads, sleeps=lambda: asleep
    )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The time as tests in the box see it: `clock.now`."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(guest_process, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def seconds_until_killed(clock: SimpleNamespace, *own: Any) -> tuple[str, float]:
    test = guest_process.Test(0, Place("/box/0"), ALLOWED, 1 << 20)
    began = clock.now
    while test.killed_for is None:
        clock.now += TICK_S
        test.watch(list(own))
    return test.killed_for, round(clock.now - began, 1)


def test_a_sleeper_is_ended_by_its_wall_time(clock: SimpleNamespace) -> None:
    assert seconds_until_killed(clock, process(asleep=True)) == ("wall", 2.9)  # 0.1 s of work, 2.9 s asleep


def test_waiting_for_a_processor_is_not_charged_but_ends_some_time(clock: SimpleNamespace) -> None:
    waiting = [process(asleep=True), process(asleep=False)]
    assert seconds_until_killed(clock, *waiting) == ("waiting", 12.0)


def test_a_runner_that_looks_seldom_charges_no_more_than_it_saw(clock: SimpleNamespace) -> None:
    test = guest_process.Test(0, Place("/box/0"), ALLOWED, 1 << 20)
    clock.now += 5.0  # the machine was so busy that the runner itself did not run
    test.watch([process(asleep=True)])
    assert (test.killed_for, test.idle_s) == (None, 0.0)  # it used 0.1 s since it was last looked at
    clock.now += 5.0
    test.watch([process(asleep=True)])
    assert (test.killed_for, test.idle_s) == (None, 2 * TICK_S)


def test_waiting_for_a_reader_of_its_output_is_not_sleep(clock: SimpleNamespace) -> None:
    test = guest_process.Test(0, Place("/box/0"), ALLOWED, 1 << 20)
    read_fd, write_fd = os.pipe()
    test.fds[read_fd] = "stderr"
    for n_bytes, idle_s in ((60_000, 0.0), (100, TICK_S)):  # a full pipe, and a word now and then
        os.write(write_fd, b"x" * n_bytes)
        test.drain(read_fd)
        clock.now += TICK_S
        test.watch([process(asleep=True, cpu_s=0.0)])
        assert test.idle_s == pytest.approx(idle_s)
    os.close(write_fd)
    test.close(read_fd)


@pytest.mark.parametrize(
    ("own", "killed_for"),
    [
        (process(asleep=False, cpu_s=1.3), "cpu"),
        (process(asleep=False, own_mb=100.0), "memory"),
        (process(asleep=False, n_threads=13), "processes"),
    ],
)
def test_what_is_used_up_ends_it_at_once(own: Any, killed_for: str, clock: SimpleNamespace) -> None:
    assert seconds_until_killed(clock, own) == (killed_for, 0.0)


# -- its status ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("differs", "status", "again"),
    [
        ({}, "ok", False),
        ({"n_values": 1}, "runtime_error", False),
        ({"n_values": 3}, "runtime_error", False),
        ({"exit_code": 1}, "runtime_error", False),
        ({"exit_code": -11}, "runtime_error", False),
        ({"compiled": False, "exit_code": 1}, "compile_error", False),
        # Between the limit and the kill at 1.25 of it: believed only alone.
        ({"cpu_s": 1.1}, "time_limit", True),
        ({"cpu_s": 1.1, "alone": True}, "time_limit", False),
        ({"cpu_s": 1.3, "killed_for": "cpu", "exit_code": -9}, "time_limit", False),
        # Out of wall time: a sleeper is too slow, a starved program is run again.
        ({"cpu_s": 0.1, "killed_for": "wall", "exit_code": -9}, "time_limit", False),
        ({"cpu_s": 0.8, "killed_for": "wall", "exit_code": -9}, "time_limit", True),
        ({"cpu_s": 0.8, "killed_for": "wall", "exit_code": -9, "alone": True}, "time_limit", False),
        # Memory by its own measure is certain; a kill from elsewhere may have been meant for a neighbour.
        ({"peak_mb": 101.0}, "memory_limit", False),
        ({"killed_for": "memory", "exit_code": -9}, "memory_limit", False),
        ({"exit_code": -9}, "runtime_error", True),
        ({"exit_code": -9, "alone": True}, "runtime_error", False),
        ({"killed_for": "output", "cpu_s": 9.0, "peak_mb": 199.0}, "output_limit", False),
        ({"killed_for": "processes", "cpu_s": 9.0}, "runtime_error", False),
        ({"killed_for": "waiting", "cpu_s": 0.1}, "time_limit", True),
        ({"killed_for": "waiting", "cpu_s": 0.1, "alone": True}, "time_limit", False),
    ],
)
def test_status(differs: dict[str, Any], status: str, again: bool) -> None:
    facts = {"exit_code": 0, "compiled": True, "n_values": 2, "alone": False, "cpu_s": 0.5} | differs
    test = guest_process.Test(0, Place("/box/0"), ALLOWED, 1 << 20)
    test.alone, test.n_calls = facts["alone"], 2
    test.cpu_s, test.peak_mb = facts["cpu_s"], facts.get("peak_mb", 10.0)
    test.killed_for = facts.get("killed_for")
    found = test.status(facts["exit_code"], compiled=facts["compiled"], n_values=facts["n_values"])
    assert found == (status, again)
