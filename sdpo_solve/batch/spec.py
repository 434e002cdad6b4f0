"""What a batch will do, before anything is loaded: its options, its problems, and the list of its runs.

Options come from a TOML file and from flags; flags win, unknown keys are errors. Loads no problem, builds no
part and runs nothing (see `batch.py`).
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from sdpo_solve import engines, methods
from sdpo_solve.config import (
    BUDGET,
    LEARNING,
    OUTPUT,
    REPLIES_HELP,
    SAMPLING,
    Flag,
    Names,
    Options,
    RunOptions,
    SamplingOptions,
    SharedOptions,
    as_flag,
    as_names,
    flag_of,
    key_name,
    read_options,
)
from sdpo_solve.datasets.selection import SOURCES, SOURCES_HELP, Selection
from sdpo_solve.errors import ConfigError
from sdpo_solve.paths import file_errors
from sdpo_solve.run.options import has_weights, idle_options, is_of_learning

# Options of one run that a batch sets itself, and what it calls them.
_BY_THE_BATCH = {"method": "methods", "arm": "arms", "seed": "seeds"}
_PARTS_OF_A_SCREENING = ("judge", "sandbox", "engine", "feedback")


class ArmOptions(Options):
    """One method under a name of its own, with settings that go over the batch's: `[arms.NAME]` in a file."""

    method: str = Field("sdpo", description="the method behind the name")
    settings: Mapping[str, Mapping[str, Any]] = Field(
        default_factory=dict, description="options of the parts, by part"
    )


class SourceOptions(Selection):
    """Where problems come from, and which of them are taken."""

    sources: Annotated[Names, SOURCES] = Field(min_length=1, description=SOURCES_HELP)
    replies: Annotated[Path | None, SAMPLING] = Field(None, description=REPLIES_HELP)


class ScreenedOptions(SourceOptions, SamplingOptions):
    """What a screening takes from the options of a batch: problems, and how they are sampled and judged."""


class ExecutionOptions(Options):
    """How runs are carried out; none of it changes a result but `merge`, by rounding."""

    panel = "Execution"
    in_flight: int = Field(2, ge=1, le=256, description="runs under way at once in one process")
    merge: bool = Field(
        False, description="sample for the runs in flight together; rounding may change tokens"
    )
    tries: int = Field(2, ge=1, le=100, description="times a failing run is tried, over all commands")
    executor: Literal["local", "ray"] = Field("local", description="this process, or a Ray cluster")
    workers: int | None = Field(None, ge=1, description="Ray workers (default: one an accelerator, else one)")
    address: str | None = Field(
        None, description="Ray cluster (default: RAY_ADDRESS, else one on this machine)"
    )


class BatchOptions(SourceOptions, ExecutionOptions):
    """A batch, its runs' own options aside. Lists may be given as one comma-separated text."""

    panel = "What to solve"
    methods: Annotated[Names, LEARNING] = Field(
        methods.PAPER_ARMS, min_length=1, description="arms that are compared, comma-separated"
    )
    arms: Annotated[Mapping[str, ArmOptions], Flag(only_in_file=True)] = Field(
        default_factory=dict, description="names that `methods` may use besides the methods' own"
    )
    seeds: Annotated[int, BUDGET] = Field(1, ge=1, le=1000, description="seeds of each problem and method")
    first_seed: Annotated[int, BUDGET] = Field(
        0, ge=0, description="the first seed, for another machine's share or more after runs kept elsewhere"
    )
    only: str | None = Field(
        None,
        description="keep what a screening marked so: hard, very-hard, below a rate, e.g. 0.05, or taught: "
        "with feedback solved at least every fourth time",
    )
    screening: Path = Field(Path("runs/screen"), description="the screening that --only reads")
    track: Annotated[Names, OUTPUT] = Field(
        (), description="trackers, comma-separated: tensorboard, wandb, trackio"
    )
    out: Annotated[Path | None, OUTPUT] = Field(
        None, description="directory of the runs (default: runs/<problems>-<model>-<options>)"
    )


class BatchFile(BatchOptions, SharedOptions):
    """All that a batch file may say."""


@dataclass(frozen=True, slots=True, order=True)
class RunKey:
    """One run of a batch, by what makes it different from the others. Sorts by seed, problem, arm."""

    seed: int
    problem: str
    arm: str
    """A method, or one of the batch's `arms`."""

    @property
    def name(self) -> str:
        """Its directory below the batch's."""
        return f"{self.problem}/{self.arm}/seed-{self.seed}"


