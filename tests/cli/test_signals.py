"""A signal ends a process within two seconds, also where threads or native code would keep it."""

import os
import signal
import subprocess
import sys
import time

import pytest

START = """
import hashlib, signal, sys, threading, time
from sdpo_solve.cli.signals import end_on_signals
end_on_signals(lambda code: print("ending", code, file=sys.stderr, flush=True))
"""
# Waits for ever at its end: an interpreter joins its threads.
THREAD = "threading.Thread(target=threading.Event().wait).start()\n"
READY = "print('ready', flush=True)\n"
# Native code that gives the interpreter free and heeds no signal.
NATIVE = "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)\n"
GRACEFUL = "signal.signal(signal.SIGINT, lambda *_: None)\n"


def started(code: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", START + code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)
@pytest.mark.parametrize(
    "stuck", [THREAD + READY + "time.sleep(60)", READY + NATIVE], ids=["thread", "native"]
)
def test_nothing_keeps_a_process_that_was_signalled(number: int, code: int, stuck: str) -> None:
    process = started(stuck)
    time.sleep(0.5)  # it is where it should be stuck
    began_s = time.monotonic()
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == code
    assert f"ending {code}" in err
    assert time.monotonic() - began_s < 2.5  # on a busy machine, too


def test_where_a_command_ends_in_order_the_second_signal_ends_it() -> None:
    process = started(GRACEFUL + READY + "for _ in range(600): time.sleep(0.1)")
    os.kill(process.pid, signal.SIGINT)
    time.sleep(2.5)
    assert process.poll() is None
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130
