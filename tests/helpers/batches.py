"""Whole batches in processes of their own, for tests that kill them."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.helpers.tiny_model import save_tiny_model

# Figures that clocks and machines decide.
CLOCKS = {"time", "elapsed_s", "sample_s", "grade_s", "wall_s", "cpu_s", "peak_mb"}
COMMAND = "from sdpo_solve.cli.main import main; main()"


def make_problems(folder: Path, n: int) -> Path:
    """`n` problems that a model of random weights does not solve."""
    folder.mkdir(parents=True)
    for number in range(n):
        tests = [{"input": "", "expected": f"{number}\n", "visible": shown} for shown in (True, False)]
        problem = {"id": f"say-{number}", "statement": f"Print {number}.", "kind": "stdin", "tests": tests}
        (folder / f"say-{number}.json").write_text(json.dumps(problem))
    return folder


def start(folder: Path, *flags: str, code: str = COMMAND, log: str = "said") -> subprocess.Popen:
    """The batch command in `folder`, which holds `problems` and the model `tiny`; it writes to `log`.

    sdpo makes an update after each group, however near its teacher is.
    """
    if not (folder / "tiny").exists():
        save_tiny_model(folder / "tiny")
    given = ["batch", "problems", "--model", "tiny", "--max-tokens", "32", "--group-size", "4", *flags]
    if "--methods" not in flags or "sdpo" in flags[flags.index("--methods") + 1]:
        given += ["--set", "sdpo.preset=paper", "--set", "learner.min_gap=0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"}
    with (folder / log).open("a") as said:
        return subprocess.Popen(
            [sys.executable, "-c", code, *given],
            cwd=folder,
            stdout=said,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )


def until(process: subprocess.Popen, holds: Callable[[], bool], within_s: float = 240) -> None:
    """Wait until something holds, while the batch is still at work."""
    ends_s = time.monotonic() + within_s
    while not holds():
        assert process.poll() is None, "the batch ended too early"
        assert time.monotonic() < ends_s
        time.sleep(0.02)


def journals(out: Path) -> dict[str, list[Any]]:
    """The events of every run by its name, without clocks, headers' versions, failures and resumes."""
    found = {}
    for path in sorted(out.glob("*/*/*/journal.jsonl")):
        events = [json.loads(line) for line in path.read_text().splitlines()]
        found[str(path.parent.relative_to(out))] = [_without_clocks(event) for event in events]
    return found


def _without_clocks(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _without_clocks(value) for key, value in node.items() if key not in CLOCKS}
    return [_without_clocks(item) for item in node] if isinstance(node, list) else node
