"""From names to the options of every part: what a run is made of, checked before anything heavy is loaded.

Knows which plug-ins there are and reads their options; makes no part (see `build.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

from sdpo_solve import engines, methods, sandboxes
from sdpo_solve.config import OF_SAMPLING, Options, RunOptions, SamplingOptions, as_flag, read_options
from sdpo_solve.errors import ConfigError
from sdpo_solve.grading import feedback, judge
from sdpo_solve.methods import MethodPlugin
from sdpo_solve.model import names
from sdpo_solve.sandboxes import languages


def has_weights(options: SamplingOptions) -> bool:
    """Whether a model is in this process: no server's, and with scripted replies only where one is named."""
    engine = engines.REGISTRY.load(options.engine)
    return not engine.remote and (options.model is not None or engine.needs_model)


def is_sampled(options: SamplingOptions) -> bool:
    """Whether a model, here or at a server, writes the answers."""
    return has_weights(options) or engines.REGISTRY.load(options.engine).remote


def idle_options(options: SamplingOptions) -> frozenset[str]:
    """The options that nothing reads with this engine."""
    engine = engines.REGISTRY.load(options.engine)
    idle = {"merge"} if engine.reads_replies else {"replies"}
    if not has_weights(options):
        idle |= {"threads", "thinking", "quantization"} if engine.remote else {"threads", *OF_SAMPLING}
    return frozenset(idle)


def model_name(options: SamplingOptions) -> str | None:
    """The model as its user calls it; None where there is none."""
    return options.model or (names.default_name() if has_weights(options) else None)


def is_of_learning(part: str, name: str) -> bool:
    """Whether nothing but learning reads this setting."""
    method = methods.REGISTRY.find(part)
    return part == "learner" or (method is not None and name in method.learning_options)


# -- the plan ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Plan:
    """Options of every part, checked; nothing is loaded yet."""

    run: RunOptions
    parts: Mapping[str, Options]

    @property
    def has_weights(self) -> bool:
        """See `has_weights`."""
        return has_weights(self.run)

    @property
    def model_name(self) -> str | None:
        """See `model_name`."""
        return model_name(self.run)


def make_plan(
    options: RunOptions, *, grading_only: bool = False, places: Mapping[str, str] | None = None
) -> Plan:
    """Check names and options of every part; `grading_only` leaves out what samples and learns.

    `places`: where the settings of a part stand, for messages; those of other parts come from `--set`.

    Raises ConfigError for an unknown name or option, and for one that this run would not use.
    """
    languages.get(options.language)  # raises for an unknown one
    options = _with_sandbox(options)
    types: dict[str, type[Any]] = {"judge": judge.Options}
    if options.sandbox != "auto":
        types["sandbox"] = sandboxes.REGISTRY.load(options.sandbox).options_type
    method = methods.REGISTRY.load(options.method)
    if not grading_only:
        engine = engines.REGISTRY.load(options.engine)
        types |= {options.method: method.options_type, "engine": engine.options_type}
        types["feedback"] = feedback.Options
        if method.learns:
            types["learner"] = import_module("sdpo_solve.learner.options").Options
        if engine.remote:
            _check_remote(options, method)
        for key in engine.refused_options & options.settings.get("engine", {}).keys():
            raise ConfigError(
                f"--set engine.{key}: samples are drawn from the whole distribution, at --temperature; the "
                "log-probs of a cut one would make importance weights and distillation wrong"
            )
        if options.quantization is not None and not engine.shares_weights:
            raise ConfigError(
                f"--quantization {options.quantization}: --engine {options.engine} has weights of its own, "
                "which would not be those that are learned; take --engine hf"
            )
    if not grading_only and not has_weights(options):
        _refuse_what_needs_weights(options)
    places = places or {}
    if not grading_only:
        _refuse_of_other_engines(options, places.get("engine"))
    for part in options.settings:
        if part not in types:
            place = places.get(part, f"--set {part}.*")
            raise ConfigError(f"{place}: there is no part {part!r} here (known: {', '.join(types)})")
    given = {part: dict(values) for part, values in options.settings.items()}
    if options.group_size is not None and not grading_only:
        _put_group_size(given, options, method)
    parts = {
        part: read_options(kind, given.get(part, {}), part, partial(_named, places.get(part), part))
        for part, kind in types.items()
    }
    if not grading_only:
        learner, stops_at_first = parts.get("learner"), not options.keep_going
        method.check(parts[options.method], learner, stops_at_first=stops_at_first)
    return Plan(options, parts)


