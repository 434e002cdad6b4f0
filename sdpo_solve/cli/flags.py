"""Commands from options: the fields of a command's pydantic model become its flags and arguments.

A field gives a flag its name, type, default, range and help (see `config.Flag`). Values are passed on as
texts and read by the model, so that errors about options are worded in one place (`config.read_options`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import typer
from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from sdpo_solve.config import PANELS, Flag, Listed, Options, as_flag, flag_of, parse_settings, read_options

OptionsT = TypeVar("OptionsT", bound=BaseModel)

# What a beginner needs, in the order in which `--help` shows it, before the panels.
_FIRST = (
    "file", "method", "methods", "attempts", "seeds", "group_size", "max_tokens", "model", "keep_going",
    "seed", "dry_run", "out", "as_json",
)  # fmt: skip
_METAVARS = {"int": "INTEGER", "float": "NUMBER", "date": "DATE", "Path": "PATH", "bool": ""}


PROBLEM_HELP = "A problem file, or lcb:v6, lcb:FILE, mbpp:FILE, humaneval:FILE with --ids"

RUNS = Flag(metavar="DIR", is_argument=True)
RUNS_HELP = "directories of runs, ones that hold them, or packed files"


# -- options that several commands share ---------------------------------------------------------------------


class WithJson(Options):
    panel = "Output"
    as_json: Annotated[bool, Flag(name="json")] = Field(
        False, description="one JSON object on standard output, all else on standard error"
    )


class WithFile(Options):
    file: Annotated[Path | None, Flag(short="f")] = Field(
        None, description="TOML file with any of these options but --measure, --dry-run and --json; flags win"
    )


class WithServer(Options):
    panel = "Sampling"
    server: Annotated[str | None, Flag(sets="engine.server")] = Field(
        None, description="address of a running server, for --engine vllm or openai"
    )


class WithRuntime(Options):
    panel = "Grading"
    runtime: Annotated[str | None, Flag(sets="sandbox.runtime")] = Field(
        None, description="Docker's OCI runtime, such as runsc for gVisor; means --sandbox docker"
    )


# -- plain help ----------------------------------------------------------------------------------------------


class _PlainArgument(TyperArgument):
    """An argument that `--help` calls PROBLEM, where typer has `{PROBLEM}` and its type, `<str>`, besides."""

    def display_type_rich(self, ctx: Any) -> str:
        return ""

    def get_usage_pieces(self, ctx: Any) -> list[str]:
        return [self.display_name_raw if self.required else f"[{self.display_name_raw}]"]


class PlainCommand(TyperCommand):
    """A command with plain help."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters as typer makes them, arguments and switches shown plainly."""
        return _plain(super().get_params(ctx))


class PlainGroup(TyperGroup):
    """A group of commands with plain help."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters as typer makes them, switches shown plainly."""
        return _plain(super().get_params(ctx))


def _plain(parameters: list[Any]) -> list[Any]:
    for one in parameters:
        if isinstance(one, TyperArgument):
            one.__class__ = _PlainArgument  # typer offers no way to name the class of an argument
            if one.display_name_raw.rstrip(".") in (
                "DIR",
                "RUN",
            ):  # typer keeps only what begins with the word
                one._custom_shell_complete = lambda _, __, incomplete: _completion().runs(incomplete)
        elif isinstance(one, TyperOption) and one.is_flag and one.metavar is None:
            one.metavar = ""
    return parameters


# -- commands ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Command:
    """A command as typer takes it: `call` has a parameter for each flag."""

    name: str
    call: Callable[..., None]
    examples: tuple[str, ...]

    def add_to(self, app: typer.Typer) -> None:
        """Register it on an application."""
        epilog = "\n\n".join(["Examples:", *(f"sdpo-solve {example}" for example in self.examples)])
        paragraphs = (self.call.__doc__ or "").split("\n\n")
        text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
        app.command(self.name, cls=PlainCommand, help=text, epilog=epilog)(self.call)


def command(
    options: type[OptionsT], *examples: str, name: str | None = None
) -> Callable[[Callable[[OptionsT], None]], Command]:
    """Make a command of a function that takes its options; the docstring is the help.

    `examples`: lines of `--help`, without the program's name.
    """

    def make(function: Callable[[OptionsT], None]) -> Command:
        called = name or function.__name__

        def call(**values: Any) -> None:
            function(read_options(options, given(options, values), called, partial(as_flag, options)))

        return Command(called, with_flags(call, options, function.__doc__), examples)

    return make


def file_command(
    options: type[BaseModel], *examples: str
) -> Callable[[Callable[[Mapping[str, Any]], None]], Command]:
    """As `command`, where a file may give options too: the function takes the flags that were given."""

    def make(function: Callable[[Mapping[str, Any]], None]) -> Command:
        def call(**values: Any) -> None:
            function(given(options, values))

        made = with_flags(call, options, function.__doc__, needs_nothing=True)
        return Command(function.__name__, made, examples)

    return make


