"""A signal ends a process within two seconds, also where threads or native code would keep it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sdpo_solve.cli import main
from tests.helpers.batches import make_problems
from tests.helpers.tiny_model import save_tiny_model

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

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


def test_the_end_takes_no_module_down_and_runs_every_handler() -> None:
    # A thread in native code that asks for a dying interpreter aborts the process.
    code = (
        "import atexit, sys\n"
        "from sdpo_solve.cli.signals import end_before_teardown\n"
        "class Late:\n    def __del__(self): print('taken down')\n"
        "late = Late()\n"
        "end_before_teardown(lambda: 4)\n"
        "atexit.register(lambda: print('handler'))\n"
        "sys.exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (4, "handler\n")


# Commands of a tiny model, without boxes: a model of random weights writes no program. The call named in the
# place of PATCH is native code that heeds no signal, from its N-th call on.
COMMAND = """
import hashlib, sys
from sdpo_solve.engines.hf import HfEngine
from sdpo_solve.grading.judge import Judge
from sdpo_solve.learner.learner import LoraLearner
from sdpo_solve.model.adapted import AdaptedModel
from sdpo_solve.run.build import Parts
from tests.helpers.killed_runs import NoBox

Parts.sandbox = NoBox()

def stuck_from(n, real):
    calls = []
    def call(*given, **named):
        calls.append(given)
        if len(calls) < n:
            return real(*given, **named)
        print("stuck", flush=True)
        hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
    return call

PATCH
from sdpo_solve.cli.main import main
main()
"""
STUCK = {
    "starting boxes": "Parts.sandbox = property(stuck_from(1, None))",
    "loading": "AdaptedModel.load = stuck_from(1, None)",
    "sampling": "HfEngine.sample = stuck_from(2, HfEngine.sample)",
    "grading": "Judge.grade = stuck_from(2, Judge.grade)",
    "learning": "LoraLearner.learn = stuck_from(1, None)",
}
ONE = ("run", "problems/say-0.json", "--group-size", "2", "--attempts", "4", "--out", "runs")
MANY = ("batch", "problems", "--methods", "sdpo", "--group-size", "2", "--attempts", "4", "--out", "runs")
SCREEN = ("screen", "problems", "--attempts", "16", "--out", "runs")
PLACES = [
    *((ONE, place) for place in STUCK),
    *((MANY, place) for place in ("loading", "sampling", "learning")),
    *((SCREEN, place) for place in ("sampling", "grading")),
]


@pytest.mark.parametrize(("command", "place"), PLACES, ids=[f"{given[0]} {place}" for given, place in PLACES])
def test_a_signal_ends_a_command_wherever_it_is_and_the_same_command_goes_on(
    tmp_path: Path, command: tuple[str, ...], place: str
) -> None:
    make_problems(tmp_path / "problems", 1)
    save_tiny_model(tmp_path / "tiny")
    given = [*command, "--model", "tiny", "--max-tokens", "8"]
    if command is not SCREEN:
        given += ["--set", "sdpo.preset=paper"]  # it learns after each group

    def start(patch: str) -> subprocess.Popen[str]:
        code = COMMAND.replace("PATCH", patch)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen([sys.executable, "-c", code, *given], cwd=tmp_path, env=ENVIRONMENT, **pipes)

    process = start(STUCK[place])
    assert process.stdout is not None
    said = []
    while "stuck\n" not in said:
        said.append(process.stdout.readline())
        assert said[-1], "".join(said)
    time.sleep(0.3)  # in native code by now
    process.send_signal(signal.SIGTERM)
    sent_s = time.monotonic()
    rest, _ = process.communicate(timeout=60)
    assert time.monotonic() - sent_s < 6  # two on a quiet machine
    assert process.returncode == 143
    assert "the same command goes on" in rest
    kept = written(tmp_path / "runs")
    process = start("")
    out, _ = process.communicate(timeout=120)
    assert process.returncode in (0, 1), out
    assert written(tmp_path / "runs")[: len(kept)] == kept
    assert len(written(tmp_path / "runs")) > len(kept)
    if place in ("sampling", "grading", "learning") and command is not SCREEN:
        assert sum(json.loads(line)["event"] == "group" for line in kept) == 1


def written(out: Path) -> list[str]:
    """The lines of the journal or the screening in `out`; a torn last one is left out."""
    files = [*out.rglob("journal.jsonl"), *out.glob("screening.jsonl")]
    text = files[0].read_text() if files else ""
    return text[: text.rfind("\n") + 1].splitlines()


@pytest.mark.parametrize("words", [["batch", "p"], ["batch", "p", "--dry-run", "--measure"]])
def test_an_interrupt_promises_to_go_on_only_where_something_is_kept(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sdpo-solve", *words])
    main._print_interrupted(130)
    assert ("goes on" in capsys.readouterr().err) == ("--dry-run" not in words)
