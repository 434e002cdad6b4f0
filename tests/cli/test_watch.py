"""Following journals that something else writes: what is seen when, and what is said of a run nobody writes."""

import io
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from sdpo_solve.batch.event_bus import LogFile
from sdpo_solve.cli.watch import Watch, watch
from sdpo_solve.errors import JournalError
from sdpo_solve.report.follow import Follower, locked
from sdpo_solve.run.journal import Journal
from sdpo_solve.types import Outcome, OutcomeStatus
from tests.helpers.journals import Made, attempt, damage, header, make


def text_console(width: int = 80) -> Console:
    return Console(file=io.StringIO(), width=width, highlight=False)


def now(source: Path, width: int = 80) -> str:
    """The frame of these runs as they stand."""
    console = text_console(width)
    view = Watch(source, console)
    view.poll()
    console.print(view.frame())
    return console.file.getvalue()


def test_a_group_is_seen_when_it_is_closed_and_only_once(tmp_path: Path) -> None:
    lines = (make(tmp_path / "whole", Made()) / "journal.jsonl").read_bytes().splitlines(keepends=True)
    path = tmp_path / "journal.jsonl"
    follower = Follower(tmp_path)
    seen = []
    for cut in (0, 1, 4, 6, 7, len(lines)):  # inside a group, at its end, and at the end of all
        path.write_bytes(b"".join(lines[:cut]) + b'{"event": "att')
        follower.poll()
        seen.append(len(follower.progress.marks))
    assert seen == [0, 0, 0, 0, 4, 8]
    assert follower.progress.finished is not None
    assert follower.poll() == []


def test_an_unclosed_end_that_a_resume_rewrites_is_not_counted_twice(tmp_path: Path) -> None:
    lines = (make(tmp_path / "whole", Made()) / "journal.jsonl").read_bytes().splitlines(keepends=True)
    path = tmp_path / "journal.jsonl"
    follower = Follower(tmp_path)
    path.write_bytes(b"".join(lines[:5]))  # three attempts of a group that never closes
    follower.poll()
    path.write_bytes(b"".join(lines))
    follower.poll()
    assert len(follower.progress.marks) == 8


