"""Reading `journal.jsonl`: as records for reports and displays, as the `State` that a run goes on from.

Also makes the events that `journal.py` writes. The forms of all events are in `records.py`.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sdpo_solve.errors import JournalError
from sdpo_solve.paths import file_errors
from sdpo_solve.run.records import CLOSING, Event, Record, RunStarted, collapse_ignored, record_of
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

FILE_NAME = "journal.jsonl"
# Within a JSON string a quote has a backslash before it, so that these bytes begin a list and nothing else.
_NUMBERS = (b'"token_ids": [', b'"logprobs": [')


@dataclass
class State:
    """The closed part of a journal, replayed. `end` is its length in bytes."""

    header_event: dict[str, Any] = field(default_factory=dict)
    """The header as it is written, `event` and `time` left out; empty before the run has begun."""
    history: list[Attempt] = field(default_factory=list)
    last_group: list[Attempt] = field(default_factory=list)
    updates: list[Update] = field(default_factory=list)
    outcome: Outcome | None = None
    elapsed_s: float = 0.0
    end: int = 0
    prompts: dict[str, tuple[Prompt, tuple[int, ...]]] = field(default_factory=dict)
    learned: bool = True
    failures: list[str] = field(default_factory=list)
    """The message of each failure since the run was last finished, oldest first; a run may have gone on."""

    @property
    def header(self) -> RunStarted:
        """What the run is. Raises pydantic.ValidationError for fields of a wrong form."""
        return RunStarted.model_validate(self.header_event)


def read_events(
    path: Path, start: int = 0, *, n_before: int = 0, numbers: bool = True
) -> Iterator[tuple[dict[str, Any], int]]:
    """The events of a journal with the offset behind each, a torn last line left out.

    `start`: an offset that an earlier reading gave, to go on from there; `n_before` lines lie before it.
    `numbers` false: lists of token ids and log-probs come as their lengths, for readers of many journals.
    Raises JournalError naming file and line for anything else that is not an event.
    """
    end = start
    with file_errors(JournalError, f"read {path}"), path.open("rb") as file:
        file.seek(start)
        for number, line in enumerate(file, start=n_before + 1):
            if not line.endswith(b"\n"):
                return
            end += len(line)
            yield _parse(line if numbers else _counted(line), path, number), end


def _counted(line: bytes) -> bytes:
    """The line with each list of numbers replaced by how many it holds."""
    for name in _NUMBERS:
        start = line.find(name) + len(name)
        end = line.find(b"]", start)
        if start >= len(name) and end >= 0:
            n = line.count(b",", start, end) + 1 if end > start else 0
            line = b"%b%d%b" % (line[: start - 1], n, line[end + 1 :])
    return line


def last_record(path: Path) -> Record | None:
    """The last whole event of a journal, found from its end; None where there is none to read."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            for block in (1 << 12, 1 << 16, size):
                file.seek(max(0, size - block))
                lines = file.read().split(b"\n")[:-1]  # what follows the last newline is torn
                if len(lines) > 1 or (lines and block >= size):
                    return record_of(_parse(lines[-1], path, 0))
    except (OSError, JournalError, KeyError, TypeError, ValueError):
        return None  # whoever opens it says what is wrong
    return None


@dataclass(frozen=True, slots=True)
class Line:
    """One record of a journal with its place: line `number`, and the offset `end` behind it."""

    record: Record
    number: int
    end: int


def read_records(path: Path, start: int = 0, *, n_before: int = 0) -> Iterator[Line]:
    """The records of a journal's closed part, in order; events of unknown kinds are left out.

    Attempts come once the group that closes them is read. `start` and `n_before` as for `read_events`: the
    `end` and `number` of the last line are where to go on later. Raises JournalError naming file and line for
    what is not an event, or lacks what an event of its kind holds.
    """
    waiting: list[Line] = []
    events = read_events(path, start, n_before=n_before, numbers=False)
    for number, (event, end) in enumerate(events, start=n_before + 1):
        try:
            record = record_of(event)
        except (KeyError, TypeError, ValueError) as exc:
            raise not_of_this_version(path, number, exc) from None
        if record is None:
            continue
        waiting.append(Line(record, number, end))
        if isinstance(record, CLOSING):
            yield from waiting
            waiting = []


