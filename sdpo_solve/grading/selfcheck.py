"""Self-check of a grader: honest programs that it must accept and hostile ones that it must not.

One small program a file under `sandboxes/programs`; its first line names the problem and describes it.
`doctor --sandbox` and the tests run the same lists.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sdpo_solve import sandboxes
from sdpo_solve.errors import ConfigError, PrerequisiteError
from sdpo_solve.protocols import Grader
from sdpo_solve.types import Case, Kind, Limits, Problem, TestCase, Verdict

LIMITS = Limits(time_s=1.0, memory_mb=256)
# Names of files and processes that trials try to leave behind.
_MARKS = frozenset(
    "mark left sparse link scratch.txt disk probe fill0 solution.py sitecustomize.py".split()  # noqa: SIM905
)
_MARKED_PROCESS = "left-behind"
_SHARED_PLACES = ("/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/run")


@dataclass(frozen=True, slots=True)
class Trial:
    """One program. An honest one must be solved, a hostile one must not."""

    name: str
    honest: bool
    problem: Problem
    about: str
    code: str


@dataclass(frozen=True, slots=True)
class TrialResult:
    """The outcome of one trial. `ok`: judged as it must be, and an honest program right after it solved."""

    trial: Trial
    verdict: Verdict
    ok: bool
    wall_s: float

    @property
    def failure(self) -> Case | None:
        """The first case that was not accepted."""
        return self.verdict.first_failure


def problems() -> dict[str, Problem]:
    """The three problems of the trials, by name; small tests, and one of a megabyte."""
    many = range(-50_000, 50_000)
    numbers = ([1, 2, 3], [-5], [10**9 + 7, -1], [0, 0], list(range(20)), [-(10**18)], many)
    lines = [("\n".join(map(str, [len(row), *row])), "\n".join(str(2 * n) for n in row)) for row in numbers]
    rows: tuple[list[int], ...] = ([1, 2, 3], [], [10**18, -4], list(range(1000)))
    texts = (["a", "b", "a"], ["ü"] * 3 + ["x"], ["-"])
    listed = (
        _problem("double_lines", Kind.STDIN, lines),
        _problem("double", Kind.FUNCTION, [([row], [2 * n for n in row]) for row in rows]),
        _problem("tally", Kind.FUNCTION, [([row], {text: row.count(text) for text in row}) for row in texts]),
    )
    return {problem.id: problem for problem in listed}


def _problem(name: str, kind: Kind, pairs: Sequence[tuple[object, object]]) -> Problem:
    """The first two tests may be quoted."""
    tests = tuple(TestCase(given, expected, visible=n < 2) for n, (given, expected) in enumerate(pairs))
    entry = name if kind is Kind.FUNCTION else None
    return Problem(name, "See the trial.", kind, tests, entry_point=entry, limits=LIMITS)


def load() -> list[Trial]:
    """Every trial, honest ones first, by name. Raises PrerequisiteError where the lists are missing."""
    known = problems()
    trials = []
    for kind in ("honest", "hostile"):
        for path in sorted(_folder(kind).glob("*.py")):
            code = path.read_text(encoding="utf-8")
            name, _, about = code.partition("\n")[0].removeprefix("# ").partition(": ")
            trials.append(Trial(path.stem, kind == "honest", known[name], about, code))
    return trials


def choose(trials: Sequence[Trial], only: Sequence[str]) -> list[Trial]:
    """Those whose names contain one of the texts of `only`, all where it is empty.

    Raises ConfigError for a text that no name contains.
    """
    for text in only:
        if not any(text in trial.name for trial in trials):
            raise ConfigError(f"no honest or hostile program is called {text!r}")
    return [trial for trial in trials if not only or any(text in trial.name for text in only)]


def traces() -> set[str]:
    """Traces of trials that are visible on the host: files in shared places, processes."""
    seen = set()
    for place in _SHARED_PLACES:
        if os.path.isdir(place):
            seen |= {f"{place}/{name}" for name in os.listdir(place) if name in _MARKS}
    for pid in filter(str.isdigit, os.listdir("/proc") if sys.platform == "linux" else ()):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().strip() == _MARKED_PROCESS:
                seen.add(f"process {pid}")
    return seen


def run(
    grader: Grader,
    trials: Sequence[Trial],
    on_result: Callable[[TrialResult], None] = lambda _: None,
    *,
    at_a_time: int = 1,
) -> list[TrialResult]:
    """Each trial followed by an honest program; results in order, each passed to `on_result` as it comes.

    Raises SandboxError when a box breaks.
    """
    honest = next(trial for trial in load() if trial.honest and trial.problem.id == "double_lines")

    def one(trial: Trial) -> TrialResult:
        began = time.monotonic()
        (verdict,) = grader.grade(trial.problem, [trial.code])
        wall_s = time.monotonic() - began
        (after,) = grader.grade(honest.problem, [honest.code])
        result = TrialResult(trial, verdict, verdict.solved == trial.honest and after.solved, wall_s)
        on_result(result)
        return result

    with ThreadPoolExecutor(at_a_time) as pool:
        return list(pool.map(one, trials))


def _folder(kind: str) -> Path:
    folder = Path(sandboxes.__file__).parent / "programs" / kind
    if not folder.is_dir():
        raise PrerequisiteError(f"the {kind} programs are missing; reinstall sdpo-solve")
    return folder
