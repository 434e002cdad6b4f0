"""One run's journal: `journal.jsonl`, one event a line, and the state that reading it back gives.

Events: run_started, prompt, attempt, group, update, run_failed, run_finished (and what other rooms add
through `note`, which reaches listeners but not the file). The attempts of a group are written together with
the `group` event that closes them; an `update` event commits the policy directory of its version. An
incomplete last line is ignored. The journal decides nothing: what to sample, and when to
stop, is decided in the loop.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from io import FileIO
from pathlib import Path
from typing import Any

from sdpo_solve.errors import JournalError, RunError, SdpoSolveError
from sdpo_solve.paths import WITHOUT_LOCKS, file_errors
from sdpo_solve.run.clock import Clock
from sdpo_solve.run.events import (
    FILE_NAME,
    State,
    attempt_event,
    prompt_event,
    read_state,
    replayed,
    update_event,
)
from sdpo_solve.run.records import Event
from sdpo_solve.types import Attempt, Outcome, Policy, Sample, Update

Listener = Callable[[Event], None]

NO_LOCKS = "this file system has no locks: see to it that no second process works on the same runs"


def lock_file(file: FileIO, place: Path, error: Callable[[str], SdpoSolveError]) -> bool:
    """Lock a file for this process until it is closed; false where its file system, or Windows, has no locks.

    Raises `error` where another process holds it; `place`: its directory, for the message.
    """
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        return False
    except OSError as exc:
        if exc.errno in WITHOUT_LOCKS:
            return False
        raise error(f"another process is writing {place}; wait for it or choose another --out") from None
    return True


class Journal:
    """The journal of one run, open for writing by one process at a time.

    Raises JournalError where the directory cannot be written, another process holds it, or the file is not
    a journal.
    """

    def __init__(self, run_dir: Path, run: str, listeners: Sequence[Listener] = ()) -> None:
        self.run_dir = run_dir
        self.path = run_dir / FILE_NAME
        self.run = run
        self._listeners = list(listeners)
        with file_errors(JournalError, f"write {self.path}"):
            run_dir.mkdir(parents=True, exist_ok=True)
            # Without a buffer: what a full disk refused is not tried again when the file is closed.
            self._file: FileIO = self.path.open("ab", buffering=0)
        try:
            self._is_locked = self._lock()
            self.state = read_state(self.path, run, run_dir)
            self._file.truncate(self.state.end)  # drops a torn line and a group that was never closed
        except BaseException:
            self._file.close()
            raise
        self.clock = Clock(self.state.elapsed_s)

    # -- state ---------------------------------------------------------------------------------------------

    @property
    def history(self) -> list[Attempt]:
        return self.state.history

    @property
    def unlearned_group(self) -> list[Attempt]:
        """The last closed group, where no update follows it yet; else nothing."""
        return [] if self.state.learned else self.state.last_group

    @property
    def last_policy(self) -> Policy | None:
        """The policy of the last committed update; None where there was none."""
        return self.state.updates[-1].policy if self.state.updates else None

    @property
    def elapsed_s(self) -> float:
        """Seconds that this run has taken: not between its processes, nor while it waited for other runs."""
        return self.clock.elapsed_s

    def begin_anew(self) -> None:
        """Forget a beginning that came to nothing.

        Raises JournalError where it cannot be known that no other process works on the run.
        """
        if not self._is_locked:
            raise JournalError(
                f"{self.run_dir} was begun with other options; {NO_LOCKS}: choose another --out"
            )
        with file_errors(JournalError, f"write {self.path}"):
            self._file.truncate(0)
        self.state, self.clock = State(), Clock()

    # -- events of the loop --------------------------------------------------------------------------------

    def start(self, header: Mapping[str, Any]) -> None:
        """Write `run_started`; on a resume only announce it, unless the budget grew.

        The header stays as it was first written but for a larger budget, which is written as a header of its
        own: an outcome before it holds no more.
        """
        if not self._is_locked:
            self.note("notice", text=NO_LOCKS, once=True)
        if self.state.header_event:
            counts = {"attempts": len(self.history), "updates": len(self.state.updates)}
            self.note("run_resumed", **counts, elapsed_s=round(self.elapsed_s, 3))
            if self.state.header_event.get("budget", header["budget"]) == header["budget"]:
                self._notify({"event": "run_started", **self.state.header_event})
            else:
                self.state.header_event |= {"budget": header["budget"], "config": header["config"]}
                self.state.outcome = None
                self._write([{"event": "run_started", **self.state.header_event}])
            for event in replayed(self.state):
                self._notify(event)
            if self.state.outcome is not None:
                self._notify(self._finished(self.state.outcome))
            return
        self.state.header_event = dict(header)
        self._write([{"event": "run_started", **header}])

    def append_group(self, group: Sequence[Attempt], *, sample_s: float, grade_s: float) -> None:
        """The attempts of one group and the event that closes them, as one write."""
        events: list[dict[str, Any]] = []
        for attempt in group:
            key = self._prompt_key(attempt.sample, events)
            events.append(attempt_event(attempt, key))
        closing = {
            "event": "group",
            "first": group[0].index,
            "size": len(group),
            "n_solved": sum(attempt.verdict.solved for attempt in group),
            "n_tokens": sum(len(attempt.sample.token_ids_T) for attempt in group),
            "sample_s": round(sample_s, 3),
            "grade_s": round(grade_s, 3),
            "elapsed_s": round(self.elapsed_s, 3),
        }
        self._write([*events, closing])
        self.state.history.extend(group)
        self.state.last_group = list(group)
        self.state.learned = False

    def append_update(self, update: Update) -> None:
        """Commit a policy version: its directory is whole before this is called."""
        self._write([{**update_event(update), "elapsed_s": round(self.elapsed_s, 3)}])
        self.state.updates.append(update)
        self.state.learned = True

    def finish(self, outcome: Outcome) -> Outcome:
        self._write([self._finished(outcome)])
        self.state.outcome = outcome
        return outcome

    def fail(self, error: RunError) -> None:
        """Record that the run broke off here; it may be taken up again. Nothing where the journal broke."""
        if not isinstance(error, JournalError):
            failed = {"event": "run_failed", "kind": type(error).__name__, "error": str(error)}
            self._write([{**failed, "elapsed_s": round(self.elapsed_s, 3)}])
            self.state.failures.append(str(error))

    def note(self, event: str, **data: Any) -> None:
        """Pass an event to the listeners alone: a phase, a count on the way."""
        self._notify({"event": event, **data})

    def close(self) -> None:
        self._file.close()

    def _finished(self, outcome: Outcome) -> dict[str, Any]:
        return {"event": "run_finished", **asdict(outcome), "elapsed_s": outcome.wall_s}

    def _lock(self) -> bool:
        """See `lock_file`."""
        return lock_file(self._file, self.run_dir, JournalError)

    # -- writing -------------------------------------------------------------------------------------------

    def _prompt_key(self, sample: Sample, events: list[dict[str, Any]]) -> str:
        """The key of this prompt; a prompt that is new gets an event of its own."""
        for key, (prompt, ids) in self.state.prompts.items():
            if prompt == sample.prompt and ids == sample.prompt_ids:
                return key
        key = f"p{len(self.state.prompts)}"
        self.state.prompts[key] = (sample.prompt, sample.prompt_ids)
        events.append(prompt_event(key, sample))
        return key

    def _write(self, events: Sequence[dict[str, Any]]) -> None:
        now = round(time.time(), 3)
        stamped = [{**event, "time": now} for event in events]
        data = "".join(json.dumps(event, ensure_ascii=True) + "\n" for event in stamped).encode()
        left = memoryview(data)
        with file_errors(JournalError, f"write {self.path}", "free the disk and repeat"):
            while left:
                left = left[self._file.write(left) or 0 :]
            os.fsync(self._file.fileno())
        for event in stamped:
            self._notify(event)

    def _notify(self, event: Event) -> None:
        for listener in self._listeners:
            listener(event)
