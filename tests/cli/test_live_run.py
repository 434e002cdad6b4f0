"""The live view of a run: what each frame says, that it fits its terminal, and that no text steers it."""

import errno
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

import pytest
from rich.console import Console

from sdpo_solve.cli import live_run, live_view
from sdpo_solve.errors import UserError
from sdpo_solve.report.progress import Progress
from sdpo_solve.run.records import record_of

EVIL = "\x1b]0;owned\x07\x1b[2J\x1b]8;;http://x\x1b\\[bold]x[/bold]\u202e\u2066\x9b1A\r\x08"


def attempt(
    index: int, status: str = "wrong_answer", feedback: str = "Wrong Answer\nInput: 1"
) -> dict[str, Any]:
    cases = [{"status": status, "visible": True}, {"status": "not_run", "visible": False}]
    solved = status == "accepted"
    if solved:
        cases[1]["status"] = "accepted"
    fields = {"index": index, "cases": cases, "solved": solved, "code": "print(1)", "feedback": feedback}
    return {"event": "attempt", "token_ids": [1] * 10, **fields}


def after(*events: Mapping[str, Any], header: Mapping[str, Any] | None = None) -> Progress:
    progress = Progress()
    start = {"problem": "inc", "method": "sdpo", "model": "m", "seed": 0, "budget": {"attempts": 400}}
    for event in ({"event": "run_started", **(header or start)}, *events):
        progress.apply(record_of(event))
    return progress


def update(version: int) -> dict[str, Any]:
    metrics = {"entropy": 0.25, "mean_length_tokens": 41.2, "kl_to_base": 0.01, "grad_norm": 0.5}
    return {"event": "update", "version": version, "loss": 0.5 / version, "metrics": metrics}


def shown(progress: Progress, width: int = 80, height: int = 24) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(live_run.frame(progress, height))
    return console.file.getvalue()


def group(size: int, tokens: int) -> dict[str, Any]:
    counts = {"size": size, "n_tokens": tokens, "n_solved": 0}
    return {"event": "group", **counts, "sample_s": 10.0, "grade_s": 1.0, "elapsed_s": 20.0}


def test_a_frame_says_budget_tests_pace_verdicts_updates_and_feedback() -> None:
    events = [
        *(attempt(i) for i in range(1, 8)),
        attempt(8, "time_limit", "Time Limit"),
        group(8, 500),
        update(1),
    ]
    text = shown(after(*events))
    for said in ("8/400", "80 tokens", "50 tokens/s", "left", "passed 0 of 2", "wwwwwwwt", "7 wrong answer"):
        assert said in text
    assert ["1", "0.5", "0.25", "41.2", "0.01", "0.5"] in [line.split() for line in text.splitlines()]
    assert "feedback on attempt 8" in text
    assert "Time Limit" in text


@pytest.mark.parametrize("height", [24, 50])
@pytest.mark.parametrize("n", [1, 64, 399, 2750])
def test_a_long_run_fits_its_terminal(n: int, height: int) -> None:
    said = "\n".join(f"line {i} {'x' * 200}" for i in range(30))
    events = [attempt(i, feedback=said) for i in range(1, n)] + [attempt(n, "no_code", said)]
    events += [update(version) for version in range(1, 9)]
    lines = shown(after(*events), height=height).splitlines()
    assert len(lines) <= height
    assert max(map(len, lines)) <= 80
    assert any("1 no code" in line for line in lines)


def test_a_solved_run_ends_with_its_solution() -> None:
    end = {
        "status": "solved",
        "attempts": 2,
        "tokens": 20,
        "wall_s": 65.0,
        "discovery_time": 2,
        "confirmed": True,
    }
    progress = after(attempt(1), attempt(2, "accepted"), {"event": "run_finished", **end})
    console = Console(file=io.StringIO(), width=80, highlight=False)
    live_run.print_result(console, progress, "runs/x")
    text = console.file.getvalue()
    assert "solved at attempt 2 · hidden tests passed · 2 attempts, 20 tokens, 1:05" in text
    assert "  print(1)" in text


