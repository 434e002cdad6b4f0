"""Which runs may stand in one report, and as which arms.

Runs of one method (or of one name given to it) with the same settings are one arm; failed runs are set aside
and counted. Which runs may stand together is decided in `consistency.py`. Computes no statistics.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from sdpo_solve import methods
from sdpo_solve.config import Options
from sdpo_solve.errors import ConfigError
from sdpo_solve.grading import feedback
from sdpo_solve.learner.options import Options as LearnerOptions
from sdpo_solve.report.consistency import choose, consistent_sets
from sdpo_solve.report.runs import RunRecord, RunStatus, read_runs
from sdpo_solve.report.statistics import Arm, Observation, make_arm


class Axis(StrEnum):
    """What discovery is counted in."""

    ATTEMPTS = "attempts"
    TOKENS = "tokens"
    """Generated tokens of the attempts up to and with the first success."""
    SECONDS = "seconds"
    """The run's clock when the group of the first success had been graded; updates included."""


@dataclass(frozen=True, slots=True)
class SharedFacts:
    """What all runs of a report have in common, for its first lines. Versions list every one met."""

    model: str
    model_identity: str
    feedback_mode: str
    grader: str
    extract: str
    """The rule that finds the program in an answer."""
    engine: str
    language: str
    sampling: Mapping[str, Any]
    versions: Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Cohort:
    """Comparable runs by arm, sorted by problem and seed; an arm's failed runs are kept apart."""

    shared: SharedFacts
    arms: Mapping[str, tuple[RunRecord, ...]]
    failed: Mapping[str, tuple[RunRecord, ...]]
    unreadable: tuple[str, ...]
    """One line for each journal that is damaged."""

    @property
    def runs(self) -> list[RunRecord]:
        """Every run that did not fail."""
        return [run for runs in self.arms.values() for run in runs]

    @property
    def failed_runs(self) -> list[RunRecord]:
        return [run for runs in self.failed.values() for run in runs]


def load_cohort(sources: Sequence[Path], set_number: int | None = None) -> Cohort:
    """Every run in or under `sources`; of runs that must not be mixed those of one set (1: the largest).

    Raises ConfigError where there is none, where two are the same run, MixedRuns where no set is chosen.
    """
    found = read_runs(sources)
    unreadable = [str(error) for error in found.damaged]
    if not found.runs:
        why = f"; cannot read {unreadable[0].removeprefix('cannot read ')}" if unreadable else ""
        where = ", ".join(str(source) for source in sources)
        packed = sorted(file for source in sources for file in source.rglob("*.zip"))
        hint = f"; packed runs are named themselves, such as {packed[0]}" if packed else ""
        raise ConfigError(f"no runs under {where}{why}{hint}")
    return make_cohort(choose(consistent_sets(found.runs), set_number), unreadable)


def make_cohort(runs: Sequence[RunRecord], unreadable: Sequence[str] = ()) -> Cohort:
    """Sort consistent runs into arms; raises ConfigError where two are the same run."""
    arms: dict[str, list[RunRecord]] = {}
    named = {run.arm: run.method for run in runs}
    for name in sorted(named, key=lambda name: (not _learns(named[name]), name != named[name], name)):
        arms |= _split_by_settings(name, [run for run in runs if run.arm == name])
    for name, members in arms.items():
        _refuse_doubles(name, members)
        members.sort(key=lambda run: (run.problem, run.seed))
    return Cohort(
        shared=_shared_facts(runs),
        arms={name: tuple(run for run in members if not run.failed) for name, members in arms.items()},
        failed={name: tuple(run for run in members if run.failed) for name, members in arms.items()},
        unreadable=tuple(unreadable),
    )


def _learns(method: str) -> bool:
    """Whether a method makes updates; false for one that is not installed here."""
    plugin = methods.REGISTRY.find(method)
    return plugin is not None and plugin.learns


def _is_independent(run: RunRecord) -> bool:
    """Whether the attempts of the run are independent draws from one policy."""
    method = methods.REGISTRY.find(run.method)
    return method is not None and method.independent


def keeps_trying(run: RunRecord) -> bool:
    """Whether the run makes independent tries however many of them succeed, so that pass@k holds."""
    return _is_independent(run) and run.header.keep_going


def observation(run: RunRecord, axis: Axis) -> Observation | None:
    """The run on one axis; None before its first group is graded.

    A run that spent its whole budget whatever succeeded also carries its tries. One that is under way does
    not: pass@k of an arm is known only as far as the run with the fewest tries.
    """
    if not run.attempts:
        return None
    last = run.first or run.attempts[-1]
    if axis is Axis.ATTEMPTS:
        spent = float(last.index)
    elif axis is Axis.TOKENS:
        spent = float(sum(a.n_tokens for a in run.attempts if a.index <= last.index))
    else:
        spent = last.elapsed_s
    is_counted = axis is Axis.ATTEMPTS and keeps_trying(run) and run.status is not RunStatus.UNFINISHED
    tries = len(run.attempts) if is_counted else 0
    successes = sum(attempt.solved for attempt in run.attempts) if is_counted else 0
    return Observation(run.seed, spent, run.first is not None, tries, successes)


