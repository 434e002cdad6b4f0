"""The events of a batch on their way: the log, the JSON lines, receivers that fail."""

import json
from pathlib import Path

import pytest

from sdpo_solve.batch.event_bus import Broadcast, LogFile, json_lines, log_line
from sdpo_solve.report.follow import locked
from tests.helpers.batch_events import EVENTS, STARTED, ended


def raise_it(exc: BaseException) -> None:
    raise exc


def test_the_log_and_the_json_lines_get_the_same_events(tmp_path: Path) -> None:
    said: list[str] = []
    group = {"event": "group", "run": "r", "size": 2, "first": 1, "n_solved": 0, "n_tokens": 9}
    with LogFile(tmp_path) as log:
        sink = Broadcast(log, json_lines(said.append), on_error=raise_it)
        for event in [
            *EVENTS,
            {**group, "sample_s": 1.0, "grade_s": 0.5},
            {"event": "prompt", "text": "long"},
        ]:
            sink(event)
        sink({**STARTED, "replayed": True})
    assert [json.loads(line)["event"] for line in said] == [
        "batch_started", *["run_ended"] * 4, "notice", "group",
    ]  # fmt: skip
    lines = (tmp_path / "batch.log").read_text().splitlines()
    assert len(lines) == 7
    assert "r group of 2 from attempt 1: 0 solved, 9 tokens" in lines[-1]
    assert log_line({"event": "grading", "size": 3}) is None


def test_a_receiver_that_fails_is_left_out_and_the_others_go_on() -> None:
    kept, errors = [], []

    def full(event) -> None:
        raise OSError(28, "No space left on device")

    sink = Broadcast(full, kept.append, on_error=errors.append)
    sink(STARTED)
    sink(ended(1))
    assert kept == [STARTED, ended(1)]
    assert [str(error) for error in errors] == ["[Errno 28] No space left on device"]


def test_what_rich_makes_of_a_closed_pipe_does_not_end_a_run() -> None:
    errors = []

    def closed(event) -> None:
        raise SystemExit(1)

    Broadcast(closed, on_error=errors.append)(STARTED)
    assert len(errors) == 1


def test_a_notice_of_every_run_is_passed_on_once() -> None:
    kept: list[dict] = []
    sink = Broadcast(kept.append, on_error=raise_it)
    once = {"event": "notice", "text": "no locks", "once": True}
    for event in (
        once,
        {**once, "run": "b"},
        {"event": "notice", "text": "x"},
        {"event": "notice", "text": "x"},
    ):
        sink(event)
    assert [event["text"] for event in kept] == ["no locks", "x", "x"]


def test_the_log_is_locked_as_long_as_the_batch_lives(tmp_path: Path) -> None:
    path = tmp_path / "batch.log"
    with LogFile(tmp_path), LogFile(tmp_path):  # two batches may share a directory
        assert locked([path]) == {path}
    assert locked([path]) == set()


@pytest.mark.parametrize("text", ["Traceback (most recent call last):\n  line\nKeyError: 'x'\n"])
def test_a_fault_is_in_the_log_with_its_traceback(tmp_path: Path, text: str) -> None:
    with LogFile(tmp_path) as log:
        log({"event": "fault", "run": "r", "traceback": text})
    assert (tmp_path / "batch.log").read_text().endswith(text)
