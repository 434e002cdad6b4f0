"""The loop of a run: sample, grade, give feedback, learn, until solved or spent.

Each arrow of the design is one call here. Nothing is printed (a display listens to the journal), no method,
engine or sandbox is known by name, and nothing is caught: an error of a part ends the run, and repeating the
command goes on from the journal.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

from sdpo_solve.errors import JournalError
from sdpo_solve.grading import feedback
from sdpo_solve.paths import file_errors
from sdpo_solve.protocols import MixingEngine, Sampler
from sdpo_solve.run.build import Run
from sdpo_solve.sandboxes import languages
from sdpo_solve.types import Attempt, Outcome, OutcomeStatus, Policy, Prompt, Sample, SamplingSpec, Verdict


def solve(run: Run) -> Outcome:
    """A run from where its journal ends to its end (arXiv 2601.20802, section 5, Algorithm 1).

    Raises RunError when a part fails; the journal then ends with the last whole group or update.
    """
    journal = run.journal
    journal.start(run.header)
    if journal.state.outcome is not None:
        return journal.state.outcome
    policy = run.method.start(run.problem, journal.last_policy)
    group = journal.unlearned_group
    while not ended(run):
        if group:  # behind the check above: no update is paid for that nobody will use
            policy = learn(run, policy, group)
        group = next_group(run, policy)
    return journal.finish(outcome(run))


def learn(run: Run, policy: Policy, group: list[Attempt]) -> Policy:
    """The policy after learning from a group: `policy` itself where the method makes no update."""
    if not run.method.learns:
        return policy
    run.journal.note("learning", size=len(group))
    update = run.method.learn(run.problem, run.journal.history, group)
    if update is None:
        return policy
    run.journal.append_update(update)
    return update.policy


def next_group(run: Run, policy: Policy) -> list[Attempt]:
    """The next group, sampled, graded and recorded; each attempt with the feedback on it."""
    journal, problem = run.journal, run.problem
    n_left = run.options.attempts - len(journal.history)
    prompts_G = run.method.propose(problem, journal.history, n_left)
    first = len(journal.history) + 1
    seeds_G = [attempt_seed(run.options.seed, problem.id, first + g) for g in range(len(prompts_G))]
    started_s = journal.elapsed_s
    journal.note("sampling", first=first, size=len(prompts_G))
    policies_G = run.method.policies(journal.history, policy, prompts_G)
    samples_G = sample_each(run.engine, prompts_G, seeds_G, policies_G, run.spec)
    sampled_s = journal.elapsed_s
    journal.note("grading", size=len(samples_G))
    extracted_G = [run.grader.extract(problem, sample) for sample in samples_G]
    codes_G = [extracted.code for extracted in extracted_G]
    verdicts_G = run.grader.grade(
        problem, codes_G, on_verdict=lambda g, v: announce_verdict(run, first + g, v)
    )
    graded_s = journal.elapsed_s
    group = []
    for g, (sample, extracted, verdict) in enumerate(zip(samples_G, extracted_G, verdicts_G, strict=True)):
        text = feedback.render(problem, extracted, verdict, run.feedback_options)
        group.append(Attempt(first + g, sample, extracted.code, verdict, text))
    journal.append_group(group, sample_s=sampled_s - started_s, grade_s=graded_s - sampled_s)
    return group


def announce_verdict(run: Run, index: int, verdict: Verdict) -> None:
    """Let listeners know a verdict before its group is complete; the record follows with the group."""
    cases = [{"status": case.status.value, "visible": case.visible} for case in verdict.cases]
    run.journal.note("graded", index=index, solved=verdict.solved, cases=cases)


def sample_each(
    engine: Sampler,
    prompts_G: Sequence[Prompt],
    seeds_G: Sequence[int],
    policies_G: Sequence[Policy],
    spec: SamplingSpec,
) -> list[Sample]:
    """One sample a prompt, in order, each from its policy: in one call where the engine can mix policies."""
    if len(set(policies_G)) > 1 and isinstance(engine, MixingEngine):
        return engine.sample_mixed(prompts_G, seeds_G, policies_G, spec)
    samples: dict[int, Sample] = {}
    for policy in dict.fromkeys(policies_G):
        own = [g for g, other in enumerate(policies_G) if other == policy]
        prompts, seeds = [prompts_G[g] for g in own], [seeds_G[g] for g in own]
        samples |= dict(zip(own, engine.sample(prompts, seeds, policy, spec), strict=True))
    return [samples[g] for g in range(len(prompts_G))]


def write_solution(run: Run) -> None:
    """Write the program of the first success beside the journal, as `solution.py` in Python.

    Raises JournalError where it cannot be written.
    """
    first = first_success(run)
    if first is None or first.code is None:
        return
    path = solution_path(run.journal.run_dir, run.options.language)
    with file_errors(JournalError, f"write {path}", "free the disk and repeat"):
        path.write_bytes(first.code.encode("utf-8", "replace") + b"\n")


def solution_path(run_dir: Path, language: str) -> Path:
    """Where the program of a solved run lies."""
    return run_dir / languages.get(language).source


def first_success(run: Run) -> Attempt | None:
    """The first attempt that solved the problem, by `Verdict.solved`."""
    return next((attempt for attempt in run.journal.history if attempt.verdict.solved), None)


def ended(run: Run) -> bool:
    """Whether the run is solved (where the first success stops it), or attempts, tokens or time are spent."""
    if not run.options.keep_going and first_success(run) is not None:
        return True
    return run.options.budget.is_spent(len(run.journal.history), tokens_spent(run), run.journal.elapsed_s)


def outcome(run: Run) -> Outcome:
    """The outcome of a run that has ended."""
    first = first_success(run)
    unconfirmed = False if run.problem.has_hidden else None
    return Outcome(
        status=OutcomeStatus.SOLVED if first else OutcomeStatus.UNSOLVED,
        discovery_time=first.index if first else None,
        confirmed=first.verdict.confirmed if first else unconfirmed,
        attempts=len(run.journal.history),
        tokens=tokens_spent(run),
        wall_s=math.ceil(run.journal.elapsed_s * 1000) / 1000,  # never below a budget that it spent
    )


def tokens_spent(run: Run) -> int:
    """Tokens generated so far."""
    return sum(len(attempt.sample.token_ids_T) for attempt in run.journal.history)


def attempt_seed(seed: int, problem_id: str, index: int) -> int:
    """The sampling seed of attempt `index`: the same for every method, so that arms can be paired."""
    digest = hashlib.sha256(f"{seed}/{problem_id}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
