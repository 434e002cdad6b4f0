"""The live view of runs that were started elsewhere: one run as `run` shows it, several as a table.

Follows journals and draws; starts, stops and changes nothing. A run that nobody writes any more is called
stopped, one whose journal is damaged is named and left alone. It ends when neither a run nor a batch goes on.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.text import Text

from sdpo_solve.batch.event_bus import LOG_NAME
from sdpo_solve.cli import live_run
from sdpo_solve.cli.live_view import View
from sdpo_solve.errors import JournalError
from sdpo_solve.report.follow import Follower, locked
from sdpo_solve.report.runs import find_run_dirs
from sdpo_solve.report.table import AlignedTable, clock
from sdpo_solve.run.events import FILE_NAME
from sdpo_solve.run.records import Record, RunFailed, RunFinished
from sdpo_solve.sanitize import clean

_POLL_S = 0.5
_RESCAN_S = 3.0
_SHOWN_RUNS = 12
_SHOWN_SOLVED = 5
_GOING_ON = ("running", "unfinished")


@dataclass(frozen=True, slots=True)
class News:
    """A record that was closed since the last poll."""

    follower: Follower
    record: Record


class Watch(View):
    """The runs in or under `source`. `running`: those that a process writes now, None where unknown.

    `damaged`: runs that are followed no more, with what was wrong.
    """

    def __init__(self, source: Path, console: Console) -> None:
        super().__init__(console)
        self.source = source
        self.followers: dict[Path, Follower] = {}
        self.damaged: dict[Path, JournalError] = {}
        self.running: set[Path] | None = None
        self.batch_goes_on = False
        self._scanned_s = -_RESCAN_S

    def poll(self) -> list[News]:
        """What was closed since the last poll, run by run; new runs are found every few seconds.

        Raises ConfigError where `source` is no directory, JournalError where every journal is damaged.
        """
        with self.guard:
            if time.monotonic() - self._scanned_s >= _RESCAN_S:
                self._scanned_s = time.monotonic()
                for run_dir in find_run_dirs([self.source]):
                    if run_dir not in self.damaged:
                        self.followers.setdefault(run_dir, Follower(run_dir))
            self.running, self.batch_goes_on = self._locks()
            news = [
                News(follower, record)
                for follower in [*self.followers.values()]
                for record in self._new_records(follower)
            ]
            if self.damaged and not self.followers:
                raise next(iter(self.damaged.values()))
            return news

    def _locks(self) -> tuple[set[Path] | None, bool]:
        """The runs that are being written, None where unknown; whether a batch that holds them goes on."""
        folders = {folder for run_dir in self.followers for folder in run_dir.parents[:3]}
        inside = {folder for folder in folders if folder.is_relative_to(self.source)}
        logs = {folder / LOG_NAME for folder in inside | {self.source}}
        held = locked([*logs, *(run_dir / FILE_NAME for run_dir in self.followers)])
        if held is None:
            return None, False
        return {path.parent for path in held - logs}, not held.isdisjoint(logs)

    def _new_records(self, follower: Follower) -> list[Record]:
        """What is new in one run; a run whose journal proves damaged is put aside."""
        try:
            with suppress(JournalError):
                return follower.poll()
            return follower.poll()  # again: a resume may have cut the file off while it was read
        except JournalError as exc:
            self.damaged[follower.run_dir] = exc
            del self.followers[follower.run_dir]
            return []

    def state(self, follower: Follower) -> str:
        """solved, unsolved, failed, running, stopped, or unfinished where it cannot be known."""
        end = follower.progress.finished
        if end is not None:
            return "unsolved" if end.discovery_time is None else "solved"
        if self.running is not None and follower.run_dir in self.running:
            return "running"
        if follower.error is not None:
            return "failed"
        return "unfinished" if self.running is None else "stopped"

    @property
    def going_on(self) -> bool:
        """Some run is being written, or may be, or the batch is between two runs."""
        return self.batch_goes_on or any(self.state(f) in _GOING_ON for f in self.followers.values())

    def frame(self) -> RenderableType:
        """One run as the command that runs it shows it; several as counts by arm and a list."""
        if len(self.followers) == 1 and not self.damaged:
            (follower,) = self.followers.values()
            state = Text(f"{self.state(follower)} · {follower.run_dir}", style="dim", overflow="fold")
            error = [Text(clean(follower.error), style="red")] if follower.error else []
            height = self.console.height - 2 - len(error)
            return Group(live_run.frame(follower.progress, height), *error, state)
        return Group(self._arms(), Text(), *self._lists())

    def _arms(self) -> AlignedTable:
        columns = ("runs", "running", "solved", "unsolved", "failed", "stopped", "attempts", "tokens")
        table = AlignedTable(("method", *columns))
        for arm in sorted({f.progress.header.arm_name for f in self.followers.values()}):
            mine = [f for f in self.followers.values() if f.progress.header.arm_name == arm]
            states = [self.state(follower) for follower in mine]
            counts = [states.count(name) for name in ("running", "solved", "unsolved", "failed")]
            counts.append(states.count("stopped") + states.count("unfinished"))
            attempts = sum(len(follower.progress.marks) for follower in mine)
            tokens = sum(follower.progress.n_tokens for follower in mine)
            table.add([arm, *(str(cell) for cell in (len(mine), *counts, attempts, tokens))])
        return table

    def _lists(self) -> list[RenderableType]:
        """The runs that go on, with their latest verdicts, and the latest successes."""
        columns = ("run", "attempts", "now", "latest verdicts")
        table = AlignedTable(columns, names=("now", "latest verdicts"))
        going = [f for f in self.followers.values() if self.state(f) in _GOING_ON]
        for follower in going[:_SHOWN_RUNS]:
            progress = follower.progress
            table.add([_name(follower), _spent(follower), progress.phase, "".join(progress.marks[-16:])])
        parts: list[RenderableType] = [table] if going else [Text(self._idle(), style="dim")]
        if going[_SHOWN_RUNS:]:
            parts.append(Text(f"and {len(going) - _SHOWN_RUNS} more", style="dim"))
        solved = [(f.progress.discovery.time, f) for f in self.followers.values() if f.progress.discovery]
        for _, follower in sorted(solved, key=lambda pair: pair[0])[-_SHOWN_SOLVED:]:
            parts.append(Text(clean(self.summary(follower)), style="green"))
        errors = [Text(clean(error.short), style="red", overflow="fold") for error in self.damaged.values()]
        return [*parts, *errors]

    def _idle(self) -> str:
        if not self.batch_goes_on:
            return "no run goes on"
        return "between two runs" if self.followers else "starting"

    def summary(self, follower: Follower) -> str:
        """One line: the run and what has become of it."""
        progress, state = follower.progress, self.state(follower)
        spent = f"{_spent(follower)} attempts, {progress.n_tokens} tokens, {clock(progress.elapsed_s)}"
        if progress.discovery is not None:
            outcome = f"solved at attempt {progress.discovery.index} ({spent})"
        elif state == "failed":
            outcome = f"failed: {follower.error} ({spent})"
        else:
            best = f", best {progress.best_passed}/{progress.n_tests} tests" if progress.n_tests else ""
            outcome = f"{state} ({spent}{best})"
        return f"{_name(follower)}: {outcome}"


def watch(source: Path, console: Console) -> None:
    """Show the runs under `source` until none goes on, nor a batch that holds them.

    A live view on a terminal, lines elsewhere. Raises ConfigError and JournalError as `Watch.poll` does.
    """
    view = Watch(source, console)
    view.poll()
    if not view.followers and not view.going_on:
        console.print(Text(f"no run under {source}"), soft_wrap=True)
        return
    for follower in view.followers.values():
        view.print_line(view.summary(follower))
    n_damaged = 0
    with view:
        while True:
            for error in [*view.damaged.values()][n_damaged:]:
                view.print_line(error.short)
            n_damaged = len(view.damaged)
            if not view.going_on:
                return
            time.sleep(_POLL_S)
            _print_news(view, view.poll())


def _print_news(view: Watch, news: list[News]) -> None:
    """A line an event for one run; for several a line where one is solved or ends."""
    alone = len(view.followers) == 1
    for item in news:
        if isinstance(item.record, RunFinished | RunFailed):
            view.print_line(view.summary(item.follower))
        elif alone:
            view.print_line(live_run.plain_line(item.record, item.follower.progress))


def _spent(follower: Follower) -> str:
    done, total = len(follower.progress.marks), follower.progress.header.attempts_limit
    return f"{done}/{total}" if total else str(done)


def _name(follower: Follower) -> str:
    header = follower.progress.header
    return header.name if header.is_named else str(follower.run_dir)
