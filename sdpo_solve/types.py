"""The nouns of the project as frozen records (standard library only).

They do no input or output, and know nothing of engines, sandboxes or learners. Words: see the README.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal


class Kind(StrEnum):
    """How a problem talks to a program."""

    STDIN = "stdin"
    """Reads a text from standard input, writes its answer to standard output."""
    FUNCTION = "function"
    """Defines `entry_point`; a test is a list of arguments and the value expected back."""
    ASSERTS = "asserts"
    """Defines `entry_point`; a test is one assert statement."""


class Status(StrEnum):
    """What became of one test case."""

    ACCEPTED = "accepted"
    """The answer is right."""
    WRONG_ANSWER = "wrong_answer"
    """It ran to its end and the answer is not right."""
    RUNTIME_ERROR = "runtime_error"
    """It raised, crashed, or ended without giving an answer."""
    COMPILE_ERROR = "compile_error"
    """It cannot be compiled, so no test ran."""
    TIME_LIMIT = "time_limit"
    """It used more than its processor or wall time."""
    MEMORY_LIMIT = "memory_limit"
    """It used more than its memory."""
    OUTPUT_LIMIT = "output_limit"
    """It wrote more than the sandbox keeps."""
    NO_CODE = "no_code"
    """The answer holds no code block."""
    NOT_RUN = "not_run"
    """Left out, because the verdict was already decided."""


class ExecutionStatus(StrEnum):
    """What became of one process in the sandbox. There is no 'right' or 'wrong' in the box."""

    OK = "ok"
    """Ended by itself with exit code 0 and, for calls, gave every value back."""
    RUNTIME_ERROR = "runtime_error"
    COMPILE_ERROR = "compile_error"
    TIME_LIMIT = "time_limit"
    MEMORY_LIMIT = "memory_limit"
    OUTPUT_LIMIT = "output_limit"
    NOT_RUN = "not_run"


class Finish(StrEnum):
    """Why a sample ended."""

    STOP = "stop"
    """The model ended its answer, or a stop string was met."""
    LENGTH = "length"
    """The token limit cut it off."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one test may use: processor seconds, and MiB of memory."""

    time_s: float = 6.0
    memory_mb: int = 512


@dataclass(frozen=True, slots=True)
class Checker:
    """How an answer is compared (`grading/checkers.py`); `program`: source of that checker, in `language`."""

    name: Literal[
        "exact", "tokens", "float", "livecodebench", "codecontests", "apps", "python", "set", "not-none",
        "program"] = "exact"  # fmt: skip
    tolerance: float = 0.0
    ignore_case: bool = False
    program: str = ""
    language: str = "python"

    @property
    def is_program(self) -> bool:
        return self.name == "program"


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the entry point, over plain values (see `sandboxes/wire_values.py`)."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TestCase:
    """One test. `input` is a text (stdin), a list of arguments (function) or an assert statement (asserts).

    `visible` says whether feedback may quote it. `expected` stays on the host, always.
    """

    __test__ = False  # not a pytest class

    input: Any
    expected: Any
    visible: bool


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Problem:
    """One problem, whatever file it came from. `limits` are for one test."""

    id: str
    statement: str
    kind: Kind
    tests: tuple[TestCase, ...]
    entry_point: str | None = None
    """A function name, or `Class.method` (the class is made anew without arguments)."""
    starter_code: str | None = None
    limits: Limits = Limits()
    checker: Checker = Checker()
    reference: str | None = None
    preamble: str = ""
    """Code run before the program in the same namespace, without shifting the program's line numbers."""
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def has_hidden(self) -> bool:
        return any(not test.visible for test in self.tests)


# -- prompts and samples -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Message:
    """One chat turn, as text."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """Chat turns that end where the assistant is to speak. Text only: token ids come from the engine."""

    messages: tuple[Message, ...]
    thinking: bool = False
    """What the chat template's `enable_thinking` gets; templates without such a switch ignore it."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Weights to sample from, as a value; no pair of `run` and `version` is ever reused.

    `adapter_dir` is the PEFT adapter on disk; None means the base model.
    """

    run: str
    version: int
    adapter_dir: Path | None = None

    @property
    def key(self) -> str:
        """The name that engines and learners file it under."""
        return f"{self.run}@{self.version}"


@dataclass(frozen=True, slots=True)
class SamplingSpec:
    """How to sample: the same for every arm of a comparison. No top-p and no top-k: log-probs stay exact."""

    max_tokens: int
    temperature: float = 1.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What the engine returned for one prompt.

    `token_ids_T` are the engine's own and are never made again from `text`; `logprobs_T` are natural
    log-probabilities of those tokens under the distribution sampled (temperature included). The end-of-turn
    token is part of both when `finish` is STOP and the model wrote it.
    """

    prompt: Prompt
    prompt_ids: tuple[int, ...]
    token_ids_T: tuple[int, ...]
    logprobs_T: tuple[float, ...]
    text: str
    finish: Finish
    policy: Policy


