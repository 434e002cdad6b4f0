"""The loop: sample, grade, tell, learn, until solved or spent. Every arrow of the design is one call here.

It prints nothing (a display listens to the journal), knows no method, engine or sandbox by name, and catches
nothing: an error of a part ends the run, and repeating the command goes on from the journal.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence

from sdpo_solve.errors import JournalError
from sdpo_solve.grading import feedback
from sdpo_solve.run.build import Run
from sdpo_solve.sandboxes import languages
from sdpo_solve.types import Attempt, Outcome, OutcomeStatus, Policy


def solve(run: Run) -> Outcome:
    """Run to its end, or on from where its journal ends (arXiv 2601.20802, section 5, Algorithm 1).

    Raises RunError when a part fails; the journal then ends with the last whole group or update.
    """
    journal = run.journal
    if journal.state.outcome is not None:
        return journal.state.outcome
    policy = run.method.start(run.problem, journal.last_policy)
    group: Sequence[Attempt] = journal.unlearned_group
    while not ended(run):
        if group:  # learning comes after the check above: no update is paid for that nobody will use
            journal.note("learning", size=len(group))
            update = run.method.learn(run.problem, journal.history, group)
            if update is not None:
                policy = update.policy
                journal.append_update(update)
        group = next_group(run, policy)
    return journal.finish(outcome(run))


def next_group(run: Run, policy: Policy) -> list[Attempt]:
    """Sample, grade and record one group; its attempts carry the feedback the model will hear."""
    journal, problem = run.journal, run.problem
    prompts_G = run.method.propose(problem, journal.history, attempts_left(run))
    first = len(journal.history) + 1
    seeds_G = [attempt_seed(run.seed, problem.id, first + g) for g in range(len(prompts_G))]
    started_s = time.monotonic()
    journal.note("sampling", first=first, size=len(prompts_G))
    samples_G = run.engine.sample(prompts_G, seeds_G, policy, run.spec)
    sampled_s = time.monotonic()
    journal.note("grading", size=len(samples_G))
    extracted_G = [run.grader.extract(problem, sample) for sample in samples_G]
    verdicts_G = run.grader.grade(problem, [extracted.code for extracted in extracted_G])
    graded_s = time.monotonic()
    group = []
    for g, (sample, extracted, verdict) in enumerate(zip(samples_G, extracted_G, verdicts_G, strict=True)):
        text = feedback.render(problem, extracted, verdict, run.feedback_options)
        group.append(Attempt(first + g, sample, extracted.code, verdict, text))
    journal.append_group(group, sample_s=sampled_s - started_s, grade_s=graded_s - sampled_s)
    return group


def write_solution(run: Run) -> None:
    """`solution.py` (or `.cpp`) beside the journal: the program of the first success.

    Raises JournalError where it cannot be written.
    """
    first = next((attempt for attempt in run.journal.history if attempt.verdict.solved), None)
    if first is not None and first.code is not None:
        text = first.code.encode("utf-8", "replace")
        path = run.journal.run_dir / languages.get(run.language).source
        try:
            path.write_bytes(text + b"\n")
        except OSError as exc:
            raise JournalError(
                f"cannot write {path}: {exc.strerror or exc}; free the disk and repeat"
            ) from None


def ended(run: Run) -> bool:
    """Solved (where the first success stops the run), or something of the budget is spent."""
    journal, budget = run.journal, run.budget
    if run.stop_at_first and any(attempt.verdict.solved for attempt in journal.history):
        return True
    return (
        (budget.attempts is not None and len(journal.history) >= budget.attempts)
        or (budget.tokens is not None and tokens_spent(run) >= budget.tokens)
        or (budget.wall_s is not None and journal.elapsed_s >= budget.wall_s)
    )


def outcome(run: Run) -> Outcome:
    """The outcome of a run that has ended."""
    history = run.journal.history
    first = next((attempt for attempt in history if attempt.verdict.solved), None)
    unconfirmed = False if run.problem.has_hidden else None
    return Outcome(
        status=OutcomeStatus.SOLVED if first else OutcomeStatus.BUDGET_SPENT,
        discovery_time=first.index if first else None,
        confirmed=first.verdict.confirmed if first else unconfirmed,
        attempts=len(history),
        tokens=tokens_spent(run),
        wall_s=round(run.journal.elapsed_s, 3),
    )


def attempts_left(run: Run) -> int:
    """How many attempts the budget leaves; a large number where attempts are not limited."""
    if run.budget.attempts is None:
        return 2**31
    return run.budget.attempts - len(run.journal.history)


def tokens_spent(run: Run) -> int:
    return sum(len(attempt.sample.token_ids_T) for attempt in run.journal.history)


def attempt_seed(seed: int, problem_id: str, index: int) -> int:
    """The sampling seed of attempt `index`: the same for every method, so that arms can be paired."""
    digest = hashlib.sha256(f"{seed}/{problem_id}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
