"""Which runs may stand in one report, and as which arms.

Runs of one method (or of one name given to it) with the same settings are one arm. Runs that answer different
questions (another model, grader, feedback mode, sampling, engine option that changes answers) are refused,
failed runs are set aside and counted.
Computes no statistics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from sdpo_solve import methods
from sdpo_solve.errors import ConfigError
from sdpo_solve.report.runs import RunRecord, read_runs
from sdpo_solve.report.statistics import Arm, Observation, make_arm
from sdpo_solve.run.records import RunStarted


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


def load_cohort(sources: Sequence[Path]) -> Cohort:
    """Every run in or under `sources`.

    Raises ConfigError where there is none, where two are the same run, or where they must not be mixed.
    """
    found = read_runs(sources)
    unreadable = [str(error) for error in found.damaged]
    if not found.runs:
        why = f"; cannot read {unreadable[0].removeprefix('cannot read ')}" if unreadable else ""
        where = ", ".join(str(source) for source in sources)
        raise ConfigError(f"no runs under {where}{why}")
    return make_cohort(found.runs, unreadable)


def make_cohort(runs: Sequence[RunRecord], unreadable: Sequence[str] = ()) -> Cohort:
    """Sort runs into arms; raises ConfigError as `load_cohort` does."""
    refuse_mixed(runs)
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


def observation(run: RunRecord, axis: Axis) -> Observation | None:
    """The run on one axis; None before its first group is graded.

    A run that spent its budget independently of its successes also carries its tries, so that pass@k holds.
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
    independent = axis is Axis.ATTEMPTS and _is_independent(run) and run.header.keep_going
    tries = len(run.attempts) if independent else 0
    successes = sum(attempt.solved for attempt in run.attempts) if independent else 0
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


# -- what may be mixed ---------------------------------------------------------------------------------------

# Facts that all runs of one report share; the text is how a refusal calls them.
_SHARED: Mapping[str, Callable[[RunStarted], Any]] = {
    "feedback mode": lambda header: header.feedback_mode,
    "model": lambda header: header.model_identity,
    "grader": lambda header: header.identity.get("grader"),
    "language": lambda header: header.language,
    "temperature": lambda header: header.options.get("temperature"),
    "max tokens": lambda header: header.options.get("max_tokens"),
    "system message": lambda header: header.options.get("system"),
    "thinking": lambda header: header.options.get("thinking"),
    "extraction rule": lambda header: header.options.get("extract", "livecodebench"),
}
# Options that make a run quicker or smaller and leave answers and verdicts as they are, or that the grader's
# identity holds. All others of these parts must agree, those of a later version too.
_FREE: Mapping[str, frozenset[str]] = {
    "engine": frozenset({
        "batch_rows", "memory_share", "cpu_cache_gb", "tensor_parallel", "eager", "max_lora_rank", "sleep",
        "probe_tolerance",
    }),
    "judge": frozenset({"boxes", "retries"}),
    "sandbox": frozenset({
        "boxes_ready", "parallel", "memory_mb", "language", "image", "runtime", "separate",
    }),
}  # fmt: skip


def refuse_mixed(runs: Sequence[RunRecord]) -> None:
    """Raises ConfigError naming the fact in which two of the runs differ, and the two."""
    for what, fact_of in _SHARED.items():
        _refuse_difference(what, [(run, fact_of(run.header)) for run in runs])
    for part in _FREE:
        _refuse_options(part, runs)
    tasks: dict[tuple[str, int], list[RunRecord]] = {}
    for run in runs:  # which half of the tests is quoted may depend on the seed
        tasks.setdefault((run.problem, run.seed), []).append(run)
    for same in tasks.values():
        digests = [(run, run.header.config.get("problem", {}).get("digest")) for run in same]
        _refuse_difference(f"content of problem {same[0].problem}", digests)


def _refuse_options(part: str, runs: Sequence[RunRecord]) -> None:
    """Raises ConfigError where an option of the part differs that changes answers or verdicts.

    An option that one engine does not have is unset there. Limits of a sandbox always have a value: where a
    journal names none it is older than the option, and nothing is known.
    """
    given = [(run, run.header.parts.get(part) or {}) for run in runs]
    for key in sorted({key for _, options in given for key in options} - _FREE[part]):
        known = [(run, options.get(key)) for run, options in given if part != "sandbox" or key in options]
        _refuse_difference(f"{part}.{key}", known)


def _refuse_difference(what: str, facts: Sequence[tuple[RunRecord, Any]]) -> None:
    first_run, first = facts[0]
    for run, fact in facts[1:]:
        if fact != first:
            raise ConfigError(
                f"these runs must not be mixed: {what} is {first!r} in {first_run.run_dir} and {fact!r} in "
                f"{run.run_dir}; report them apart"
            )


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
        for key, value in options.items()
    }
    if _is_independent(run):
        flat.pop(f"{run.method}.group_size", None)  # changes speed, not results
    return flat


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
        extract=str(first.options.get("extract", "livecodebench")),
        engine=", ".join(sorted({run.header.engine for run in runs})),
        language=first.language,
        sampling={key: first.options[key] for key in ("temperature", "max_tokens") if key in first.options},
        versions={package: sorted(found) for package, found in versions.items()},
    )
