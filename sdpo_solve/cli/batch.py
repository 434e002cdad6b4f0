"""The command `batch`: print the plan, run it with a display and a log, print the result."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import Field
from rich.console import Console
from rich.filesize import decimal
from rich.text import Text

from sdpo_solve.batch.batch import Batch, BatchResult, prepare, run_batch
from sdpo_solve.batch.cost import Estimate
from sdpo_solve.batch.event_bus import Broadcast, LogFile, json_lines
from sdpo_solve.batch.local_executor import LocalExecutor, local_executor
from sdpo_solve.batch.locks import busy_line
from sdpo_solve.batch.measure import left_to_spend, measure, unmeasured
from sdpo_solve.batch.spec import BatchFile, BatchSpec, make_spec, read_toml
from sdpo_solve.batch.stop import StopSignal, stop_on_signals
from sdpo_solve.cli.flags import WithFile, WithRuntime, WithServer, file_command, split
from sdpo_solve.cli.live_batch import BatchView
from sdpo_solve.cli.live_view import Waiting
from sdpo_solve.config import Flag
from sdpo_solve.datasets.selection import describe_left_out
from sdpo_solve.errors import UserError
from sdpo_solve.report.table import clock, labelled, plural
from sdpo_solve.run.identity import check_out, default_out
from sdpo_solve.run.options import model_name, warnings_of
from sdpo_solve.sanitize import clean

if TYPE_CHECKING:
    from sdpo_solve.batch.batch import Executor

_SHOWN_FAILED = 20
SOME_FAILED = 4
SOME_BROKEN = 2


class Shown(WithFile):
    """What is done with a batch, besides its own options."""

    panel = "Output"
    measure: bool = Field(
        False, description="first run two small groups of each method, to say how long the batch may take"
    )
    dry_run: bool = Field(False, description="print the plan and stop")
    as_json: Annotated[bool, Flag(name="json")] = Field(
        False, description="events as JSON lines on standard output, all else on standard error"
    )


class BatchCommand(Shown, WithRuntime, WithServer, BatchFile):
    """What `batch` takes."""


@file_command(
    BatchCommand,
    "batch problems --seeds 3 --attempts 64 --dry-run",
    "batch lcb:rows.jsonl --from 2025-02-01 --difficulty hard --seeds 5 --attempts 512 --out runs/lcb",
    "batch --file batch.toml --attempts 128",
)
def batch(flags: Mapping[str, Any]) -> None:
    """Problems x methods x seeds: plan, measure, run. The same command again goes on where it stopped.

    Ctrl-C ends it at once; journals hold every group that was judged (with Ray, the groups under way are
    finished first). Exit code 0: every run ended, 4: some failed, 2: broken problems were left out.

    A file may describe arms of its own, which methods then names: a table arms.NAME with method, and settings
    that go over the batch's, such as arms.NAME.settings.learner. 'sdpo-solve options' lists what can be set.
    """
    shown, others = split(Shown, flags)
    spec = make_spec(
        read_toml(shown.file, BatchCommand) if shown.file else {}, others, str(shown.file or "batch")
    )
    console = Console(stderr=shown.as_json, highlight=False)
    raise typer.Exit(_run(spec, shown, console))


def _run(spec: BatchSpec, shown: Shown, console: Console) -> int:
    """The whole command; returns its exit code.

    Raises UserError, PrerequisiteError, and KeyboardInterrupt where a signal has stopped runs.
    """
    trackers = _module("batch.trackers") if spec.batch.track else None
    if trackers:
        trackers.check(spec.batch.track)
    out = spec.batch.out or default_out(spec.run, "batch", spec.batch.sources)
    check_out(out)
    with Waiting(console, "reading the problems, and what is on disk"):
        batch = prepare(spec, out)
    stop = StopSignal()
    with ExitStack() as stack:
        executor = _executor(batch, stack)
        print_plan(console, batch)
        if shown.measure and unmeasured(batch):
            with BatchView(console) as view:
                costs = measure(batch, _for_measuring(executor, spec), view.on_event, stop)
            console.print(labelled(_cost_rows(left_to_spend(batch, costs), batch), 9))
        if shown.dry_run:
            return SOME_BROKEN if batch.broken else 0
        view = stack.enter_context(BatchView(console))
        errors: list[Exception | SystemExit] = []

        def on_error(exc: Exception | SystemExit) -> None:
            errors.append(exc)
            stop.set()

        def notify(text: str) -> None:
            sink({"event": "notice", "text": text})

        sink = Broadcast(view.on_event, stack.enter_context(LogFile(batch.out)), on_error=on_error)
        if shown.as_json:
            sink.add(json_lines(typer.echo))
        if trackers:
            tracking = trackers.Tracking(spec.batch.track, batch.out, spec.record(), notify)
            sink.add(stack.enter_context(tracking))
        # Runs elsewhere end after their groups; those of this process end at once, their journals whole.
        is_local = isinstance(executor, LocalExecutor)
        with nullcontext() if is_local else stop_on_signals(stop, notify):
            result = run_batch(batch, executor, sink, stop)
    if errors:
        raise _as_output_error(errors[0])
    print_result(console, result, batch)
    if result.stopped:
        raise KeyboardInterrupt
    return SOME_FAILED if result.failed else SOME_BROKEN if batch.broken else 0


def _as_output_error(exc: Exception | SystemExit) -> Exception | SystemExit:
    """What to raise where the output of a batch could not be written; a closed pipe is nobody's error."""
    if isinstance(exc, OSError) and not isinstance(exc, BrokenPipeError):
        return UserError(f"cannot write the output: {exc.strerror or exc}; the same command goes on")
    return exc


