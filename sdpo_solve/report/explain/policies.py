"""How a run's answers moved from policy to policy, from its journal alone.

The typical program of a version is the one most like all others of that version. Runs no model and
draws nothing.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sdpo_solve import methods
from sdpo_solve.config import read_options
from sdpo_solve.errors import ConfigError
from sdpo_solve.report.runs import AttemptRow, RunRecord, read_attempts
from sdpo_solve.run.records import UpdateEvent

# Pairs are compared, so a group is thinned to this many programs of at most so many characters.
_MOST_PROGRAMS = 24
_MOST_CHARS = 4000

DiffT = TypeVar("DiffT")


@dataclass(frozen=True, slots=True)
class Stage:
    """What one policy version answered, wherever in the run. `update` made it; None for the first."""

    version: int
    update: UpdateEvent | None
    attempts: tuple[AttemptRow, ...]
    typical: int | None
    """Index of the attempt with the typical program; None where no answer held code."""
    program: str
    n_distinct: int

    @property
    def title(self) -> str:
        which = "no program" if self.typical is None else f"attempt {self.typical}"
        return f"policy {self.version} ({which})"


def stages(run: RunRecord) -> list[Stage]:
    """One stage for each version that sampled, in order of version."""
    codes = {attempt.index: attempt.code for attempt in read_attempts(run.run_dir)}
    updates = {update.version: update for update in run.updates}
    found = []
    for version, attempts in run.by_version.items():
        programs = {a.index: code for a in attempts if (code := codes.get(a.index)) is not None}
        index = typical(programs)
        text = programs[index] if index is not None else ""
        n_distinct = len(set(programs.values()))
        found.append(Stage(version, updates.get(version), tuple(attempts), index, text, n_distinct))
    return found


def moves(stages: Sequence[Stage], diffs: Sequence[DiffT]) -> Iterator[tuple[str, DiffT]]:
    """Title and difference of each step from a stage to the next; none where neither has a program."""
    for (before, after), diff in zip(itertools.pairwise(stages), diffs, strict=False):
        if before.typical is not None or after.typical is not None:
            yield f"typical program: {before.title} to {after.title}", diff


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
    """The attempts that update `version` learned from, as `learn` of the method chooses them.

    Raises ConfigError where the run has no such update.
    """
    versions = [update.version for update in run.updates]
    if version not in versions:
        has = f"updates {versions[0]} to {versions[-1]}" if versions else "no update"
        raise ConfigError(f"{run.run_dir} has no update {version}; it has {has}")
    learn_after, learns_from_feedback = _learning_rule(run)
    group = run.groups_before[versions.index(version)]
    n_failed_before = sum(not attempt.solved for attempt in run.attempts[: group.start])
    first = 0 if n_failed_before < learn_after else group.start
    fresh = run.attempts[first : group.stop]
    newest = max((attempt.version for attempt in fresh), default=0)
    return [a for a in fresh if a.version == newest and (a.question_alone or learns_from_feedback)]


def _learning_rule(run: RunRecord) -> tuple[int, bool]:
    """How many failures come before the first update, and whether attempts with feedback are learned from.

    A method without these options learns from every group, and from all of it.
    """
    method = methods.REGISTRY.find(run.method)
    options = None
    if method is not None:
        kind = method.options_type
        recorded = kind.complete(run.header.parts.get(run.method) or {})
        # Only these two: a run may have others that this version does not know any more.
        known = {"learn_after", "learn_from_feedback"} & set(kind.model_fields)
        options = read_options(kind, {name: recorded[name] for name in known}, run.method)
    return getattr(options, "learn_after", 0), getattr(options, "learn_from_feedback", True)
