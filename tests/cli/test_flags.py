"""Flags come from the fields of options: what `--help` shows, what is passed on, and how little a command needs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from pydantic import Field
from typer.main import get_command
from typer.testing import CliRunner

from sdpo_solve.batch.spec import BatchOptions
from sdpo_solve.cli.batch import BatchCommand
from sdpo_solve.cli.flags import command, given, help_text
from sdpo_solve.cli.main import app
from sdpo_solve.cli.run import RunCommand
from sdpo_solve.config import SETTINGS, Flag, Listed, Options, RunOptions, SharedOptions, flag_of
from sdpo_solve.errors import ConfigError
from tests.helpers.imports import reached_from


class Some(Options):
    panel = "Budget"
    place: Annotated[Path, Flag(is_argument=True)] = Field(description="where")
    size: int = Field(3, ge=1, le=9, description="how many")
    names: Annotated[tuple[str, ...], Listed] = Field((), description="some names")
    values: tuple[str, ...] = Field((), description="some values")
    loud: bool = Field(False, description="say more")
    runtime: Annotated[str | None, Flag(sets="sandbox.runtime")] = Field(None, description="a runtime")
    settings: Annotated[Mapping[str, Mapping[str, Any]], SETTINGS] = Field(
        default_factory=dict, description="set an option"
    )


def call(*words: str) -> Some | Exception:
    """What the command is given for these words of a command line, or what it raises."""
    seen: list[Some] = []

    @command(Some, "some here", name="some")
    def some(options: Some) -> None:
        """Does nothing."""
        seen.append(options)

    app = typer.Typer()
    some.add_to(app)
    result = CliRunner().invoke(app, list(words))
    return seen[0] if seen else result.exception


def test_words_become_options() -> None:
    found = call("here", "--size", "4", "--names", "a,b", "--values", "x", "--values", "y", "--loud")
    assert found == Some(place=Path("here"), size=4, names=("a", "b"), values=("x", "y"), loud=True)
    assert call("here") == Some(place=Path("here"))
    both = call("here", "--set", "learner.lr=1", "--runtime", "runsc")
    assert isinstance(both, Some)
    assert both.settings == {"learner": {"lr": "1"}, "sandbox": {"runtime": "runsc"}}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--size 0", "--size must be at least 1 (got 0)"),
        ("--size x", "--size must be a whole number (got 'x')"),
        ("--set a", "--set wants PART.OPTION=VALUE"),
        ("--set sandbox.runtime=a --runtime b", "--set gives sandbox.runtime twice"),
    ],
)
def test_a_mistake_goes_by_the_name_of_the_flag(words: str, message: str) -> None:
    error = call("here", *words.split())
    assert isinstance(error, ConfigError)
    assert message in str(error)


def test_what_was_not_given_is_left_to_a_file() -> None:
    values = dict.fromkeys(BatchCommand.model_fields) | {"seeds": "0", "merge": False, "sources": []}
    assert given(BatchCommand, values) == {"seeds": "0"}


@pytest.mark.parametrize(
    ("words", "usage"),
    [("", "[OPTIONS] COMMAND"), ("run", "[OPTIONS] PROBLEM"), ("show", "[OPTIONS] [DIR...]"), ("bench", "")],
)
def test_help_shows_names_without_types(words: str, usage: str) -> None:
    text = CliRunner().invoke(app, [*words.split(), "--help"], env={"COLUMNS": "80"}).output
    assert usage in text
    assert not any(mark in text for mark in ("{", "<str", "<bool>", "<path>", "<list"))
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("name", ["run", "batch", "screen"])
def test_a_beginner_meets_at_most_eleven_flags_before_the_panels(name: str) -> None:
    flags = [one for one in get_command(app).commands[name].params if one.param_type_name == "option"]
    first = [one for one in flags if one.rich_help_panel is None]
    assert 5 <= len(first) <= 11
    assert {one.rich_help_panel for one in flags} >= {"What to solve", "Sampling", "Grading", "Learning"}
    assert all(one.help.endswith(".") for one in flags)


def test_every_option_of_a_run_and_of_a_batch_has_a_flag() -> None:
    assert set(RunOptions.model_fields) <= set(RunCommand.model_fields)
    assert set(BatchOptions.model_fields) | set(SharedOptions.model_fields) <= set(BatchCommand.model_fields)
    hidden = [key for key in BatchCommand.model_fields if flag_of(BatchCommand, key).only_in_file]
    assert hidden == ["arms"]


@pytest.mark.parametrize(("name", "most"), [("run", 45), ("batch", 55)])
def test_a_command_needs_few_modules(name: str, most: int) -> None:
    """Engines, methods, sandboxes, formats and the learner are loaded by their names, where they are chosen."""
    assert len(reached_from(f"cli.{name}")) <= most


def test_a_value_at_the_head_of_a_description_keeps_its_spelling() -> None:
    class Two(Options):
        format: str = Field("pack", description="pack: runs without texts")
        other: str = Field("pack", description="what is packed")

    assert help_text(Two.model_fields["format"]).startswith("pack:")
    assert help_text(Two.model_fields["other"]).startswith("What")
