"""Programs that runs have found, in forms that other tools read. Reads journals; grades nothing.

`livecodebench`: what LiveCodeBench's `custom_evaluator` reads, a list of {"question_id", "code_list"}
(https://github.com/LiveCodeBench/LiveCodeBench, lcb_runner/runner/custom_evaluator.py). It takes one entry
for every question of the benchmark, so questions without a run get an empty program where `rows` names them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sdpo_solve.datasets import livecodebench
from sdpo_solve.errors import ConfigError
from sdpo_solve.report.cohort import make_cohort
from sdpo_solve.report.consistency import MixedRuns, consistent_sets
from sdpo_solve.report.runs import RunRecord, find_run_dirs, read_attempts, read_run
from sdpo_solve.report.table import plural
from sdpo_solve.run.events import FILE_NAME, keeps_texts

FORMATS = ("livecodebench",)
_REMEDY = "export them apart, a directory at a time"


def render(
    sources: Sequence[Path],
    form: str,
    *,
    method: str | None,
    all_attempts: bool,
    rows: Path | None,
    say: Callable[[str], None],
) -> str:
    """The text of the export. `say` gets a line where runs that failed, or have no attempt, are left out.

    Raises ConfigError for an unknown form, where there is no run, where several arms would mix, and for runs
    that were packed: an empty program would count as a wrong answer.
    """
    if form not in FORMATS:
        raise ConfigError(f"unknown format {form!r} (known: {', '.join(FORMATS)}, pack)")
    read = [read_run(run_dir) for run_dir in find_run_dirs(sources)]
    found = [run for run in read if run is not None and method in (None, run.arm)]
    runs = [run for run in found if run.attempts and not run.failed]
    left_out = f"left out, failed or without an attempt: {plural(len(found) - len(runs), 'run')}"
    if not runs:
        of = f" of method {method}" if method else ""
        why = f"; {left_out}" if found else ""
        raise ConfigError(f"no run{of} in {', '.join(str(source) for source in sources)}{why}")
    packed = next((run.run_dir for run in runs if not keeps_texts(run.run_dir / FILE_NAME)), None)
    if packed is not None:
        raise ConfigError(
            f"these runs were packed without their programs, such as {packed}; export those that they were "
            "packed from"
        )
    _refuse_mixed(runs)
    if len(runs) < len(found):
        say(left_out)
    questions = [row.data["question_id"] for row in livecodebench.rows(str(rows))] if rows is not None else []
    return json.dumps(_entries(runs, all_attempts, questions), indent=1)


def _refuse_mixed(runs: Sequence[RunRecord]) -> None:
    """Raises ConfigError for runs that a report keeps apart."""
    methods = sorted({run.arm for run in runs})
    if len(methods) > 1:
        raise ConfigError(f"there are runs of {', '.join(methods)}; choose one with --method")
    sets = consistent_sets(runs)
    if len(sets) > 1:
        raise MixedRuns(sets, _REMEDY)
    arms = make_cohort(runs).arms
    if len(arms) > 1:
        raise ConfigError(f"the settings of these runs differ: {' and '.join(arms)}; {_REMEDY}")


def _entries(runs: Sequence[RunRecord], all_attempts: bool, questions: Sequence[str]) -> list[dict[str, Any]]:
    codes: dict[str, list[str]] = {question: [] for question in questions}
    for run in sorted(runs, key=lambda run: (run.problem, run.seed)):
        codes.setdefault(run.problem, []).extend(_programs(run, all_attempts))
    if questions and len(codes) > len(set(questions)):
        extra = sorted(set(codes) - set(questions))
        raise ConfigError(f"{extra[0]} was run and is not among the rows; leave --rows out or name others")
    return [{"question_id": name, "code_list": codes[name] or [""]} for name in sorted(codes)]


def _programs(run: RunRecord, all_attempts: bool) -> list[str]:
    """Of every attempt, or what the run would hand in: its first solution, else its last program."""
    attempts = list(read_attempts(run.run_dir))
    if all_attempts:
        return [attempt.code or "" for attempt in attempts]
    solutions = [attempt.code for attempt in attempts if attempt.solved and attempt.code is not None]
    programs = [attempt.code for attempt in attempts if attempt.code is not None]
    return [next(iter(solutions[:1] + programs[-1:]), "")]
