"""The live view of runs that were started elsewhere: one run as `run` shows it, several as a table.

Follows journals and draws; starts, stops and changes nothing. A run that nobody writes any more is called
stopped, one whose journal is damaged is named and left alone, and the watch ends when no run goes on.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sdpo_solve.cli import live_run
from sdpo_solve.errors import JournalError
from sdpo_solve.report.follow import Follower, being_written
from sdpo_solve.report.runs import find_run_dirs
from sdpo_solve.report.table import Sheet, clock
from sdpo_solve.run.events import FILE_NAME, arm_name
from sdpo_solve.sanitize import clean

_POLL_S = 0.5
_RESCAN_S = 3.0
_SHOWN_RUNS = 12
_SHOWN_SOLVED = 5


@dataclass
class Watch:
    """The runs in or under a directory. `running`: those that a process writes now, None where unknown.

    `damaged`: runs that are followed no more, with what was wrong.
    """

    source: Path
    followers: dict[Path, Follower] = field(default_factory=dict)
    damaged: dict[Path, JournalError] = field(default_factory=dict)
    running: set[Path] | None = None
    scanned_s: float = -_RESCAN_S

    def poll(self) -> list[tuple[Follower, dict[str, object]]]:
        """What was closed since the last poll, run by run; new runs are found every few seconds.

        Raises ConfigError where `source` is no directory, JournalError where every journal is damaged.
        """
        if time.monotonic() - self.scanned_s >= _RESCAN_S:
            self.scanned_s = time.monotonic()
            for run_dir in find_run_dirs([self.source]):
                if run_dir not in self.damaged:
                    self.followers.setdefault(run_dir, Follower(run_dir))
        paths = [run_dir / FILE_NAME for run_dir in self.followers]
        written = being_written(paths)
        self.running = None if written is None else {path.parent for path in written}
        found = [
            (follower, event) for follower in [*self.followers.values()] for event in self._news(follower)
        ]
        if self.damaged and not self.followers:
            raise next(iter(self.damaged.values()))
        return found

    def _news(self, follower: Follower) -> list[dict[str, object]]:
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
            return "unsolved" if end["discovery_time"] is None else "solved"
        if self.running is not None and follower.run_dir in self.running:
            return "running"
        if follower.failed is not None:
            return "failed"
        return "unfinished" if self.running is None else "stopped"

    @property
    def going_on(self) -> bool:
        """Some run is being written, or may be."""
        return any(self.state(follower) in ("running", "unfinished") for follower in self.followers.values())


def watch(source: Path, console: Console, *, once: bool = False) -> None:
    """Show the runs under `source` until none goes on; `once`: their state now.

    A live view on a terminal, lines elsewhere. Raises ConfigError and JournalError as `Watch.poll` does.
    """
    seen = Watch(source)
    seen.poll()
    if not seen.followers:
        console.print(Text(f"no run under {source}"), soft_wrap=True)
        return
    if once:
        console.print(frame(seen, console))
    elif console.is_terminal and not console.is_dumb_terminal:
        draw = partial(frame, seen, console)
        with Live(console=console, get_renderable=draw, refresh_per_second=4, transient=False):
            while seen.going_on:
                time.sleep(_POLL_S)
                seen.poll()
    else:
        _plain(seen, console)


def _plain(seen: Watch, console: Console) -> None:
    """A line an event for one run; for several a line where one is solved or ends."""
    for follower in seen.followers.values():
        console.print(Text(f"{_name(follower)}: {summary(seen, follower)}"), soft_wrap=True)
    told = 0
    while True:
        for error in [*seen.damaged.values()][told:]:
            console.print(Text(clean(error.short)), soft_wrap=True)
        told = len(seen.damaged)
        if not seen.going_on:
            return
        time.sleep(_POLL_S)
        alone = len(seen.followers) == 1
        for follower, event in seen.poll():
            line = live_run.plain_line(event, follower.progress) if alone else None
            if event["event"] in ("run_finished", "run_failed"):
                line = f"{_name(follower)}: {summary(seen, follower)}"
            if line:
                console.print(Text(line), soft_wrap=True)


# -- frames --------------------------------------------------------------------------------------------------


def frame(seen: Watch, console: Console) -> RenderableType:
    """One run as the command that runs it shows it; several as counts by method and a list."""
    if len(seen.followers) == 1 and not seen.damaged:
        (follower,) = seen.followers.values()
        said = Text(f"{seen.state(follower)} · {follower.run_dir}", style="dim", overflow="fold")
        error = [Text(clean(follower.failed), style="red")] if follower.failed else []
        height = console.height - 2 - len(error)
        return Group(live_run.frame(follower.progress, height), *error, said)
    return Group(_arms(seen), Text(), *_lists(seen))


def _arms(seen: Watch) -> Sheet:
    columns = ("runs", "running", "solved", "unsolved", "failed", "stopped", "attempts", "tokens")
    sheet = Sheet(("method", *columns))
    arms = sorted({arm_name(f.progress.header) for f in seen.followers.values()})
    for arm in arms:
        mine = [f for f in seen.followers.values() if arm_name(f.progress.header) == arm]
        states = [seen.state(follower) for follower in mine]
        counts = [
            states.count("running"), states.count("solved"), states.count("unsolved"), states.count("failed"),
            states.count("stopped") + states.count("unfinished"),
        ]  # fmt: skip
        attempts = sum(len(follower.progress.marks) for follower in mine)
        tokens = sum(follower.progress.n_tokens for follower in mine)
        cells = [len(mine), *counts, attempts, tokens]
        sheet.add([arm, *(str(cell) for cell in cells)])
    return sheet


def _lists(seen: Watch) -> list[RenderableType]:
    """The runs that go on, with their latest verdicts, and the latest successes."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("run", overflow="fold")
    table.add_column("attempts", justify="right")
    table.add_column("now", overflow="fold")
    table.add_column("latest verdicts", no_wrap=True)
    going = [f for f in seen.followers.values() if seen.state(f) in ("running", "unfinished")]
    for follower in going[:_SHOWN_RUNS]:
        progress = follower.progress
        strip = "".join(progress.marks[-16:])
        said = progress.phase
        table.add_row(_name(follower), _spent(follower), said, strip)
    parts: list[RenderableType] = [table] if going else [Text("no run goes on", style="dim")]
    if going[_SHOWN_RUNS:]:
        parts.append(Text(f"and {len(going) - _SHOWN_RUNS} more", style="dim"))
    solved = [f for f in seen.followers.values() if f.progress.discovery]
    solved.sort(key=lambda f: f.progress.discovery["time"] if f.progress.discovery else 0.0)
    for follower in solved[-_SHOWN_SOLVED:]:
        parts.append(Text(f"{_name(follower)}: {summary(seen, follower)}", style="green"))
    parts += [Text(clean(error.short), style="red", overflow="fold") for error in seen.damaged.values()]
    return parts


def summary(seen: Watch, follower: Follower) -> str:
    """One line: what has become of the run."""
    progress, state = follower.progress, seen.state(follower)
    spent = f"{_spent(follower)} attempts, {progress.n_tokens} tokens, {clock(progress.elapsed_s)}"
    if progress.discovery is not None:
        return f"solved at attempt {progress.discovery['index']} ({spent})"
    if state == "failed":
        return f"failed: {clean(follower.failed or '')} ({spent})"
    best = f", best {progress.best_passed}/{progress.n_tests} tests" if progress.n_tests else ""
    return f"{state} ({spent}{best})"


def _spent(follower: Follower) -> str:
    done, total = len(follower.progress.marks), follower.progress.budget.get("attempts")
    return f"{done}/{total}" if total else str(done)


def _name(follower: Follower) -> str:
    header = follower.progress.header
    names: Sequence[object] = (header.get("problem"), arm_name(header), f"seed-{header.get('seed')}")
    known = header.get("problem") is not None
    return clean("/".join(str(name) for name in names) if known else str(follower.run_dir))