def _executor(batch: Batch, stack: ExitStack) -> Executor:
    if batch.spec.batch.executor == "ray":
        return _ray(batch.spec)
    return stack.enter_context(local_executor(batch))


def _ray(spec: BatchSpec, n_workers: int | None = None) -> Executor:
    """Raises PrerequisiteError where it is not installed: a plan that cannot be carried out is none."""
    ray_executor = _module("batch.ray_executor")
    ray_executor.load_ray()
    executor: Executor = ray_executor.RayExecutor(n_workers or spec.batch.workers, spec.batch.address)
    return executor


def _module(name: str) -> Any:
    """A module of the package by its name: most batches need neither trackers, nor Ray, nor numpy."""
    return importlib.import_module(f"sdpo_solve.{name}")


def _for_measuring(executor: Executor, spec: BatchSpec) -> Executor:
    """One worker of a cluster is measured: the driver may have no accelerator."""
    return _ray(spec, 1) if spec.batch.executor == "ray" else executor


# -- pages ---------------------------------------------------------------------------------------------------


def print_plan(console: Console, batch: Batch) -> None:
    """What will be run, what is there already, and what it may cost at most."""
    spec, done = batch.spec, batch.on_disk
    n_problems, n_methods, n_seeds = len(batch.problems), len(spec.batch.methods), spec.batch.seeds
    counts = (
        f"{len(batch.keys)} = {plural(n_problems, 'problem')} × {plural(n_methods, 'method')} × "
        f"{plural(n_seeds, 'seed')}"
    )
    rows = [("runs", counts)]
    if done.finished or done.begun:
        rows.append(("", f"{len(done.finished)} finished, {len(done.begun)} begun"))
    rows.append(("methods", ", ".join(spec.batch.methods)))
    if n_methods > 1:
        pairs = n_problems * n_seeds
        visible = _module("report.statistics").visible_speed_up(pairs)
        least = f"{plural(pairs, 'pair')} of runs show a speed-up of {visible:.1f}x or more"
        rows.append(("", f"{least} with 80 % power, if all are solved"))
    rows.append(("problems", _few(list(batch.problems.ids))))
    if batch.left_out:
        rows.append(("", describe_left_out(batch.left_out, batch.broken)))
    rows.append(("budget", _budget(spec)))
    model = model_name(spec.run)
    rows.append(("model", ", ".join(filter(None, [model, f"engine {spec.run.engine}"]))))
    rows += [("warning", warning) for warning in _warnings(batch)]
    rows += _cost_rows(left_to_spend(batch, batch.on_disk.costs), batch)
    console.print(labelled([*rows, ("out", str(batch.out))], 9))


