"""Figures of a batch for trackers, and trackers that fail."""

import sys
from collections import Counter
from pathlib import Path

import pytest

from sdpo_solve.batch import trackers
from sdpo_solve.batch.trackers import Tracking, figures_of
from sdpo_solve.errors import ConfigError, PrerequisiteError
from tests.helpers.batch_events import EVENTS, STARTED, ended


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
    with pytest.raises(ConfigError, match="known: tensorboard, trackio, wandb"):
        Tracking(("mlflow",), tmp_path, {}, print)


def test_tensorboard_keeps_the_figures_of_a_batch(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Tracking(["tensorboard"], tmp_path, {"seeds": 2}, print) as tracking:
        for event in [*EVENTS, ended(6, solved=False)]:
            tracking(event)
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
def test_hosted_trackers_begin_log_and_finish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """On a module with their interface: the real ones want an account, or a server of their own."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / f"{name}.py").write_text(HOSTED)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.delitem(sys.modules, name, raising=False)
    with Tracking([name], tmp_path / "first", {"seeds": 2}, print) as tracking:
        calls = sys.modules.pop(name).calls
        for event in [STARTED, ended(0, solved=True, discovery_time=1), ended(1, status="stopped")]:
            tracking(event)
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
        Tracking([name], tmp_path, {}, print)


class Failing:
    """A tracker whose start, n-th point or end fails."""

    def __init__(self, at: str) -> None:
        self.at, self.n = at, 0

    def __call__(self, out: Path, config: object) -> "Failing":
        if self.at == "start":
            raise ConnectionError("no route\nto host")
        return self

    def log(self, figures: object) -> None:
        self.n += 1
        if self.n == 2 and self.at in ("log", "exit"):
            raise RuntimeError("401") if self.at == "log" else SystemExit(1)

    def finish(self) -> None:
        if self.at == "finish":
            raise TimeoutError("upload")


@pytest.mark.parametrize(("at", "n_points"), [("start", 0), ("log", 2), ("exit", 2), ("finish", 3)])
def test_a_tracker_that_fails_is_left_out_with_a_notice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str, n_points: int
) -> None:
    notices: list[str] = []
    failing = Failing(at)
    monkeypatch.setattr(trackers, "TRACKERS", {"mine": failing})
    with Tracking(["mine"], tmp_path, {}, notices.append) as tracking:
        for n in range(3):
            tracking(ended(n))
    assert failing.n == n_points
    assert len(notices) == 1
    assert "the tracker mine has failed" in notices[0]
