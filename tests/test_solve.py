"""The loop: what counts, what stops it, what is learned from, and going on from a journal."""

import json
from pathlib import Path

import pytest

from sdpo_solve.errors import EngineError
from sdpo_solve.report.runs import RunStatus, read_run
from sdpo_solve.solve import attempt_seed, solve
from sdpo_solve.types import Budget, OutcomeStatus, Policy
from tests.helpers.parts import SayEngine, answer, make_run


def always(code: str) -> SayEngine:
    return SayEngine(lambda seed, policy, n: answer(code))


def right_at(*indices: int) -> SayEngine:
    return SayEngine(lambda seed, policy, n: answer("right" if n + 1 in indices else "wrong"))


def events(path: Path) -> list[dict]:
    return [json.loads(line) for line in (path / "journal.jsonl").read_text().splitlines()]


def test_the_first_success_stops_the_run_and_its_group_counts_whole(tmp_path: Path) -> None:
    run = make_run(tmp_path, right_at(6), size=4)
    outcome = solve(run)
    assert outcome.status is OutcomeStatus.SOLVED
    assert (outcome.discovery_time, outcome.attempts, outcome.tokens) == (6, 8, 40)
    assert outcome.confirmed is True


def test_no_update_is_paid_for_that_nobody_will_use(tmp_path: Path) -> None:
    run = make_run(tmp_path, right_at(6), size=4)
    solve(run)
    assert run.method.learned == [[1, 2, 3, 4]]
    spent = make_run(tmp_path / "spent", always("wrong"), size=4, budget=Budget(8))
    solve(spent)
    assert spent.method.learned == [[1, 2, 3, 4]]


def test_the_last_group_is_cut_to_the_budget(tmp_path: Path) -> None:
    outcome = solve(make_run(tmp_path, always("wrong"), size=4, budget=Budget(10)))
    assert outcome.status is OutcomeStatus.UNSOLVED
    assert (outcome.attempts, outcome.discovery_time, outcome.confirmed) == (10, None, False)
    assert [e["size"] for e in events(tmp_path) if e["event"] == "group"] == [4, 4, 2]


def test_keep_going_spends_the_whole_budget_and_keeps_the_first_discovery(tmp_path: Path) -> None:
    outcome = solve(make_run(tmp_path, right_at(3, 7), size=4, budget=Budget(8), stop_at_first=False))
    assert (outcome.attempts, outcome.discovery_time) == (8, 3)


def test_a_token_budget_stops_between_groups(tmp_path: Path) -> None:
    outcome = solve(make_run(tmp_path, always("wrong"), size=4, budget=Budget(64, tokens=25)))
    assert (outcome.attempts, outcome.tokens) == (8, 40)


def test_a_wall_budget_already_spent_samples_one_group_at_most(tmp_path: Path) -> None:
    outcome = solve(make_run(tmp_path, always("wrong"), size=4, budget=Budget(64, wall_s=1e-9)))
    assert outcome.attempts == 0


def test_passing_only_the_visible_tests_is_not_solved(tmp_path: Path) -> None:
    outcome = solve(make_run(tmp_path, always("visible"), size=2, budget=Budget(2)))
    assert outcome.status is OutcomeStatus.UNSOLVED
    said = [e["feedback"] for e in events(tmp_path) if e["event"] == "attempt"]
    assert said == ["The program passes all visible tests but fails a hidden test."] * 2


def test_each_group_is_sampled_from_the_policy_that_the_last_update_made(tmp_path: Path) -> None:
    engine = always("wrong")
    solve(make_run(tmp_path, engine, size=2, budget=Budget(6)))
    assert [policy.version for _, policy in engine.calls] == [0, 0, 1, 1, 2, 2]


def test_seeds_depend_on_run_seed_problem_and_index_alone(tmp_path: Path) -> None:
    engine = always("wrong")
    solve(make_run(tmp_path, engine, size=3, budget=Budget(5)))
    assert [seed for seed, _ in engine.calls] == [attempt_seed(0, "inc", i) for i in range(1, 6)]
    assert len({attempt_seed(s, p, i) for s in range(3) for p in "ab" for i in range(50)}) == 300


