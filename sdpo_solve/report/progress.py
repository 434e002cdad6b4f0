"""What a run has come to, folded from its journal events: the state behind every display.

Knows events by their fields only, so that it serves a live run, a replayed one and one started elsewhere. It
draws nothing (see `ui.py`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MARKS = {
    "solved": "✓",
    "hidden": "H",
    "wrong_answer": "w",
    "runtime_error": "e",
    "compile_error": "c",
    "time_limit": "t",
    "memory_limit": "m",
    "output_limit": "o",
    "no_code": "-",
}
LEGEND = {
    "✓": "solved",
    "H": "hidden test failed",
    "w": "wrong answer",
    "e": "runtime error",
    "c": "compile error",
    "t": "time limit",
    "m": "memory limit",
    "o": "output limit",
    "-": "no code",
}


@dataclass(slots=True)
class UpdateRow:
    """One update as the display lists it."""

    version: int
    loss: float | None
    metrics: Mapping[str, float | None]


@dataclass(slots=True)
class Progress:
    """Counts, marks and the last words of one run; `apply` folds one event in."""

    header: dict[str, Any] = field(default_factory=dict)
    marks: list[str] = field(default_factory=list)
    n_tokens: int = 0
    n_solved: int = 0
    best_passed: int = 0
    n_tests: int = 0
    discovery: dict[str, Any] | None = None
    last_attempt: dict[str, Any] | None = None
    updates: list[UpdateRow] = field(default_factory=list)
    phase: str = "starting"
    phase_size: int = 0
    phase_tokens: int = 0
    phase_finished: int = 0
    phase_started_s: float = 0.0
    tokens_per_s: float = 0.0
    elapsed_s: float = 0.0
    seen_s: float = field(default_factory=time.monotonic)
    finished: dict[str, Any] | None = None
    notices: list[str] = field(default_factory=list)

    def apply(self, event: Mapping[str, Any]) -> None:
        """Fold one event in; unknown events are ignored, so that newer journals can be shown."""
        handler = getattr(self, f"_on_{event['event']}", None)
        if handler is not None:
            handler(event)
        if "elapsed_s" in event:
            self.elapsed_s, self.seen_s = event["elapsed_s"], time.monotonic()

    @property
    def budget(self) -> Mapping[str, Any]:
        budget: Mapping[str, Any] = self.header.get("budget", {})
        return budget

    def elapsed_now_s(self) -> float:
        """Seconds of the run, the time since the last event included while it runs."""
        return self.elapsed_s if self.finished else self.elapsed_s + time.monotonic() - self.seen_s

    def left_s(self) -> float | None:
        """Seconds until the budget is spent at the pace so far; None before there is a pace."""
        done, total = len(self.marks), self.budget.get("attempts")
        if not done or not total or not self.elapsed_s:
            return None
        left_s = self.elapsed_s / done * float(max(0, total - done))
        limit_s: float | None = self.budget.get("wall_s")
        return left_s if limit_s is None else max(0.0, min(left_s, limit_s - self.elapsed_now_s()))

    # -- one method an event -------------------------------------------------------------------------------

    def _on_run_started(self, event: Mapping[str, Any]) -> None:
        self.header = {key: value for key, value in event.items() if key != "event"}
        self.seen_s = time.monotonic()

    def _on_run_resumed(self, event: Mapping[str, Any]) -> None:
        self.notices.append(f"resumed after {event['attempts']} attempts and {event['updates']} updates")

    def _on_sampling(self, event: Mapping[str, Any]) -> None:
        self._enter("sampling", event["size"])

    def _on_grading(self, event: Mapping[str, Any]) -> None:
        self._enter("grading", event["size"])

    def _on_learning(self, event: Mapping[str, Any]) -> None:
        self._enter("learning", event["size"])

    def _on_progress(self, event: Mapping[str, Any]) -> None:
        self.phase_tokens, self.phase_finished = event["n_tokens"], event["n_finished"]
        spent_s = time.monotonic() - self.phase_started_s
        if spent_s > 0.5:
            self.tokens_per_s = self.phase_tokens / spent_s

    def _on_attempt(self, event: Mapping[str, Any]) -> None:
        cases = event["cases"]
        self.marks.append(mark(event))
        self.n_tokens += len(event["token_ids"])
        self.n_tests = len(cases)
        self.best_passed = max(self.best_passed, sum(c["status"] == "accepted" for c in cases))
        self.last_attempt = dict(event)
        if event["solved"]:
            self.n_solved += 1
            self.discovery = self.discovery or dict(event)

    def _on_group(self, event: Mapping[str, Any]) -> None:
        self.phase = f"after a group of {event['size']}"
        if event["sample_s"] > 0:
            self.tokens_per_s = event["n_tokens"] / event["sample_s"]

    def _on_update(self, event: Mapping[str, Any]) -> None:
        self.phase = f"after update {event['version']}"
        self.updates.append(UpdateRow(event["version"], event["loss"], event["metrics"]))
        self.notices.extend(event.get("notices", ()))

    def _on_notice(self, event: Mapping[str, Any]) -> None:
        self.notices.append(event["text"])

    def _on_run_finished(self, event: Mapping[str, Any]) -> None:
        self.phase = "finished"
        self.finished = dict(event)

    def _enter(self, phase: str, size: int) -> None:
        self.phase, self.phase_size, self.phase_tokens, self.phase_finished = phase, size, 0, 0
        self.phase_started_s = time.monotonic()


def mark(event: Mapping[str, Any]) -> str:
    """One character for an attempt event: what its first failing test said."""
    if event["solved"]:
        return MARKS["solved"]
    failing = [c for c in event["cases"] if c["status"] not in ("accepted", "not_run")]
    if not failing:
        return MARKS["wrong_answer"]
    first = failing[0]
    if not first["visible"] and all(c["visible"] is False for c in failing):
        return MARKS["hidden"]
    return MARKS[first["status"]]
