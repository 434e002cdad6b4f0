"""`bench forgetting`: what an adapter does to its own problem, to others, and whether the base is as it was.

Samples every problem from the base and from the run's policy with the same seeds, grades both, then draws the
first answers from the base once more. The samples serve no comparison of methods; nothing is written to disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group
from rich.text import Text

from sdpo_solve.config import RunOptions
from sdpo_solve.datasets import load
from sdpo_solve.datasets.selection import Selection
from sdpo_solve.errors import ConfigError
from sdpo_solve.methods import PLAIN_SAMPLING
from sdpo_solve.report.runs import one_run_dir, read_run
from sdpo_solve.report.statistics import Interval, interval
from sdpo_solve.report.table import AlignedTable
from sdpo_solve.run.build import Parts, sampling_spec
from sdpo_solve.run.options import make_plan
from sdpo_solve.run.records import RunStarted
from sdpo_solve.sanitize import clean
from sdpo_solve.solve import attempt_seed
from sdpo_solve.types import Policy, Problem, Sample

_BASE = Policy("base", 0)
_REPLICATES = 2000
_ROWS = 64  # answers sampled at the same time; fewer where memory runs out
# Answers that the base gives before and again at the end.
_AGAIN = 16
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Request:
    """`run`: a directory with one run; `version` None: its newest policy; `samples` a problem and policy."""

    run: Path
    sources: tuple[str, ...]
    selection: Selection
    samples: int
    version: int | None
    sandbox: str


@dataclass(frozen=True, slots=True)
class ProblemRates:
    """One problem: how many of `samples` answers solved it, without and with the adapter."""

    problem: str
    base: int
    adapted: int


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures. `own`: of the run's own problem, where it was among those chosen; `rows`: of the others.

    `change`: mean over `rows` of the difference of rates, with its 90 % interval over problems, None where
    there are no others; `same_again` of `again` answers of the base came out alike after the adapter's turn.
    """

    run: str
    version: int
    samples: int
    own: ProblemRates | None
    rows: tuple[ProblemRates, ...]
    change: float | None
    interval: Interval | None
    same_again: int
    again: int


def run(request: Request, report: Callable[[str], None]) -> Figures:
    """Sample, grade and count.

    Raises ConfigError for a run without a policy or made by another model than the one here, and as sources
    and parts do.
    """
    run_dir = one_run_dir(request.run)
    state = read_run(run_dir)
    if state is None or not state.header.config:
        raise ConfigError(f"the journal in {run_dir} names no run yet")
    policy = _policy(run_dir, request.version)
    with Parts(make_plan(_options(state.header, request.sandbox))) as parts:
        here, then = parts.model_identity, state.header.model_identity
        if here != then:
            raise ConfigError(f"{state.header.model} here is {here}, the run used {then}")
        problems = load.load(request.sources, request.selection, lambda: parts.sandbox).problems
        sampler = _Sampler(parts, problems, request.samples)
        before = sampler.sample(_BASE, _AGAIN)
        report(f"{len(problems)} problems x {request.samples} answers without the adapter")
        without = sampler.solved(sampler.sample(_BASE))
        report(f"the same with policy {policy.version}")
        with_it = sampler.solved(sampler.sample(policy))
        after = sampler.sample(_BASE, _AGAIN)
    rates = [
        ProblemRates(problem.id, base, adapted)
        for problem, base, adapted in zip(problems, without, with_it, strict=True)
    ]
    rows = tuple(row for row in rates if row.problem != state.problem)
    changes_P = np.array([(row.adapted - row.base) / request.samples for row in rows])
    same = sum(
        (a.token_ids_T, a.logprobs_T) == (b.token_ids_T, b.logprobs_T)
        for a, b in zip(before, after, strict=True)
    )
    return Figures(
        run=state.name,
        version=policy.version,
        samples=request.samples,
        own=next((row for row in rates if row.problem == state.problem), None),
        rows=rows,
        change=float(changes_P.mean()) if rows else None,
        interval=_bootstrap(changes_P) if rows else None,
        same_again=same,
        again=len(after),
    )


