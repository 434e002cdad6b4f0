"""What the commands of the command line do: one function each, parts in, a printed page or a record out.

Joins `build`, the loop and the display. It decides no exit code and parses no flag (see `cli.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sdpo_solve.cli import live_run
from sdpo_solve.config import RunOptions, parse_settings, read_options
from sdpo_solve.datasets import load as sources
from sdpo_solve.datasets.selection import Selection, describe_left_out
from sdpo_solve.errors import PrerequisiteError, ProblemError, UserError
from sdpo_solve.grading import feedback
from sdpo_solve.model import memory
from sdpo_solve.model import names as models
from sdpo_solve.model.cpu import cpu_dtype
from sdpo_solve.run import build
from sdpo_solve.run.identity import check_out, default_out
from sdpo_solve.sandboxes import install as machine
from sdpo_solve.sanitize import clean
from sdpo_solve.solve import solve, write_solution
from sdpo_solve.types import Finish, Outcome, OutcomeStatus, Problem, Verdict


@dataclass(frozen=True, slots=True)
class RunResult:
    """What `run --json` prints. `out` is the directory of the run, which holds its journal."""

    solved: bool
    status: str
    discovery_time: int | None
    attempts: int
    tokens: int
    wall_s: float
    confirmed: bool | None
    method: str
    seed: int
    out: str


@dataclass(frozen=True, slots=True)
class Graded:
    """A program that was judged without a model."""

    problem: Problem
    code: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class CheckCounts:
    """How many problems are right, have a failing reference, or cannot be read."""

    right: int
    failing: int
    unreadable: int


# -- run -----------------------------------------------------------------------------------------------------


def run_one(
    source: str,
    which: Selection,
    options: RunOptions,
    *,
    replies: Path | None,
    out: Path | None,
    console: Console,
) -> RunResult:
    """One run with its display, from nothing or on from its journal.

    Raises UserError, PrerequisiteError or RunError; boxes and weights are gone when this returns or raises.
    """
    plan = build.make_plan(options)
    out = out if out is not None else default_out(options)
    check_out(out)
    view = live_run.make_view(console)

    def on_tokens(n_tokens: int, n_finished: int) -> None:
        view.on_event({"event": "progress", "n_tokens": n_tokens, "n_finished": n_finished})

    with build.Workshop(plan, replies=replies, progress=on_tokens) as workshop, ExitStack() as stack:
        problem = sources.load_one(source, which, workshop.sandbox)
        stack.enter_context(view)
        run = workshop.new_run(problem, out, [view.on_event])
        before = run.journal.state.outcome
        try:
            outcome = solve(run)
            write_solution(run)
        finally:
            run.journal.close()
    live_run.print_result(console, view.progress, str(run.journal.run_dir))
    if before is not None:
        console.print(
            Text("this run was finished before; another --seed or --out makes a new one", style="dim")
        )
    return _result(outcome, options, run.journal.run_dir)


def _result(outcome: Outcome, options: RunOptions, run_dir: Path) -> RunResult:
    return RunResult(
        solved=outcome.status is OutcomeStatus.SOLVED,
        status=outcome.status.value,
        discovery_time=outcome.discovery_time,
        attempts=outcome.attempts,
        tokens=outcome.tokens,
        wall_s=outcome.wall_s,
        confirmed=outcome.confirmed,
        method=options.method,
        seed=options.seed,
        out=str(run_dir),
    )


# -- grade and check -----------------------------------------------------------------------------------------


def grade_one(
    source: str, which: Selection, program: Path, *, sandbox: str, settings: Sequence[str]
) -> Graded:
    """Judge the program in `program`, every test.

    Raises UserError where problem or program cannot be read.
    """
    language = "cpp" if program.suffix in (".cpp", ".cc", ".cxx") else "python"
    given = {"sandbox": sandbox, "language": language, "settings": parse_settings(settings)}
    plan = build.make_plan(read_options(RunOptions, given, "grade"), grading_only=True)
    try:
        code = program.read_text(encoding="utf-8")
    except OSError as exc:
        raise UserError(f"cannot read {program}: {exc.strerror}") from None
    except UnicodeDecodeError as exc:
        raise UserError(f"{program} is not UTF-8: {exc.reason} at byte {exc.start}") from None
    with build.Workshop(plan) as workshop:
        problem = sources.load_one(source, which, workshop.sandbox)
        (verdict,) = workshop.judge().grade(problem, [code], thorough=True)
    return Graded(problem, code, verdict)


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    """The object that `grade --json` prints."""
    cases = [
        {"status": c.status.value, "visible": c.visible, "cpu_s": c.cpu_s, "wall_s": c.wall_s}
        for c in verdict.cases
    ]
    return {
        "solved": verdict.solved,
        "passed_visible": verdict.passed_visible,
        "passed_hidden": verdict.passed_hidden,
        "cases": cases,
    }


def print_verdict(console: Console, graded: Graded) -> None:
    """One line a test, then what the model would have heard."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("test", "shown", "verdict", "cpu s", "MB"):
        table.add_column(column, justify="left" if column in ("shown", "verdict") else "right")
    for case in graded.verdict.cases:
        style = "green" if case.status.value == "accepted" else "red"
        shown = "visible" if case.visible else "hidden"
        status = Text(case.status.value.replace("_", " "), style=style)
        table.add_row(str(case.index + 1), shown, status, f"{case.cpu_s:.2f}", f"{case.peak_mb:.0f}")
    console.print(table)
    solved = graded.verdict.solved
    console.print(Text("solved" if solved else "not solved", style="bold green" if solved else "bold yellow"))
    if not solved:
        said = feedback.render(graded.problem, graded.code, graded.verdict, Finish.STOP, feedback.Options())
        console.print(Text(f"\n{said}", style="dim"), soft_wrap=True)


