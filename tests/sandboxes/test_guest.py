"""What a test in a box is charged with: sleep and processor time, never the wait for a busy machine."""

import os
from types import SimpleNamespace
from typing import Any

import pytest

from sdpo_solve.sandboxes.guest import process as _guest_test
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
    monkeypatch.setattr(_guest_test, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def seconds_until_killed(clock: SimpleNamespace, *own: Any) -> tuple[str, float]:
    test = _guest_test.Test(0, False, 0, Place("/box/0"), ALLOWED)
    began = clock.now
    while test.killed_for is None:
        clock.now += TICK_S
        test.watch(list(own))
    return test.killed_for, round(clock.now - began, 1)


def test_a_sleeper_is_ended_by_its_wall_time(clock: SimpleNamespace) -> None:
    assert seconds_until_killed(clock, process(asleep=True)) == ("wall", 2.9)  # 0.1 s of work, 2.9 s asleep


def test_waiting_for_a_processor_is_not_charged_but_ends_some_time(clock: SimpleNamespace) -> None:
    waiting = [process(asleep=True), process(asleep=False)]
    assert seconds_until_killed(clock, *waiting) == ("patience", 12.0)


def test_a_runner_that_looks_seldom_charges_no_more_than_it_saw(clock: SimpleNamespace) -> None:
    test = _guest_test.Test(0, False, 0, Place("/box/0"), ALLOWED)
    clock.now += 5.0  # the machine was so busy that the runner itself did not run
    test.watch([process(asleep=True)])
    assert (test.killed_for, test.idle_s) == (None, 0.0)  # it used 0.1 s since it was last looked at
    clock.now += 5.0
    test.watch([process(asleep=True)])
    assert (test.killed_for, test.idle_s) == (None, 2 * TICK_S)


def test_waiting_for_a_reader_of_its_output_is_not_sleep(clock: SimpleNamespace) -> None:
    test = _guest_test.Test(0, False, 0, Place("/box/0"), ALLOWED)
    read_fd, write_fd = os.pipe()
    test.fds[read_fd] = "stderr"
    for n_bytes, idle_s in ((60_000, 0.0), (100, TICK_S)):  # a full pipe, and a word now and then
        os.write(write_fd, b"x" * n_bytes)
        test.drain(read_fd, 1 << 20)
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