def test_a_damaged_journal_is_an_error_not_a_state(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_text("[1]\n")
    with pytest.raises(JournalError, match="line 1"):
        Follower(tmp_path).poll()


def test_damage_further_on_is_named_by_its_line_and_what_came_before_is_kept(tmp_path: Path) -> None:
    path = make(tmp_path, Made()) / "journal.jsonl"
    follower = Follower(path.parent)
    lines = path.read_text().splitlines(keepends=True)
    n = next(n for n, line in enumerate(lines, start=1) if json.loads(line)["event"] == "update")
    path.write_text("".join(lines[: n - 1]))
    follower.poll()
    path.write_text("".join([*lines[:n], '{"event": "run_failed"}\n']))  # an event without its error
    with pytest.raises(JournalError, match=rf"journal\.jsonl, line {n + 1}: not an event of this version"):
        follower.poll()
    assert (len(follower.progress.marks), len(follower.progress.updates)) == (4, 1)


def test_a_damaged_run_is_named_and_the_others_are_watched(tmp_path: Path) -> None:
    make(tmp_path, Made(solved_at=(2,)))
    place = damage(make(tmp_path, Made(seed=1)), 4)
    console = text_console(width=200)
    watch(tmp_path, console)
    for shown in (console.file.getvalue(), now(tmp_path, width=200)):
        lines = [line.rstrip() for line in shown.splitlines()]
        assert f"damaged: {place}" in lines
        assert any(line.startswith("inc/sdpo/seed-0: solved at attempt 2") for line in lines)
        assert not any("seed-1:" in line for line in lines)


def test_a_run_that_turns_damaged_while_watched_ends_no_watch(tmp_path: Path) -> None:
    going = Journal(tmp_path / "inc" / "sdpo" / "seed-1", "x")
    going.start(header(Made(seed=1)))
    make(tmp_path, Made(solved_at=(2,)))
    seen = Watch(tmp_path, text_console())
    seen.poll()
    assert not seen.damaged
    with (going.path).open("a") as file:
        file.write("[1]\n")
    seen.poll()
    going.close()
    assert [error.short for error in seen.damaged.values()] == [f"damaged: {going.path}, line 2"]
    assert [seen.state(follower) for follower in seen.followers.values()] == ["solved"]


def test_states_tell_running_from_stopped_failed_and_ended(tmp_path: Path) -> None:
    make(tmp_path, Made(seed=0, solved_at=(2,)))
    make(tmp_path, Made(seed=1))
    make(tmp_path, Made(seed=2, fails_after=4))
    make(tmp_path, Made(seed=3, stops_after=4))
    going = Journal(tmp_path / "inc" / "sdpo" / "seed-4", "x")
    going.start(header(Made(seed=4)))
    seen = Watch(tmp_path, text_console())
    seen.poll()
    states = {f.progress.header.seed: seen.state(f) for f in seen.followers.values()}
    assert states == {0: "solved", 1: "unsolved", 2: "failed", 3: "stopped", 4: "running"}
    assert seen.going_on
    going.close()
    seen.poll()
    assert not seen.going_on


def test_a_journal_is_locked_as_long_as_another_process_holds_it(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from sdpo_solve.run.journal import Journal;"
        "j = Journal(Path(sys.argv[1]), 'x'); print('held', flush=True); sys.stdin.read()"
    )
    path = tmp_path / "journal.jsonl"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        assert locked([path]) == {path}
        process.communicate()
    assert locked([path]) == set()


def test_a_watched_run_is_told_line_by_line_to_its_end(tmp_path: Path) -> None:
    made = Made(solved_at=(6,))
    journal = Journal(tmp_path / "inc" / "sdpo" / "seed-0", "x")
    journal.start(header(made))
    console = text_console()
    watcher = threading.Thread(target=watch, args=(tmp_path, console))
    watcher.start()
    time.sleep(0.7)
    journal.append_group([attempt(made, i, 0) for i in range(1, 5)], sample_s=1, grade_s=1)
    time.sleep(0.7)
    journal.append_group([attempt(made, i, 0) for i in range(5, 9)], sample_s=1, grade_s=1)
    journal.finish(Outcome(OutcomeStatus.SOLVED, 6, True, 8, 80, 4.0))
    journal.close()
    watcher.join(timeout=20)
    assert not watcher.is_alive()
    lines = console.file.getvalue().splitlines()
    assert lines[0].startswith("inc/sdpo/seed-0: running (0/8 attempts")
    assert [line.split()[1] for line in lines if line.startswith("attempt")] == [str(i) for i in range(1, 9)]
    assert lines[-1].startswith("inc/sdpo/seed-0: solved at attempt 6 (8/8 attempts, 80 tokens")


def test_a_batch_between_two_runs_is_followed_to_its_end(tmp_path: Path) -> None:
    make(tmp_path, Made(solved_at=(2,)))
    with LogFile(tmp_path):
        view = Watch(tmp_path, text_console())
        view.poll()
        assert view.going_on
        alone = Watch(tmp_path / "inc" / "sdpo" / "seed-0", text_console())
        alone.poll()
        assert not alone.going_on  # the run has ended, whatever the batch does
        make(tmp_path, Made(seed=1))
        assert "between two runs" in now(tmp_path)
    view.poll()
    assert not view.going_on


def test_many_runs_are_counted_by_method(tmp_path: Path) -> None:
    for seed in range(3):
        make(tmp_path, Made(seed=seed, solved_at=(2,) if seed else ()))
        make(tmp_path, Made(method="best-of-k", seed=seed))
    shown = now(tmp_path)
    rows = {words[0]: words[1:] for line in shown.splitlines() if (words := line.split())}
    assert rows["sdpo"][:4] == ["3", "0", "2", "1"]
    assert rows["best-of-k"][:4] == ["3", "0", "0", "3"]
    assert max(map(len, shown.splitlines())) <= 80


def test_what_a_model_wrote_cannot_reach_the_terminal_through_watch(tmp_path: Path) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J[bold]x[/bold]\x1b]8;;http://x\x1b\\"
    make(
        tmp_path, Made(problem="evil", header={"problem": evil, "model": evil}, feedback=evil, stops_after=4)
    )
    assert "\x1b" not in now(tmp_path)
    assert "[bold]x[/bold]" in now(tmp_path)


def test_a_directory_without_runs_is_said_so(tmp_path: Path) -> None:
    console = text_console()
    watch(tmp_path, console)
    assert console.file.getvalue().startswith("no run under")


def test_attempt_lines_hold_what_followers_rely_on(tmp_path: Path) -> None:
    lines = (make(tmp_path, Made()) / "journal.jsonl").read_text().splitlines()
    event = next(json.loads(line) for line in lines if json.loads(line)["event"] == "attempt")
    assert {"index", "cases", "solved", "token_ids", "time"} <= event.keys()


def test_a_batch_before_its_first_run_is_starting(tmp_path: Path) -> None:
    with LogFile(tmp_path):
        assert "starting" in now(tmp_path)
