"""The commands about this machine: `doctor`, `model list`, `model pull`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import Field
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from sdpo_solve.cli.clean import list_kept, list_others, print_kept
from sdpo_solve.cli.flags import WithJson, WithRuntime, command
from sdpo_solve.config import SANDBOX_HELP, SETTINGS, Flag, Names, Options, RunOptions
from sdpo_solve.errors import ConfigError, PrerequisiteError
from sdpo_solve.grading import selfcheck
from sdpo_solve.model import memory, names
from sdpo_solve.model.capability import Level, capability_of, read_config
from sdpo_solve.model.chat import notes_of
from sdpo_solve.model.cpu import cpu_dtype
from sdpo_solve.paths import cache_dir
from sdpo_solve.report.table import AlignedTable
from sdpo_solve.run.build import Parts
from sdpo_solve.run.options import make_plan
from sdpo_solve.sandboxes import install
from sdpo_solve.sanitize import clean

# -- doctor --------------------------------------------------------------------------------------------------


class SandboxTrial(Options):
    """Which programs `doctor --sandbox` judges, and where."""

    panel = "With --sandbox"
    backend: str = Field("auto", description=SANDBOX_HELP)
    only: Names = Field((), description="programs named like one of these, comma-separated")
    at_a_time: int = Field(2, ge=1, description="programs judged at a time")
    settings: Annotated[Mapping[str, Mapping[str, Any]], replace(SETTINGS, panel=None)] = Field(
        default_factory=dict, description="set an option of a part, e.g. sandbox.parallel=1 (repeatable)"
    )


class DoctorCommand(WithJson, WithRuntime, SandboxTrial):
    panel = ""
    model: str | None = Field(None, description="model to look for (default: the default model)")
    sandbox: bool = Field(False, description="judge every honest and hostile program in the sandbox")


@command(
    DoctorCommand,
    "doctor",
    "doctor --model qwen2.5-coder-0.5b",
    "doctor --sandbox",
    "doctor --sandbox --runtime runsc",
)
def doctor(given: DoctorCommand) -> None:
    """Look at this machine: what is missing, and what the model takes in memory. Changes nothing.

    Exit code 3: something is missing. With --sandbox, what the sandbox makes of each program; exit code 1:
    one went wrong.
    """
    console = Console(stderr=given.as_json, highlight=False)
    if not given.sandbox and (given.settings or given.only or given.backend != "auto"):
        raise ConfigError("--backend, --runtime, --only and --set go with --sandbox")
    if given.sandbox:
        record = try_sandbox(given, console)
    else:
        record = examine(given.model or names.default_name(), console)
    if given.as_json:
        typer.echo(json.dumps(record))
    raise typer.Exit(0 if record["ok"] else 1 if given.sandbox else 3)


def examine(model: str, console: Console) -> dict[str, Any]:
    """Print what is here and what is missing, and return it as plain data; `ok`: nothing is missing."""
    checks = [*install.check_machine(), _check_model(model)]
    for check in checks:
        bad = Text("✗ ", style="red") if check.needed else Text("– ", style="dim")
        mark = Text("✓ ", style="green") if check.ok else bad
        console.print(mark + Text(f"{check.name}: {check.detail}"), soft_wrap=True)
        if not check.ok:
            console.print(Text(f"  {check.remedy}"), soft_wrap=True)
    console.print("\nwhat this program keeps; 'sdpo-solve clean' removes all but environment, hub and runs")
    kept = [*list_kept(Path("runs")), *list_others(Path("runs"))]
    print_kept(kept, console)
    path = names.config_dir(model)
    supported, found = path is None, None
    if path is not None:
        found = _print_model(model, path, console)
        supported = found["level"] != "none"
    return {
        "ok": supported and all(check.ok or not check.needed for check in checks),
        "checks": [asdict(check) for check in checks],
        "kept": [{"kind": one.kind, "name": one.name, "n_bytes": one.n_bytes} for one in kept],
        "model": found,
    }


def _print_model(name: str, path: Path, console: Console) -> dict[str, Any]:
    """What can be done with the model, and what it takes in memory, printed and returned as plain data."""
    can = capability_of(read_config(path))
    console.print(
        Text(f"\n{name}: {can.level.value}" + (f": {can.reason}" if can.reason else "")), soft_wrap=True
    )
    notes = [*can.notes, *notes_of(path)]
    for note in notes:
        console.print(Text(f"  {note}"), soft_wrap=True)
    found = {"name": name, "level": can.level.name.lower(), "reason": can.reason, "notes": notes}
    estimates = [] if can.level is Level.NONE else _print_memory(name, path, console)
    in_all = [{"total_mb": one.total_mb, "fits": one.fits} for one in estimates]
    return {**found, "memory": [asdict(one) | more for one, more in zip(estimates, in_all, strict=True)]}


def _print_memory(name: str, path: Path, console: Console) -> list[memory.Estimate]:
    """What the model would take for each engine, and whether that fits here; nothing is loaded."""
    size, gpu_mb = memory.size_of(path), memory.gpu_memory_mb()
    held, here_mb = _held(path, gpu_mb), gpu_mb or memory.free_memory_mb()
    estimates = [
        memory.in_process(size, held, here_mb, on_cpu=gpu_mb is None),
        memory.quantised(size, held, here_mb, on_cpu=gpu_mb is None),
        memory.shared_gpu(size, _load(gpu_mb), gpu_mb),
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
    return estimates


def _load(gpu_mb: int | None) -> memory.Load:
    return memory.Load() if gpu_mb is None else memory.Load(answer_tokens=8192)


def _held(path: Path, gpu_mb: int | None) -> memory.Load:
    """What the engine hf does at once here."""
    if gpu_mb is not None:
        return _load(gpu_mb)
    load = replace(memory.Load(), dtype=cpu_dtype(path))
    tokens = memory.pass_tokens(read_config(path), load.number_bytes, on_cpu=True)
    return replace(load, microbatch_tokens=tokens)


def _check_model(name: str) -> install.Check:
    try:
        model = names.resolve(name)
    except PrerequisiteError as exc:
        detail, _, remedy = str(exc).rpartition("; ")
        return install.Check("model", False, detail.removeprefix("the model "), remedy)
    return install.Check("model", True, f"{model.name} at {model.path}", "")


def try_sandbox(given: SandboxTrial, console: Console) -> dict[str, Any]:
    """Judge honest and hostile programs in the sandbox, print and return what became of them.

    `ok`: all went as they must and nothing is left.

    Raises UserError for an unknown sandbox or program, PrerequisiteError where the sandbox cannot be started,
    SandboxError where it breaks.
    """
    options = RunOptions(sandbox=given.backend, settings=given.settings)
    plan = make_plan(options, grading_only=True)
    chosen = selfcheck.choose(selfcheck.load(), given.only)
    before = selfcheck.traces()

    def show(result: selfcheck.TrialResult) -> None:
        console.print(_trial_line(result), soft_wrap=True)

    with Parts(plan) as parts:
        identity = parts.sandbox.identity()
        console.print(Text(f"{identity}: {len(chosen)} programs"), soft_wrap=True)
        results = selfcheck.run(parts.judge(), chosen, show, at_a_time=given.at_a_time)
    left = sorted(selfcheck.traces() - before)
    for kind, outcome in ((True, "honest programs were solved"), (False, "hostile programs were refused")):
        of_kind = [result for result in results if result.trial.honest is kind]
        n_ok = sum(result.ok for result in of_kind)
        style = "green" if n_ok == len(of_kind) else "red"
        console.print(Text(f"{n_ok} of {len(of_kind)} {outcome}", style=style))
    console.print(
        Text(f"left behind: {', '.join(left) or 'nothing'}", style="red" if left else "green"), soft_wrap=True
    )
    programs = [
        {
            "name": result.trial.name,
            "honest": result.trial.honest,
            "status": result.failure.status.value if result.failure else "solved",
            "ok": result.ok,
            "wall_s": result.wall_s,
        }
        for result in results
    ]
    ok = all(result.ok for result in results) and not left
    return {"ok": ok, "sandbox": identity, "programs": programs, "left_behind": left}


def _trial_line(result: selfcheck.TrialResult) -> Text:
    """Mark, kind, name, what became of it and how long it took: 78 columns at most."""
    trial, case = result.trial, result.failure
    status = case.status.value.replace("_", " ") if case else "solved"
    mark = Text("✓ ", style="green") if result.ok else Text("✗ ", style="red")
    kind = "honest" if trial.honest else "hostile"
    line = mark + Text(f"{kind:<8}{trial.name:<34}{status:<22}{result.wall_s:6.1f} s")
    return line if result.ok else line + Text(f"\n  {trial.about}", style="dim")


# -- model ---------------------------------------------------------------------------------------------------


class PullCommand(Options):
    model: Annotated[str, Flag(metavar="NAME", is_argument=True)] = Field(
        description="a name from 'sdpo-solve model list', or a hub id"
    )


class ListCommand(WithJson):
    """What `model list` takes."""


@command(ListCommand, "model list", name="list")
def list_models(given: ListCommand) -> None:
    """List the models known by name."""
    if given.as_json:
        typer.echo(json.dumps([asdict(info) for info in names.available()]))
        return
    console = Console(highlight=False)
    table = AlignedTable(("name", "from", "size", "memory", "on disk"), names=("from", "on disk"))
    default = names.default_name()
    for info in names.available():
        name = f"{info.name} (default)" if info.name == default else info.name
        on_disk = "yes" if info.on_disk else "no"
        table.add([name, info.source, decimal(info.size_mb << 20), _memory_of(info), on_disk])
    console.print(table)
    console.print(Text(f"memory: of a run with --engine hf. Models lie in {cache_dir()}", style="dim"))
    console.print(Text("Any other hub id (OWNER/NAME) or model directory works as well.", style="dim"))


def _memory_of(info: names.ModelInfo) -> str:
    """What a run takes, from the shapes that are on this disk; nothing is fetched for it."""
    path = names.config_dir(info.name) if info.on_disk or info.source == "embedded" else None
    if path is None:
        return ""
    gpu_mb = memory.gpu_memory_mb()
    found = memory.in_process(memory.size_of(path), _held(path, gpu_mb), None, on_cpu=gpu_mb is None)
    return f"{found.total_mb / 1024:.1f} GB"


@command(PullCommand, "model pull qwen2.5-coder-0.5b", name="pull")
def pull_model(given: PullCommand) -> None:
    """Fetch the weights of a model, checked against their pinned hash. Does nothing where they are here."""
    console = Console(stderr=True, highlight=False)
    model = names.pull(given.model, lambda line: console.print(Text(clean(line)), soft_wrap=True))
    typer.echo(str(model.path))
