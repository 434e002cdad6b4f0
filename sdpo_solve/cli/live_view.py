"""The base of every live view: a fold of events redrawn in place on a terminal, or lines elsewhere."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sdpo_solve.sanitize import clean


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

    @abstractmethod
    def frame(self) -> RenderableType:
        """The whole view as it stands."""

    def print_line(self, line: str | None) -> None:
        """A line where frames are not drawn; None prints nothing."""
        if line and not self.is_live:
            self.console.print(Text(clean(line)), soft_wrap=True)

    def __enter__(self) -> Self:
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
        if self._live is not None:
            self._live.stop()

    def _draw(self) -> RenderableType:
        with self.guard:
            return self.frame()


def bar(done: int, total: int) -> Table:
    """A bar and the two numbers behind it."""
    row = Table.grid(padding=(0, 2))
    row.add_row(ProgressBar(total=max(1, total), completed=done, width=30), Text(f"{done}/{total}"))
    return row
