"""The command `options`: every option with its default, range and meaning, read from the options' models."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sdpo_solve import engines, methods, sandboxes
from sdpo_solve.batch.spec import BatchFile
from sdpo_solve.cli.flags import WithJson, command, kind_of
from sdpo_solve.config import Flag, RunOptions, key_name
from sdpo_solve.errors import ConfigError
from sdpo_solve.grading import feedback, judge
from sdpo_solve.learner import options as learner_options

_BOUNDS = {"ge": "≥ {:g}", "gt": "> {:g}", "le": "≤ {:g}", "lt": "< {:g}"}


class OptionsCommand(WithJson):
    part: Annotated[str | None, Flag(metavar="PART", is_argument=True)] = Field(
        None, description="what --set takes (learner, judge, engine, sandbox, a method), run or batch"
    )


@command(OptionsCommand, "options", "options learner", "options engine --json")
def options(given: OptionsCommand) -> None:
    """List every option with its default, its range and what it does.

    Those of `run` and `batch` are flags, and keys of a batch file; those of a part are set by
    --set PART.OPTION=VALUE, or in a batch file in the tables settings.PART and arms.NAME.settings.PART.
    """
    parts = all_parts()
    if given.part is not None:
        parts = {title: cls for title, cls in parts.items() if title.split(" ")[0] == given.part}
    if not parts:
        known = ", ".join(dict.fromkeys(title.split(" ")[0] for title in all_parts()))
        raise ConfigError(f"there is no part {given.part!r} (known: {known})")
    if given.as_json:
        rows = {title: [row(cls, key) for key in cls.model_fields] for title, cls in parts.items()}
        typer.echo(json.dumps(rows))
        return
    console = Console(highlight=False)
    for title, cls in parts.items():
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for column in ("option", "default", "range", "about"):
            table.add_column(column, overflow="fold")
        for key in cls.model_fields:
            table.add_row(*(Text(value) for value in row(cls, key).values()))
        console.print(Text(title, style="bold"))
        console.print(table if cls.model_fields else Text("nothing to set", style="dim"))
        console.print()


def all_parts() -> dict[str, type[BaseModel]]:
    """The options of every part, by titles that begin with the part's name."""
    plugins: list[tuple[str, Any]] = [("engine", engines.REGISTRY), ("sandbox", sandboxes.REGISTRY)]
    return {
        "run": RunOptions,
        "batch": BatchFile,
        **{name: methods.REGISTRY.load(name).options_type for name in methods.REGISTRY.names()},
        "learner": learner_options.Options,
        "feedback": feedback.Options,
        "judge": judge.Options,
        **{
            f"{part} {name}": registry.load(name).options_type
            for part, registry in plugins
            for name in registry.names()
        },
    }


def row(cls: type[BaseModel], key: str) -> dict[str, str]:
    """Name, default, range and description of an option."""
    field = cls.model_fields[key]
    default = "" if field.is_required() or field.default_factory else field.default
    plain = str(default).lower() if default is None or isinstance(default, bool) else str(default)
    text = ",".join(map(str, default)) if isinstance(default, tuple) else plain
    name = key_name(cls, key) if issubclass(cls, RunOptions | BatchFile) else key
    return {"option": name, "default": text, "range": range_of(field), "about": field.description or ""}


def range_of(field: FieldInfo) -> str:
    """What an option may be: its choices, or its bounds."""
    kind = kind_of(field)
    if get_origin(kind) is Literal:
        return " | ".join(map(str, get_args(kind)))
    bounds = [
        form.format(getattr(mark, name))
        for name, form in _BOUNDS.items()
        for mark in field.metadata
        if getattr(mark, name, None) is not None
    ]
    return ", ".join(bounds) or {bool: "true | false", int: "whole number", float: "number"}.get(kind, "")
