"""How a run's answers moved from policy to policy, from its journal alone.

The typical program of a version is the one most like all others of that version. Runs no model and
draws nothing.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from sdpo_solve.errors import ConfigError
from sdpo_solve.report.runs import AttemptRow, RunRecord, read_attempts
from sdpo_solve.run.records import UpdateEvent

# Pairs are compared, so a group is thinned to this many programs of at most so many characters.
_MOST_PROGRAMS = 24
_MOST_CHARS = 4000


@dataclass(frozen=True, slots=True)
class Stage:
    """What one policy version answered. `update` made this version; None for the first."""

    version: int
    update: UpdateEvent | None
    attempts: tuple[AttemptRow, ...]
    typical: int | None
    """Index of the attempt with the typical program; None where no answer held code."""
    program: str
    n_distinct: int


def stages(run: RunRecord) -> list[Stage]:
    """One stage for each version that sampled, in order."""
    codes = {attempt.index: attempt.code for attempt in read_attempts(run.run_dir)}
    updates = {update.version: update for update in run.updates}
    found = []
    for version, group in itertools.groupby(run.attempts, key=lambda attempt: attempt.version):
        attempts = tuple(group)
        programs = {a.index: code for a in attempts if (code := codes.get(a.index)) is not None}
        index = typical(programs)
        text = programs[index] if index is not None else ""
        n_distinct = len(set(programs.values()))
        found.append(Stage(version, updates.get(version), attempts, index, text, n_distinct))
    return found


def typical(programs: dict[int, str]) -> int | None:
    """The key of the program with the largest mean similarity to the others; the first where they tie."""
    step = max(1, len(programs) // _MOST_PROGRAMS)
    kept = {key: text[:_MOST_CHARS] for key, text in itertools.islice(programs.items(), 0, None, step)}
    if not kept:
        return None
    totals = dict.fromkeys(kept, 0.0)
    for a, b in itertools.combinations(kept, 2):
        alike = 1.0 if kept[a] == kept[b] else difflib.SequenceMatcher(None, kept[a], kept[b]).ratio()
        totals[a] += alike
        totals[b] += alike
    return max(totals, key=lambda key: totals[key])


def group_behind(run: RunRecord, version: int) -> Sequence[AttemptRow]:
    """The attempts that update `version` learned from: those sampled between the update before and it.

    Raises ConfigError where the run has no such update.
    """
    versions = [update.version for update in run.updates]
    if version not in versions:
        has = f"updates {versions[0]} to {versions[-1]}" if versions else "no update"
        raise ConfigError(f"{run.run_dir} has no update {version}; it has {has}")
    return [attempt for attempt in run.attempts if attempt.version == version - 1]