def read_state(path: Path, run: str, run_dir: Path) -> State:
    """Replay a journal up to the last event that closes something; an unclosed group is dropped."""
    state = State()
    open_attempts: list[Attempt] = []
    open_prompts: dict[str, tuple[Prompt, tuple[int, ...]]] = {}
    for number, (event, end) in enumerate(read_events(path), start=1):
        try:
            kind = event["event"]
            if kind == "prompt":
                turns = tuple(Message(turn["role"], turn["content"]) for turn in event["messages"])
                open_prompts[event["id"]] = (Prompt(turns, event["thinking"]), tuple(event["ids"]))
                continue
            if kind == "attempt":
                if _is_packed(event):
                    place = f"{path}, line {number}"
                    raise JournalError(f"{place}: the run was packed without its texts and tokens", place)
                known = state.prompts | open_prompts
                open_attempts.append(_attempt(event, known, run, run_dir))
                continue
            _apply(state, event, open_attempts, run, run_dir)
            if kind == "group":
                state.prompts |= open_prompts
                open_attempts, open_prompts = [], {}
        except (KeyError, TypeError, ValueError) as exc:
            raise not_of_this_version(path, number, exc) from None
        state.elapsed_s = event.get("elapsed_s", state.elapsed_s)
        state.end = end
    return state


def not_of_this_version(path: Path, number: int, exc: Exception) -> JournalError:
    """The error for a line that is JSON and lacks what an event of its kind holds."""
    place = f"{path}, line {number}"
    why = f"{type(exc).__name__}: {exc}"
    if isinstance(exc, ValidationError):
        first = exc.errors()[0]
        why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return JournalError(f"{place}: not an event of this version ({why})", place)


def _apply(state: State, event: Event, group: list[Attempt], run: str, run_dir: Path) -> None:
    kind = event["event"]
    if kind == "run_started":  # again where the budget grew: the run is not finished any more
        record_of(event)  # raises where it is not the header of a run
        state.header_event = {key: value for key, value in event.items() if key not in ("event", "time")}
        state.outcome = None
    elif kind == "group":
        if len(group) != event["size"]:
            raise ValueError(f"the group says {event['size']} attempts and has {len(group)}")
        state.history.extend(group)
        state.last_group = list(group)
        state.learned = False
    elif kind == "update":
        policy = _policy(event["version"], event["adapter"], run, run_dir)
        counts = {"n_examples": event["n_examples"], "n_tokens": event["n_tokens"]}
        metrics = {name: _number(value) for name, value in event["metrics"].items()}
        notices = tuple(event.get("notices", ()))
        ignored = collapse_ignored(event)
        loss = _number(event["loss"])
        state.updates.append(
            Update(policy, loss, **counts, metrics=metrics, notices=notices, collapse_ignored=ignored)
        )
        state.learned = True
    elif kind == "run_failed":
        state.failures.append(event["error"])
    elif kind == "run_finished":
        fields = {name: event[name] for name in Outcome.__dataclass_fields__}
        state.outcome = Outcome(**{**fields, "status": OutcomeStatus(event["status"])})
        state.failures = []