# -- the sandbox ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Program:
    """A program to run. With an `entry_point` its input is calls, without one it is a text on stdin."""

    code: str
    entry_point: str | None = None
    preamble: str = ""
    language: str = "python"


@dataclass(frozen=True, slots=True)
class BoxInput:
    """What one process is given: a text for standard input, or calls made one after the other."""

    stdin: str = ""
    calls: tuple[Call, ...] = ()
    output_bytes: int = 0
    """Length of a right answer, as text or in wire form, so that the caps on output leave room for it."""


@dataclass(frozen=True, slots=True)
class Execution:
    """What came out of one process. Texts are decoded with replacement and cut at the sandbox's cap.

    `values` holds, for each call that returned, its value in wire form (`wire_values.decode`, in the room
    of sandboxes); it is written by the process under test and is as trustworthy as its standard output.
    """

    status: ExecutionStatus
    stdout: str = ""
    stderr: str = ""
    exit_code: int | None = None
    cpu_s: float = 0.0
    wall_s: float = 0.0
    peak_mb: float = 0.0
    values: tuple[str, ...] = ()


# -- verdicts ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Extracted:
    """The program in an answer, or None; `cut_off`: there is none because the answer ended too early."""

    code: str | None
    cut_off: bool = False


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a wrong answer first differs: excerpts, `_at` the place in them, `_chars` the whole length."""

    place: str
    output: str
    output_at: int
    output_chars: int
    expected: str
    expected_at: int
    expected_chars: int


@dataclass(frozen=True, slots=True)
class Case:
    """Test `index` (0-based) of a verdict. `output` and `error` are capped, untrusted texts."""

    index: int
    status: Status
    visible: bool
    cpu_s: float = 0.0
    wall_s: float = 0.0
    peak_mb: float = 0.0
    output: str = ""
    error: str = ""
    difference: Difference | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """One case for each test, in order. `quoted_half`: of `paper` mode, the quotable ones decide `solved`."""

    cases: tuple[Case, ...]
    quoted_half: bool = False

    @property
    def passed_visible(self) -> bool:
        """Every test that feedback may quote passed (true where there is none)."""
        return all(case.status is Status.ACCEPTED for case in self.cases if case.visible)

    @property
    def passed_hidden(self) -> bool:
        """Every held-out test passed (true where there is none)."""
        return all(case.status is Status.ACCEPTED for case in self.cases if not case.visible)

    @property
    def passed_all(self) -> bool:
        return bool(self.cases) and self.passed_visible and self.passed_hidden

    @property
    def solved(self) -> bool:
        """Stops a run: every test, or in `paper` mode the quotable ones."""
        return bool(self.cases) and self.passed_visible and (self.quoted_half or self.passed_hidden)

    @property
    def confirmed(self) -> bool | None:
        """Every test passed; None where none is held out."""
        return self.passed_all if any(not case.visible for case in self.cases) else None

    @property
    def first_failure(self) -> Case | None:
        return next((c for c in self.cases if c.status not in (Status.ACCEPTED, Status.NOT_RUN)), None)

    @property
    def n_passed(self) -> int:
        return sum(case.status is Status.ACCEPTED for case in self.cases)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A graded sample, the unit of budget: with its program, verdict and feedback. `index` is 1-based."""

    index: int
    sample: Sample
    code: str | None
    verdict: Verdict
    feedback: str


# -- learning ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Example:
    """An attempt as the learner sees it: sample, teacher's prompt (None: no teacher), reward in 0..1."""

    sample: Sample
    teacher_prompt: Prompt | None
    reward: float


@dataclass(frozen=True, slots=True)
class Update:
    """One gradient step: the policy after it, and what was measured (units in the metric names).

    `notices`: what was done instead of a plain step. `collapse_ignored`: went on with a collapsed policy.
    """

    policy: Policy
    loss: float
    n_examples: int
    n_tokens: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    collapse_ignored: bool = False


# -- budgets and outcomes ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Budget:
    """What a run may spend. None: no limit. Tokens are generated ones; all are checked between groups."""

    attempts: int
    tokens: int | None = None
    wall_s: float | None = None

    def is_spent(self, attempts: int, tokens: int, wall_s: float) -> bool:
        """Whether these use up any of the limits."""
        limits = ((self.attempts, attempts), (self.tokens, tokens), (self.wall_s, wall_s))
        return any(limit is not None and used >= limit for limit, used in limits)


class OutcomeStatus(StrEnum):
    """How a run ended; unsolved: its budget is spent (earlier journals call it budget_spent)."""

    SOLVED = "solved"
    UNSOLVED = "unsolved"

    @classmethod
    def _missing_(cls, value: object) -> OutcomeStatus | None:
        return cls.UNSOLVED if value == "budget_spent" else None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a run. `discovery_time`: 1-based index of the first solving attempt, None if censored."""

    status: OutcomeStatus
    discovery_time: int | None
    confirmed: bool | None
    attempts: int
    tokens: int
    wall_s: float
