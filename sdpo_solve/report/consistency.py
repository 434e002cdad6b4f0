"""Which runs answer the same question, so that one report may hold them.

Runs that differ in model, grader, feedback mode, language, sampling, the content of a problem, or an option
of engine, judge or sandbox that changes answers or verdicts are parted into consistent sets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sdpo_solve import engines, sandboxes
from sdpo_solve.errors import ConfigError
from sdpo_solve.grading import judge
from sdpo_solve.registry import Registry
from sdpo_solve.report.runs import RunRecord
from sdpo_solve.run.records import RunStarted

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
    "extraction rule": lambda header: header.extract,
}


@dataclass(slots=True)
class RunSet:
    """Runs that may be mixed, and the facts in which they agree."""

    facts: dict[str, Any] = field(default_factory=dict)
    runs: list[RunRecord] = field(default_factory=list)


class MixedRuns(ConfigError):
    """There are several consistent sets, the largest first, and none was chosen."""

    def __init__(self, sets: Sequence[RunSet], remedy: str = "report them apart with --set") -> None:
        what = _differing(sets)[0]
        values = {repr(s.facts[what]): s.runs[0].run_dir for s in sets if what in s.facts}
        differing = " and ".join(f"{value} in {run_dir}" for value, run_dir in [*values.items()][:2])
        super().__init__(f"these runs must not be mixed: {what} is {differing}; {remedy}")
        self.sets = sets

    def commands(self, command: str) -> str:
        """A line for each set: the command that reports it, how many runs it holds, and what is its own."""
        facts = _differing(self.sets)
        lines = [
            f"  {command} --set {n}   # {len(s.runs)} runs: "
            + ", ".join(f"{what} {s.facts.get(what)!r}" for what in facts[:4])
            for n, s in enumerate(self.sets, start=1)
        ]
        return "\n".join(lines)


def consistent_sets(runs: Sequence[RunRecord]) -> list[RunSet]:
    """The runs in sets that may be mixed, the largest first; one set where all agree.

    A run without an attempt holds nothing to mix: it is left out where it agrees with no set.
    """
    free = _free_options()
    names = {(part, key) for run in runs for part in free for key in run.header.parts.get(part) or {}}
    keys = sorted((part, key) for part, key in names if key not in free[part])
    sets: list[RunSet] = []
    for run in sorted(runs, key=lambda run: not run.attempts):
        facts = dict(_facts(run, keys))
        for found in sets:
            if all(found.facts.get(what, value) == value for what, value in facts.items()):
                break
        else:
            if sets and not run.attempts:
                continue
            sets.append(found := RunSet())
        found.facts |= facts
        found.runs.append(run)
    return sorted(sets, key=lambda found: -len(found.runs))


def _free_options() -> dict[str, frozenset[str]]:
    """By part, the options that a plug-in says change no answer; all others must agree, unknown ones too."""
    registries: dict[str, Registry[Any]] = {"engine": engines.REGISTRY, "sandbox": sandboxes.REGISTRY}
    free = {
        part: frozenset().union(*(registry.load(name).options_type.free() for name in registry.names()))
        for part, registry in registries.items()
    }
    return {**free, "judge": judge.Options.free()}


def choose(sets: Sequence[RunSet], number: int | None) -> list[RunRecord]:
    """The runs of set `number`, counted from 1; all where there is one set.

    Raises MixedRuns where there are several and none is chosen, ConfigError for a number that none has.
    """
    if number is None and len(sets) > 1:
        raise MixedRuns(sets)
    if number is not None and not 1 <= number <= len(sets):
        raise ConfigError(f"--set {number}: there are {len(sets)} sets of runs that may be mixed")
    return sets[(number or 1) - 1].runs


def _facts(run: RunRecord, keys: Sequence[tuple[str, str]]) -> Iterator[tuple[str, Any]]:
    """What the run must share with others.

    An option that one engine does not have is unset there. Limits of a sandbox always have a value: where a
    journal names none it is older than the option, and nothing is known.
    """
    yield from ((what, fact_of(run.header)) for what, fact_of in _SHARED.items())
    for part, key in keys:
        options = run.header.parts.get(part) or {}
        if part != "sandbox" or key in options:
            yield f"{part}.{key}", options.get(key)
    # Which half of the tests is quoted depends on the seed.
    seed = f", seed {run.seed}" if run.header.feedback_mode == "paper" else ""
    digest = run.header.config.get("problem", {}).get("digest")
    yield f"content of problem {run.problem}{seed}", digest


def _differing(sets: Sequence[RunSet]) -> list[str]:
    """The facts in which some two of the sets differ."""
    names = dict.fromkeys(what for found in sets for what in found.facts)
    return [what for what in names if len({repr(s.facts[what]) for s in sets if what in s.facts}) > 1]
