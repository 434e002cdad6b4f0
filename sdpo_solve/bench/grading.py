"""Benchmark of the sandbox: ratios measured in one run, so that they hold on any machine.

The same programs run as bare subprocesses on all processors, in warm boxes, and in one `docker run` an
attempt.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from sdpo_solve.errors import PrerequisiteError, SandboxError
from sdpo_solve.sandboxes import docker
from sdpo_solve.sandboxes.images import image_tag
from sdpo_solve.types import BoxInput, ExecutionStatus, Limits, Program

_PROGRAM_MS = 10
_LOUD = "while True: print('x' * 65536)"
_LIMITS = Limits(time_s=6.0, memory_mb=128)


@dataclass(frozen=True, slots=True)
class Size:
    """What is run."""

    attempts: int = 16
    tests: int = 20


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured thing."""

    name: str
    value: float
    unit: str


def page(figures: Sequence[Figure]) -> Table:
    """A line a figure."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for figure in figures:
        value = f"{figure.value:.2f}" if figure.value < 10 else f"{figure.value:.0f}"
        table.add_row(figure.name, Text(value, justify="right"), figure.unit)
    return table


def as_record(figures: Sequence[Figure]) -> dict[str, Any]:
    """The object that `--json` prints."""
    return {"figures": [asdict(figure) for figure in figures]}


def run(
    notify: Callable[[str], None] = lambda _: None, n_repeats: int = 3, size: Size | None = None
) -> list[Figure]:
    """All figures; of each time the best of `n_repeats`, because other work on the machine only adds to it.

    Raises PrerequisiteError without Docker, SandboxError when a box breaks.
    """
    size = size or Size()
    code, load = _program(), os.getloadavg()[0]  # containers share one slice: a loaded machine distorts
    options = docker.Options(boxes_ready=size.attempts, parallel=os.cpu_count() or 1)
    sandbox = docker.DockerSandbox(options)
    try:
        boxed_s: list[float] = []
        bare_s: list[float] = []
        waits_ms: list[float] = []
        for repeat in range(n_repeats):
            what = f"{size.attempts} attempts x {size.tests} tests of {_PROGRAM_MS} ms"
            notify(f"{what}, round {repeat + 1} of {n_repeats}")
            bare_s.append(_bare(code, size))
            if not sandbox.wait_ready(120):
                raise PrerequisiteError("boxes do not start within two minutes; run: sdpo-solve doctor")
            boxed_s.append(_boxed(sandbox, code, size))
            waits_ms += [1000 * wait_s for wait_s in list(sandbox.waits_s)[-size.attempts :]]
        notify("programs that print for ever")
        growth_mb = _loud_growth_mb(sandbox, size)
    finally:
        sandbox.close()
    notify(f"{size.attempts} attempts with one docker run each")
    cold_s = _docker_run(code, size)
    best = min(bare_s)
    return [
        Figure("load average before", load, "processes"),
        Figure("bare subprocesses", best, "s"),
        Figure("warm boxes", min(boxed_s), "s"),
        Figure("one docker run an attempt", cold_s, "s"),
        Figure("warm boxes / bare subprocesses", min(boxed_s) / best, "x"),
        Figure("docker run / warm boxes", cold_s / min(boxed_s), "x"),
        Figure("wait for a box, median", statistics.median(waits_ms), "ms"),
        Figure(f"host memory for {size.attempts} loud attempts", growth_mb, "MiB"),
    ]


def _program() -> str:
    """Uses `_PROGRAM_MS` of processor time, Python's own start included."""
    busy = f"import time\nwhile time.process_time() < {_PROGRAM_MS / 1000}: pass\n"
    return busy + "print(input())"


def _at_once(work: Callable[[int], object], n: int, workers: int) -> float:
    began = time.monotonic()
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(work, range(n)):
            pass
    return time.monotonic() - began


def _bare(code: str, size: Size) -> float:
    """Every test as a bare process, on all processors."""

    def one(n: int) -> None:
        subprocess.run(
            [sys.executable, "-s", "-P", "-c", code], input=b"1\n", capture_output=True, check=True
        )

    return _at_once(one, size.attempts * size.tests, os.cpu_count() or 1)


def _boxed(sandbox: docker.DockerSandbox, code: str, size: Size) -> float:
    """The same tests, one warm box an attempt."""
    program = Program(code)

    def one(n: int) -> None:
        results = sandbox.run(program, [BoxInput("1\n")] * size.tests, _LIMITS)
        failed = [result for result in results if result.status is not ExecutionStatus.OK]
        if failed:
            raise SandboxError(
                f"a test of the benchmark ended with {failed[0].status.value}: {failed[0].stderr}"
            )

    return _at_once(one, size.attempts, 2)


def _docker_run(code: str, size: Size) -> float:
    """One container an attempt, made when it is needed, all tests in it by a shell loop."""
    loop = f"for i in $(seq {size.tests}); do echo 1 | python3 -c '{code}'; done"
    command = ["docker", "run", "--rm", "--network", "none", image_tag("python"), "sh", "-c", loop]

    def one(n: int) -> None:
        subprocess.run(command, capture_output=True, check=True)

    return _at_once(one, size.attempts, os.cpu_count() or 1)


def _loud_growth_mb(sandbox: docker.DockerSandbox, size: Size) -> float:
    """How far this process's peak memory rises while programs print for ever."""
    import resource  # of POSIX

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _at_once(lambda _: sandbox.run(Program(_LOUD), [BoxInput()] * 4, _LIMITS), size.attempts, 4)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
