"""What is seen of a batch: the fold, the lines, the frame."""

import io

import pytest
from rich.console import Console

from sdpo_solve.batch.event_bus import batch_record_of, log_line
from sdpo_solve.cli.live_batch import BatchProgress, BatchView, frame
from tests.helpers.batch_events import EVENTS, STARTED, ended


def test_counts_leave_failures_and_stopped_runs_out_of_the_rate() -> None:
    progress = BatchProgress()
    for event in [*EVENTS, ended(3, status="stopped")]:
        progress.apply(batch_record_of(event))
    assert (progress.n_ended, progress.n_kept, progress.n_solved, progress.n_failed) == (3, 1, 1, 1)
    arm = progress.arms["sdpo"]
    assert (arm.finished, arm.solved, arm.attempts, arm.tokens) == (2, 1, 16, 80)
    assert list(progress.discoveries) == ["inc/sdpo/seed-1: attempt 3"]


def test_plain_lines_say_each_end_once_and_cannot_colour_the_terminal() -> None:
    said = io.StringIO()
    view = BatchView(Console(file=said, width=80))
    for event in EVENTS:
        view.on_event(event)
    lines = said.getvalue().splitlines()
    assert "\x1b" not in said.getvalue()
    assert lines[0].startswith("2/4  inc/sdpo/seed-1: solved at attempt 3 (8 attempts, 40 tokens, 1:05)")
    assert "to be tried again" in lines[1]
    assert "given up" in said.getvalue()
    assert lines[-1] == "the sandbox is gone"


def test_the_frame_fits_a_narrow_terminal() -> None:
    progress = BatchProgress()
    for event in EVENTS:
        progress.apply(batch_record_of(event))
    said = io.StringIO()
    Console(file=said, width=80, force_terminal=False).print(frame(progress))
    assert max(len(line) for line in said.getvalue().splitlines()) <= 80
    for part in (
        "3/4",
        "1 solved · 1 failed · 1 kept",
        "50 %",
        "sampling 0:",
        "attempt 3",
        "sandbox is gone",
    ):
        assert part in said.getvalue()


def test_runs_that_a_closed_batch_did_not_come_to_are_not_listed() -> None:
    said = io.StringIO()
    view = BatchView(Console(file=said, width=80))
    never, begun = ended(4, status="stopped", attempts=0), ended(5, status="stopped", attempts=8)
    for event in (STARTED, never, begun):
        view.on_event(event)
    assert said.getvalue().splitlines() == ["0/4  inc/sdpo/seed-5: stopped"]
    assert log_line(never) is None
    assert log_line(begun) == "inc/sdpo/seed-5 ended: stopped"


def test_time_left_is_counted_down_and_no_longer_shown_once_it_is_used_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    progress = BatchProgress()
    progress.apply(batch_record_of(STARTED))  # four runs
    assert progress.left_s() is None
    now += 60
    progress.apply(batch_record_of(ended(0)))
    assert progress.left_s() == 180
    now += 50
    assert progress.left_s() == 130
    now += 200
    assert progress.left_s() is None
    for n in (1, 2, 3):
        progress.apply(batch_record_of(ended(n)))
    assert progress.left_s() == 0