@dataclass(frozen=True, slots=True)
class BatchSpec:
    """The options of a batch, checked in form. `run` holds the options that every run shares."""

    batch: BatchOptions
    run: RunOptions
    place: str = "batch"
    """What messages call the place where the options stand."""
    flagged: frozenset[str] = frozenset()
    """Parts with settings on the command line, whatever a file says of them."""

    def places_for(self, arm: str) -> dict[str, str]:
        """Where the settings of the runs of an arm stand in a file, by part (see `options.make_plan`)."""
        named = self.batch.arms.get(arm)
        places = {part: f"[settings.{part}]" for part in self.run.settings if part not in self.flagged}
        places |= {part: f"[arms.{arm}.settings.{part}]" for part in (named.settings if named else {})}
        return {part: f"{self.place}: {place}" for part, place in places.items()}

    def options_for(self, key: RunKey) -> RunOptions:
        """The options of one run: the shared ones without the parts that its method does not have."""
        method, named = self.method_of(key.arm), self.batch.arms.get(key.arm)
        settings = _merged(self.run.settings, named.settings if named else {}, "batch")
        others = {self.method_of(arm) for arm in self.batch.methods} - {method}
        if not self._method_type(key.arm).learns:
            others.add("learner")
        return self.run.model_copy(
            update={
                "method": method,
                "arm": key.arm if named else None,
                "seed": key.seed,
                "settings": {part: values for part, values in settings.items() if part not in others},
                "group_size": self.run.group_size if self._method_type(key.arm).samples_groups() else None,
            }
        )

    def method_of(self, arm: str) -> str:
        """The method behind the name of an arm."""
        return self.batch.arms[arm].method if arm in self.batch.arms else arm

    def samples_groups(self) -> bool:
        """Whether `--group-size` means something to one of the arms."""
        return any(self._method_type(arm).samples_groups() for arm in self.batch.methods)

    def learns(self) -> bool:
        """Whether one of the arms makes updates."""
        return any(self._method_type(arm).learns for arm in self.batch.methods)

    def _method_type(self, arm: str) -> type[methods.MethodPlugin]:
        return methods.REGISTRY.load(self.method_of(arm))

    def record(self) -> dict[str, Any]:
        """The resolved options as JSON, as they are kept with the runs."""
        shared = self.run.model_dump(mode="json", exclude=set(_BY_THE_BATCH))
        return {"batch": self.batch.model_dump(mode="json"), "run": shared}


# -- reading -------------------------------------------------------------------------------------------------


def read_toml(path: Path, command: type[BaseModel] = BatchFile) -> dict[str, Any]:
    """The options of a batch file, by the names of their fields; keys are called as flags, with `-` or `_`.

    An option of `command` that stands for a setting of a part is put among the settings. Raises ConfigError
    where the file cannot be read, naming file and line, and for an option that it gives twice or cannot give.
    """
    try:
        with file_errors(ConfigError, f"read {path}"):
            given = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: {exc}") from None
    fields = {key_name(command, key): key for key in command.model_fields}
    options: dict[str, Any] = {}
    settings = _merged(given.pop("settings", {}), {}, str(path))
    for key, value in given.items():
        name = fields.get(key, key.replace("-", "_"))
        setting = flag_of(command, name).sets if name in command.model_fields else None
        part, _, option = (setting or "").partition(".")
        if name in options or option in settings.get(part, {}):
            raise ConfigError(f"{path} gives {setting or key_name(command, name)} twice")
        if setting:
            settings = _merged(settings, {part: {option: value}}, str(path))
        elif name in command.model_fields and name not in BatchFile.model_fields:
            raise ConfigError(f"{path}: {key} is an option of the command line alone")
        else:
            options[name] = value
    return {**options, "settings": settings} if settings else options


def make_spec(from_file: Mapping[str, Any], flags: Mapping[str, Any], place: str = "batch") -> BatchSpec:
    """Options of a file under those of the command line; a flag that was not given is None or absent.

    Raises ConfigError for an unknown key, a value of the wrong form, and what no method of the batch reads.
    """
    flags = {key: value for key, value in flags.items() if value is not None}
    kept = _left_by_flags(from_file, flags, place)
    given = {**kept, **flags, "settings": _merged(kept["settings"], flags.get("settings", {}), place)}
    for own, ours in _BY_THE_BATCH.items():
        if own in given:
            raise ConfigError(f"{place}: a batch has no option {own!r}; it is called {ours!r}")
    if not given.get("sources"):
        raise ConfigError(f"{place}: name at least one source of problems")

    def named(key: str) -> str:
        return as_flag(BatchFile, key) if key in flags else f"{place}: {key_name(BatchFile, key)}"

    options = read_options(BatchFile, given, place, named, _in_a_file)
    run = RunOptions(**options.narrow(SharedOptions).model_dump())
    spec = BatchSpec(options.narrow(BatchOptions), run, place, frozenset(flags.get("settings", {})))
    _check(spec, arms_by_flag="methods" in flags)
    return spec


def _in_a_file(key: str) -> str:
    """An option as a batch file spells it; `settings` are tables there, and `--set` on a command line."""
    return key if key == "settings" else key_name(BatchFile, key)


