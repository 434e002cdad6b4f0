"""The base of every live view: a fold of events redrawn in place on a terminal, or lines elsewhere."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sdpo_solve.report.table import clock
from sdpo_solve.sanitize import clean

SILENCE_S, LONGEST_SILENCE_S = 5.0, 80.0
"""Where frames are not drawn, a line comes after the first, then after twice as long, up to the second."""


class View(ABC):
    """Subclasses fold what they are given in under `guard`, and draw it. The last frame stays on the screen.

    A context manager: frames are drawn within it. Safe to use from several threads.
    """

    refresh_per_s = 4.0
    is_transient = False
    """The frame goes when the view ends."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.is_live = console.is_terminal and not console.is_dumb_terminal
        self.guard = threading.RLock()
        self._live: Live | None = None
        self._left = threading.Event()
        self._printed_s = 0.0

    @abstractmethod
    def frame(self) -> RenderableType:
        """The whole view as it stands."""

    def status_line(self) -> str:
        """Where things stand: printed when nothing else was for a while; may be empty."""
        return ""

    def print_line(self, line: str | None) -> None:
        """A line where frames are not drawn; None prints nothing."""
        if line and not self.is_live:
            self._printed_s = time.monotonic()
            self.console.print(Text(clean(line)), soft_wrap=True)

    def _print_status(self) -> None:
        """Print the status line whenever nothing was printed for a while, until the view is left.

        The while doubles with each of them, and is short again once something happened.
        """
        silence_s, said_s = SILENCE_S, self._printed_s
        while not self._left.wait(max(0.0, self._printed_s + silence_s - time.monotonic())):
            if self._printed_s > said_s:
                silence_s = SILENCE_S
            if time.monotonic() - self._printed_s >= silence_s:
                with self.guard:
                    self.print_line(self.status_line())
                said_s = self._printed_s = time.monotonic()
                silence_s = min(2 * silence_s, LONGEST_SILENCE_S)

    def __enter__(self) -> Self:
        self._printed_s = time.monotonic()
        if not self.is_live:
            threading.Thread(target=self._print_status, daemon=True).start()
        if self.is_live:
            self._live = Live(
                console=self.console,
                get_renderable=self._draw,
                refresh_per_second=self.refresh_per_s,
                transient=self.is_transient,
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        if self._live is not None:
            self._live.stop()

    def _draw(self) -> RenderableType:
        with self.guard:
            return self.frame()


class Waiting(View):
    """One line with a clock while something is awaited that tells nothing of itself; gone at its end."""

    refresh_per_s = 2.0
    is_transient = True

    def __init__(self, console: Console, what: str) -> None:
        super().__init__(console)
        self._what, self._since_s = what, time.monotonic()

    def frame(self) -> RenderableType:
        return Text(self.status_line(), style="dim")

    def status_line(self) -> str:
        return f"{self._what} · {clock(time.monotonic() - self._since_s)}"


def bar(done: int, total: int, colour: str = "cyan", *, filled: float | None = None) -> Table:
    """A bar and the two numbers behind it; `filled`: the share of it that is drawn, whatever they are."""
    row = Table.grid(padding=(0, 2))
    drawn = ProgressBar(
        total=max(1, total),
        completed=done if filled is None else filled * max(1, total),
        width=30,
        complete_style=colour,
        finished_style=colour,
    )
    row.add_row(drawn, Text(f"{done}/{total}"))
    return row