@pytest.mark.parametrize("stops_after", range(1, 12))
def test_a_run_that_broke_off_anywhere_goes_on_to_the_same_end(tmp_path: Path, stops_after: int) -> None:
    """The engine dies at its n-th sample; the same command again gives the journal of an undisturbed run."""

    def reply(seed: int, policy: Policy, n: int) -> str:
        return answer("right" if seed == attempt_seed(0, "inc", 11) else f"wrong {seed} {policy.version}")

    def dies(seed: int, policy: Policy, n: int) -> str:
        if n + 1 == stops_after:
            raise EngineError("gone")
        return reply(seed, policy, n)

    solve(make_run(tmp_path / "whole", SayEngine(reply), size=4, budget=Budget(16)))
    run = make_run(tmp_path / "torn", SayEngine(dies), size=4, budget=Budget(16))
    with pytest.raises(EngineError):
        solve(run)
    run.journal.close()
    solve(make_run(tmp_path / "torn", SayEngine(reply), size=4, budget=Budget(16)))
    assert strip(events(tmp_path / "torn")) == strip(events(tmp_path / "whole"))


@pytest.mark.parametrize("keep_bytes", [0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_a_journal_cut_off_at_any_byte_goes_on_to_the_same_end(tmp_path: Path, keep_bytes: float) -> None:
    def reply(seed: int, policy: Policy, n: int) -> str:
        return answer(f"wrong {seed} {policy.version}")

    run = make_run(tmp_path, SayEngine(reply), size=4, budget=Budget(16))
    solve(run)
    run.journal.close()
    whole = strip(events(tmp_path))
    path = tmp_path / "journal.jsonl"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep_bytes)])
    solve(make_run(tmp_path, SayEngine(reply), size=4, budget=Budget(16)))
    assert strip(events(tmp_path)) == whole


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    run = make_run(tmp_path, right_at(2))
    first = solve(run)
    run.journal.close()
    engine = always("wrong")
    assert solve(make_run(tmp_path, engine)) == first
    assert engine.calls == []


def test_a_spent_budget_may_grow_and_the_run_goes_on(tmp_path: Path) -> None:
    def reply(seed: int, policy: Policy, n: int) -> str:
        return answer("right" if seed == attempt_seed(0, "inc", 7) else f"wrong {seed} {policy.version}")

    small, large = Budget(4), Budget(16)
    run = make_run(tmp_path / "grown", SayEngine(reply), size=2, budget=small)
    assert solve(run).status is OutcomeStatus.UNSOLVED
    run.journal.close()
    grown = make_run(tmp_path / "grown", SayEngine(reply), size=2, budget=large)
    outcome = solve(grown)
    assert (outcome.status, outcome.discovery_time, outcome.attempts) == (OutcomeStatus.SOLVED, 7, 8)
    grown.journal.close()
    solve(make_run(tmp_path / "whole", SayEngine(reply), size=2, budget=large))
    kinds = [event["event"] for event in events(tmp_path / "grown")]
    assert (kinds.count("run_started"), kinds.count("run_finished"), kinds[-1]) == (2, 2, "run_finished")
    both = [strip(events(tmp_path / name)) for name in ("grown", "whole")]
    groups, whole = ([e for e in found if e["event"] in ("attempt", "group", "update")] for found in both)
    assert groups == whole
    again = make_run(tmp_path / "grown", always("wrong"), size=2, budget=large)
    assert solve(again) == outcome
    assert read_run(tmp_path / "grown").status is RunStatus.SOLVED


def strip(lines: list[dict]) -> list[dict]:
    """Events without their clocks."""
    clocks = {"time", "elapsed_s", "sample_s", "grade_s", "wall_s"}
    return [{key: value for key, value in event.items() if key not in clocks} for event in lines]


def test_a_method_that_never_learns_has_no_phase_of_learning(tmp_path: Path) -> None:
    seen: list[str] = []
    for learns in (True, False):
        run = make_run(
            tmp_path / str(learns),
            always("wrong"),
            learns=learns,
            listeners=[lambda event, learns=learns: seen.append(f"{event['event']} {learns}")],
        )
        solve(run)
    assert "learning True" in seen
    assert "learning False" not in seen
