"""The busy shares of a batch."""

import threading
import time

import pytest

from sdpo_solve.batch.locks import Meter


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
