"""The busy shares of a batch."""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from sdpo_solve.batch.locks import DeviceLocks, Meter
from sdpo_solve.run.clock import Clock


def test_overlapping_use_counts_once_and_waiting_is_not_a_runs_own_time() -> None:
    meter = Meter()

    def grade() -> None:
        with meter.time("running"), meter.time("waiting"), meter.time("grading"):
            time.sleep(0.2)

    threads = [threading.Thread(target=grade) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with meter.time("running"):
        time.sleep(0.2)
    shares = meter.shares()
    assert shares["grading"] == pytest.approx(0.5, abs=0.15)
    assert shares["own"] == pytest.approx(0.5, abs=0.15)
    assert shares["learning"] == 0


def test_a_runs_clock_stands_still_until_its_turn_comes() -> None:
    """Three runs of 0.3 s each, one after the other: 0.9 s in all, 0.3 s of each run's clock."""
    locks, clocks = DeviceLocks.make(shared_weights=True), [Clock(), Clock(), Clock()]
    seen = []

    def take(turn: Callable[[Clock], AbstractContextManager[None]], clock: Clock) -> None:
        with turn(clock):
            time.sleep(0.3)
        seen.append(clock.elapsed_s)

    turns = (locks.sampling, locks.learning, locks.sampling)
    threads = [threading.Thread(target=take, args=given) for given in zip(turns, clocks, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == pytest.approx([0.3] * 3, abs=0.15)