@pytest.mark.parametrize("language", ["python", "cpp"])
@pytest.mark.parametrize("terminal", [True, False])
def test_a_long_line_of_the_solution_is_shown_to_its_end(terminal: bool, language: str) -> None:
    code = "int main() { return " + " + ".join(f"x{i}" for i in range(40)) + "; }"
    end = {
        "status": "solved",
        "attempts": 1,
        "tokens": 20,
        "wall_s": 65.0,
        "discovery_time": 1,
        "confirmed": True,
    }
    solved = {**attempt(1, "accepted"), "code": code}
    header = {"problem": "p", "method": "sdpo", "model": "m", "seed": 0, "budget": {}, "language": language}
    progress = after(solved, {"event": "run_finished", **end}, header=header)
    console = Console(file=io.StringIO(), width=80, force_terminal=terminal, color_system=None)
    live_run.print_result(console, progress, "runs/x")
    rows = console.file.getvalue().splitlines()
    assert all(f"x{i}" in " ".join(rows).split() for i in range(39))
    assert max(map(len, rows)) == 80 if terminal else f"  {code}" in rows


def test_nothing_that_a_model_or_a_program_wrote_steers_the_terminal() -> None:
    header = {"problem": EVIL, "method": EVIL, "model": EVIL, "seed": 0, "budget": {"attempts": 4}}
    evil = {**attempt(2, "accepted", EVIL), "code": f"# {EVIL}\nprint(1)"}
    events = [attempt(1, feedback=EVIL), {"event": "notice", "text": EVIL}]
    end = {
        "status": "solved",
        "attempts": 2,
        "tokens": 20,
        "wall_s": 1.0,
        "discovery_time": 2,
        "confirmed": None,
    }
    progress = after(*events, header=header)
    console = Console(file=io.StringIO(), width=80, highlight=False)
    console.print(live_run.frame(progress))
    for event in (evil, {"event": "run_finished", **end}):
        record = record_of(event)
        progress.apply(record)
        console.print(live_run.plain_line(record, progress) or "")
    console.print(live_run.frame(progress))
    live_run.print_result(console, progress, "runs/x")
    text = console.file.getvalue()
    assert not set(text) & set("\x1b\x07\x08\x9b\r\u202e\u2066")
    assert "[bold]x[/bold]" in text


def test_a_colour_terminal_gets_colours_and_no_other_sequence() -> None:
    evil = {**attempt(1, "accepted"), "code": f"x = '{EVIL}'"}
    end = {
        "status": "solved",
        "attempts": 1,
        "tokens": 10,
        "wall_s": 1.0,
        "discovery_time": 1,
        "confirmed": True,
    }
    progress = after(evil, {"event": "run_finished", **end})
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system="standard")
    console.print(live_run.frame(progress))
    live_run.print_result(console, progress, "runs/x")
    text = console.file.getvalue()
    assert "\x1b" in text
    assert "\x1b" not in re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_a_live_view_can_be_made_on_a_terminal_and_shows_what_health_did() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=30)
    view = live_run.RunView(console)
    assert view.is_live
    update = {"event": "update", "version": 2, "loss": None, "n_examples": 0, "n_tokens": 0, "metrics": {}}
    notices = ["version 1 collapsed (repetition 0.6, limit 0.5); back to version 0"]
    with view:
        view.on_event({"event": "run_started", "problem": "inc", "method": "sdpo", "seed": 0, "budget": {}})
        view.on_event({**update, "notices": notices})
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert notices[0] in re.sub(r"\s*\n\s*", " ", shown)


def test_plain_lines_say_what_health_did() -> None:
    update = {"event": "update", "version": 2, "loss": None, "metrics": {}, "notices": ["going back"]}
    out = io.StringIO()
    view = live_run.RunView(Console(file=out, width=80))
    view.on_event(update)
    assert "  ! going back" in out.getvalue()


def graded(index: int) -> dict[str, Any]:
    return {"event": "graded", **{key: attempt(index)[key] for key in ("index", "cases", "solved")}}


def test_a_verdict_is_shown_as_soon_as_it_is_known_and_once() -> None:
    out = io.StringIO()
    view = live_run.RunView(Console(file=out, width=80))
    for event in ({"event": "grading", "size": 2}, graded(2)):
        view.on_event(event)
    assert out.getvalue().split() == ["attempt", "2", "0/2", "passed", "wrong", "answer"]
    assert "1 judged" in shown(view.progress)
    for event in (graded(1), attempt(1), attempt(2), group(2, 20)):
        view.on_event(event)
    lines = out.getvalue().splitlines()
    assert [line.split()[1] for line in lines if line.startswith("attempt")] == ["2", "1"]
    assert view.progress.marks == ["w", "w"]
    assert not view.progress.group_marks