def split(options: type[OptionsT], flags: Mapping[str, Any]) -> tuple[OptionsT, dict[str, Any]]:
    """The options of one model among the flags of a command, and the other flags."""
    own = {key: value for key, value in flags.items() if key in options.model_fields}
    read = read_options(options, own, "this command", partial(as_flag, options))
    return read, {key: value for key, value in flags.items() if key not in own}


def given(options: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that were given: a switch that is off and an empty list were not.

    Settings of parts are read into a table. Raises ConfigError for a malformed one.
    """
    flags = {key: value for key, value in values.items() if value not in (None, False, [], ())}
    pairs = list(flags.pop("settings", []))
    for key in list(flags):
        if setting := flag_of(options, key).sets:
            pairs.append(f"{setting}={flags.pop(key)}")
    return {**flags, "settings": parse_settings(pairs)} if pairs else flags


def with_flags(
    call: Callable[..., None], options: type[BaseModel], doc: str | None, *, needs_nothing: bool = False
) -> Callable[..., None]:
    """`call` with the signature that typer reads flags from; `needs_nothing`: a file may give all of it."""
    parameters = [_parameter(key, field, flag_of(options, key)) for key, field in _in_order(options)]
    if needs_nothing:
        empty = inspect.Parameter.empty
        parameters = [one.replace(default=None) if one.default is empty else one for one in parameters]
    call.__doc__ = doc
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    vars(call)["__signature__"] = inspect.Signature(parameters)
    return call


def _in_order(options: type[BaseModel]) -> list[tuple[str, FieldInfo]]:
    """The fields that have a flag: arguments, what a beginner needs, then panel by panel."""

    def place(item: tuple[str, FieldInfo]) -> tuple[int, int]:
        key, mark = item[0], flag_of(options, item[0])
        if mark.is_argument or key in _FIRST:
            return 0, 0 if mark.is_argument else 1 + _FIRST.index(key)
        return 1 + PANELS.index(mark.panel or ""), 0

    fields = [item for item in options.model_fields.items() if not flag_of(options, item[0]).only_in_file]
    return sorted(fields, key=place)


def _parameter(key: str, field: FieldInfo, mark: Flag) -> inspect.Parameter:
    kind, shape, text = kind_of(field), _shape(field, mark), help_text(field)
    choices = tuple(map(str, get_args(kind))) if get_origin(kind) is Literal else ()

    def complete(incomplete: str) -> list[str]:
        offered: list[str] = _completion().offered(key, choices, incomplete)
        return offered

    default: Any = None
    if mark.is_argument:
        dots = "..." if get_origin(shape) is list else ""
        metavar = (mark.metavar or key.upper()) + dots
        marked = typer.Argument(metavar=metavar, help=text, autocompletion=complete)
        default = inspect.Parameter.empty if field.is_required() else None
    else:
        names = [f"--{mark.name or key.replace('_', '-')}", *([f"-{mark.short}"] if mark.short else [])]
        metavar = mark.metavar or _METAVARS.get(getattr(kind, "__name__", ""), "TEXT")
        panel = None if key in _FIRST else mark.panel or None
        marked = typer.Option(
            *names, metavar=metavar, help=text, rich_help_panel=panel, autocompletion=complete
        )
    if shape is bool:
        default = False
    annotation: Any = Annotated[shape if shape is bool else shape | None, marked]
    return inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _completion() -> Any:
    """Loaded where a shell wants it."""
    return import_module("sdpo_solve.cli.completion")


def _shape(field: FieldInfo, mark: Flag) -> Any:
    """What typer makes of the words: a switch, a text or path, or a list of them."""
    kind = kind_of(field)
    if kind is bool:
        return bool
    is_path = kind is Path or Path in get_args(kind)
    repeated = get_origin(kind) is tuple and (mark.is_argument or Listed not in field.metadata)
    if repeated or get_origin(kind) in (dict, Mapping):
        return list[Path] if is_path else list[str]
    return Path if is_path else str


def help_text(field: FieldInfo) -> str:
    """The description of an option with its choices, its upper bound and its default."""
    kind, text = kind_of(field), field.description or ""
    if get_origin(kind) is Literal and not all(str(choice) in text for choice in get_args(kind)):
        *most, last = map(str, get_args(kind))
        text += f": {', '.join(most)} or {last}"
    notes = [f"at most {bound:g}" for mark in field.metadata if (bound := getattr(mark, "le", None))]
    default = None if field.is_required() or field.default_factory else field.default
    if default is not None and default is not False and default != ():
        notes.append(f"default: {','.join(map(str, default)) if isinstance(default, tuple) else default}")
    text += f" ({'; '.join(notes)})" if notes else ""
    is_value = text.partition(" ")[0].endswith(":")  # "pack: runs without texts": to be written as it stands
    return (text if is_value else text[:1].upper() + text[1:]) + "."


def kind_of(field: FieldInfo) -> Any:
    """The type of a field, without `| None`."""
    kinds = [kind for kind in get_args(field.annotation) if kind is not type(None)]
    is_optional = type(None) in get_args(field.annotation)
    return kinds[0] if is_optional else field.annotation
