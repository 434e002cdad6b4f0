"""Programs that runs have found, in forms that other tools read. Reads journals; grades nothing.

`livecodebench`: what LiveCodeBench's `custom_evaluator` reads, a list of {"question_id", "code_list"}
(https://github.com/LiveCodeBench/LiveCodeBench, lcb_runner/runner/custom_evaluator.py). It takes one entry
for every question of the benchmark, so questions without a run get an empty program where `rows` names them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdpo_solve.datasets import livecodebench
from sdpo_solve.errors import ConfigError
from sdpo_solve.report.runs import find_run_dirs
from sdpo_solve.run.events import FILE_NAME, read_records
from sdpo_solve.run.records import AttemptEvent, RunStarted

FORMATS = ("livecodebench",)


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs of one run in the order of its attempts, None where an answer held none."""

    header: RunStarted
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

    Raises ConfigError for an unknown form, where there is no run, and where several arms would mix.
    """
    if form not in FORMATS:
        raise ConfigError(f"unknown format {form!r} (known: {', '.join(FORMATS)}, pack)")
    read = [_read(run_dir) for run_dir in find_run_dirs(sources)]
    runs = [run for run in read if run.header.is_named and method in (None, run.header.arm_name)]
    arms = sorted({run.header.arm_name for run in runs})
    if not runs:
        of = f" of method {method}" if method else ""
        raise ConfigError(f"no run{of} in {', '.join(str(source) for source in sources)}")
    if len(arms) > 1:
        raise ConfigError(f"there are runs of {', '.join(arms)}; choose one with --method")
    questions = [row.data["question_id"] for row in livecodebench.rows(str(rows))] if rows is not None else []
    return json.dumps(_entries(runs, all_attempts, questions), indent=1)


def _entries(runs: Sequence[Programs], all_attempts: bool, questions: Sequence[str]) -> list[dict[str, Any]]:
    codes: dict[str, list[str]] = {question: [] for question in questions}
    for run in sorted(runs, key=lambda run: (run.header.problem, run.header.seed)):
        mine = [program or "" for program in run.programs] if all_attempts else [run.answer]
        codes.setdefault(run.header.problem, []).extend(mine)
    if questions and len(codes) > len(set(questions)):
        extra = sorted(set(codes) - set(questions))
        raise ConfigError(f"{extra[0]} was run and is not among the rows; leave --rows out or name others")
    return [{"question_id": name, "code_list": codes[name] or [""]} for name in sorted(codes)]


def _read(run_dir: Path) -> Programs:
    """One run; attempts of a group that was not closed are left out."""
    header = RunStarted()
    attempts: list[AttemptEvent] = []
    for line in read_records(run_dir / FILE_NAME):
        if isinstance(line.record, RunStarted):
            header = line.record
        elif isinstance(line.record, AttemptEvent):
            attempts.append(line.record)
    solution = next((attempt.code for attempt in attempts if attempt.solved), None)
    return Programs(header, tuple(attempt.code for attempt in attempts), solution)
