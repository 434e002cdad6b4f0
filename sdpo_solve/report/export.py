"""Programs that runs have found, in forms that other tools read. Reads journals; grades nothing.

`livecodebench`: what LiveCodeBench's `custom_evaluator` reads, a list of {"question_id", "code_list"}
(https://github.com/LiveCodeBench/LiveCodeBench, lcb_runner/runner/custom_evaluator.py). It wants one entry
for every question of the benchmark, so questions without a run get an empty program where `rows` names them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdpo_solve.datasets import livecodebench
from sdpo_solve.errors import ConfigError, UserError
from sdpo_solve.run.events import FILE_NAME, arm_name, read_events

FORMATS = ("livecodebench",)


@dataclass(frozen=True, slots=True)
class Found:
    """The programs of one run in the order of its attempts, None where an answer held none."""

    problem: str
    arm: str
    seed: int
    programs: tuple[str | None, ...]
    solution: str | None

    @property
    def answer(self) -> str:
        """What the run would hand in: its first solution, else its last program."""
        if self.solution is not None:
            return self.solution
        return next((program for program in reversed(self.programs) if program is not None), "")


def render(
    sources: Sequence[Path], form: str, *, method: str | None, all_attempts: bool, rows: Path | None
) -> str:
    """The text of the export.

    Raises ConfigError for an unknown form, where no run is found, and where several arms would mix.
    """
    if form not in FORMATS:
        raise ConfigError(f"unknown format {form!r} (known: {', '.join(FORMATS)}, pack)")
    found = [_read(path) for source in sources for path in _journals(source)]
    runs = [run for run in found if run is not None and method in (None, run.arm)]
    arms = sorted({run.arm for run in runs})
    if not runs:
        of = f" of method {method}" if method else ""
        raise ConfigError(f"no run{of} in {', '.join(str(source) for source in sources)}")
    if len(arms) > 1:
        raise ConfigError(f"there are runs of {', '.join(arms)}; choose one with --method")
    questions = [row.data["question_id"] for row in livecodebench.rows(str(rows))] if rows is not None else []
    return json.dumps(_entries(runs, all_attempts, questions), indent=1)


def write(path: Path, text: str) -> None:
    """Raises UserError where the file cannot be written."""
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as exc:
        raise UserError(f"cannot write {path}: {exc.strerror or exc}") from None


def _entries(runs: Sequence[Found], all_attempts: bool, questions: Sequence[str]) -> list[dict[str, Any]]:
    codes: dict[str, list[str]] = {question: [] for question in questions}
    for run in sorted(runs, key=lambda run: (run.problem, run.seed)):
        mine = [program or "" for program in run.programs] if all_attempts else [run.answer]
        codes.setdefault(run.problem, []).extend(mine)
    if questions and len(codes) > len(set(questions)):
        extra = sorted(set(codes) - set(questions))
        raise ConfigError(f"{extra[0]} was run and is not among the rows; leave --rows out or name others")
    return [{"question_id": name, "code_list": codes[name] or [""]} for name in sorted(codes)]


def _journals(source: Path) -> Iterator[Path]:
    if (source / FILE_NAME).exists():
        yield source / FILE_NAME
    yield from sorted(source.glob(f"*/*/*/{FILE_NAME}"))


def _read(path: Path) -> Found | None:
    """One run; None for a journal without a header. Attempts of a group that was not closed are left out."""
    header: dict[str, Any] = {}
    programs: list[str | None] = []
    open_programs: list[str | None] = []
    solution: str | None = None
    open_solution: str | None = None
    for event, _ in read_events(path):
        if event["event"] == "run_started":
            header = event
        elif event["event"] == "attempt":
            open_programs.append(event["code"])
            if event["solved"] and open_solution is None:
                open_solution = event["code"]
        elif event["event"] == "group":
            programs += open_programs
            solution = open_solution if solution is None else solution
            open_programs, open_solution = [], None
    if not header:
        return None
    return Found(header["problem"], arm_name(header), header["seed"], tuple(programs), solution)