def _left_by_flags(from_file: Mapping[str, Any], flags: Mapping[str, Any], place: str) -> dict[str, Any]:
    """What a file says, without what flags leave no use for; what a flag itself says stays, and is refused.

    That is what arms need which the flags leave out, and what the engine that they name has no use for.
    """
    of_file = {key: from_file[key] for key in ("methods", "arms") if key in from_file}
    known = read_options(BatchOptions, {"sources": "any", **of_file}, place, lambda key: f"{place}: {key}")
    kept, arms = dict(from_file), dict(known.arms)
    settings = _merged(from_file.get("settings", {}), {}, place)
    if "methods" in flags:
        chosen = BatchSpec(known.model_copy(update={"methods": as_names(flags["methods"])}), RunOptions())
        unused = {*map(chosen.method_of, known.methods)} - {*map(chosen.method_of, chosen.batch.methods)}
        unused |= set() if chosen.learns() else {"learner"}
        settings = {part: values for part, values in settings.items() if part not in unused}
        if not chosen.samples_groups():
            kept.pop("group_size", None)
    if "engine" in flags:
        sampled = {key: flags.get(key, from_file.get(key)) for key in ("engine", "model")}
        chosen_engine = SamplingOptions.model_construct(**sampled)
        before = str(from_file.get("engine", SamplingOptions.model_fields["engine"].default))
        idle = idle_options(chosen_engine)
        kept = {key: value for key, value in kept.items() if key not in idle}
        settings = _without_idle(settings, chosen_engine, before)
        arms = {
            name: arm.model_copy(update={"settings": _without_idle(arm.settings, chosen_engine, before)})
            for name, arm in arms.items()
        }
    return {**kept, "arms": arms, "settings": settings}


def make_screen_spec(
    from_file: Mapping[str, Any], flags: Mapping[str, Any], place: str = "screen"
) -> BatchSpec:
    """The batch of a file as far as a screening takes it, under flags; `batch.screening` is where it goes.

    Raises ConfigError as `make_spec` does.
    """
    taken = {*ScreenedOptions.model_fields, "screening"}
    others = {*BatchOptions.model_fields, *SharedOptions.model_fields} - taken
    kept = {key: value for key, value in from_file.items() if key not in others}
    parts = _merged(kept.get("settings", {}), {}, place)
    kept["settings"] = {part: values for part, values in parts.items() if part in _PARTS_OF_A_SCREENING}
    return make_spec(
        kept, {**flags, "methods": methods.PLAIN_SAMPLING, "screening": flags.get("out"), "out": None}, place
    )


def _without_idle(
    settings: Mapping[str, Mapping[str, Any]], options: SamplingOptions, before: str
) -> dict[str, dict[str, Any]]:
    """The settings that the engine of `options` leaves a use for; `before`: the engine that they were for."""

    def is_idle(part: str, name: str) -> bool:
        if part == "engine":
            ours, theirs = (engines.REGISTRY.load(engine).options_type for engine in (options.engine, before))
            return name in theirs.model_fields and name not in ours.model_fields
        return not has_weights(options) and is_of_learning(part, name)

    kept = {
        part: {name: value for name, value in values.items() if not is_idle(part, name)}
        for part, values in settings.items()
    }
    return {part: values for part, values in kept.items() if values}


def _merged(low: Any, high: Mapping[str, Mapping[str, Any]], place: str) -> dict[str, dict[str, Any]]:
    if not isinstance(low, Mapping) or not all(isinstance(values, Mapping) for values in low.values()):
        raise ConfigError(f"{place}: settings must be tables of parts, for example [settings.learner]")
    return {part: {**low.get(part, {}), **high.get(part, {})} for part in {**low, **high}}


def _check(spec: BatchSpec, *, arms_by_flag: bool) -> None:
    """Raises ConfigError for options that could do nothing, or not together."""
    batch, run = spec.batch, spec.run
    repeated = [name for name, count in Counter(batch.methods).items() if count > 1]
    if repeated:
        raise ConfigError(f"methods names {repeated[0]} twice")
    if batch.merge and engines.REGISTRY.load(run.engine).reads_replies:
        raise ConfigError("--merge: scripted replies are not sampled, so there is nothing to merge")
    if batch.executor == "local" and (batch.workers or batch.address):
        raise ConfigError("--workers and --address are for --executor ray")
    idle = sorted(set(batch.arms) - set(batch.methods))
    if idle and not arms_by_flag:
        raise ConfigError(f"arms.{idle[0]} is described and not run; add it to methods")
    if run.group_size is not None and not spec.samples_groups():
        raise ConfigError("--group-size: none of these methods samples groups; leave it out")
    if "learner" in run.settings and not spec.learns():
        raise ConfigError("settings of the learner: none of these methods learns")


def list_runs(spec: BatchSpec, problem_ids: Sequence[str]) -> list[RunKey]:
    """Every run, whole seeds first, so that a batch broken off early still holds pairs to compare."""
    return [
        RunKey(seed, problem_id, arm)
        for seed in range(spec.batch.first_seed, spec.batch.first_seed + spec.batch.seeds)
        for problem_id in problem_ids
        for arm in spec.batch.methods
    ]
