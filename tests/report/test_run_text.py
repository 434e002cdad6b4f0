"""The list of runs, the story of one, two side by side."""

import io
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from sdpo_solve.errors import ConfigError
from sdpo_solve.learner.health import Health
from sdpo_solve.learner.options import Options
from sdpo_solve.report.archive import pack, unpacked
from sdpo_solve.report.run_text import attempt_text, comparison_text, diff_text, list_runs, run_text
from sdpo_solve.report.runs import load_run, one_run_dir, read_run, read_runs
from sdpo_solve.run.journal import Journal
from sdpo_solve.types import Policy, Update
from tests.helpers.journals import Made, attempt, damage, header, make

EVIL = "\x1b]0;owned\x07\x1b[2J[bold]x[/bold]\u202e"


def shown(renderable: RenderableType, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(renderable)
    return console.file.getvalue()


def test_the_list_names_every_run_and_what_became_of_it(tmp_path: Path) -> None:
    make(tmp_path, Made(solved_at=(3,)))
    make(tmp_path, Made(method="best-of-k"))
    make(tmp_path, Made(method="multi-turn", fails_after=4))
    text = shown(list_runs(read_runs([tmp_path]), tmp_path))
    assert set(text.splitlines()[0].rstrip().split(" · ")) == {"1 solved", "1 unsolved", "1 failed"}
    rows = {line.split()[0]: line.split()[1:5] for line in text.splitlines()[2:]}
    assert rows["inc/sdpo/seed-0"] == ["solved", "at", "3", "4/8"]
    assert rows["inc/best-of-k/seed-0"][:2] == ["unsolved", "8/8"]
    assert rows["inc/multi-turn/seed-0"][:2] == ["failed", "4/8"]


def test_a_damaged_journal_is_a_line_of_the_list_wherever_the_damage_is(tmp_path: Path) -> None:
    make(tmp_path, Made(solved_at=(3,)))
    places = [damage(make(tmp_path, Made(seed=seed)), line) for seed, line in ((1, 1), (2, 4), (3, 12))]
    other = make(tmp_path, Made(seed=4)) / "journal.jsonl"  # not as we write it, and whole
    other.write_text(other.read_text().replace('{"event": "attempt"', '{ "event": "attempt"'))
    lines = shown(list_runs(read_runs([tmp_path]), tmp_path), width=200).splitlines()
    assert lines[2].split()[:4] == ["inc/sdpo/seed-0", "solved", "at", "3"]
    assert lines[3].split()[:2] == ["inc/sdpo/seed-4", "unsolved"]
    assert lines[4:] == [f"damaged: {place}" for place in places]


@pytest.mark.parametrize("on_collapse", ["rollback", "freeze", "restart", "ignore"])
def test_a_collapse_is_counted_and_told_whatever_followed(tmp_path: Path, on_collapse: str) -> None:
    health, options = Health(first_length_tokens=10), Options(on_collapse=on_collapse)
    vitals = {"mean_length_tokens": 100, "repetition": 0, "entropy_sampled": 1, "mean_reward": 0}
    decision = health.decide(1, vitals, options)
    back = {"rolled_back_to": 0.0} if decision.action in ("rollback", "restart") else {}
    metrics = {"frozen": float(health.frozen), "skipped": 0.0, **back}
    run = read_run(
        make(tmp_path, Made(metrics=metrics, notices=(decision.notice,), collapse_ignored=decision.ignored))
    )
    assert run.n_collapses == 1
    text = " ".join(shown(run_text(run)).split())
    assert f"update 1: {decision.notice}" in text
    assert "collapses 1 (times a health rule saw" in text


def test_an_ignored_collapse_of_an_old_journal_is_read_from_its_notice(tmp_path: Path) -> None:
    path = (
        make(tmp_path, Made(notices=("version 1 looks collapsed (repetition 0.9); going on",)))
        / "journal.jsonl"
    )
    assert read_run(path.parent).n_collapses == 0  # the field says no, and nothing is taken from words
    path.write_text(path.read_text().replace(', "collapse_ignored": false', ""))
    assert read_run(path.parent).n_collapses == 1


def test_a_journal_from_before_there_were_notices_is_read(tmp_path: Path) -> None:
    path = make(tmp_path, Made()) / "journal.jsonl"
    path.write_text(path.read_text().replace(', "notices": []', ""))
    assert "notices" not in path.read_text()
    assert [update.notices for update in read_run(path.parent).updates] == [()]


def test_a_group_that_taught_nothing_is_told_and_is_no_collapse(tmp_path: Path) -> None:
    notice = "nothing could be learned for 3 groups: no attempt had a teacher"
    run = read_run(make(tmp_path, Made(notices=(notice,), metrics={"frozen": 0.0})))
    assert run.n_collapses == 0
    assert f"update 1: {notice}" in shown(run_text(run))


def test_the_story_goes_policy_by_policy_to_the_solution(tmp_path: Path) -> None:
    run_dir = make(tmp_path, Made(solved_at=(6,), overfits_at=(2,), code="def f{}(): pass".format))
    text = shown(run_text(load_run(run_dir)))
    assert "solved at attempt 6, hidden tests passed" in text
    rows = [line.split() for line in text.splitlines()]
    assert ["0", "1–4", "wHww"] in rows
    assert ["1", "5–8", "w✓ww"] in rows
    assert "def f6(): pass" in text
    assert "def f5()" not in text


def test_a_policy_is_one_row_also_where_groups_mix_it_with_others(tmp_path: Path) -> None:
    made, journal = Made(), Journal(tmp_path, "x")
    journal.start(header(made))
    for indices, newest in (((1, 2), 0), ((3, 4, 5), 1)):
        group = [attempt(made, i, 0 if i == 4 else newest) for i in indices]
        journal.append_group(group, sample_s=1, grade_s=1)
        journal.append_update(Update(Policy("x", newest + 1), 0.5, 2, 20))
    journal.close()
    rows = [line.split() for line in shown(run_text(load_run(tmp_path))).splitlines()]
    assert ["0", "3", "in", "1–4", "www"] in rows
    assert ["1", "2", "in", "3–5", "ww"] in rows


def test_an_unsolved_story_ends_with_the_last_feedback(tmp_path: Path) -> None:
    text = shown(run_text(load_run(make(tmp_path, Made(feedback="Wrong Answer\nInput: 41")))))
    assert "the last feedback, attempt 8" in text
    assert "Input: 41" in text


@pytest.mark.parametrize(
    ("made", "what"), [(Made(solved_at=(6,)), "solution, attempt 6"), (Made(), "last feedback, attempt 8")]
)
def test_of_a_packed_run_what_was_not_kept_is_said_in_one_line(tmp_path: Path, made: Made, what: str) -> None:
    not_kept = "not kept: the run was packed without its texts"
    whole = load_run(make(tmp_path / "runs", made))
    pack([tmp_path / "runs"], tmp_path / "runs.zip")
    with unpacked([tmp_path / "runs.zip"]) as opened:
        packed = load_run(one_run_dir(opened.dirs[0]))
        assert shown(run_text(packed)).splitlines()[-1].rstrip() == f"the {what}, {not_kept}"
        one = shown(attempt_text(packed, 2), 160)
        assert f"its program and its feedback, {not_kept}" in one
        assert ["1", "visible", "wrong", "answer"] in [line.split() for line in one.splitlines()]
        for pair, names in (((packed, packed), "first and the second"), ((whole, packed), "second")):
            assert f"programs of the {names}, {not_kept}" in shown(comparison_text(*pair), 160)
    assert "not kept" not in shown(run_text(whole))


def test_one_attempt_can_be_read_and_an_absent_one_is_refused(tmp_path: Path) -> None:
    run = load_run(make(tmp_path, Made(overfits_at=(2,), code="def f{}(): pass".format)))
    text = shown(attempt_text(run, 2))
    assert "def f2(): pass" in text
    assert [line.split() for line in text.splitlines() if "hidden" in line] == [
        ["2", "hidden", "wrong", "answer"]
    ]
    with pytest.raises(ConfigError, match="no attempt 9; it has 8"):
        attempt_text(run, 9)


def test_two_runs_side_by_side_show_settings_outcomes_and_programs(tmp_path: Path) -> None:
    one = make(tmp_path / "a", Made(solved_at=(2,), settings={"learner": {"lr": 1e-4}}))
    other = make(tmp_path / "b", Made(solved_at=(6,), settings={"learner": {"lr": 5e-5}}))
    text = shown(comparison_text(load_run(one), load_run(other)))
    assert ["learner.lr", "0.0001", "5e-05"] in [line.split() for line in text.splitlines()]
    assert "-    return x + 2" in text
    assert "+    return x + 6" in text


def test_a_part_that_only_one_run_has_is_one_row(tmp_path: Path) -> None:
    one = make(tmp_path, Made(settings={"learner": {"lr": 1e-4, "rank": 16}}))
    other = make(tmp_path, Made(method="best-of-k"))
    rows = [line.split() for line in shown(comparison_text(load_run(one), load_run(other))).splitlines()]
    assert ["learner", "2", "settings", "–"] in rows
    assert ["sdpo", "1", "settings", "–"] in rows
    assert ["best-of-k", "–", "1", "settings"] in rows
    assert not [row for row in rows if row[:1] == ["learner.lr"]]


def test_like_programs_have_no_difference() -> None:
    assert str(diff_text("a\nb", "a\nb")) == "no difference"


def test_nothing_written_by_a_model_reaches_the_terminal_raw(tmp_path: Path) -> None:
    made = Made("evil", header={"problem": EVIL, "model": EVIL}, feedback=EVIL, code=lambda i: f"{i} {EVIL}")
    run = load_run(make(tmp_path, made))
    for renderable in (
        run_text(run),
        attempt_text(run, 1),
        comparison_text(run, run),
        list_runs(read_runs([tmp_path]), tmp_path),
    ):
        text = shown(renderable)
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert max(map(len, text.splitlines())) <= 80
    assert "[bold]x[/bold]" in shown(attempt_text(run, 1))
