"""Ctrl-C and SIGTERM end a command within two seconds, whatever its main thread is in.

Python runs a handler once the main thread is back from what it does, and an interpreter that shuts down waits
for threads: both may take minutes while a model is loaded or an update computed. A second thread reads the
number of each signal as it arrives, and ends the process where the ordinary way takes too long. What a
process leaves behind then is the same as after SIGKILL: boxes end by themselves (those that were not yet
started go when a sandbox is opened later), journals hold whole groups.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

_GRACE_S = 1.5
_SHOW_CURSOR = b"\x1b[?25h"


def end_on_signals(on_end: Callable[[int], None]) -> None:
    """Install the handlers; `on_end` is called with the exit code just before the process is ended at once.

    Where other handlers are installed later (a batch on Ray ends after its groups), the second signal counts.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start background jobs with it ignored
    signal.signal(signal.SIGTERM, _exit)
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    if hasattr(os, "register_at_fork"):  # Windows has no fork
        os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
    threading.Thread(target=_watch, args=(reading, writing, on_end), daemon=True, name="signals").start()


def end_at_once(code: int) -> None:
    """End the process without waiting for threads; nothing of it is left to be closed."""
    with suppress(OSError, ValueError):
        if sys.stderr is not None and sys.stderr.isatty():
            os.write(sys.stderr.fileno(), _SHOW_CURSOR)
    _exit_now(code)


def end_before_teardown(code: Callable[[], int]) -> None:
    """Let the last exit handler end the process with this exit code. Call it before libraries add theirs.

    Threads of runs live on in native code; one that asks for the interpreter while its modules are taken down
    ends the process by an abort, after all has been done and said (seen on a busy machine).
    """
    atexit.register(lambda: _exit_now(code()))


def _exit_now(code: int) -> None:
    with suppress(OSError, ValueError):  # whoever read our output may be gone
        if sys.stdout is not None:
            sys.stdout.flush()
    os._exit(code)


def _watch(reading: socket.socket, writing: socket.socket, on_end: Callable[[int], None]) -> None:
    """Reads signals for ever. `writing` is kept from being closed."""
    n_left_alone = 0
    while number := reading.recv(1)[0]:
        if number not in (signal.SIGINT, signal.SIGTERM):
            continue
        if signal.getsignal(number) not in (signal.default_int_handler, _exit):
            n_left_alone += 1
            if n_left_alone < 2:
                continue
        time.sleep(_GRACE_S)
        on_end(128 + number)
        end_at_once(128 + number)


def _exit(number: int, frame: object) -> None:
    sys.exit(128 + number)
