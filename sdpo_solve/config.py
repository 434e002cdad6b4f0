"""What a user can set: the options of a run, and the base class of every plug-in's options.

Validates shapes and ranges, and names the known options when one is unknown. Builds nothing: `build.py` does.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
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


def read_options(cls: type[OptionsT], given: Mapping[str, Any], part: str) -> OptionsT:
    """`given` as options of `part`.

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
        raise ConfigError(_first_line(exc, part)) from None


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


def _first_line(exc: ValidationError, part: str) -> str:
    first = exc.errors()[0]
    place = ".".join(str(step) for step in first["loc"]) or "options"
    message = str(first["msg"]).removeprefix("Value error, ")
    return f"{part}: {place}: {message} (got {first.get('input')!r})"
