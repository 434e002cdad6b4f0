"""Journals of made-up runs, written by the real `Journal`: what a run would leave, without running anything."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdpo_solve.errors import SandboxError
from sdpo_solve.run.clock import Clock
from sdpo_solve.run.journal import Journal
from sdpo_solve.types import (
    Attempt,
    Case,
    Finish,
    Message,
    Outcome,
    OutcomeStatus,
    Policy,
    Prompt,
    Sample,
    Status,
    Update,
    Verdict,
)

PROMPT = Prompt((Message("user", "Add one."),))


@dataclass(frozen=True)
class Made:
    """A made-up run. `solved_at`: indices of the attempts that pass; `overfits_at`: those that only seem to;
    `no_program_at`, `cut_off_at`: those whose answers hold no program, for want of one and of tokens.

    The run fails, or is left open, after `fails_after` or `stops_after` attempts. A group takes 8 s, of which
    1 s grading, an update 2 s. Attempt i has 10 tokens.
    """

    problem: str = "inc"
    method: str = "sdpo"
    seed: int = 0
    limit: int = 8
    group: int = 4
    solved_at: tuple[int, ...] = ()
    overfits_at: tuple[int, ...] = ()
    no_program_at: tuple[int, ...] = ()
    cut_off_at: tuple[int, ...] = ()
    fails_after: int | None = None
    stops_after: int | None = None
    keep_going: bool = False
    header: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    collapse_ignored: bool = False
    code: Callable[[int], str] = "def inc(x):\n    return x + {}".format
    feedback: str = "Wrong Answer\nInput: 1\nExpected: 2"


def make(out: Path, made: Made) -> Path:
    """Write the journal under `out`; gives the run's directory."""
    run_dir = out / made.problem / made.method / f"seed-{made.seed}"
    journal = Journal(run_dir, f"{out.name}/{made.problem}/{made.method}/seed-{made.seed}")
    journal.start(header(made))
    clock_s, done, version = 0.0, 0, 0
    while True:
        group = [attempt(made, done + 1 + g, version) for g in range(min(made.group, made.limit - done))]
        clock_s, done = clock_s + 8.0, done + len(group)
        journal.clock = Clock(clock_s)
        journal.append_group(group, sample_s=7.0, grade_s=1.0)
        solved = any(a.verdict.solved for a in group)
        if (solved and not made.keep_going) or done >= made.limit:
            break
        if made.fails_after is not None and done >= made.fails_after:
            journal.fail(SandboxError("the box broke"))
            journal.close()
            return run_dir
        if made.stops_after is not None and done >= made.stops_after:
            journal.close()
            return run_dir
        if made.method == "sdpo":
            clock_s, version = clock_s + 2.0, version + 1
            journal.clock = Clock(clock_s)
            policy = Policy(journal.run, version, run_dir / "policies" / f"{version:04}")
            metrics = {"entropy": 0.25, **made.metrics}
            done_how = (metrics, made.notices, made.collapse_ignored)
            journal.append_update(Update(policy, 0.5 / version, len(group), 40, *done_how))
    first = min((i for i in made.solved_at if i <= done), default=None)
    status = OutcomeStatus.SOLVED if first else OutcomeStatus.UNSOLVED
    journal.finish(Outcome(status, first, bool(first), done, 10 * done, clock_s))
    journal.close()
    return run_dir


def header(made: Made) -> dict[str, Any]:
    parts = {"judge": {}, made.method: {"group_size": made.group}, **made.settings}
    base = {
        "problem": made.problem,
        "method": made.method,
        "seed": made.seed,
        "model": "tiny",
        "engine": "hf",
        "feedback_mode": "public",
        "language": "python",
        "keep_going": made.keep_going,
        "budget": {"attempts": made.limit, "tokens": None, "wall_s": None},
        "n_visible": 1,
        "n_hidden": 1,
        "difficulty": None,
        "config": {
            "options": {"temperature": 1.0, "max_tokens": 64},
            "parts": parts,
            "problem": {"id": made.problem, "digest": f"digest of {made.problem}"},
            "model": "tiny at rest",
        },
        "identity": {"engine": "hf tiny", "grader": "docker image 1"},
        "versions": {"sdpo-solve": "0.1.0", "torch": "2.13.0"},
    }
    return {**base, **made.header}


def attempt(made: Made, index: int, version: int) -> Attempt:
    solved, overfits = index in made.solved_at, index in made.overfits_at
    visible = Status.ACCEPTED if solved or overfits else Status.WRONG_ANSWER
    hidden = Status.ACCEPTED if solved else Status.WRONG_ANSWER if overfits else Status.NOT_RUN
    lost = index in made.no_program_at or index in made.cut_off_at
    code = None if lost else made.code(index)
    finish = Finish.LENGTH if index in made.cut_off_at else Finish.STOP
    if lost:
        visible = hidden = Status.NO_CODE
    policy = Policy("x", version)
    sample = Sample(PROMPT, (1, 2), tuple(range(10)), (-0.5,) * 10, f"```python\n{code}\n```", finish, policy)
    cases = (Case(0, visible, True, output="7"), Case(1, hidden, False))
    return Attempt(index, sample, code, Verdict(cases), "Accepted" if solved else made.feedback)


def damage(run_dir: Path, line: int) -> str:
    """Make this line of the journal (1-based) no event; gives the place as messages name it."""
    path = run_dir / "journal.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    lines[line - 1] = "no event\n"
    path.write_text("".join(lines))
    return f"{path}, line {line}"
