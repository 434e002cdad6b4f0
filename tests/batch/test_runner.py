"""Threads of runs: every run ends as it would alone, failures stay small, stopping is clean."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from sdpo_solve.batch.runner import end_on_disk
from sdpo_solve.config import RunOptions
from sdpo_solve.errors import ConfigError, EngineError, JournalError, ProblemError, PromptError
from sdpo_solve.run.journal import Journal
from sdpo_solve.solve import solve
from sdpo_solve.types import Budget, Policy
from tests.helpers.parts import answer
from tests.helpers.small_runs import KEYS, SmallRuns, journal, reply


def test_every_run_among_others_equals_the_run_alone(tmp_path: Path) -> None:
    bench = SmallRuns(tmp_path / "together", reply)
    summaries = bench.perform()
    assert sorted(summary.key for summary in summaries) == sorted(KEYS)
    for key in KEYS:
        alone = SmallRuns(tmp_path / "alone", reply)
        run = alone.open(key, [])
        solve(run)
        assert journal(tmp_path / "together", key) == journal(tmp_path / "alone", key)


def test_finished_runs_are_kept_and_cost_nothing(tmp_path: Path) -> None:
    first = SmallRuns(tmp_path, reply).perform()
    bench = SmallRuns(tmp_path, reply)
    again = bench.perform()
    assert bench.engine.calls == []
    assert all(
        end_on_disk(tmp_path, end.key, RunOptions(attempts=1)) == end.model_copy(update={"kept": True})
        for end in again
    )
    ends = {s.key: (s.status, s.solved, s.discovery_time, s.attempts, s.tokens) for s in first}
    assert ends == {s.key: (s.status, s.solved, s.discovery_time, s.attempts, s.tokens) for s in again}


def fails(times: int, error: Exception = EngineError("out of memory")) -> Callable:  # noqa: B008
    """An engine that breaks `times` times, at the second group of a run."""
    left = [times]

    def says(seed: int, policy: Policy, n: int) -> str:
        if policy.version == 1 and left[0]:
            left[0] -= 1
            raise error
        return answer(f"wrong {seed} {policy.version}")

    return says


def test_a_failure_ends_its_own_run_and_is_tried_again(tmp_path: Path) -> None:
    summaries = SmallRuns(tmp_path, fails(1)).perform()
    assert [s.status for s in summaries] == ["finished"] * len(KEYS)
    failed = [key for key in KEYS if any(e["event"] == "run_failed" for e in journal(tmp_path, key))]
    assert len(failed) == 1


@pytest.mark.parametrize("error", [None, EngineError("out of memory")], ids=["disk", "engine"])
def test_a_run_whose_failure_cannot_be_recorded_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    """A full disk: its journal could not count the tries either, and they would never end."""
    write = Journal._write

    def full(self: Journal, events: Sequence[dict]) -> None:
        if events[-1]["event"] in ("group", "run_failed"):
            raise JournalError("No space left on device")
        write(self, events)

    def says(seed: int, policy: Policy, n: int) -> str:
        if error:
            raise error
        return answer("wrong")

    monkeypatch.setattr(Journal, "_write", full)
    bench = SmallRuns(tmp_path, says, tries=2)
    (end,) = bench.perform(KEYS[:1])
    assert (end.status, end.error) == ("failed", str(error or "No space left on device"))
    assert len(bench.engine.calls) == (0 if error else 4), "one group"


def test_a_template_that_cannot_say_a_prompt_fails_its_own_run(tmp_path: Path) -> None:
    fault = PromptError("System role not supported; leave out --system")
    ended = SmallRuns(tmp_path, fails(1, fault), tries=1).perform()
    assert sorted(end.status for end in ended) == ["failed"] + ["finished"] * (len(KEYS) - 1)
    assert [end.error for end in ended if end.status == "failed"] == [str(fault)]


def test_tries_are_counted_over_commands_and_then_the_run_is_listed(tmp_path: Path) -> None:
    key = KEYS[0]
    bench = SmallRuns(tmp_path, fails(99), tries=2)
    (summary,) = bench.perform([key])
    assert (summary.status, summary.kept, summary.error) == ("failed", False, "out of memory")
    assert [e["event"] for e in journal(tmp_path, key)].count("run_failed") == 2
    (again,) = SmallRuns(tmp_path, reply, tries=2).perform([key])
    assert (again.status, again.kept) == ("failed", True)
    (more,) = SmallRuns(tmp_path, reply, tries=3).perform([key])
    assert more.status == "finished"


def test_a_larger_budget_gives_a_run_no_tries_and_leaves_its_end(tmp_path: Path) -> None:
    key = KEYS[0]
    SmallRuns(tmp_path, fails(99), tries=2).perform([key])
    whole = (tmp_path / key.name / "journal.jsonl").read_bytes()
    (again,) = SmallRuns(tmp_path, reply, tries=2, budget=Budget(16)).perform([key])
    assert (again.status, again.kept, again.attempts) == ("failed", True, 4)
    assert (tmp_path / key.name / "journal.jsonl").read_bytes() == whole


def test_failures_before_a_run_was_finished_are_no_tries_of_its_larger_budget(tmp_path: Path) -> None:
    key = KEYS[0]
    (first,) = SmallRuns(tmp_path, fails(1), tries=2).perform([key])
    (more,) = SmallRuns(tmp_path, reply, tries=1, budget=Budget(12)).perform([key])
    assert [(end.status, end.attempts) for end in (first, more)] == [("finished", 8), ("finished", 12)]


@pytest.mark.parametrize("threads", [1, 3])
def test_a_runs_seconds_do_not_depend_on_how_many_are_in_flight(tmp_path: Path, threads: int) -> None:
    """Two groups of 4 attempts, 0.05 s each: 0.4 s, though three runs that share an engine take 1.2 s."""

    def slow(seed: int, policy: Policy, n: int) -> str:
        time.sleep(0.05)
        return answer("wrong")

    ends = SmallRuns(tmp_path, slow).perform(KEYS[:3], threads)
    assert [end.wall_s for end in ends] == pytest.approx([0.4] * 3, abs=0.3)
    lines = (tmp_path / KEYS[0].name / "journal.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    sampled_s = [event["sample_s"] for event in events if event["event"] == "group"]
    assert sampled_s == pytest.approx([0.2, 0.2], abs=0.15)


def test_a_solution_that_could_not_be_written_is_written_by_the_next_command(tmp_path: Path) -> None:
    key, options = KEYS[0], RunOptions(attempts=8)

    def right(seed: int, policy: Policy, n: int) -> str:
        return answer("right")

    place = tmp_path / key.name / "solution.py"
    place.mkdir(parents=True)  # writing there fails
    (end,) = SmallRuns(tmp_path, right).perform([key])
    assert (end.status, end.error.split(":")[0]) == ("failed", f"cannot write {place}")
    place.rmdir()
    assert end_on_disk(tmp_path, key, options) is None
    again = SmallRuns(tmp_path, right)
    (end,) = again.perform([key])
    assert (end.status, end.solved, again.engine.calls) == ("finished", True, [])
    assert place.read_text() == "right\n"
    assert end_on_disk(tmp_path, key, options).kept


def test_a_failure_is_spent_where_the_journal_counts_it(tmp_path: Path) -> None:
    """Another process that holds a run counts nothing: the same command works later."""
    (key, *_) = KEYS
    held = Journal(tmp_path / key.name, "run")
    (end,) = SmallRuns(tmp_path, reply).perform([key])
    held.close()
    assert (end.status, end.is_spent) == ("failed", False)
    for _ in range(2):
        (end,) = SmallRuns(tmp_path, fails(9), tries=2).perform([key])
        assert (end.status, end.is_spent) == ("failed", True)


def test_a_users_mistake_ends_the_batch(tmp_path: Path) -> None:
    bench = SmallRuns(tmp_path, reply)

    def refuse(key, listeners):
        raise ConfigError("results must not mix")

    object.__setattr__(bench.runner, "open_run", refuse)
    with pytest.raises(ConfigError, match="must not mix"):
        bench.perform()


def test_a_checker_that_crashes_fails_its_own_run_at_once(tmp_path: Path) -> None:
    summaries = SmallRuns(tmp_path, fails(1, ProblemError("its checker failed"))).perform()
    assert sorted(s.status for s in summaries) == ["failed"] + ["finished"] * (len(KEYS) - 1)


def test_the_stop_signal_ends_runs_after_the_group_under_way(tmp_path: Path) -> None:
    bench = SmallRuns(tmp_path, lambda seed, policy, n: bench.stop.set() or answer("wrong"))
    summaries = bench.perform(threads=1)
    assert [s.status for s in summaries] == ["stopped"] * len(KEYS)
    started = journal(tmp_path, KEYS[0])
    assert [e["event"] for e in started if e["event"] != "prompt"] == [
        "run_started",
        *["attempt"] * 4,
        "group",
    ]
    assert not (tmp_path / KEYS[-1].name).exists()
    whole = SmallRuns(tmp_path, reply).perform()
    assert {s.status for s in whole} == {"finished"}


def test_what_breaks_once_the_batch_has_ended_is_no_failure_of_a_run(tmp_path: Path) -> None:
    def closed(seed: int, policy: Policy, n: int) -> str:
        bench.stop.set()
        raise AttributeError("the engine is closed")

    bench = SmallRuns(tmp_path, closed)
    assert {end.status for end in bench.perform(threads=1)} == {"stopped"}
    assert "run_failed" not in [event["event"] for event in journal(tmp_path, KEYS[0])]


def test_a_fault_of_one_run_ends_that_run_with_its_traceback(tmp_path: Path) -> None:
    bench = SmallRuns(tmp_path, fails(1, AttributeError("no attribute 'shape'")), tries=1)
    ended = bench.perform()
    (failed,) = [summary for summary in ended if summary.status != "finished"]
    assert (failed.status, failed.attempts) == ("failed", 4)
    assert failed.error.startswith("AttributeError: no attribute 'shape'")
    (fault,) = [event for event in bench.events if event["event"] == "fault"]
    assert fault["run"] == failed.key.name
    assert fault["traceback"].startswith("Traceback")
    assert journal(tmp_path, failed.key)[-1]["event"] == "run_failed"
