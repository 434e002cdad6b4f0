"""What is seen of a batch: the fold, the lines, the frame, the log, the trackers' figures."""

import io
import json
import sys
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from sdpo_solve.batch.event_bus import Broadcast, LogFile, batch_record_of, json_lines, log_line
from sdpo_solve.batch.runner import RunSummary
from sdpo_solve.batch.spec import RunKey
from sdpo_solve.batch.trackers import feed, figures_of, make
from sdpo_solve.cli.live_batch import BatchProgress, BatchView, frame
from sdpo_solve.errors import ConfigError, PrerequisiteError


def ended(n: int, **fields) -> dict:
    key = RunKey(n, "inc", "sdpo")
    return RunSummary(
        key, **{"status": "finished", "attempts": 8, "tokens": 40, "wall_s": 65.0, **fields}
    ).event()


STARTED = {"event": "batch_started", "runs": 4, "methods": ["sdpo"], "out": "runs/b"}
EVENTS = [
    STARTED,
    ended(0, kept=True),
    ended(1, solved=True, discovery_time=3),
    ended(2, status="failed", error="the \x1b[31mbox broke\nbadly", may_retry=True),
    ended(2, status="failed", error="the \x1b[31mbox broke\nbadly"),
    {"event": "sampling", "run": "inc/sdpo/seed-3", "size": 16},
    {"event": "notice", "text": "the sandbox is gone"},
]


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
        "sampling 16",
        "attempt 3",
        "sandbox is gone",
    ):
        assert part in said.getvalue()


def test_the_log_and_the_json_lines_hear_the_same_events(tmp_path: Path) -> None:
    said: list[str] = []
    group = {"event": "group", "run": "r", "size": 2, "first": 1, "n_solved": 0, "n_tokens": 9}
    with LogFile(tmp_path) as log:
        sink = Broadcast(log, json_lines(said.append))
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


def test_trackers_get_figures_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    assert figures_of(ended(0, solved=True, discovery_time=1), counts)["batch/sdpo/discovery_rate"] == 1
    assert figures_of(ended(1), counts) == {"batch/sdpo/finished": 2, "batch/sdpo/discovery_rate": 0.5}
    assert figures_of(ended(2, status="failed", error="x"), counts) == {"batch/failed": 1}
    assert figures_of(ended(2, status="stopped"), counts) == {}
    update = {
        "event": "update",
        "run": "r",
        "version": 1,
        "loss": 0.5,
        "metrics": {"entropy": None, "grad_norm": 2.0},
    }
    assert figures_of(update, counts) == {"r/loss": 0.5, "r/grad_norm": 2.0}
    assert make((), tmp_path, {}) == []
    with pytest.raises(ConfigError, match="known: tensorboard, trackio, wandb"):
        make(("mlflow",), tmp_path, {})


def test_runs_that_a_closed_batch_did_not_come_to_are_not_listed() -> None:
    said = io.StringIO()
    view = BatchView(Console(file=said, width=80))
    never, begun = ended(4, status="stopped", attempts=0), ended(5, status="stopped", attempts=8)
    for event in (STARTED, never, begun):
        view.on_event(event)
    assert said.getvalue().splitlines() == ["0/4  inc/sdpo/seed-5: stopped"]
    assert log_line(never) is None
    assert log_line(begun) == "inc/sdpo/seed-5 ended: stopped"


def test_tensorboard_keeps_the_figures_of_a_batch(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (tracker,) = make(["tensorboard"], tmp_path, {"seeds": 2})
    receive = feed(tracker)
    for event in [*EVENTS, ended(6, solved=False)]:
        receive(event)
    tracker.finish()
    tracker.finish()
    kept = EventAccumulator(str(tmp_path / "tensorboard"))
    kept.Reload()
    rates = [(point.step, point.value) for point in kept.Scalars("batch/sdpo/discovery_rate")]
    assert rates == [(0, 0.0), (1, 0.5), (2, pytest.approx(1 / 3))]


HOSTED = """
calls = []
def init(*, project, name, config): calls.append(("init", project, name, config))
def log(data): calls.append(("log", data))
def finish(): calls.append(("finish",))
"""


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_hosted_trackers_begin_log_and_finish_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """On a module with their interface: the real ones want an account, or a server of their own."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / f"{name}.py").write_text(HOSTED)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.delitem(sys.modules, name, raising=False)
    (tracker,) = make([name], tmp_path / "first", {"seeds": 2})
    calls = sys.modules.pop(name).calls
    receive = feed(tracker)
    for event in [STARTED, ended(0, solved=True, discovery_time=1), ended(1, status="stopped")]:
        receive(event)
    tracker.finish()
    tracker.finish()
    assert calls == [
        ("init", "sdpo-solve", "first", {"seeds": 2}),
        ("log", {"batch/sdpo/finished": 1, "batch/sdpo/discovery_rate": 1.0}),
        ("finish",),
    ]


@pytest.mark.parametrize("name", ["wandb", "trackio", "tensorboard"])
def test_a_tracker_whose_package_is_missing_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(PrerequisiteError, match=f"the tracker needs {name} .*; pip install {name}$"):
        make([name], tmp_path, {})
