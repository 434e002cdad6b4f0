"""The commands of `bench`: figures of one part on this machine, as ratios in one run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import Field
from rich.console import Console, RenderableType
from rich.text import Text

from sdpo_solve.cli.flags import WithJson, command
from sdpo_solve.config import SANDBOX_HELP, SETTINGS, Flag, Names, Options, parse_settings
from sdpo_solve.datasets.selection import SOURCES, SOURCES_HELP, Selection
from sdpo_solve.errors import ConfigError


class WithModel(Options):
    model: str | None = Field(
        None, description="model name, hub id or directory (default: the default model)"
    )

    def model_dir(self) -> Path:
        """Where the weights lie. Raises PrerequisiteError where they are not on this disk."""
        from sdpo_solve.model import names

        return names.resolve(self.model or names.default_name()).path


def _print_line(line: str) -> None:
    Console(stderr=True, highlight=False).print(Text(line, style="dim"), soft_wrap=True)


def _print(as_json: bool, record: Any, page: RenderableType) -> None:
    if as_json:
        typer.echo(json.dumps(record))
    else:
        Console(highlight=False).print(page)


# -- parts of this machine -----------------------------------------------------------------------------------


class SamplingBench(WithJson, WithModel):
    engines: Names = Field((), description="engines, comma-separated (default: those that are installed)")
    samples: int = Field(64, ge=1, description="samples wanted")
    rows: int = Field(16, ge=1, description="answers sampled at the same time at most")
    max_tokens: int = Field(200, ge=1, description="tokens of one answer at most")
    rounds: int = Field(1, ge=1, description="rounds over all arms; the best of each counts")
    beside_load: bool = Field(False, description="measure the engines also beside one busy process")


@command(SamplingBench, "bench sampling", "bench sampling --engines hf --rounds 3")
def sampling(given: SamplingBench) -> None:
    """Tokens a second of each engine, beside plain `generate` and raw vLLM with the same settings."""
    from sdpo_solve.bench import sampling as bench

    bench.check_engines(given.engines)
    size = bench.Size(
        given.samples, given.rows, given.max_tokens, given.rounds, given.engines, given.beside_load
    )
    figures = bench.run(given.model_dir(), size, _print_line)
    _print(given.as_json, figures.record(), bench.page(figures))


class GradingBench(WithJson, Options):
    rounds: int = Field(3, ge=1, description="rounds over all arms; the best of each counts")


@command(GradingBench, "bench grading", "bench grading --rounds 1 --json")
def grading(given: GradingBench) -> None:
    """What Docker boxes cost: the same programs bare, in warm boxes, and with one `docker run` an attempt."""
    from sdpo_solve.bench import grading as bench

    figures = bench.run(_print_line, given.rounds)
    _print(given.as_json, bench.as_record(figures), bench.page(figures))


class UpdateBench(WithJson, WithModel):
    attempts: int = Field(16, ge=1, description="attempts of the group")
    question_tokens: int = Field(200, ge=2, description="tokens of the question")
    feedback_tokens: int = Field(150, ge=1, description="tokens of each feedback")
    answer_tokens: int = Field(100, ge=1, description="tokens of each answer")
    rounds: int = Field(2, ge=1, description="updates of each form; the fastest counts")
    no_plain: bool = Field(False, description="leave the plain form out: it may not fit into memory")


@command(UpdateBench, "bench update", "bench update --attempts 1 --answer-tokens 8192 --no-plain")
def update(given: UpdateBench) -> None:
    """Time and memory of an update, beside the plain form and the machine's rate of matrix products.

    Random tokens against the frozen teacher, defaults of the learner.
    """
    from sdpo_solve.bench import update as bench

    size = bench.Size(given.attempts, given.question_tokens, given.feedback_tokens, given.answer_tokens)
    figures = bench.run(
        given.model_dir(), _print_line, size=size, with_plain=not given.no_plain, n_rounds=given.rounds
    )
    _print(given.as_json, bench.as_record(figures), bench.page(figures))


# -- what runs have learned ----------------------------------------------------------------------------------


class ForgettingBench(WithJson, Selection):
    run: Annotated[Path, Flag(metavar="RUN", is_argument=True)] = Field(
        description="a run of sdpo that has learned"
    )
    sources: Annotated[tuple[str, ...], SOURCES] = Field(description=SOURCES_HELP)
    samples: int = Field(8, ge=1, description="answers of each problem, with and without")
    version: int | None = Field(None, ge=1, description="policy to try (default: the newest)")
    sandbox: str = Field("auto", description=SANDBOX_HELP)


@command(
    ForgettingBench,
    "bench forgetting RUN problems",
    "bench forgetting RUN problems/letter-tally.json --samples 64",
    "bench forgetting RUN mbpp:MbppPlus.jsonl.gz --first 40 --samples 16",
)
def forgetting(given: ForgettingBench) -> None:
    """What a run's adapter does to its own and other problems, and whether the base is unharmed without it.

    Exit code 1: answers of the base changed.
    """
    from sdpo_solve.bench import forgetting as bench
    from sdpo_solve.report.runs import only_reading

    request = bench.Request(
        given.run, given.sources, given.narrow(Selection), given.samples, given.version, given.sandbox
    )
    with only_reading():
        figures = bench.run(request, _print_line)
    _print(given.as_json, bench.as_record(figures), bench.page(figures))
    raise typer.Exit(0 if figures.same_again == figures.again else 1)


class LessonBench(WithJson, Options):
    runs: Annotated[tuple[Path, ...], Flag(metavar="RUN", is_argument=True)] = Field(
        description="runs whose failures are learned from"
    )
    settings: Annotated[dict[str, dict[str, Any]], SETTINGS] = Field(
        default_factory=dict, description="set an option of the learner (repeatable)"
    )
    vary: Annotated[tuple[str, ...], Flag(metavar="learner.OPTION=A,B,...")] = Field(
        (), description="values to try one by one (repeatable)"
    )
    references: tuple[str, ...] = Field(
        (), description="problem files whose references count where no run solved the problem"
    )
    group_size: int = Field(16, ge=1, description="attempts of a group")
    updates: int = Field(1, ge=1, description="groups that are learned from in turn")


@command(
    LessonBench,
    "bench lesson RUN --vary learner.lr=5e-5,2e-4,1e-3",
    "bench lesson RUNS --references problems --group-size 8 --updates 3 --vary learner.alpha=0,0.5",
)
def lesson(given: LessonBench) -> None:
    """What updates on a run's failures do to right answers, one learner setting after another.

    Nothing is sampled: failures and right answers are those of the runs. Use runs made with --keep-going.
    """
    from sdpo_solve.bench import lesson as bench
    from sdpo_solve.report.runs import only_reading

    varied = parse_settings(given.vary)
    if others := {*given.settings, *varied} - {"learner"}:
        raise ConfigError(f"bench lesson compares options of the learner, not of {', '.join(sorted(others))}")
    values = {
        name: [None if one.strip().lower() == "none" else one.strip() for one in str(value).split(",")]
        for name, value in varied.get("learner", {}).items()
    }
    rows = bench.settings_of(given.settings.get("learner", {}), values)
    request = bench.Request(given.runs, given.references, tuple(rows), given.group_size, given.updates)
    with only_reading():
        figures = bench.run(request, _print_line)
    _print(given.as_json, bench.as_record(figures), bench.page(figures))


COMMANDS = (sampling, grading, update, forgetting, lesson)