def warnings_of(plan: Plan) -> list[str]:
    """Options that are right and cannot have their effect in a run, a sentence each."""
    options, method = plan.run, methods.REGISTRY.load(plan.run.method)
    warnings = []
    if method.learns and not plan.has_weights:
        warnings.append(f"{options.method} learns nothing here: scripted replies have no weights behind them")
    elif method.learns and (n := method.first_update_after(plan.parts[options.method])) >= options.attempts:
        warnings.append(
            f"the first update comes after {n} failures, and {options.attempts} attempts are spent by then: "
            "nothing is learned; more --attempts, a smaller --group-size or learn_after change that"
        )
    if options.tokens is not None and options.tokens <= (options.max_tokens or 0):
        warnings.append(f"--tokens {options.tokens}: one answer of --max-tokens may spend them")
    return warnings


def _refuse_of_other_engines(options: RunOptions, place: str | None) -> None:
    """Raises ConfigError for a setting of the engine that others have, and the one chosen has not."""
    known = engines.REGISTRY.load(options.engine).options_type.model_fields
    for key in sorted(options.settings.get("engine", {}).keys() - known.keys()):
        names = engines.REGISTRY.names()
        able = [name for name in names if key in engines.REGISTRY.load(name).options_type.model_fields]
        if able:
            given = "--server" if key == "server" and place is None else _named(place, "engine", key)
            raise ConfigError(f"{given} is for --engine {' or '.join(able)}; here it is {options.engine}")


def _check_remote(options: RunOptions, method: type[MethodPlugin]) -> None:
    """Raises ConfigError where the model is a server's and is needed here, or has no name."""
    if method.learns:
        raise ConfigError(
            f"{options.method} learns, and --engine {options.engine} has no weights to train: the model is a "
            "server's, which tells neither token ids nor log-probs. Take best-of-k or multi-turn, or "
            "--engine vllm --server URL with the model here as well"
        )
    if options.model is None:
        raise ConfigError(f"--engine {options.engine} needs --model NAME: what the server calls its model")


def _refuse_what_needs_weights(options: RunOptions) -> None:
    """Scripted replies were written, not sampled; nothing learns from them, nor from a server's answers."""
    given = [
        f"--set {part}.{name}"
        for part, values in options.settings.items()
        for name in values
        if is_of_learning(part, name)
    ]
    sampled = is_sampled(options)
    for name in sorted(idle_options(options) & RunOptions.model_fields.keys()):
        if getattr(options, name) != RunOptions.model_fields[name].default:
            given.append(as_flag(RunOptions, name))
    if given and sampled:
        raise ConfigError(
            f"{given[0]} would do nothing with --engine {options.engine}: the model is a server's, and so is "
            "its chat template; leave it out"
        )
    if given:
        raise ConfigError(
            f"{given[0]} would do nothing: scripted replies have no model behind them that samples and "
            "learns; leave it out, or name one with --model"
        )


def _named(place: str | None, part: str, key: str) -> str:
    """An option of a part as the user wrote it."""
    return f"{place} {key}" if place else f"--set {part}.{key}"


def _with_sandbox(options: RunOptions) -> RunOptions:
    """`auto` with options of one sandbox alone means that sandbox.

    Raises ConfigError where the options do not say which.
    """
    given = options.settings.get("sandbox", {})
    if options.sandbox != "auto" or not given:
        return options
    known = {
        name: set(sandboxes.REGISTRY.load(name).options_type.model_fields)
        for name in sandboxes.REGISTRY.names()
    }
    able = [name for name, fields in known.items() if set(given) <= fields]
    if len(able) == 1:
        return options.model_copy(update={"sandbox": able[0]})
    if able:
        raise ConfigError(f"--set sandbox.{min(given)}: say of which with --sandbox {' or '.join(able)}")
    every = sorted(set().union(*known.values()))
    raise ConfigError(f"no sandbox has the options {', '.join(sorted(given))} (known: {', '.join(every)})")


def _put_group_size(
    given: dict[str, dict[str, Any]], options: RunOptions, method: type[MethodPlugin]
) -> None:
    if not method.samples_groups():
        raise ConfigError(f"{options.method} samples one attempt at a time; leave --group-size out")
    if "group_size" in given.setdefault(options.method, {}):
        raise ConfigError(f"--group-size and --set {options.method}.group_size: give one of them")
    given[options.method]["group_size"] = options.group_size
