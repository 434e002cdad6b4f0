"""What a user can set: the options of a run, and the base class of every plug-in's options.

An option is declared once, as a field of a pydantic model: its type, default, range, description and, where a
command offers it, its `Flag`. Flags (`cli/flags.py`), files of options, `--help` and the journal's record all
come from that field. Here values are read and errors about them worded; nothing is built.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from sdpo_solve.errors import ConfigError
from sdpo_solve.types import Budget

FeedbackMode = Literal["public", "paper", "all"]
ExtractionRule = Literal["program", "livecodebench"]
Quantization = Literal["4bit"]
"""How base weights may be held in memory besides as they are."""


# Options of a run that only a model reads: how it samples, and how its chat template is filled.
OF_SAMPLING = ("max_tokens", "temperature", "thinking", "quantization")
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


OptionsT = TypeVar("OptionsT", bound=BaseModel)
ValueT = TypeVar("ValueT")
_FREE = "changes no answer"
Free = Annotated[ValueT, _FREE]
"""The type of an option that leaves answers and verdicts as they are, or that the grader's identity holds:
runs that differ in such options alone may be compared."""


def as_names(value: Any) -> Any:
    """A comma-separated text as a list; lists stay."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Listed = BeforeValidator(as_names)
"""Marks a tuple that is given as one comma-separated text."""
Names = Annotated[tuple[str, ...], Listed]


@dataclass(frozen=True, slots=True)
class Flag:
    """How a command offers an option, where the field does not say; stands in its `Annotated` metadata."""

    panel: str | None = None
    """The group of `--help` that it belongs to; None: that of the class which declares it."""
    name: str | None = None
    """Its name where that is not the field's: `from` for `from_date`."""
    short: str | None = None
    metavar: str | None = None
    is_argument: bool = False
    """Given by its place on the line, without a name."""
    only_in_file: bool = False
    sets: str | None = None
    """The setting of a part that it stands for: `sandbox.runtime`."""


# The groups of `--help`, in their order; the first has no name.
PANELS = (
    "",
    "What to solve",
    "Budget",
    "Sampling",
    "Grading",
    "Learning",
    "Execution",
    "Output",
    "With --sandbox",
)
BUDGET, SAMPLING, GRADING, LEARNING, OUTPUT = map(
    Flag, ("Budget", "Sampling", "Grading", "Learning", "Output")
)
SETTINGS = Flag("Learning", "set", metavar="PART.OPTION=VALUE")
SANDBOX_HELP = "where programs run: docker, bubblewrap, or auto: the first that works"
REPLIES_HELP = "replies for --engine scripted, one JSON object a line"


