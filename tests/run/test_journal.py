"""The journal: whole groups only, a torn last line forgiven, anything else a clear error."""

import errno
import fcntl
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sdpo_solve.errors import EngineError, JournalError
from sdpo_solve.run.events import last_record, read_records
from sdpo_solve.run.journal import Journal
from sdpo_solve.run.records import RunStarted
from sdpo_solve.solve import solve
from sdpo_solve.types import Budget
from tests.helpers.parts import SayEngine, answer, make_run


def finished(tmp_path: Path) -> Path:
    run = make_run(tmp_path, SayEngine(lambda *_: answer("wrong")), size=2, budget=Budget(4))
    solve(run)
    run.journal.close()
    return tmp_path / "journal.jsonl"


def test_the_record_reads_back_as_it_was(tmp_path: Path) -> None:
    run = make_run(tmp_path, SayEngine(lambda s, p, n: answer(f"wrong\ud800 {n}")), size=2, budget=Budget(4))
    outcome = solve(run)
    run.journal.close()
    state = Journal(tmp_path, "test/inc").state
    assert state.history == run.journal.history
    assert state.outcome == outcome
    assert state.updates == run.journal.state.updates
    assert state.header.problem == "inc"


def test_a_group_that_was_never_closed_is_dropped(tmp_path: Path) -> None:
    path = finished(tmp_path)
    lines = path.read_text().splitlines(keepends=True)
    kinds = [json.loads(line)["event"] for line in lines]
    assert kinds == [
        "run_started", "prompt", "attempt", "attempt", "group", "update", "attempt", "attempt", "group", "run_finished",
    ]  # fmt: skip
    path.write_text("".join(lines[:8]))
    journal = Journal(tmp_path, "test/inc")
    assert [attempt.index for attempt in journal.history] == [1, 2]
    assert journal.last_policy is not None
    assert path.read_text() == "".join(lines[:6])


def test_a_group_without_its_update_is_learned_from_first(tmp_path: Path) -> None:
    path = finished(tmp_path)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:5]))
    journal = Journal(tmp_path, "test/inc")
    assert [attempt.index for attempt in journal.unlearned_group] == [1, 2]


@pytest.mark.parametrize(
    "damage", ["{\n", "[]\n", '{"event": "group", "size": 3}\n', '{"no": "event"}\n', "\x00\x00\n"]
)
def test_damage_in_the_middle_names_file_and_line_and_changes_nothing(tmp_path: Path, damage: str) -> None:
    path = finished(tmp_path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:4], damage, *lines[4:]]))
    before = path.read_bytes()
    with pytest.raises(JournalError, match=r"journal\.jsonl, line 5") as caught:
        Journal(tmp_path, "test/inc")
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("config", {"options": ["temperature"]}, "options is no table"),
        ("config", {"parts": []}, "parts is no table"),
        ("config", {"parts": {"judge": [4]}}, "parts.judge is no table"),
        ("config", {"problem": "inc"}, "problem is no table"),
        ("budget", {"attempts": ["64"]}, "budget"),
    ],
)
def test_a_header_whose_tables_are_none_is_damage(
    tmp_path: Path, field: str, value: object, said: str
) -> None:
    header = {"event": "run_started", "problem": "inc", "method": "sdpo", "seed": 0, field: value}
    path = tmp_path / "journal.jsonl"
    path.write_text(json.dumps(header) + "\n")
    for read in (lambda: list(read_records(path)), lambda: Journal(tmp_path, "run")):
        with pytest.raises(JournalError, match=r"journal\.jsonl, line 1: .*" + said):
            read()


def test_the_header_of_an_early_journal_has_no_config(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text('{"event": "run_started", "problem": "inc", "method": "sdpo", "seed": 0}\n')
    (line,) = read_records(path)
    assert isinstance(line.record, RunStarted)
    assert (line.record.options, line.record.parts, line.record.attempts_limit) == ({}, {}, None)


def test_two_processes_cannot_write_one_journal(tmp_path: Path) -> None:
    first = Journal(tmp_path, "test/inc")
    with pytest.raises(JournalError, match="another process"):
        Journal(tmp_path, "test/inc")
    first.close()
    Journal(tmp_path, "test/inc").close()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(file: object, how: int) -> None:
        raise OSError(number, "refused")

    monkeypatch.setattr(fcntl, "flock", refuse)
    events: list[dict] = []
    journal = Journal(tmp_path, "run", [events.append])
    journal.start({"problem": "p", "method": "m", "seed": 0})
    journal.close()
    assert [event["event"] for event in events] == ["notice", "run_started"]
    assert "no locks" in events[0]["text"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match=r"cannot write .*file"):
        Journal(tmp_path / "file" / "run", "test/inc")


def test_a_full_disk_is_a_clear_error() -> None:
    journal = Journal.__new__(Journal)
    journal.path = Path("/dev/full")
    journal._file = open("/dev/full", "ab", buffering=0)  # noqa: SIM115
    journal._listeners = []
    with journal._file, pytest.raises(JournalError, match="No space left on device; free the disk"):
        journal._write([{"event": "attempt"}])


def test_numbers_that_json_lacks_are_null(tmp_path: Path) -> None:
    for line in finished(tmp_path).read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"bare {name}"))


def test_listeners_hear_every_event_and_a_resume_tells_them_the_past(tmp_path: Path) -> None:
    heard: list[str] = []
    run = make_run(
        tmp_path, SayEngine(lambda *_: answer("wrong")), size=2, budget=Budget(2),
        listeners=[lambda event: heard.append(event["event"])],
    )  # fmt: skip
    solve(run)
    run.journal.close()
    assert heard == [
        "run_started", "sampling", "grading", "graded", "graded", "prompt", "attempt", "attempt", "group",
        "run_finished",
    ]  # fmt: skip
    before_s = last_record(tmp_path / "journal.jsonl").elapsed_s
    again: list[Mapping[str, Any]] = []
    solve(make_run(tmp_path, SayEngine(lambda *_: ""), budget=Budget(2), listeners=[again.append]))
    assert again[0]["elapsed_s"] >= before_s - 0.001, "the clock goes on too"
    assert [event["event"] for event in again] == [
        "run_resumed",
        "run_started",
        "attempt",
        "attempt",
        "run_finished",
    ]


def test_a_failure_is_recorded_and_does_not_end_the_run(tmp_path: Path) -> None:
    run = make_run(tmp_path, SayEngine(lambda *_: answer("wrong")), size=2, budget=Budget(4))
    run.journal.fail(EngineError("out of memory"))
    run.journal.close()
    assert last_record(tmp_path / "journal.jsonl").kind == "EngineError"
    again = make_run(tmp_path, SayEngine(lambda *_: answer("wrong")), size=2, budget=Budget(4))
    assert again.journal.state.failures == ["out of memory"]
    assert solve(again).attempts == 4
    again.journal.close()
    assert Journal(tmp_path, "test/inc").state.failures == [], "it was finished since"


def test_the_last_record_is_found_from_the_end_whatever_its_length(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    assert last_record(path) is None
    path.write_text('{"event": "to')
    assert last_record(path) is None
    for n_bytes in (10, 5000, 100_000):
        long = json.dumps({"event": "notice", "text": "x" * n_bytes})
        path.write_text(f'{{"event": "first"}}\n{long}\n{{"event": "torn')
        assert len(last_record(path).text) == n_bytes
    path.write_text('{"event": "notice", "text": "only"}\n')
    assert last_record(path).text == "only"
