"""Typed records of a run's events: what each line of `journal.jsonl` holds, and what is announced besides.

`record_of` validates one event, `events.py` reads files of them. Token ids and log-probs are counted only.
Fields that older journals lack have defaults, and keys that a record does not name are ignored, so that old,
packed and newer journals are read alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, InstanceOf, field_validator, model_validator

from sdpo_solve.config import RunOptions
from sdpo_solve.types import Finish, OutcomeStatus, Status

Event = Mapping[str, Any]
"""An event as it is written: one JSON object, its kind under `event`."""

RawText = InstanceOf[str]
"""A text that a file, a model or a program wrote: any str, lone surrogates too, which pydantic refuses."""


class Record(BaseModel):
    """Base of all records. `run` names the run within a batch; `replayed` marks what a resume repeats."""

    model_config = ConfigDict(frozen=True)

    event: str = ""
    run: RawText = ""
    time: float = 0.0
    """Seconds since the epoch."""
    elapsed_s: float | None = None
    """The run's clock (see `clock.py`), pauses between its processes left out."""
    replayed: bool = False


class RunStarted(Record):
    """The header of a run: what it is, and everything that its figures depend on."""

    model_config = ConfigDict(frozen=True, extra="allow")

    problem: RawText = ""
    method: RawText = ""
    arm: RawText | None = None
    seed: int | None = None
    model: RawText | None = None
    engine: str = "unknown"
    feedback_mode: str = "unknown"
    language: str = "python"
    keep_going: bool = False
    budget: Mapping[str, int | float | None] = {}
    n_hidden: int = 0
    difficulty: RawText | None = None
    config: Mapping[str, Any] = {}
    identity: Mapping[str, Any] = {}
    versions: Mapping[str, Any] = {}

    @field_validator("config")
    @classmethod
    def _has_tables(cls, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """What readers look up in it are tables, where an early journal does not lack them."""
        tables = {name: config.get(name, {}) for name in ("options", "parts", "problem")}
        if isinstance(tables["parts"], Mapping):
            tables |= {f"parts.{name}": part for name, part in tables["parts"].items()}
        if wrong := [name for name, table in tables.items() if not isinstance(table, Mapping)]:
            raise ValueError(f"{wrong[0]} is no table")
        return config

    @property
    def is_named(self) -> bool:
        """Whether it identifies the run; the header of a journal that just begins may not."""
        return bool(self.problem and self.method and self.seed is not None)

    @property
    def arm_name(self) -> str:
        """What the run is compared as: its method, unless the arm was named."""
        return self.arm or self.method or "?"

    @property
    def name(self) -> str:
        return f"{self.problem}/{self.arm_name}/seed-{self.seed}"

    @property
    def model_identity(self) -> str | None:
        """Digest of the weights, as the run was configured."""
        return self.config.get("model")

    @property
    def options(self) -> Mapping[str, Any]:
        """The run's own options (temperature, max_tokens, ...)."""
        return dict(self.config.get("options", {}))

    @property
    def parts(self) -> Mapping[str, Mapping[str, Any]]:
        """Options of the parts: learner, judge, engine, sandbox, the method."""
        return dict(self.config.get("parts", {}))

    @property
    def extract(self) -> str:
        """The rule that took programs out of answers; older journals do not say it."""
        return str({**RunOptions.before_the_option, **self.options}["extract"])

    @property
    def attempts_limit(self) -> int | None:
        limit = self.budget.get("attempts")
        return limit if isinstance(limit, int) else None

    @property
    def wall_limit_s(self) -> float | None:
        return self.budget.get("wall_s")


class CaseResult(BaseModel):
    """The verdict on one test."""

    model_config = ConfigDict(frozen=True)

    status: Status
    visible: bool


class Graded(Record):
    """The verdict on one attempt."""

    index: int
    solved: bool
    cases: tuple[CaseResult, ...]

    @property
    def n_passed(self) -> int:
        return sum(case.status is Status.ACCEPTED for case in self.cases)

    @property
    def passed_all(self) -> bool:
        return bool(self.cases) and self.n_passed == len(self.cases)

    @property
    def is_overfit(self) -> bool:
        """Every quotable test passed (there is one) and a held-out one failed."""
        quotable = [case.status is Status.ACCEPTED for case in self.cases if case.visible]
        return bool(quotable) and all(quotable) and not self.passed_all


class AttemptEvent(Graded):
    """One graded attempt, its texts raw as a model or a program wrote them."""

    n_tokens: int
    version: int = 0
    """Of the policy that sampled it."""
    prompt: RawText = ""
    """The name of its prompt within the journal."""
    text: RawText = ""
    code: RawText | None = None
    feedback: RawText = ""
    finish: Finish = Finish.STOP

    @property
    def has_no_program(self) -> bool:
        """Nothing could be graded: no program was found in the answer."""
        return any(case.status is Status.NO_CODE for case in self.cases)

    @property
    def is_cut_off(self) -> bool:
        """It has no program, and the token limit ended it."""
        return self.has_no_program and self.finish is Finish.LENGTH

    @model_validator(mode="before")
    @classmethod
    def _flatten(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Count in place of token ids (packed journals hold it), version in place of the policy."""
        ids = data.get("token_ids")
        counted = {} if ids is None else {"n_tokens": ids if isinstance(ids, int) else len(ids)}
        version = {"version": data["policy"]["version"]} if "policy" in data else {}
        return {**data, **counted, **version}


class GroupEvent(Record):
    """The attempts before it are whole and graded."""

    size: int
    n_solved: int
    n_tokens: int
    sample_s: float
    grade_s: float
    first: int = 0


class UpdateEvent(Record):
    """One update: the policy version it made and the learner's figures (units in their names)."""

    version: int
    loss: float | None = None
    n_examples: int = 0
    n_tokens: int = 0
    metrics: Mapping[str, float | None] = {}
    notices: tuple[RawText, ...] = ()
    """What was done instead of an ordinary step, a sentence each."""
    collapse_ignored: bool = False
    """A health rule saw a collapsed policy, and the learner's options say to go on."""

    @model_validator(mode="before")
    @classmethod
    def _from_older(cls, data: dict[str, Any]) -> dict[str, Any]:
        return {**data, "collapse_ignored": collapse_ignored(data)}


def collapse_ignored(update: Event) -> bool:
    """Whether the learner went on with a policy that a health rule found collapsed.

    Journals from before the field hold it in the words of a notice only.
    """
    given: bool | None = update.get("collapse_ignored")
    return any("looks collapsed (" in text for text in update.get("notices", ())) if given is None else given


class RunFailed(Record):
    """The run broke off here; it may be taken up again."""

    error: RawText
    kind: str = ""
    """Name of the class of the error."""


class RunFinished(Record):
    """The end of a run. `discovery_time`: 1-based index of the first solving attempt, None if censored."""

    status: OutcomeStatus
    discovery_time: int | None
    attempts: int
    tokens: int
    wall_s: float
    confirmed: bool | None = None


# -- announced, never written --------------------------------------------------------------------------------


class RunResumed(Record):
    """A run goes on from its journal."""

    attempts: int
    updates: int


class Phase(Record):
    """`event` sampling, grading or learning begins, with `size` attempts."""

    size: int


class TokensSampled(Record):
    """Counts within the group that is being sampled."""

    n_tokens: int
    n_finished: int


class Notice(Record):
    """A sentence for the user; in a batch passed on once, where it says `once`."""

    text: RawText
    once: bool = False


# -- reading one ---------------------------------------------------------------------------------------------

KINDS: Mapping[str, type[Record]] = {
    "run_started": RunStarted,
    "attempt": AttemptEvent,
    "group": GroupEvent,
    "update": UpdateEvent,
    "run_failed": RunFailed,
    "run_finished": RunFinished,
    "run_resumed": RunResumed,
    "sampling": Phase,
    "grading": Phase,
    "learning": Phase,
    "progress": TokensSampled,
    "graded": Graded,
    "notice": Notice,
}
CLOSING = (RunStarted, GroupEvent, UpdateEvent, RunFailed, RunFinished)
"""Kinds after which nothing that was written before is taken back by a resume."""


def record_of(event: Event, kinds: Mapping[str, type[Record]] = KINDS) -> Record | None:
    """The event as a record; None for a kind that is not in `kinds` (a newer version's, another room's).

    Raises ValueError (pydantic.ValidationError), KeyError or TypeError for an event that lacks what its kind
    holds.
    """
    kind = kinds.get(event["event"])
    return None if kind is None else kind.model_validate(event)