def check_all(
    names: Sequence[str], which: Selection, *, sandbox: str, settings: Sequence[str], console: Console
) -> CheckCounts:
    """Validate every problem and judge its reference; prints a line each."""
    given = {"sandbox": sandbox, "settings": parse_settings(settings)}
    plan = build.make_plan(read_options(RunOptions, given, "check"), grading_only=True)
    right = unreadable = 0

    def complain(exc: ProblemError) -> None:
        nonlocal unreadable
        console.print(Text(f"✗ {clean(str(exc))}", style="red"), soft_wrap=True)
        unreadable += 1

    with build.Workshop(plan) as workshop:
        taken = sources.load(names, which, workshop.sandbox, on_broken=complain)
        for problem in taken.problems:
            right += _check_one(problem, workshop, console)
    n_problems = len(taken.problems)
    unproven = sum(problem.reference is None for problem in taken.problems)
    note = f", {unproven} without a reference" if unproven else ""
    console.print(Text(f"{right} of {n_problems + unreadable} problems are right{note}"))
    if taken.left_out:
        console.print(Text(clean(describe_left_out(taken.left_out)), style="dim"), soft_wrap=True)
    return CheckCounts(right, n_problems - right, unreadable)


def _check_one(problem: Problem, workshop: build.Workshop, console: Console) -> bool:
    n_visible = sum(test.visible for test in problem.tests)
    counts = f"{problem.kind.value}, {n_visible} visible and {len(problem.tests) - n_visible} hidden tests"
    if problem.reference is None:
        console.print(Text(f"– {problem.id}: {counts}, no reference to judge", style="dim"), soft_wrap=True)
        return True
    (verdict,) = workshop.judge().grade(problem, [problem.reference], thorough=True)
    if verdict.passed_all:
        console.print(Text(f"✓ {problem.id}: {counts}, reference solved"), soft_wrap=True)
        return True
    case = verdict.first_failure
    where = f"test {case.index + 1}: {case.status.value}" if case else "no test ran"
    console.print(Text(f"✗ {problem.id}: the reference fails, {where}", style="red"), soft_wrap=True)
    return False