def test_a_long_silence_is_broken_by_a_line_that_says_where_things_stand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live_view, "SILENCE_S", 0.05)
    out = io.StringIO()
    with live_run.RunView(Console(file=out, width=80)) as view:
        view.on_event({"event": "learning", "size": 8})
        time.sleep(0.5)
    assert out.getvalue().splitlines()[0].startswith("learning from 8 attempts · 0:0")
    n_lines = out.getvalue().count("\n")
    time.sleep(0.2)
    assert 2 <= n_lines == out.getvalue().count("\n")  # none after the view is left


LOSES = """
import hashlib, queue, signal, threading, time
from rich.console import Console
from sdpo_solve.cli import live_run, live_view
live_view.SILENCE_S = 0.1
with live_run.RunView(Console()) as view:
    STUCK
"""
LEARNING = "view.on_event({'event': 'learning', 'size': 8})"


@pytest.mark.parametrize(
    "stuck",
    [
        "queue.SimpleQueue().get()",
        "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)",  # native code that heeds no signal
        f"time.sleep(1); {LEARNING}; print('not reached')",
        # As a batch on Ray, which ends in order: by the first event that is refused.
        f"signal.signal(signal.SIGINT, lambda *_: None)\n    while True: time.sleep(0.1); {LEARNING}",
        "threading.Thread(target=lambda: view.print_line('a line')).start(); threading.Event().wait()",
    ],
    ids=["waiting", "native", "event", "in order", "thread"],
)
def test_an_output_that_nobody_reads_ends_a_command_whoever_notices(stuck: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", LOSES.replace("STUCK", stuck)],
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


class FullFile(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_an_output_that_is_full_ends_a_command_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_view, "SILENCE_S", 0.5)
    full = pytest.raises(UserError, match="cannot write the output: No space left on device")
    with full, live_run.RunView(Console(file=FullFile())):
        threading.Event().wait(20)
        raise AssertionError("the main thread was not woken")
    assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN
    monkeypatch.setattr(live_view.View, "_end", lambda _: None)
    with full, live_run.RunView(Console(file=FullFile())) as view:
        while view._lost is None:
            time.sleep(0.05)


def test_the_clock_of_a_resumed_run_goes_on() -> None:
    progress = Progress()
    progress.apply(record_of({"event": "run_resumed", "attempts": 4, "updates": 1, "elapsed_s": 120.0}))
    progress.apply(record_of({"event": "run_started", "budget": {"attempts": 8}}))
    progress.apply(record_of({"event": "sampling", "size": 2}))
    assert progress.elapsed_now_s() == pytest.approx(120, abs=1)
    assert progress.notices == ["resumed after 4 attempts and 1 update"]


def test_the_time_left_runs_down_between_groups() -> None:
    progress = after(*(attempt(i) for i in range(1, 9)), group(8, 500))
    before = progress.left_s()
    progress.seen_s -= 5
    assert before is not None
    assert progress.left_s() == pytest.approx(before - 5, abs=0.5)
    progress.seen_s -= 10 * before
    assert progress.left_s() == 0


@pytest.mark.parametrize(("solved", "full"), [(True, 30), (False, 0)])
def test_only_a_success_fills_the_bar_in_green(solved: bool, full: int) -> None:
    end = {"status": "solved" if solved else "unsolved", "attempts": 4, "tokens": 40, "wall_s": 1.0}
    first = {"discovery_time": 2 if solved else None, "confirmed": solved or None}
    header = {"problem": "p", "method": "sdpo", "seed": 0, "budget": {"attempts": 4}}
    done = [attempt(i, "accepted" if solved and i == 2 else "wrong_answer") for i in range(1, 5)]
    progress = after(*done, {"event": "run_finished", **end, **first}, header=header)
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system="standard")
    console.print(live_run.frame(progress))
    green = re.findall(r"\x1b\[32m(━+)", console.file.getvalue())
    assert sum(map(len, green)) == full