def observations(runs: Iterable[RunRecord], axis: Axis) -> dict[str, list[Observation]]:
    """Observations by problem, in the order of the runs; runs without an attempt left out."""
    found: dict[str, list[Observation]] = {}
    for run in runs:
        seen = observation(run, axis)
        if seen is not None:
            found.setdefault(run.problem, []).append(seen)
    return found


def arm_of(runs: Iterable[RunRecord], axis: Axis, problems: frozenset[str] | None = None) -> Arm | None:
    """The arm of these runs, on `problems` only where they are given; None where nothing was observed."""
    found = observations(runs, axis)
    kept = {name: seen for name, seen in sorted(found.items()) if problems is None or name in problems}
    return make_arm(kept) if kept else None


def end(arm: Arm) -> float:
    """Where the arm's curve is drawn to: as far as it is known; where for ever, to its last success."""
    return arm.horizon if math.isfinite(arm.horizon) else float(arm.time_PS[arm.mask_PS].max())


def shared_end(arms: Sequence[Arm]) -> float:
    """The last x at which every one of the arms is known, 0 without arms."""
    if not arms:
        return 0.0
    return min(*(arm.horizon for arm in arms), max(end(arm) for arm in arms))


# -- arms ----------------------------------------------------------------------------------------------------


def _refuse_doubles(arm: str, runs: Sequence[RunRecord]) -> None:
    seen: dict[tuple[str, int], RunRecord] = {}
    for run in runs:
        other = seen.setdefault((run.problem, run.seed), run)
        if other is not run:
            raise ConfigError(
                f"{arm} on {run.problem} with seed {run.seed} is there twice: {other.run_dir} and "
                f"{run.run_dir}; the same seed says nothing new, leave one out"
            )


def _split_by_settings(name: str, runs: Sequence[RunRecord]) -> dict[str, list[RunRecord]]:
    """One arm, or one for each setting, named by the options in which the settings differ."""
    settings = [_settings(run) for run in runs]
    keys = sorted({key for setting in settings for key in setting})
    differing = [key for key in keys if len({repr(setting.get(key)) for setting in settings}) > 1]
    arms: dict[str, list[RunRecord]] = {}
    for run, setting in zip(runs, settings, strict=True):
        named = ", ".join(f"{key}={setting.get(key)}" for key in differing)
        arms.setdefault(f"{name} ({named})" if named else name, []).append(run)
    return arms


def _settings(run: RunRecord) -> dict[str, Any]:
    """What makes two runs of a method different arms: the options of method, learner and feedback."""
    flat = {
        f"{part}.{key}": value
        for part, options in run.header.parts.items()
        if part not in ("judge", "engine", "sandbox")
        for key, value in _complete(part, options).items()
    }
    if _is_independent(run):
        flat.pop(f"{run.method}.group_size", None)  # changes speed, not results
    return flat


def differing_settings(arms: Mapping[str, Sequence[RunRecord]]) -> dict[str, dict[str, str]]:
    """Of each arm the options in which it differs from another arm that has them too, as text.

    Options of a method are called without the method's name, so that those of two methods are compared.
    """
    own = {
        name: {key.removeprefix(f"{runs[0].method}."): value for key, value in _settings(runs[0]).items()}
        for name, runs in arms.items()
        if runs
    }
    keys = sorted({key for settings in own.values() for key in settings})
    values = {key: {repr(settings[key]) for settings in own.values() if key in settings} for key in keys}
    shown = [key for key in keys if len(values[key]) > 1]
    return {name: {key: str(own.get(name, {}).get(key, "–")) for key in shown} for name in arms}


def _complete(part: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options that a run stored, as a run of this version would have stored them."""
    method = methods.REGISTRY.find(part)
    kinds: dict[str, type[Options]] = {"learner": LearnerOptions, "feedback": feedback.Options}
    kind = kinds.get(part) if method is None else method.options_type
    return options if kind is None else kind.complete(options)


def _shared_facts(runs: Sequence[RunRecord]) -> SharedFacts:
    first = runs[0].header
    versions: dict[str, set[str]] = {}
    for run in runs:
        for package, version in run.header.versions.items():
            versions.setdefault(package, set()).add(str(version))
    return SharedFacts(
        model=first.model or "unknown",
        model_identity=first.model_identity or "unknown",
        feedback_mode=first.feedback_mode,
        grader=str(first.identity.get("grader") or "unknown"),
        extract=first.extract,
        engine=", ".join(sorted({run.header.engine for run in runs})),
        language=first.language,
        sampling={key: first.options[key] for key in ("temperature", "max_tokens") if key in first.options},
        versions={package: sorted(found) for package, found in versions.items()},
    )
