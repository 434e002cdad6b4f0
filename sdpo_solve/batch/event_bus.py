"""From the threads of a batch to all who listen: the display, the log file, JSON lines, trackers.

One event at a time, whichever thread it comes from. The events of the runs carry their run's name under
`run`; the batch's own are `batch_started`, `run_ended`, `notice` and `batch_finished`.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Literal, Self

from sdpo_solve.batch.spec import RunKey
from sdpo_solve.errors import UserError
from sdpo_solve.paths import file_errors
from sdpo_solve.report.table import clock
from sdpo_solve.run.records import (
    KINDS,
    Event,
    GroupEvent,
    Notice,
    RawText,
    Record,
    RunFinished,
    RunResumed,
    UpdateEvent,
    record_of,
)
from sdpo_solve.sanitize import clean
from sdpo_solve.types import Outcome, OutcomeStatus

Receiver = Callable[[Event], None]

LOG_NAME = "batch.log"
# What `--json` prints: texts and tokens of attempts stay in the journals.
_JSON_EVENTS = (
    *("batch_started", "run_started", "run_resumed", "group", "update", "run_failed", "run_ended"),
    *("notice", "batch_finished"),
)
_LEFT_OUT = ("config", "identity", "versions")


# -- the batch's own events ----------------------------------------------------------------------------------


class BatchStarted(Record):
    """`runs` are planned, of the arms in `methods`."""

    runs: int
    methods: tuple[str, ...]


class RunEnded(Record):
    """One run ended, was stopped, or had ended before (`kept`)."""

    event: str = "run_ended"
    problem: RawText = ""
    arm: RawText
    seed: int = 0
    status: Literal["finished", "failed", "stopped"]
    kept: bool = False
    solved: bool = False
    discovery_time: int | None = None
    confirmed: bool | None = None
    attempts: int = 0
    tokens: int = 0
    wall_s: float = 0.0
    error: RawText | None = None
    may_retry: bool = False
    """It failed, and its tries are not used up."""
    is_spent: bool = False
    """It failed, and its journal counts as many failures as there are tries."""

    @classmethod
    def of(cls, key: RunKey, status: str, counts: Outcome | RunFinished | None = None, **fields: Any) -> Self:
        """The end of a run that has come as far as `counts` says."""
        if counts is not None:
            names = ["attempts", "tokens", "wall_s"]
            if status == "finished":
                names += ["discovery_time", "confirmed"]
                fields["solved"] = counts.status is OutcomeStatus.SOLVED
            fields |= {name: getattr(counts, name) for name in names}
        return cls(run=key.name, **asdict(key), status=status, **fields)

    @property
    def key(self) -> RunKey:
        return RunKey(self.seed, self.problem, self.arm)

    def as_event(self) -> Event:
        return self.model_dump(exclude={"time", "elapsed_s", "replayed"})

    @property
    def is_counted(self) -> bool:
        """It will not be tried again in this batch, and was not stopped."""
        return self.status != "stopped" and not self.may_retry

    @property
    def never_began(self) -> bool:
        """A stopped batch did not come to it; there may be thousands."""
        return self.status == "stopped" and not self.attempts

    def __str__(self) -> str:
        if self.status == "failed":
            again = "to be tried again" if self.may_retry else "no try left" if self.kept else "given up"
            return f"failed, {again}: {clean(self.error or '')}"
        if self.status == "stopped":
            return "stopped"
        outcome = f"solved at attempt {self.discovery_time}" if self.solved else "unsolved"
        spent = f"{self.attempts} attempts, {self.tokens} tokens, {clock(self.wall_s)}"
        return f"{'kept, ' if self.kept else ''}{outcome} ({spent})"


class BatchFinished(Record):
    """All runs ended or were stopped; what the event holds is in `batch.BatchResult`."""


class Fault(Record):
    """A run broke off by a fault of this program."""

    traceback: RawText


_KINDS: Mapping[str, type[Record]] = {
    **KINDS,
    "batch_started": BatchStarted,
    "run_ended": RunEnded,
    "fault": Fault,
    "batch_finished": BatchFinished,
}


def batch_record_of(event: Event) -> Record | None:
    """The event of a run or of the batch as a record; None for a kind that nobody folds."""
    return record_of(event, _KINDS)


# -- the bus -------------------------------------------------------------------------------------------------


class Broadcast:
    """Hands every event to every receiver, one event at a time.

    A receiver that raises gets no more events, and its error goes to `on_error`: what shows a batch must not
    end its runs. A notice that is marked `once` is passed on once.
    """

    def __init__(self, *receivers: Receiver, on_error: Callable[[Exception | SystemExit], None]) -> None:
        self._on_error = on_error
        self._receivers = list(receivers)
        self._passed: set[str] = set()
        self._guard = threading.RLock()

    def add(self, receiver: Receiver) -> None:
        self._receivers.append(receiver)

    def __call__(self, event: Event) -> None:
        record = batch_record_of(event)
        if record is not None and record.replayed:
            return
        with self._guard:
            if isinstance(record, Notice) and record.once:
                if record.text in self._passed:
                    return
                self._passed.add(record.text)
            for receive in [*self._receivers]:
                try:
                    receive(event)
                except (Exception, SystemExit) as exc:  # noqa: BLE001 -- rich exits where a pipe is closed
                    self._receivers.remove(receive)
                    self._on_error(exc)


class LogFile:
    """`batch.log` in the directory of a batch, a line an event, added to by every command.

    Locked (shared) as long as it is open, by which `show --follow` knows that the batch goes on. Raises
    UserError where it cannot be opened. A context manager.
    """

    def __init__(self, out: Path) -> None:
        with file_errors(UserError, f"write {out / LOG_NAME}"):
            out.mkdir(parents=True, exist_ok=True)
            self._file: IO[str] = (out / LOG_NAME).open("a", encoding="utf-8", errors="replace")
        with suppress(OSError, ImportError):  # not every file system has locks, nor has Windows
            import fcntl

            fcntl.flock(self._file, fcntl.LOCK_SH)

    def __enter__(self) -> LogFile:
        return self

    def __exit__(self, *exc: object) -> None:
        with suppress(OSError):
            self._file.close()

    def __call__(self, event: Event) -> None:
        line = log_line(event)
        if line is not None and not self._file.closed:
            stamp = time.strftime("%Y-%m-%d %H:%M:%S")
            record = batch_record_of(event)
            traceback = clean(record.traceback) if isinstance(record, Fault) else ""
            with suppress(OSError):  # a full disk: the journals are the record, and say so
                self._file.write(f"{stamp} {' '.join(line.split())}\n{traceback}")
                self._file.flush()


def json_lines(write: Callable[[str], None]) -> Receiver:
    """A receiver that writes events as JSON, one a line."""

    def receive(event: Event) -> None:
        if event["event"] in _JSON_EVENTS:
            write(json.dumps({key: value for key, value in event.items() if key not in _LEFT_OUT}))

    return receive


def log_line(event: Event) -> str | None:
    """The line of the log: what happened to which run, groups and updates included."""
    match batch_record_of(event):
        case RunEnded() as end:
            return None if end.never_began else f"{end.run} ended: {end}"
        case GroupEvent() as group:
            return (
                f"{group.run} group of {group.size} from attempt {group.first}: {group.n_solved} solved, "
                f"{group.n_tokens} tokens, sampled {group.sample_s} s, graded {group.grade_s} s"
            )
        case UpdateEvent() as update:
            loss = "" if update.loss is None else f": loss {update.loss}"
            return f"{update.run} update {update.version}{loss}"
        case RunResumed() as resumed:
            return f"{resumed.run} resumed after {resumed.attempts} attempts"
        case Fault(run=run):
            return f"{run} broke off by a fault:"
        case Notice(text=text):
            return text
        case (BatchStarted() | BatchFinished()) as record:
            fields = {key: value for key, value in event.items() if key not in ("event", "options")}
            return f"{record.event} {fields}"
    return None
