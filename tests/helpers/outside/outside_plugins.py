"""Plug-ins of another package, as `tests/repo/test_plugins.py` adds them: one of each kind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from sdpo_solve.config import Options
from sdpo_solve.datasets import Format
from sdpo_solve.datasets.selection import Candidate
from sdpo_solve.engines import EngineParts, EnginePlugin
from sdpo_solve.methods import MethodParts, MethodPlugin
from sdpo_solve.methods.prompts import Prompter
from sdpo_solve.protocols import Sandbox, StopAfter
from sdpo_solve.sandboxes import SandboxPlugin
from sdpo_solve.sandboxes.languages import Language
from sdpo_solve.types import (
    Attempt,
    BoxInput,
    Execution,
    ExecutionStatus,
    Finish,
    Kind,
    Limits,
    Policy,
    Problem,
    Program,
    Prompt,
    Sample,
    SamplingSpec,
    TestCase,
)

PLAIN_PYTHON = Language(
    name="plain-python",
    title="Python",
    suffixes=(".plain",),
    fence_tags=("plain-python",),
    probe="print('Python')",
    run=("python3", "solution.plain"),
)


class PairOptions(Options):
    """Options of the method."""

    group_size: int = Field(2, ge=1)


@dataclass(frozen=True)
class Pairs(MethodPlugin):
    """Samples two attempts at a time."""

    prompter: Prompter
    run: str
    options: PairOptions

    options_type = PairOptions
    independent = True

    @classmethod
    def build(cls, options: PairOptions, parts: MethodParts) -> Pairs:
        return cls(parts.prompter, parts.run, options)

    def start(self, problem: Problem, resume_from: Policy | None) -> Policy:
        return Policy(self.run, 0)

    def propose(self, problem: Problem, history: Sequence[Attempt], n: int) -> list[Prompt]:
        return [self.prompter.student(problem)] * min(n, self.options.group_size)


class CountingOptions(Options):
    """Options of the engine."""

    right_at: int = Field(3, ge=1, description="the sample of a run that is right")


class CountingEngine(EnginePlugin):
    """Answers without a model: wrong until a sample that an option names."""

    options_type = CountingOptions
    needs_model = False
    reads_replies = False

    def __init__(self, options: CountingOptions) -> None:
        self.options, self.n = options, 0

    @classmethod
    def build(cls, options: CountingOptions, parts: EngineParts) -> CountingEngine:
        return cls(options)

    def sample(
        self, prompts_G: Sequence[Prompt], seeds_G: Sequence[int], policy: Policy, spec: SamplingSpec
    ) -> list[Sample]:
        samples = []
        for prompt in prompts_G:
            self.n += 1
            answer = "int(input()) + 1" if self.n == self.options.right_at else "0"
            text = f"```plain-python\nprint({answer})\n```"
            samples.append(Sample(prompt, (1,), (2, 3), (0.0, 0.0), text, Finish.STOP, policy))
        return samples

    def identity(self) -> str:
        return "counting"

    def close(self) -> None:
        pass


class ProcessOptions(Options):
    """Options of the sandbox."""

    seconds: float = Field(20.0, gt=0)


class PlainProcess(SandboxPlugin):
    """Runs a program as a process of this machine: no sandbox at all, for trusted programs of tests."""

    options_type = ProcessOptions
    verdict_options = frozenset({"seconds"})

    def __init__(self, options: ProcessOptions) -> None:
        self.options = options

    @classmethod
    def build(cls, options: ProcessOptions, language: str) -> PlainProcess:
        return cls(options)

    def run(
        self,
        program: Program,
        inputs: Sequence[BoxInput],
        limits: Limits,
        stop_after: StopAfter | None = None,
    ) -> list[Execution]:
        results = []
        for number, given in enumerate(inputs):
            done = subprocess.run(
                [sys.executable, "-c", program.code],
                input=given.stdin,
                capture_output=True,
                text=True,
                timeout=self.options.seconds,
            )
            status = ExecutionStatus.OK if done.returncode == 0 else ExecutionStatus.RUNTIME_ERROR
            results.append(Execution(status, done.stdout, done.stderr, done.returncode))
            if stop_after is not None and stop_after(number, results[-1]):
                break
        return results + [Execution(ExecutionStatus.NOT_RUN)] * (len(inputs) - len(results))

    def identity(self) -> str:
        return "plain process"

    def close(self) -> None:
        pass


class Successors(Format):
    """A file of numbers: for each the problem to print its successor."""

    schemes: ClassVar = {"successors": "successors:FILE"}

    @classmethod
    def candidates(cls, source: str, sandbox: Callable[[], Sandbox]) -> Iterator[Candidate]:
        for line in Path(source).read_text().split():
            number = int(line)
            tests = (TestCase(f"{number}\n", f"{number + 1}\n", True), TestCase("7\n", "8\n", False))
            problem = Problem(f"after-{number}", "Print the next number.", Kind.STDIN, tests)
            yield Candidate(lambda problem=problem: problem, problem.id)
