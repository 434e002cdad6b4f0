"""The base of every live view: a fold of events redrawn in place on a terminal, or lines elsewhere."""

from __future__ import annotations

import signal
import sys
import threading
import time
from abc import ABC, abstractmethod
from types import FrameType, TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sdpo_solve.cli.signals import end_at_once
from sdpo_solve.errors import UserError
from sdpo_solve.report.table import clock
from sdpo_solve.sanitize import clean

SILENCE_S, LONGEST_SILENCE_S = 5.0, 80.0
"""Where frames are not drawn, a line comes after the first, then after twice as long, up to the second."""

_GRACE_S = 1.5  # that a command has to end in order once nobody reads its output
_OUTPUT_CLOSED = 141


class View(ABC):
    """Subclasses fold what they are given in under `guard`, and draw it. The last frame stays on the screen.

    A context manager: frames are drawn within it. Safe to use from several threads. Where one of them meets
    an output that takes no more, the command ends: the main thread is woken, and each later line raises.
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
        self._lost: OSError | SystemExit | None = None
        self._handles_sigpipe = False

    @abstractmethod
    def frame(self) -> RenderableType:
        """The whole view as it stands."""

    def status_line(self) -> str:
        """Where things stand: printed when nothing else was for a while; may be empty."""
        return ""

    def print_line(self, line: str | None) -> None:
        """A line where frames are not drawn; None prints nothing. Raises as `check_output`, None too."""
        self.check_output()
        if line and not self.is_live:
            self._printed_s = time.monotonic()
            try:
                self.console.print(Text(clean(line)), soft_wrap=True)
            except (OSError, SystemExit) as exc:  # rich exits where a pipe is closed, in whatever thread
                self._lose(exc)
                raise

    def check_output(self) -> None:
        """Raises SystemExit where nobody reads the output any more, UserError where it takes no more."""
        if isinstance(self._lost, SystemExit):
            raise SystemExit(_OUTPUT_CLOSED)
        if self._lost is not None:
            raise UserError(f"cannot write the output: {self._lost.strerror or self._lost}")

    def _lose(self, exc: OSError | SystemExit) -> None:
        """The output is lost. In the main thread the error itself ends the command."""
        is_first, self._lost = self._lost is None, exc
        if is_first and threading.current_thread() is not threading.main_thread():
            threading.Thread(target=self._end, daemon=True, name="output lost").start()

    def _end(self) -> None:
        """End the command as a signal does: wake its main thread, and do not wait for it long.

        What ends in order at a signal (a batch on Ray) does so by the next event, which `print_line` refuses.
        """
        if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            return
        if sys.platform != "win32" and self._handles_sigpipe:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGPIPE)
        if isinstance(self._lost, SystemExit) and not self._left.wait(_GRACE_S):
            end_at_once(_OUTPUT_CLOSED)

    def _handle_sigpipe(self) -> None:
        """Let SIGPIPE, which Python ignores and the watch over signals too, reach the main thread."""
        if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
            return

        def on_signal(number: int, frame: FrameType | None) -> None:
            self.check_output()  # nothing for a socket's

        self._handles_sigpipe = True
        signal.signal(signal.SIGPIPE, on_signal)

    def _ignore_sigpipe(self) -> None:
        if sys.platform != "win32" and self._handles_sigpipe:
            self._handles_sigpipe = False
            signal.signal(signal.SIGPIPE, signal.SIG_IGN)

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
                    if self._left.is_set():
                        return
                    try:
                        self.print_line(self.status_line())
                    except (OSError, SystemExit, UserError):
                        return  # the main thread has it
                said_s = self._printed_s = time.monotonic()
                silence_s = min(2 * silence_s, LONGEST_SILENCE_S)

    def __enter__(self) -> Self:
        self._printed_s = time.monotonic()
        if not self.is_live:
            self._handle_sigpipe()
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
        with self.guard:  # no line is under way, or comes later
            self._left.set()
        self._ignore_sigpipe()
        if self._live is not None:
            self._live.stop()
        if exc is None:
            self.check_output()

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