class Options(BaseModel):
    """Base of all options: frozen, numbers finite, unknown keys refused. Defaults are the vetted setting.

    `panel`: the group of `--help` that the fields of a class belong to; see `Flag`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
    panel: ClassVar[str] = ""
    removed: ClassVar[Mapping[str, Any]] = {}
    """Options that are gone, with the value at which they did nothing: files may still hold that one."""
    before_the_option: ClassVar[Mapping[str, Any]] = {}
    """What runs of earlier versions did that did not know an option, where it is not today's default."""

    @field_validator("*")
    @classmethod
    def _require_text(cls, value: Any) -> Any:
        """Bytes of a command line that are no text in UTF-8 come as lone surrogates: no model reads them."""
        if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise ValueError("must be text in UTF-8")
        return value

    @classmethod
    def current(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """`given` without removed options, where they did nothing."""
        return {
            name: value
            for name, value in given.items()
            if name not in cls.removed or value != cls.removed[name]
        }

    @classmethod
    def free(cls) -> frozenset[str]:
        """The options that are `Free`."""
        return frozenset(name for name, field in cls.model_fields.items() if _FREE in field.metadata)

    @classmethod
    def complete(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Options that an earlier version stored, with the defaults of those that it did not know."""
        defaults = cls.model_construct().model_dump(mode="json")
        return {**defaults, **cls.before_the_option, **cls.current(given)}

    def narrow(self, cls: type[OptionsT]) -> OptionsT:
        """The part of these options that a base model declares."""
        given = self.model_fields_set & set(cls.model_fields)
        return cls.model_construct(given, **{key: getattr(self, key) for key in cls.model_fields})


class OptionsWithPresets(Options):
    """Options of which a preset stands for several at once; others given beside it win.

    A subclass declares `preset`. `presets`: name -> the values it stands for. `belongs_to`: an option of a
    preset -> the one that it goes with; whoever sets that one chooses these as well.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    belongs_to: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _fill_preset(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        preset = cls.presets.get(str(given.get("preset", "default")), {})
        kept = {name: value for name, value in preset.items() if cls.belongs_to.get(name) not in given}
        return {**kept, **given}


class PartOptions(Options):
    """What every command takes that judges programs: a sandbox, and options of the parts."""

    panel = "Grading"
    sandbox: str = Field("auto", description=SANDBOX_HELP)
    settings: Annotated[Mapping[str, Mapping[str, Any]], SETTINGS] = Field(
        default_factory=dict, description="set an option of a part, e.g. learner.lr=1e-4 (repeatable)"
    )


class SamplingOptions(PartOptions):
    """How answers are sampled and judged. None: decided when a run is built, and recorded."""

    panel = "Sampling"
    before_the_option: ClassVar = {"extract": "livecodebench"}
    engine: str = Field(
        "hf", description="what samples: hf (in this process), vllm, openai (a server) or scripted"
    )
    model: str | None = Field(
        None, description="model name, hub id or directory; see 'sdpo-solve model list'"
    )
    quantization: Quantization | None = Field(
        None,
        description="4bit: the base weights in a quarter of the memory (bitsandbytes NF4); for --engine hf",
    )
    max_tokens: int | None = Field(
        None, ge=1, description="tokens of one answer at most (default: 512; 8192 with CUDA or by a server)"
    )
    temperature: float = Field(1.0, gt=0, le=10, description="sampling temperature")
    system: str | None = Field(None, description="system message (default: the model's own)")
    thinking: bool = Field(False, description="let the model think first, where its template can")
    threads: int | None = Field(
        None, ge=1, description="processor threads; equal results need equal numbers (default: all)"
    )
    feedback_mode: Annotated[FeedbackMode, GRADING] = Field(
        "public", description="tests that feedback may quote"
    )
    language: Annotated[str, GRADING] = Field("python", description="language of the programs: python or cpp")
    extract: Annotated[ExtractionRule, GRADING] = Field(
        "program",
        description="part of an answer that is graded: program (the last whole program) or livecodebench "
        "(LiveCodeBench's rule: the text between the last two fences)",
    )


class SharedOptions(SamplingOptions):
    """What all runs of a batch have in common."""

    panel = "Budget"
    attempts: int = Field(64, ge=1, description="attempts of a run at most")
    tokens: int | None = Field(None, ge=1, description="generated tokens of a run at most")
    wall_seconds: float | None = Field(None, gt=0, description="seconds of a run at most")
    keep_going: bool = Field(False, description="spend the whole budget, also after a success")
    group_size: Annotated[int | None, LEARNING] = Field(
        None, ge=1, description="attempts sampled together between two updates (default: 16)"
    )


class RunOptions(SharedOptions):
    """One run, as the command line or a file states it, and as `config.json` records it."""

    method: Annotated[str, LEARNING] = Field(
        "sdpo", description="how to search: sdpo, best-of-k or multi-turn"
    )
    arm: Annotated[str | None, OUTPUT] = Field(
        None,
        pattern=r"^[a-z0-9][a-z0-9.-]*$",
        description="name to file and compare the run under (default: the method's)",
    )
    seed: Annotated[int, SAMPLING] = Field(0, ge=0, lt=2**31, description="seed of every random draw")

    @property
    def budget(self) -> Budget:
        """What the run may spend."""
        return Budget(self.attempts, self.tokens, self.wall_seconds)

    @property
    def arm_name(self) -> str:
        """The arm of a comparison that the run belongs to."""
        return self.arm or self.method


def read_options(
    cls: type[OptionsT],
    given: Mapping[str, Any],
    part: str,
    named: Callable[[str], str] | None = None,
    spelt: Callable[[str], str] = str,
) -> OptionsT:
    """`given` as options of `part`; `named` says how the user wrote an option (see `as_flag`),
    `spelt` how a list of options writes one.

    Raises ConfigError in one line: each key, what is wrong with it, and for an unknown key the known ones.
    """
    if issubclass(cls, Options):
        given = cls.current(given)
    unknown = [key for key in given if key not in cls.model_fields]
    mistakes = [_no_option(spelt(key), part, [*map(spelt, cls.model_fields)]) for key in unknown]
    try:
        read = cls(**{key: value for key, value in given.items() if key not in unknown})
    except ValidationError as exc:
        mistakes += _faults(exc, part, named or (lambda key: f"{part}.{key}"))
    if mistakes:
        raise ConfigError("; ".join(mistakes))
    return read


def _no_option(key: str, part: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{part} has no option {key!r}{hint} (known: {', '.join(known) or 'none'})"


def flag_of(cls: type[BaseModel], key: str) -> Flag:
    """How a command offers this field."""
    mark = next((mark for mark in cls.model_fields[key].metadata if isinstance(mark, Flag)), Flag())
    declared_in = next(base for base in cls.__mro__ if key in inspect.get_annotations(base))
    return mark if mark.panel is not None else replace(mark, panel=getattr(declared_in, "panel", ""))


def key_name(cls: type[BaseModel], key: str) -> str:
    """An option as a file names it: `from` for `from_date`, `max-tokens` for `max_tokens`."""
    own = flag_of(cls, key).name if key in cls.model_fields else None
    return own or key.replace("_", "-")


def as_flag(cls: type[BaseModel], key: str) -> str:
    """An option as a command line names it."""
    mark = flag_of(cls, key) if key in cls.model_fields else Flag()
    return mark.metavar or key if mark.is_argument else f"--{key_name(cls, key)}"


def fault_words(fault: Mapping[str, Any]) -> str:
    """What a value must be, in plain words, from one of pydantic's errors."""
    kind, facts = str(fault["type"]), fault.get("ctx", {})
    if str(fault.get("input")).lower() == "nan":
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
    """`part.key=value` texts as {part: {key: value}}; values stay texts, with the spaces around them, that
    the part's options convert.

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
        settings[part][key] = None if value.strip().lower() == "none" else value
    return settings


def _faults(exc: ValidationError, part: str, named: Callable[[str], str]) -> list[str]:
    """What is wrong with each value, by the first fault of an option."""
    first_of: dict[Any, str] = {}
    for fault in exc.errors():
        words, loc = fault_words(fault), fault["loc"]
        if loc:
            name = ".".join([named(str(loc[0])), *(key for key in loc[1:] if isinstance(key, str))])
            words = f"{name} {words} (got {_shown(fault.get('input'))})"
        first_of.setdefault(loc[:1], words if loc else f"{part}: {words}")
    return [*first_of.values()]


def _shown(value: Any) -> str:
    """A value as the user wrote it: a number on a command line comes as a text."""
    try:
        float(value)
    except (TypeError, ValueError):
        return repr(value)
    return str(value)