# -- the machine ---------------------------------------------------------------------------------------------


def set_up(*, model: str | None, with_model: bool, languages: Sequence[str], console: Console) -> None:
    """Engine, images, model, each said before it is done; `languages` are those besides Python.

    Raises PrerequisiteError where a step cannot be done here, saying what to do by hand.
    """
    say = _sayer(console)
    machine.ensure_docker_engine(say)
    machine.ensure_images(say, dict.fromkeys(("python", *languages)))
    if with_model:
        found = models.pull(model or models.default_name(), say)
        say(f"model {found.name} is at {found.path}")
    say("ready")


def examine(*, model: str | None, console: Console) -> bool:
    """Print what is here and what is missing; true where nothing is."""
    checks = [*machine.check_machine(), _check_model(model)]
    for check in checks:
        bad = Text("✗ ", style="red") if check.needed else Text("– ", style="dim")
        mark = Text("✓ ", style="green") if check.ok else bad
        console.print(mark + Text(f"{check.name}: {check.detail}"), soft_wrap=True)
        if not check.ok:
            console.print(Text(f"  {check.remedy}"), soft_wrap=True)
    name = model or models.default_name()
    path = models.config_dir(name)
    if path is not None:
        _print_memory(name, path, console)
    return all(check.ok or not check.needed for check in checks)


def _print_memory(name: str, path: Path, console: Console) -> None:
    """What the model would take for each engine, and whether that fits here; nothing is loaded."""
    size = memory.size_of(path)
    gpu_mb = memory.gpu_memory_mb()
    load = memory.Load() if gpu_mb is None else memory.Load(answer_tokens=8192)
    held = load if gpu_mb is not None else replace(load, dtype=cpu_dtype())
    here_mb = memory.free_memory_mb() if gpu_mb is None else gpu_mb
    estimates = [
        memory.in_process(size, held, here_mb, on_cpu=gpu_mb is None),
        memory.shared_gpu(size, load, gpu_mb),
    ]
    console.print(f"\n{name}: {size.params / 1e9:.2f} billion parameters; estimates from its configuration")
    for estimate in estimates:
        table = Table(box=None, padding=(0, 2, 0, 2), show_header=False)
        table.add_column()
        table.add_column(justify="right")
        for need in estimate.needs:
            table.add_row(need.name, f"{need.mb / 1024:.1f} GB")
        total = f"{estimate.total_mb / 1024:.1f} GB"
        if estimate.available_mb is None:
            verdict = Text(f"{total} in all; no GPU here to fit into", style="dim")
        else:
            here = f"{total} in all, {estimate.available_mb / 1024:.1f} GB here"
            verdict = Text(f"{here}: fits", "green") if estimate.fits else Text(f"{here}: too much", "yellow")
        console.print(Text(f"\n{estimate.title}: ") + verdict, soft_wrap=True)
        console.print(table)


def _check_model(name: str | None) -> machine.Check:
    name = name or models.default_name()
    try:
        found = models.resolve(name)
    except PrerequisiteError:
        remedy = f"run: sdpo-solve model pull {name}"
        return machine.Check("model", False, f"{name} is not on this disk", remedy)
    return machine.Check("model", True, f"{found.name} at {found.path}", "")


def list_models(console: Console) -> None:
    """The models known by name; any hub id or directory works too."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("name", "from", "size", "on disk"):
        table.add_column(column, justify="right" if column == "size" else "left")
    default = models.default_name()
    for info in models.available():
        name = f"{info.name} (default)" if info.name == default else info.name
        table.add_row(name, info.source, f"{info.size_mb / 1000:.1f} GB", "yes" if info.on_disk else "no")
    console.print(table)
    console.print(Text("Any other hub id (OWNER/NAME) or model directory works as well.", style="dim"))


def _sayer(console: Console) -> Callable[[str], None]:
    return lambda text: console.print(Text(clean(text)), soft_wrap=True)