def _parse(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    if not isinstance(event, dict) or "event" not in event:
        place = f"{path}, line {number}"
        raise JournalError(f"{place}: not a journal event; the file is damaged, nothing was changed", place)
    return event


def _policy(version: int, adapter: str | None, run: str, run_dir: Path) -> Policy:
    return Policy(run, version, run_dir / adapter if adapter else None)


def _adapter_name(policy: Policy) -> str | None:
    return f"{policy.adapter_dir.parent.name}/{policy.adapter_dir.name}" if policy.adapter_dir else None


def prompt_event(key: str, sample: Sample) -> dict[str, Any]:
    """The prompt of a sample, as text and as the ids the model read."""
    turns = [asdict(message) for message in sample.prompt.messages]
    ids_T = list(sample.prompt_ids)
    return {"event": "prompt", "id": key, "messages": turns, "thinking": sample.prompt.thinking, "ids": ids_T}


def _case_record(case: Case) -> dict[str, Any]:
    record = asdict(case)
    del record["difference"]  # feedback has it
    return record


def attempt_event(attempt: Attempt, prompt_key: str) -> dict[str, Any]:
    sample = attempt.sample
    return {
        "event": "attempt",
        "index": attempt.index,
        "prompt": prompt_key,
        "policy": {"version": sample.policy.version, "adapter": _adapter_name(sample.policy)},
        "text": sample.text,
        "finish": sample.finish.value,
        "token_ids": list(sample.token_ids_T),
        "logprobs": list(sample.logprobs_T),
        "code": attempt.code,
        "solved": attempt.verdict.solved,
        "quoted_half": attempt.verdict.quoted_half,
        "cases": [_case_record(case) for case in attempt.verdict.cases],
        "feedback": attempt.feedback,
    }


def _attempt(
    event: Event, prompts: Mapping[str, tuple[Prompt, tuple[int, ...]]], run: str, run_dir: Path
) -> Attempt:
    prompt, prompt_ids = prompts[event["prompt"]]
    policy = _policy(event["policy"]["version"], event["policy"]["adapter"], run, run_dir)
    sample = Sample(
        prompt=prompt,
        prompt_ids=prompt_ids,
        token_ids_T=tuple(event["token_ids"]),
        logprobs_T=tuple(event["logprobs"]),
        text=event["text"],
        finish=Finish(event["finish"]),
        policy=policy,
    )
    cases = tuple(Case(**{**case, "status": Status(case["status"])}) for case in event["cases"])
    return Attempt(
        event["index"], sample, event["code"], Verdict(cases, event["quoted_half"]), event["feedback"]
    )


def update_event(update: Update) -> dict[str, Any]:
    return {
        "event": "update",
        "version": update.policy.version,
        "adapter": _adapter_name(update.policy),
        "loss": _finite(update.loss),
        "n_examples": update.n_examples,
        "n_tokens": update.n_tokens,
        "metrics": {name: _finite(value) for name, value in update.metrics.items()},
        "notices": list(update.notices),
        "collapse_ignored": update.collapse_ignored,
    }


def _finite(value: float) -> float | None:
    """JSON has no NaN and no infinity: they are written as null and read back as NaN."""
    return value if math.isfinite(value) else None


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def without_texts(event: Event) -> dict[str, Any] | None:
    """An event as packed runs hold it: no answers, programs, feedback and tokens; None where nothing is left.

    Every figure of a report comes out the same from what is kept. The name of an attempt's prompt stays: it
    tells attempts that read feedback from those of the question alone, which the first one is. An event
    of packed runs comes out as it is. Raises KeyError or TypeError for an attempt that lacks its fields.
    """
    if event["event"] == "prompt":
        return None
    if event["event"] != "attempt":
        return dict(event)
    kept = {key: value for key, value in event.items() if key not in ("token_ids", "logprobs")}
    cases = [{"status": case["status"], "visible": case["visible"]} for case in event["cases"]]
    texts = {"text": "", "code": None, "feedback": ""}
    n_tokens = event["n_tokens"] if _is_packed(event) else len(event["token_ids"])
    return {**kept, **texts, "cases": cases, "n_tokens": n_tokens}


def _is_packed(attempt: Event) -> bool:
    """Whether an attempt is as packed runs hold it: it counts its tokens and names none."""
    return "n_tokens" in attempt and "token_ids" not in attempt


def keeps_texts(path: Path) -> bool:
    """Whether a journal holds answers, programs and feedback, as one that was not packed does.

    True before the first attempt. Raises JournalError for a line before it that is damaged.
    """
    attempts = (event for event, _ in read_events(path, numbers=False) if event["event"] == "attempt")
    return not any(map(_is_packed, itertools.islice(attempts, 1)))


def replayed(state: State) -> Iterator[dict[str, Any]]:
    """What a display needs to catch up on a resumed run: its attempts and updates in their order."""
    updates = {update.policy.version: update for update in state.updates}
    for attempt in state.history:
        version = attempt.sample.policy.version
        if version in updates:
            yield {**update_event(updates.pop(version)), "replayed": True}
        yield {**attempt_event(attempt, ""), "replayed": True}
    for update in updates.values():
        yield {**update_event(update), "replayed": True}
