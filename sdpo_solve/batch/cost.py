"""What a batch may cost, from what a few runs did cost: tokens, hours, disk. Reads journals; runs nothing.

Upper bounds: every run is taken to spend its whole budget, and runs to take turns at the accelerator.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdpo_solve.batch.spec import RunKey
from sdpo_solve.config import RunOptions
from sdpo_solve.errors import JournalError
from sdpo_solve.run.events import FILE_NAME, read_records
from sdpo_solve.run.records import GroupEvent, UpdateEvent


@dataclass(frozen=True, slots=True)
class Cost:
    """What one method spent on the runs that were measured."""

    attempts: int = 0
    groups: int = 0
    updates: int = 0
    tokens: int = 0
    sample_s: float = 0.0
    grade_s: float = 0.0
    learn_s: float = 0.0
    journal_bytes: int = 0
    policies_bytes: int = 0
    """Of the largest run; old versions go, so this does not grow with the attempts."""

    @property
    def s_per_attempt(self) -> float:
        """Seconds of the accelerator for one attempt, its share of the update included."""
        learn_s = self.learn_s / self.updates * self.groups if self.updates else 0.0
        return (self.sample_s + learn_s) / self.attempts if self.attempts else 0.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """At most so much is left to spend; `measured` is how many attempts the figures rest on."""

    attempts: int
    tokens: int
    seconds: float
    disk_bytes: int
    measured: int


def cost_of(run_dirs: Iterable[Path]) -> Cost:
    """The cost of the runs in these directories, failed and torn ones included.

    A damaged journal counts up to the damage: the run that it belongs to says so when it is opened.
    """
    total: Counter[str] = Counter()
    largest = 0
    for run_dir in run_dirs:
        path = run_dir / FILE_NAME
        if not path.exists():
            continue
        with suppress(JournalError):
            for spent in _spent(path):
                total.update(spent)  # a Counter adds floats too
        total["journal_bytes"] += path.stat().st_size
        files = (item for item in (run_dir / "policies").rglob("*") if item.is_file())
        largest = max(largest, sum(item.stat().st_size for item in files))
    return Cost(**total, policies_bytes=largest)


def _spent(path: Path) -> Iterator[dict[str, Any]]:
    """What each group and each update of a journal cost, by the fields of `Cost`. Raises JournalError."""
    group_end_s = 0.0
    for line in read_records(path):
        match line.record:
            case GroupEvent() as group:
                group_end_s = group.elapsed_s or 0.0
                seconds = {"sample_s": group.sample_s, "grade_s": group.grade_s}
                yield {"attempts": group.size, "groups": 1, "tokens": group.n_tokens, **seconds}
            case UpdateEvent(elapsed_s=end_s):
                yield {"updates": 1, "learn_s": max(0.0, (end_s or 0.0) - group_end_s)}


def estimate(keys: Sequence[RunKey], costs: Mapping[str, Cost], options: RunOptions) -> Estimate | None:
    """What these runs may cost with the budget of `options`; None where a method was not measured."""
    attempts = tokens = disk_bytes = 0
    seconds = 0.0
    for key in keys:
        cost, n = costs.get(key.arm, Cost()), options.attempts
        if not cost.attempts:
            return None
        run_tokens = n * cost.tokens / cost.attempts
        run_s = n * max(cost.s_per_attempt, cost.grade_s / cost.attempts)
        share = 1.0
        if options.tokens is not None and run_tokens:
            share = min(share, options.tokens / run_tokens)
        if options.wall_seconds is not None and run_s:
            share = min(share, options.wall_seconds / run_s)
        attempts += math.ceil(n * share)
        tokens += math.ceil(run_tokens * share)
        seconds += run_s * share
        disk_bytes += math.ceil(n * share * cost.journal_bytes / cost.attempts) + cost.policies_bytes
    return Estimate(attempts, tokens, seconds, disk_bytes, sum(cost.attempts for cost in costs.values()))