def _warnings(batch: Batch) -> list[str]:
    """Options that are right and cannot have their effect in this batch."""
    options = batch.spec.batch
    first_of = {key.arm: key for key in reversed(batch.keys)}
    warnings = [
        f"{arm}: {text}" for arm in options.methods for text in warnings_of(batch.plan_for(first_of[arm]))
    ]
    if options.merge and min(options.in_flight, len(batch.keys)) < 2:
        warnings.append("--merge merges nothing: only one run is under way at a time")
    if options.only is None and "screening" in options.model_fields_set:
        warnings.append("--screening is read by --only alone")
    return warnings


def _cost_rows(cost: Estimate, batch: Batch) -> list[tuple[str, str]]:
    place = next(path for path in (batch.out, *batch.out.absolute().parents) if path.exists())
    free_bytes = shutil.disk_usage(place).free
    if not cost.attempts:
        return [("cost", "nothing left to do")]
    if not cost.measured:
        bound = f"at most {cost.attempts:,} attempts and {cost.tokens:,} tokens; time not known (--measure)"
        return [("cost", bound), ("disk", f"{decimal(free_bytes)} free")]
    where = "here" if batch.spec.batch.executor == "local" else "on one worker"
    spent = f"{clock(cost.seconds)} {where}"
    rows = [
        ("cost", f"at most {cost.attempts:,} attempts, {cost.tokens:,} tokens, {spent}"),
        ("", f"(by {cost.measured} measured attempts; runs that are solved end earlier)"),
        ("disk", f"at most {decimal(cost.disk_bytes)}, {decimal(free_bytes)} free"),
    ]
    if cost.disk_bytes > free_bytes:
        rows.append(("", "that may not fit: free some room, or choose another --out"))
    return rows


def print_result(console: Console, result: BatchResult, batch: Batch) -> None:
    """The counts, the failed runs, and what to do next."""
    kept = f" ({result.kept} kept)" if result.kept else ""
    line = Text(f"{result.solved} solved", style="bold green")
    line += Text(f" · {result.unsolved} unsolved · {len(result.failed)} failed · {result.stopped} stopped")
    console.print(line + Text(f" of {result.runs} runs{kept} in {clock(result.wall_s)}"))
    if result.busy:
        console.print(Text(f"busy: {busy_line(result.busy)}", style="dim"))
    for name in result.failed[:_SHOWN_FAILED]:
        console.print(Text(f"failed: {clean(name)}; see {clean(str(batch.out / name))}"), soft_wrap=True)
    if len(result.failed) > _SHOWN_FAILED:
        console.print(Text(f"and {len(result.failed) - _SHOWN_FAILED} more failed"))
    if result.failed:
        how = " with a larger --tries" if result.spent else ""
        console.print(Text(f"the same command{how} tries failed runs again"))
    console.print(Text(f"sdpo-solve report {clean(str(batch.out))}", style="dim"), soft_wrap=True)


def _budget(spec: BatchSpec) -> str:
    run = spec.run
    parts = [f"{run.attempts} attempts a run"]
    parts += [f"{run.tokens} tokens"] if run.tokens is not None else []
    parts += [f"{run.wall_seconds:g} s"] if run.wall_seconds is not None else []
    return ", ".join(parts) + (", also after a success" if run.keep_going else ", or the first success")


def _few(names: list[str], most: int = 6) -> str:
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
