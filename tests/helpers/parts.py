"""Small parts for tests of logic: an engine that says what it is told, a grader that reads the code, no box."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from sdpo_solve.config import RunOptions
from sdpo_solve.grading import feedback
from sdpo_solve.grading.extract import between_last_fences
from sdpo_solve.methods.prompts import Prompter
from sdpo_solve.protocols import OnVerdict
from sdpo_solve.run.build import Run
from sdpo_solve.run.journal import Journal, Listener
from sdpo_solve.types import (
    Attempt,
    Budget,
    Case,
    Extracted,
    Finish,
    Kind,
    Policy,
    Problem,
    Prompt,
    Sample,
    SamplingSpec,
    Status,
    TestCase,
    Update,
    Verdict,
)

PROBLEM = Problem(
    "inc",
    "Add one.",
    Kind.FUNCTION,
    (TestCase([1], 2, True), TestCase([2], 3, False)),
    entry_point="inc",
)


def answer(code: str) -> str:
    return f"```python\n{code}\n```"


class SayEngine:
    """Says `reply(seed, policy, n)` for the n-th sample; five tokens each."""

    def __init__(self, reply: Callable[[int, Policy, int], str]) -> None:
        self.reply = reply
        self.calls: list[tuple[int, Policy]] = []

    def sample(
        self, prompts_G: Sequence[Prompt], seeds_G: Sequence[int], policy: Policy, spec: SamplingSpec
    ) -> list[Sample]:
        samples = []
        for prompt, seed in zip(prompts_G, seeds_G, strict=True):
            text = self.reply(seed, policy, len(self.calls))
            self.calls.append((seed, policy))
            samples.append(Sample(prompt, (1, 2), (3, 4, 5, 6, 7), (-0.1,) * 5, text, Finish.STOP, policy))
        return samples

    def identity(self) -> str:
        return "say"

    def close(self) -> None:
        return


class ReadGrader:
    """`right` passes all, `visible` only the visible test, anything else fails both."""

    def extract(self, problem: Problem, sample: Sample) -> Extracted:
        return Extracted(between_last_fences(sample.text))

    def grade(
        self,
        problem: Problem,
        codes_G: Sequence[str | None],
        *,
        thorough: bool = False,
        on_verdict: OnVerdict | None = None,
    ) -> list[Verdict]:
        verdicts_G = [self._verdict(problem, code) for code in codes_G]
        for g, verdict in enumerate(verdicts_G if on_verdict else ()):
            on_verdict(g, verdict)
        return verdicts_G

    def _verdict(self, problem: Problem, code: str | None) -> Verdict:
        def status(test: TestCase) -> Status:
            if code is None:
                return Status.NO_CODE
            passed = code == "right" or (code == "visible" and test.visible)
            return Status.ACCEPTED if passed else Status.WRONG_ANSWER

        return Verdict(tuple(Case(n, status(test), test.visible) for n, test in enumerate(problem.tests)))


class CountMethod:
    """Groups of `size`; every `learn` makes the next version, without weights."""

    def __init__(self, size: int, run: str, learns: bool = True) -> None:
        self.size, self.run, self.learns = size, run, learns
        self.version = 0
        self.learned: list[list[int]] = []

    def start(self, problem: Problem, resume_from: Policy | None) -> Policy:
        self.version = resume_from.version if resume_from else 0
        return Policy(self.run, self.version)

    def propose(self, problem: Problem, history: Sequence[Attempt], n: int) -> list[Prompt]:
        return [Prompter().student(problem)] * min(n, self.size)

    def policies(
        self, history: Sequence[Attempt], policy: Policy, prompts_G: Sequence[Prompt]
    ) -> list[Policy]:
        return [policy] * len(prompts_G)

    def learn(self, problem: Problem, history: Sequence[Attempt], group: Sequence[Attempt]) -> Update | None:
        if not self.learns:
            return None
        self.learned.append([attempt.index for attempt in group])
        self.version += 1
        return Update(Policy(self.run, self.version), 0.5, len(group), 5 * len(group), {"entropy": 0.25})


def make_run(
    run_dir: Path,
    engine: SayEngine,
    *,
    size: int = 4,
    budget: Budget | None = None,
    stop_at_first: bool = True,
    learns: bool = True,
    listeners: Sequence[Listener] = (),
    problem: Problem = PROBLEM,
) -> Run:
    budget = budget or Budget(attempts=10)
    journal = Journal(run_dir, "test/inc", listeners)
    header = {"problem": problem.id, "method": "count", "seed": 0, "config": {}}
    return Run(
        problem=problem,
        method=CountMethod(size, "test/inc", learns),
        engine=engine,
        grader=ReadGrader(),
        journal=journal,
        options=RunOptions(
            attempts=budget.attempts,
            tokens=budget.tokens,
            wall_seconds=budget.wall_s,
            keep_going=not stop_at_first,
        ),
        spec=SamplingSpec(max_tokens=16),
        feedback_options=feedback.Options(),
        header={**header, "budget": asdict(budget)},
    )
