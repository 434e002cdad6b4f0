"""From the threads of a batch to all who listen: the display, the log file, JSON lines, trackers.

One event at a time, whichever thread it comes from. Knows no event by more than its name.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from sdpo_solve.errors import UserError
from sdpo_solve.report.table import clock
from sdpo_solve.sanitize import clean

Receiver = Callable[[Mapping[str, Any]], None]

LOG_NAME = "batch.log"
# What `--json` prints: texts and tokens of attempts stay in the journals.
_JSON_EVENTS = (
    *("batch_started", "run_started", "run_resumed", "group", "update", "run_failed", "run_ended"),
    *("notice", "batch_finished"),
)
_LEFT_OUT = ("config", "identity", "versions")


class Broadcast:
    """Hands every event to every receiver, one event at a time."""

    def __init__(self, *receivers: Receiver) -> None:
        self._receivers = list(receivers)
        self._guard = threading.Lock()

    def add(self, receiver: Receiver) -> None:
        self._receivers.append(receiver)

    def __call__(self, event: Mapping[str, Any]) -> None:
        if event.get("replayed"):
            return
        with self._guard:
            for receive in self._receivers:
                receive(event)


class LogFile:
    """`batch.log` in the directory of a batch, a line an event, added to by every command.

    Raises UserError where it cannot be opened. A context manager.
    """

    def __init__(self, out: Path) -> None:
        try:
            out.mkdir(parents=True, exist_ok=True)
            self._file: IO[str] = (out / LOG_NAME).open("a", encoding="utf-8", errors="replace")
        except OSError as exc:
            raise UserError(f"cannot write {out / LOG_NAME}: {exc.strerror or exc}") from None

    def __enter__(self) -> LogFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __call__(self, event: Mapping[str, Any]) -> None:
        line = log_line(event)
        if line is not None and not self._file.closed:
            stamp = time.strftime("%Y-%m-%d %H:%M:%S")
            self._file.write(f"{stamp} {' '.join(line.split())}\n{clean(event.get('traceback', ''))}")
            self._file.flush()


def json_lines(write: Callable[[str], None]) -> Receiver:
    """A receiver that writes events as JSON, one a line."""

    def receive(event: Mapping[str, Any]) -> None:
        if event["event"] in _JSON_EVENTS:
            write(json.dumps({key: value for key, value in event.items() if key not in _LEFT_OUT}))

    return receive


def log_line(event: Mapping[str, Any]) -> str | None:
    """The line of the log: what happened to which run, groups and updates included."""
    kind, run = event["event"], event.get("run", "")
    if kind == "run_ended":
        return None if never_began(event) else f"{run} ended: {how_it_ended(event)}"
    if kind == "group":
        return (
            f"{run} group of {event['size']} from attempt {event['first']}: {event['n_solved']} solved, "
            f"{event['n_tokens']} tokens, sampled {event['sample_s']} s, graded {event['grade_s']} s"
        )
    if kind == "update":
        return f"{run} update {event['version']}: loss {event['loss']}"
    if kind == "run_resumed":
        return f"{run} taken up again after {event['attempts']} attempts"
    if kind == "fault":
        return f"{run} broke off by a fault:"
    if kind == "notice":
        return str(event["text"])
    if kind in ("batch_started", "batch_finished"):
        said = {key: value for key, value in event.items() if key not in ("event", "options")}
        return f"{kind} {said}"
    return None


def never_began(event: Mapping[str, Any]) -> bool:
    """A run that a closed batch did not come to; there may be thousands."""
    return event["status"] == "stopped" and not event["attempts"]


def how_it_ended(event: Mapping[str, Any]) -> str:
    spent = f"{event['attempts']} attempts, {event['tokens']} tokens, {clock(event['wall_s'])}"
    if event["status"] == "failed":
        again = "to be tried again" if event["may_retry"] else "no try left" if event["kept"] else "given up"
        return f"failed, {again}: {clean(str(event['error']))}"
    if event["status"] == "stopped":
        return "stopped"
    kept = "kept, " if event["kept"] else ""
    if event["solved"]:
        return f"{kept}solved at attempt {event['discovery_time']} ({spent})"
    return f"{kept}not solved ({spent})"
