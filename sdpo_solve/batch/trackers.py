"""Figures of a batch for TensorBoard, W&B or trackio: off by default, never required, one small interface.

The journals stay the record; a tracker only shows. Packages are imported when a tracker is made.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from sdpo_solve.batch.event_bus import RunEnded, batch_record_of
from sdpo_solve.errors import ConfigError, PrerequisiteError
from sdpo_solve.run.records import Event, GroupEvent, UpdateEvent

_PROJECT = "sdpo-solve"


class Tracker(Protocol):
    """Shows figures by name."""

    def log(self, figures: Mapping[str, float]) -> None:
        """One more point of each of these figures."""

    def finish(self) -> None:
        """Write what is left."""


class TensorBoard:
    """Event files below `OUT/tensorboard`."""

    def __init__(self, out: Path, config: Mapping[str, Any]) -> None:
        _need("tensorboard", "tensorboard")
        writer = _need("torch.utils.tensorboard", "tensorboard")
        self._writer = writer.SummaryWriter(str(out / "tensorboard"))
        self._writer.add_text("options", str(dict(config)))
        self._steps: Counter[str] = Counter()

    def log(self, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, self._steps[name])
            self._steps[name] += 1

    def finish(self) -> None:
        self._writer.close()


class Hosted:
    """W&B, and trackio, which keeps its figures on this machine: what is used here is the same in both."""

    def __init__(self, package: str, out: Path, config: Mapping[str, Any]) -> None:
        self._module = _need(package, package)
        self._module.init(project=_PROJECT, name=out.name, config=dict(config))

    def log(self, figures: Mapping[str, float]) -> None:
        self._module.log(dict(figures))

    def finish(self) -> None:
        self._module.finish()


TRACKERS: Mapping[str, Callable[[Path, Mapping[str, Any]], Tracker]] = {
    "tensorboard": TensorBoard,
    "trackio": partial(Hosted, "trackio"),
    "wandb": partial(Hosted, "wandb"),
}


def check(names: Sequence[str]) -> None:
    """Raises ConfigError for an unknown name. For early: `make` begins a record."""
    for name in names:
        if name not in TRACKERS:
            raise ConfigError(f"unknown tracker {name!r} (known: {', '.join(TRACKERS)})")


class Tracking:
    """The trackers of one batch, as a receiver of its events. A context manager.

    One that fails, at its start or later, is left out from then on, and `notify` receives one sentence: a
    tracker never ends a run. Raises ConfigError for an unknown name, PrerequisiteError where a package is
    missing.
    """

    def __init__(
        self, names: Sequence[str], out: Path, config: Mapping[str, Any], notify: Callable[[str], None]
    ) -> None:
        check(names)
        self._notify = notify
        self._counts: Counter[str] = Counter()
        self._trackers: dict[str, Tracker] = {}
        for name in names:
            with self._guarded(name):
                self._trackers[name] = TRACKERS[name](out, config)

    def __call__(self, event: Event) -> None:
        figures = figures_of(event, self._counts)
        for name, tracker in [*self._trackers.items()] if figures else []:
            with self._guarded(name):
                tracker.log(figures)

    def __enter__(self) -> Tracking:
        return self

    def __exit__(self, *exc: object) -> None:
        for name, tracker in [*self._trackers.items()]:
            with self._guarded(name):
                tracker.finish()

    @contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        try:
            yield
        except PrerequisiteError:
            raise
        except (Exception, SystemExit) as exc:  # noqa: BLE001 -- other people's services, some of which exit
            self._trackers.pop(name, None)
            cause = " ".join(f"{type(exc).__name__}: {exc}".split())
            self._notify(f"the tracker {name} has failed and is left out, the batch goes on: {cause}")


def figures_of(event: Event, counts: Counter[str]) -> dict[str, float]:
    """The figures of one event by name; `counts` carries the sums of a batch from call to call."""
    match batch_record_of(event):
        case UpdateEvent() as update:
            named = {"loss": update.loss, **update.metrics}
            return {f"{update.run}/{name}": value for name, value in named.items() if value is not None}
        case GroupEvent(run=run) as group:
            return {f"{run}/solved_share": group.n_solved / group.size, f"{run}/tokens": group.n_tokens}
        case RunEnded(is_counted=True, status="failed"):
            counts["batch/failed"] += 1
            return {"batch/failed": counts["batch/failed"]}
        case RunEnded(is_counted=True, arm=arm) as end:
            counts[f"{arm}/finished"] += 1
            counts[f"{arm}/solved"] += end.solved
            finished, solved = counts[f"{arm}/finished"], counts[f"{arm}/solved"]
            return {f"batch/{arm}/finished": finished, f"batch/{arm}/discovery_rate": solved / finished}
    return {}


def _need(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as exc:
        raise PrerequisiteError(f"the tracker needs {package} ({exc}); pip install {package}") from None
