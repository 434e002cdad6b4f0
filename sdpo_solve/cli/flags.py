"""Flags that several commands share, and how what was given becomes options. Prints and calls nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from sdpo_solve.config import as_flag, parse_settings, read_options
from sdpo_solve.datasets.selection import Selection

SOURCES_HELP = "Problem files, folders, lcb:v6, lcb:FILE, mbpp:FILE, humaneval:FILE."
_PANEL = "Which problems"

JsonFlag = Annotated[
    bool, typer.Option("--json", help="One JSON object on standard output, all else on standard error.")
]
SandboxFlag = Annotated[
    str, typer.Option("--sandbox", help="docker, bubblewrap, or auto: the first that works.")
]
SetFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PART.OPTION=VALUE",
        help="Set an option of a part, e.g. learner.lr=1e-4 (repeatable).",
    ),
]
RuntimeFlag = Annotated[
    str | None,
    typer.Option("--runtime", help="Docker's OCI runtime, such as runsc for gVisor; means --sandbox docker."),
]
ProblemArgument = Annotated[
    str,
    typer.Argument(
        metavar="PROBLEM", help="A problem file, or lcb:v6, lcb:FILE, mbpp:FILE, humaneval:FILE with --ids."
    ),
]
FileFlag = Annotated[
    Path | None, typer.Option("--file", "-f", help="TOML file with any of these options; flags win.")
]

# -- a run: what is not given is left to the options' own defaults, or to a file -----------------------------

MethodsFlag = Annotated[
    str | None, typer.Option(help="Methods, comma-separated (default: sdpo,best-of-k,multi-turn).")
]
AttemptsFlag = Annotated[int | None, typer.Option(help="Attempts of a run at most (default: 64).")]
GroupSizeFlag = Annotated[
    int | None, typer.Option(help="Attempts sampled between two updates (default: 16).")
]
TokensFlag = Annotated[int | None, typer.Option(help="Generated tokens of a run at most.")]
WallSecondsFlag = Annotated[float | None, typer.Option(help="Seconds of a run at most.")]
MaxTokensFlag = Annotated[
    int | None, typer.Option(help="Tokens of one answer at most (default: 512, with CUDA 8192).")
]
TemperatureFlag = Annotated[float | None, typer.Option(help="Sampling temperature (default: 1.0).")]
KeepGoingFlag = Annotated[
    bool, typer.Option("--keep-going", help="Spend the whole budget, also after a success.")
]
ModelFlag = Annotated[
    str | None, typer.Option(help="Model name, hub id or directory; see 'sdpo-solve model list'.")
]
EngineFlag = Annotated[
    str | None, typer.Option(help="What samples: hf (in this process), vllm or scripted (default: hf).")
]
RepliesFlag = Annotated[
    Path | None, typer.Option(help="Replies for --engine scripted, one JSON object a line.")
]
FeedbackModeFlag = Annotated[
    str | None, typer.Option(help="Tests that feedback may quote: public, paper or all (default: public).")
]
LanguageFlag = Annotated[
    str | None, typer.Option(help="Language of the programs: python or cpp (default: python).")
]
SystemFlag = Annotated[str | None, typer.Option(help="System message.")]
ThinkingFlag = Annotated[
    bool, typer.Option("--thinking", help="Let the model think first, where its template can.")
]
ThreadsFlag = Annotated[
    int | None,
    typer.Option(help="Processor threads of the model; equal results need equal numbers of them."),
]

# -- which problems ------------------------------------------------------------------------------------------

IdsFlag = Annotated[
    str | None,
    typer.Option(
        "--ids", help="Problems to keep, by id, comma-separated; bad ones too.", rich_help_panel=_PANEL
    ),
]
DifficultyFlag = Annotated[
    str | None,
    typer.Option(
        "--difficulty", help="Difficulties to keep, comma-separated, e.g. hard.", rich_help_panel=_PANEL
    ),
]
PlatformFlag = Annotated[
    str | None,
    typer.Option("--platform", help="Platforms to keep, e.g. atcoder,leetcode.", rich_help_panel=_PANEL),
]
FromFlag = Annotated[
    str | None,
    typer.Option("--from", help="First contest date to keep, e.g. 2025-02-01.", rich_help_panel=_PANEL),
]
ToFlag = Annotated[
    str | None, typer.Option("--to", help="Last contest date to keep.", rich_help_panel=_PANEL)
]
HalfFlag = Annotated[
    str | None,
    typer.Option(
        "--half",
        help="Half of the problems, by their ids: dev (to tune on) or test (to look at once).",
        rich_help_panel=_PANEL,
    ),
]
FirstFlag = Annotated[
    int | None,
    typer.Option("--first", help="Keep the first N of those left.", min=1, rich_help_panel=_PANEL),
]
IncludeBadFlag = Annotated[
    bool,
    typer.Option("--include-bad", help="Keep problems that are known to be bad.", rich_help_panel=_PANEL),
]


# -- from flags to options -----------------------------------------------------------------------------------


def flags_of(given: Mapping[str, Any], without: Collection[str] = ()) -> dict[str, Any]:
    """The flags that were given, from a command's arguments by name (its `locals()` before anything else).

    A switch that is off and an empty list were not given. Settings, with what --runtime sets, are read by
    part. Raises ConfigError for a malformed one.
    """
    flags = {key: value for key, value in given.items() if key not in without}
    flags["settings"] = parse_settings(with_runtime(flags.get("settings"), flags.pop("runtime", None)))
    return {
        key: value for key, value in flags.items() if not (value is None or value is False or value == [])
    }


def with_runtime(settings: list[str] | None, runtime: str | None) -> list[str]:
    """What --set and --runtime say, as texts of --set."""
    return [*(settings or []), *([f"sandbox.runtime={runtime}"] if runtime else [])]


def selection(given: Mapping[str, Any]) -> Selection:
    """The filters among a command's arguments; None stands for a flag that was not given.

    Raises ConfigError for a date that is none.
    """
    filters = {key: given[key] for key in Selection.model_fields if given.get(key) is not None}
    return read_options(Selection, filters, "filter", as_flag)