class _Sampler:
    """Answers to the same problems under the same seeds, whatever the policy."""

    def __init__(self, parts: Parts, problems: Sequence[Problem], n: int) -> None:
        options = parts.plan.run
        prompter = parts.prompter(options)
        self._engine = parts.engine
        self._judge = parts.judge()
        self._spec = sampling_spec(parts.plan)
        self._problems, self._n = problems, n
        self._prompts = [prompter.student(problem) for problem in problems for _ in range(n)]
        self._seeds = [
            attempt_seed(0, f"forgetting/{problem.id}", g) for problem in problems for g in range(n)
        ]

    def sample(self, policy: Policy, first: int | None = None) -> list[Sample]:
        return self._engine.sample(self._prompts[:first], self._seeds[:first], policy, self._spec)

    def solved(self, samples: Sequence[Sample]) -> list[int]:
        """How many answers of each problem pass all its tests."""
        counts = []
        for number, problem in enumerate(self._problems):
            own = samples[number * self._n : (number + 1) * self._n]
            verdicts_G = self._judge.grade(
                problem, [self._judge.extract(problem, sample).code for sample in own]
            )
            counts.append(sum(verdict.solved for verdict in verdicts_G))
        return counts


def _options(header: RunStarted, sandbox: str) -> RunOptions:
    """The run's own options, as far as they decide its model and how that is sampled and read."""
    kept = (
        *("model", "quantization", "max_tokens", "temperature"),
        *("language", "system", "thinking", "threads"),
    )
    options = {name: header.options.get(name) for name in kept}
    stop = header.parts.get("engine", {}).get("stop")
    return RunOptions(
        method=PLAIN_SAMPLING,
        sandbox=sandbox,
        extract=header.extract,
        settings={"engine": {"batch_rows": _ROWS} | ({"stop": stop} if stop else {})},
        **{name: value for name, value in options.items() if value is not None},
    )


def _policy(run_dir: Path, version: int | None) -> Policy:
    """The policy of that version, else the newest one whose weights are still there."""
    by_number = {int(path.name): path for path in (run_dir / "policies").glob("[0-9]*") if path.is_dir()}
    if not by_number:
        raise ConfigError(f"{run_dir} has no policy: it learned nothing, or its weights are gone")
    number = max(by_number) if version is None else version
    if number not in by_number:
        there = ", ".join(str(n) for n in sorted(by_number))
        raise ConfigError(f"{run_dir} has no policy {number} any more; there are {there}")
    return Policy("adapted", number, by_number[number])


def _bootstrap(values_P: np.ndarray[Any, np.dtype[np.float64]]) -> Interval:
    """The 90 % interval of the mean, problems drawn with replacement."""
    draws_BP = np.random.default_rng(0).integers(len(values_P), size=(_REPLICATES, len(values_P)))
    return interval(values_P[draws_BP].mean(axis=1))


def as_record(figures: Figures) -> dict[str, Any]:
    """The object that `--json` prints."""
    return asdict(figures)


def page(figures: Figures) -> Group:
    """The problems whose rate changed most, and the figures in words."""
    table = AlignedTable(["problem", "without", "with", "change"])
    ordered = sorted(figures.rows, key=lambda row: (-abs(row.adapted - row.base), row.problem))
    for row in ordered[:_SHOWN]:
        cells = (f"{row.base}/{figures.samples}", f"{row.adapted}/{figures.samples}")
        table.add([row.problem, *cells, f"{row.adapted - row.base:+d}"])
    lines = [
        f"policy {figures.version} of {clean(figures.run)}, {figures.samples} answers each: "
        f"{len(figures.rows)} other problems"
    ]
    if figures.own is not None:
        base, adapted = figures.own.base, figures.own.adapted
        lines.append(f"its own problem solved without the adapter {base}, with it {adapted} times")
    if figures.change is not None and figures.interval is not None:
        lines.append(_on_others(figures, figures.change, figures.interval))
    lines.append(
        f"the base afterwards: {figures.same_again} of {figures.again} answers and log-probs as before"
    )
    if len(ordered) > _SHOWN:
        lines.insert(0, f"and {len(ordered) - _SHOWN} more")
    words = Group(*(Text(line) for line in lines))
    return Group(table, Text(), words) if ordered else words


def _on_others(figures: Figures, change: float, interval_: Interval) -> str:
    n = len(figures.rows) * figures.samples
    base, adapted = (sum(getattr(row, arm) for row in figures.rows) / n for arm in ("base", "adapted"))
    low, high = 100 * interval_.low, 100 * interval_.high
    return (
        f"the others solved without the adapter {base:.1%}, with it {adapted:.1%}; change "
        f"{100 * change:+.1f} points, 90 % interval {low:+.1f} to {high:+.1f}"
    )
