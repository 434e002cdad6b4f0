"""Runs of the hf engine and the learner that die by SIGKILL at every step of their writing, then go on.

A program of its own (`python killed_runs.py MODEL_DIR OUT FIRST STRIDE`), because it forks: the tiny model is loaded
once, and each run is a child that inherits it. A kill point is anything that the child does to its run
directory (Python's audit events: open, mkdir, rename, remove), and every event that the display hears.
Nothing is written in between, so a kill there equals a kill at the next point. Prints one JSON object.
"""

import json
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sdpo_solve.config import RunOptions
from sdpo_solve.model.adapted import AdaptedModel
from sdpo_solve.model.names import ModelDir
from sdpo_solve.run.build import Parts, new_run
from sdpo_solve.run.options import make_plan
from sdpo_solve.solve import solve, write_solution
from sdpo_solve.types import Kind, Problem, TestCase

PROBLEM = Problem("say", "Print 1.", Kind.STDIN, (TestCase("", "1\n", True), TestCase("", "1\n", False)))
OPTIONS = RunOptions(
    attempts=8,
    group_size=2,
    max_tokens=8,
    settings={
        "sdpo": {"preset": "paper"},
        "learner": {"teacher": "ema", "ema_rate": 0.3, "lora_rank": 4, "lr": 1e-3, "replay": 2, "min_gap": 0},
    },
)
WATCHED = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}


class NoBox:
    """Answers of random weights hold no program, so nothing ever runs here."""

    def run(self, *_: object) -> Any:
        raise AssertionError("a random model wrote a program")

    def record(self) -> dict[str, str]:
        return {"identity": "no box"}

    def close(self) -> None:
        return


class Points:
    """Counts kill points below a directory; at number `last` the process kills itself."""

    def __init__(self, below: Path, last: int) -> None:
        self.below, self.last, self.names = str(below), last, []
        sys.addaudithook(self.on_audit)

    def on_audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in WATCHED and arguments and str(arguments[0]).startswith(self.below):
            self.reach(f"{event} {str(arguments[0]).removeprefix(self.below)}")

    def on_event(self, event: Any) -> None:
        self.reach(f"event {event['event']}")

    def reach(self, name: str) -> None:
        self.names.append(name)
        if len(self.names) == self.last:
            os.kill(os.getpid(), signal.SIGKILL)


def run_once(
    host: AdaptedModel, model_dir: Path, out: Path, points: Points, options: RunOptions = OPTIONS
) -> None:
    """The run of `sdpo-solve run`, on from whatever lies in `out`."""
    plan = make_plan(options)
    with Parts(plan) as parts:
        model = ModelDir("tiny", model_dir, "tiny")
        vars(parts).update(sandbox=NoBox(), weights=host, model=model)
        run = new_run(parts, plan, PROBLEM, out, [points.on_event])
        solve(run)
        write_solution(run)
        run.close()


def forked(task: Callable[[], None]) -> int:
    """Run `task` in a child; returns its wait status."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    code = 1
    try:
        task()
        code = 0
    finally:
        os._exit(code)


def tear(journal: Path, generator: random.Random) -> None:
    """What a kill in the middle of a write leaves: part of a last line."""
    if journal.exists():
        with journal.open("ab") as file:
            file.write(b'{"event": "attempt", "index": 3, "text": "half'[: generator.randrange(1, 46)])


def main(model_dir: Path, out: Path, first: int, stride: int) -> None:
    torch.set_num_threads(1)
    host = AdaptedModel.load(model_dir, "cpu", torch.float32)
    names: list[str] = []

    def whole() -> None:
        points = Points(out / "whole", 0)
        run_once(host, model_dir, out / "whole" / "o", points)
        (out / "names.json").write_text(json.dumps(points.names))

    assert forked(whole) == 0
    names = json.loads((out / "names.json").read_text())
    generator, odd = random.Random(0), []
    for last in range(first, len(names) + 1, stride):
        place = out / f"killed-{last:03d}" / "o"  # runs are named after the last directory
        status = forked(
            lambda last=last, place=place: run_once(host, model_dir, place, Points(place.parent, last))
        )
        if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
            odd.append([last, "was not killed", status])
        if generator.random() < 0.5:
            tear(place / "say/sdpo/seed-0/journal.jsonl", generator)
        status = forked(lambda place=place: run_once(host, model_dir, place, Points(place, 0)))
        if status:
            odd.append([last, "did not go on", status])
    print(json.dumps({"names": names, "odd": odd}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
