"""What a user can set: the options of a run, and the base class of every plug-in's options.

Validates shapes and ranges, and names the known options when one is unknown. Builds nothing: `build.py` does.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sdpo_solve.errors import ConfigError

FeedbackMode = Literal["public", "paper", "all"]


# What only a model reads. Options of a run: how it samples, and how its chat template is filled.
OF_SAMPLING = ("max_tokens", "temperature", "thinking")
# Settings by part: what is learned, from whom, by which reward; None: all of the part.
OF_LEARNING: Mapping[str, frozenset[str] | None] = {
    "learner": None,
    "sdpo": frozenset({"teacher", "attempt_in_prompt", "reward"}),
}
# Flags that are not called as their option is.
_FLAGS = {"from_date": "--from", "to_date": "--to", "settings": "--set"}
# Faults as pydantic calls them, or as their names begin, in words that follow "must be".
_BOUNDS = {
    "greater_than": ("greater than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}
_FORMS = {
    "int": "a whole number",
    "float": "a number",
    "finite_number": "a finite number",
    "bool": "true or false",
    "date": "a date such as 2025-02-01",
    "string_too_short": "a text that is not empty",
    "string": "a text",
    "dict": "a table",
    "mapping": "a table",
    "model": "a table",
    "tuple": "a list",
    "too_short": "a list of at least one",
    "extra_forbidden": "left out: there is no such option",
}


class Options(BaseModel):
    """Base of all options: frozen, unknown keys refused. Defaults are the vetted setting."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RunOptions(Options):
    """One run, as the command line or a file states it. None: decided when the run is built, and recorded."""

    method: str = Field("sdpo", description="sdpo, best-of-k or multi-turn")
    arm: str | None = Field(
        None,
        pattern=r"^[a-z0-9][a-z0-9.-]*$",
        description="name that the run is filed and compared under; None: the method's",
    )
    engine: str = Field("hf", description="hf, vllm or scripted")
    sandbox: str = Field("auto", description="docker, bubblewrap, or auto: the first that works")
    model: str | None = Field(None, description="model name, hub id or directory")
    attempts: int = Field(64, ge=1, description="attempts to spend at most")
    tokens: int | None = Field(None, ge=1, description="generated tokens to spend at most")
    wall_seconds: float | None = Field(None, gt=0, description="seconds to spend at most")
    group_size: int | None = Field(None, ge=1, description="attempts sampled together between two updates")
    max_tokens: int | None = Field(None, ge=1, description="tokens of one answer at most")
    temperature: float = Field(1.0, gt=0, le=10, description="sampling temperature")
    keep_going: bool = Field(False, description="spend the whole budget instead of stopping at a success")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of every random draw of the run")
    feedback_mode: FeedbackMode = Field("public", description="which tests feedback may quote")
    language: Literal["python", "cpp"] = Field("python", description="language of the programs")
    system: str | None = Field(None, description="system message; None for the model's own")
    thinking: bool = Field(False, description="the chat template's thinking switch")
    threads: int | None = Field(
        None, ge=1, description="processor threads of the model; None: as many as the machine offers"
    )
    settings: Mapping[str, Mapping[str, Any]] = Field(
        default_factory=dict, description="options of the parts, by part: {'learner': {'lr': 5e-5}}"
    )

    @property
    def has_weights(self) -> bool:
        """Scripted replies have none behind them, unless a model is named."""
        return self.engine != "scripted" or self.model is not None

    @property
    def arm_name(self) -> str:
        """The arm of a comparison that the run belongs to."""
        return self.arm or self.method


def is_of_learning(part: str, name: str) -> bool:
    """Whether nothing but learning reads this setting."""
    names = OF_LEARNING.get(part, frozenset())
    return names is None or name in names


OptionsT = TypeVar("OptionsT", bound=BaseModel)


def read_options(
    cls: type[OptionsT], given: Mapping[str, Any], part: str, named: Callable[[str], str] | None = None
) -> OptionsT:
    """`given` as options of `part`; `named` says how the user wrote an option (see `as_flag`).

    Raises ConfigError in one line: the key, what is wrong with it, and for an unknown key the known ones.
    """
    for key in given:
        if key not in cls.model_fields:
            near = difflib.get_close_matches(key, list(cls.model_fields), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            known = ", ".join(cls.model_fields) or "none"
            raise ConfigError(f"{part} has no option {key!r}{hint} (known: {known})")
    try:
        return cls(**given)
    except ValidationError as exc:
        raise ConfigError(_first_line(exc, part, named or (lambda key: f"{part}.{key}"))) from None


def as_flag(key: str) -> str:
    """The flag of a command that sets this option."""
    return _FLAGS.get(key) or "--" + key.replace("_", "-")


def fault_words(fault: Mapping[str, Any]) -> str:
    """What a value must be, in our words, from one of pydantic's errors."""
    kind, facts = str(fault["type"]), fault.get("ctx", {})
    if isinstance(fault.get("input"), float) and math.isnan(fault["input"]):
        return "must be a number"
    if kind in _BOUNDS:
        words, name = _BOUNDS[kind]
        bound = facts[name]
        return f"must be {words} {f'{bound:g}' if isinstance(bound, float) else bound}"
    if kind == "literal_error":
        return f"must be {facts['expected']}"
    if kind == "string_pattern_mismatch":
        return f"must match {facts['pattern']}"
    for start, words in _FORMS.items():
        if kind.startswith(start):
            return f"must be {words}"
    return str(fault["msg"]).removeprefix("Value error, ").removeprefix("Input should ")


def parse_settings(pairs: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`part.key=value` texts as {part: {key: value}}; values stay texts that the part's options convert.

    Raises ConfigError for a text of another form, or a key that is set twice.
    """
    settings: dict[str, dict[str, Any]] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        part, dot, key = name.strip().partition(".")
        if not (equals and dot and part and key):
            raise ConfigError(f"--set wants PART.OPTION=VALUE, for example learner.lr=5e-5; got {pair!r}")
        if key in settings.setdefault(part, {}):
            raise ConfigError(f"--set gives {part}.{key} twice")
        settings[part][key] = None if value.strip().lower() == "none" else value.strip()
    return settings


def _first_line(exc: ValidationError, part: str, named: Callable[[str], str]) -> str:
    first = exc.errors()[0]
    words = fault_words(first)
    if not first["loc"]:
        return f"{part}: {words}"
    name = ".".join([named(str(first["loc"][0])), *map(str, first["loc"][1:])])
    return f"{name} {words} (got {first.get('input')!r})"
