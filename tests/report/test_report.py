"""Reports from journals: what counts, what is refused, what is said, and in which form."""

import csv
import io
import json
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sdpo_solve.errors import ConfigError
from sdpo_solve.report import files, plots, sections
from sdpo_solve.report.chart import log_range, log_ticks
from sdpo_solve.report.cohort import Axis, load_cohort, observation
from sdpo_solve.report.figures import Curve, Report, ReportOptions
from sdpo_solve.report.page import page
from sdpo_solve.report.problems import Marks
from sdpo_solve.report.run_text import summary_rows
from sdpo_solve.report.runs import RunStatus, find_run_dirs, one_run_dir, read_run
from sdpo_solve.report.style import arm_style
from sdpo_solve.run.events import read_events
from tests.helpers.journals import Made, header, make
from tests.helpers.reports import FEW, report_of, text_of

# -- runs --------------------------------------------------------------------------------------------------


def test_a_run_is_read_with_its_clock_tokens_and_outcome(tmp_path: Path) -> None:
    run = read_run(make(tmp_path, Made(solved_at=(6,), overfits_at=(2, 3), metrics={"frozen": 1.0})))
    assert run is not None
    assert (run.status, run.first.index, run.confirmed) == (RunStatus.SOLVED, 6, True)
    assert (len(run.attempts), run.n_tokens, run.n_overfits, run.n_collapses) == (8, 80, 2, 1)
    # 8 s of the first group, 2 s of its update, 8 s of the second group.
    assert run.first.elapsed_s == pytest.approx(18, abs=0.5)
    assert [attempt.version for attempt in run.attempts] == [0] * 4 + [1] * 4


def test_the_share_of_answers_without_a_program_stands_in_every_form(tmp_path: Path) -> None:
    run_dir = make(tmp_path, Made(no_program_at=(2,), cut_off_at=(5, 7)))
    run = read_run(run_dir)
    assert (run.n_without_program, run.n_cut_off) == (3, 2)
    report = report_of(tmp_path)
    assert [(arm.n_attempts, arm.n_without_program, arm.n_cut_off) for arm in report.arms] == [(8, 3, 2)]
    share = "38 % (25 % cut off)"
    forms = (
        text_of(report, 160),
        page(report, load_cohort([tmp_path])),
        files.as_markdown(report),
        dict(summary_rows(run))["no program"],
    )
    assert all(share in form for form in forms)
    assert files.as_json(report)["arms"][0]["n_without_program"] == 3
    assert files.run_summary(run)["n_cut_off"] == 2


@pytest.mark.parametrize(
    ("axis", "x"), [(Axis.ATTEMPTS, 6), (Axis.TOKENS, 60), (Axis.SECONDS, pytest.approx(18, abs=0.5))]
)
def test_discovery_is_counted_in_attempts_tokens_and_seconds(tmp_path: Path, axis: Axis, x: float) -> None:
    seen = observation(read_run(make(tmp_path, Made(solved_at=(6,)))), axis)
    assert (seen.time, seen.found) == (x, True)


def test_an_unsolved_run_counts_what_it_spent(tmp_path: Path) -> None:
    seen = observation(read_run(make(tmp_path, Made(limit=8))), Axis.TOKENS)
    assert (seen.time, seen.found) == (80, False)


def test_lists_of_numbers_are_counted_without_being_parsed(tmp_path: Path) -> None:
    """Whatever a model wrote, and whatever the reader was given: lengths as `json` finds them."""
    evil = '"token_ids": [1, 2], "logprobs": [] \\ \\" ]'
    path = make(tmp_path, Made(limit=4, code=lambda i: evil, feedback=evil)) / "journal.jsonl"
    with path.open("a") as file:
        file.write('{"event": "attempt", "token_ids": [], "logprobs": [0.5]}\n')
    whole, counted = ([event for event, _ in read_events(path, numbers=n)] for n in (True, False))
    for event in whole:
        for name in ("token_ids", "logprobs"):
            if name in event:
                event[name] = len(event[name])
    assert counted == whole
    assert [event["token_ids"] for event in counted if event["event"] == "attempt"] == [10, 10, 10, 10, 0]


def test_a_running_run_is_read_up_to_its_last_whole_group(tmp_path: Path) -> None:
    run_dir = make(tmp_path, Made(stops_after=4))
    path = run_dir / "journal.jsonl"
    attempt_line = next(line for line in path.read_bytes().splitlines() if b'"attempt"' in line)
    path.write_bytes(path.read_bytes() + attempt_line + b'\n{"event": "gro')
    run = read_run(run_dir)
    assert (run.status, len(run.attempts)) == (RunStatus.UNFINISHED, 4)


def test_a_failed_run_taken_up_again_is_no_failure(tmp_path: Path) -> None:
    run_dir = make(tmp_path, Made(fails_after=4))
    assert read_run(run_dir).status is RunStatus.FAILED
    assert read_run(run_dir).error == "the box broke"
    done = make(tmp_path / "other", Made()) / "journal.jsonl"
    later = [line for line in done.read_text().splitlines() if json.loads(line)["event"] != "run_started"]
    with (run_dir / "journal.jsonl").open("a") as file:
        file.write("\n".join(later[6:]) + "\n")
    assert read_run(run_dir).status is RunStatus.UNSOLVED


def test_run_directories_are_found_at_any_depth_and_policies_are_left_alone(tmp_path: Path) -> None:
    run_dir = make(tmp_path / "a", Made())
    (run_dir / "policies" / "0001").mkdir(parents=True)
    (run_dir / "policies" / "0001" / "journal.jsonl").write_text("no journal")
    make(tmp_path / ".sdpo-solve-measure-abc", Made())  # a killed --measure left it behind
    assert find_run_dirs([tmp_path, run_dir]) == [run_dir]
    assert one_run_dir(tmp_path) == run_dir
    make(tmp_path / "a", Made(seed=1))
    with pytest.raises(ConfigError, match="holds 2 runs"):
        one_run_dir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no run under"):
        one_run_dir(tmp_path / "empty")
    with pytest.raises(ConfigError, match="not a directory"):
        find_run_dirs([tmp_path / "absent"])


# -- what counts -------------------------------------------------------------------------------------------


def test_failed_runs_are_in_no_rate_and_are_counted(tmp_path: Path) -> None:
    make(tmp_path, Made(seed=0, solved_at=(1,)))
    make(tmp_path, Made(seed=1, fails_after=4))
    found = report_of(tmp_path)
    assert [rate.y for rate in found.rates["sdpo"]][-1] == 1.0
    assert (found.arms[0].n_runs, found.arms[0].n_failed) == (1, 1)
    assert "1 run failed; in no rate, neither as solved nor as unsolved." in found.notices


def test_unfinished_runs_count_as_far_as_they_have_come(tmp_path: Path) -> None:
    """Two unsolved at 8, one stopped unsolved at 4, one solved at 6: at 6 three were at risk, so 1/3."""
    make(tmp_path, Made(seed=0))
    make(tmp_path, Made(seed=1))
    make(tmp_path, Made(seed=2, stops_after=4))
    make(tmp_path, Made(seed=3, solved_at=(6,)))
    found = report_of(tmp_path, ReportOptions(at=(5, 6, 8), n_replicates=200))
    assert [rate.y for rate in found.rates["sdpo"]] == pytest.approx([0, 1 / 3, 1 / 3])
    assert found.arms[0].n_unfinished == 1


def test_best_of_k_uses_pass_at_k_only_for_runs_that_kept_going(tmp_path: Path) -> None:
    at = ReportOptions(at=(1,), n_replicates=200)
    make(tmp_path / "stops", Made(method="best-of-k", solved_at=(1,)))
    make(tmp_path / "keeps", Made(method="best-of-k", solved_at=(1, 8), keep_going=True))
    assert report_of(tmp_path / "stops", at).rates["best-of-k"][0].y == 1.0
    keeps = report_of(tmp_path / "keeps", at)
    assert keeps.rates["best-of-k"][0].y == pytest.approx(2 / 8)
    assert keeps.arms[0].unbiased


def test_a_keep_going_run_that_has_just_begun_does_not_hide_the_others(tmp_path: Path) -> None:
    """Two of three runs spent their budget, one stands at 4: known at 8, by first successes meanwhile."""
    for seed in range(3):
        made = Made(method="best-of-k", seed=seed, solved_at=(6, 7) if seed else (), keep_going=True)
        make(tmp_path, replace(made, stops_after=None if seed else 4))
    found = report_of(tmp_path, ReportOptions(at=(4, 8), n_replicates=200))
    assert [rate.y for rate in found.rates["best-of-k"]] == pytest.approx([0, 1])
    assert not found.arms[0].unbiased
    assert not any("pass@k" in notice for notice in found.notices)


def test_what_lies_beyond_a_run_that_was_cut_off_is_called_unknown(tmp_path: Path) -> None:
    make(tmp_path, Made(solved_at=(7,)))
    make(tmp_path, Made(seed=1, stops_after=4))
    answer = sections.answer(report_of(tmp_path, replace(FEW, at=(4, 8))))
    assert answer == "Nothing was solved by sdpo in 4 attempts; beyond 4 it is not known."


def test_a_problem_row_has_means_ratios_and_what_went_wrong(tmp_path: Path) -> None:
    make(tmp_path, Made(seed=0, solved_at=(2,), overfits_at=(1,), metrics={"rolled_back_to": 0.0}))
    make(tmp_path, Made(seed=1, solved_at=(6,), metrics={"rolled_back_to": 0.0}))
    make(tmp_path, Made(seed=2, fails_after=4))
    make(tmp_path, Made(method="best-of-k", seed=0))
    make(tmp_path, Made(method="best-of-k", seed=1))
    (row,) = report_of(tmp_path).problems
    cell = row.cells["sdpo"]
    assert (cell.attempts.value, cell.attempts.n_censored, cell.n_solved, cell.n_confirmed) == (4, 0, 2, 2)
    assert (cell.n_overfits, cell.n_failed, cell.n_collapses) == (1, 1, 1)
    assert row.cells["best-of-k"].attempts.n_censored == 2
    assert row.ratios == {"best-of-k": 2.0}


def test_problems_are_split_by_the_base_models_pass_at_64(tmp_path: Path) -> None:
    def base(problem: str, successes: int) -> None:
        solved = tuple(range(1, successes + 1))
        make(tmp_path, Made(problem, "best-of-k", limit=128, group=64, solved_at=solved, keep_going=True))

    base("never", 0)  # pass@64 = 0
    base("rare", 1)  # one in 128 tries: pass@64 = 1/2 exactly, so not below it
    base("often", 40)
    found = report_of(tmp_path)
    assert {row.problem: row.hardness for row in found.problems} == {
        "never": "very hard",
        "rare": "easier",
        "often": "easier",
    }
    assert [(split.label, split.n_problems) for split in found.splits] == [
        ("all", 3),
        ("base model: hard and very hard", 1),
        ("base model: very hard", 1),
        ("base model: easier", 2),
    ]


def test_a_long_run_tells_the_hardness_while_it_is_under_way(tmp_path: Path) -> None:
    make(tmp_path, Made(method="best-of-k", limit=192, group=64, stops_after=64, keep_going=True))
    assert report_of(tmp_path).problems[0].hardness == "very hard"


def test_a_success_costs_all_that_was_spent_and_a_gap_is_that_of_first_updates(tmp_path: Path) -> None:
    """Solved at 4, and not in 8: 12 attempts a success, of 10 tokens each."""
    make(tmp_path, Made("a", limit=8, group=4, solved_at=(4,)))
    make(tmp_path, Made("b", limit=8, group=4))
    make(tmp_path, Made("b", "best-of-k", limit=8, group=4))
    found = report_of(tmp_path)
    sdpo, plain = found.arms
    assert sdpo.per_success[Axis.ATTEMPTS] == 12
    assert sdpo.per_success[Axis.TOKENS] == 120
    assert plain.per_success[Axis.ATTEMPTS] == math.inf
    costs = next(x for x in sections.sections(found) if x.title.startswith("what a success costs"))
    assert [row[:3] for row in costs.rows] == [["sdpo", "1/2", "12"], ["best-of-k", "0/1", "∞"]]
    assert [row.gap for row in found.problems] == [None, 0.5], "no update was made on the way to the first"
    by_problem = next(x for x in sections.sections(found) if "by problem" in x.title)
    assert [row[-1] for row in by_problem.rows] == ["–", "0.500"]


def test_a_screening_says_what_is_hard_and_difficulties_keep_their_order(tmp_path: Path) -> None:
    for problem, difficulty in (("a", "hard"), ("b", "easy"), ("c", "medium"), ("d", "easy")):
        make(tmp_path, Made(problem, header={"difficulty": difficulty}))
    marks = Marks("tiny at rest", {"a": "very hard", "b": "hard", "c": "easier"})
    found = report_of(tmp_path, ReportOptions(n_replicates=200, marks=marks))
    assert [(split.label, split.n_problems) for split in found.splits] == [
        ("all", 4),
        ("base model: hard and very hard", 2),
        ("base model: very hard", 1),
        ("base model: easier", 1),
        ("base model: not known", 1),
        ("difficulty: easy", 2),
        ("difficulty: medium", 1),
        ("difficulty: hard", 1),
    ]
    assert max(map(len, text_of(found).splitlines())) <= 80


def test_a_screening_of_another_model_is_refused(tmp_path: Path) -> None:
    make(tmp_path, Made())
    with pytest.raises(ConfigError, match="the screening is of other, these runs are of tiny at rest"):
        report_of(tmp_path, ReportOptions(n_replicates=200, marks=Marks("other", {"inc": "hard"})))


@pytest.mark.parametrize(
    ("option", "then", "now"),
    [
        ("temperature", 0.2, 1.0),
        ("max_tokens", 8, 64),
        ("system", "Be brief.", None),
        ("thinking", True, False),
        ("language", "cpp", "python"),
        ("extract", "program", "livecodebench"),  # what journals have that do not say it
    ],
)
def test_a_screening_that_sampled_otherwise_is_refused(
    tmp_path: Path, option: str, then: object, now: object
) -> None:
    config = header(Made())["config"]
    options = {**config["options"], "system": None, "thinking": False}
    make(tmp_path, Made(header={"config": {**config, "options": options}}))
    same = {**options, "language": "python", "engine": "vllm"}
    for sampled_with in ({}, same):
        marks = Marks("tiny at rest", {"inc": "hard"}, sampled_with)
        assert report_of(tmp_path, replace(FEW, marks=marks)).problems[0].hardness == "hard"
    marks = replace(marks, sampled_with={**same, option: then})
    with pytest.raises(ConfigError, match=f"{option} = {then!r}, in these runs it is {now!r}; screen as"):
        report_of(tmp_path, replace(FEW, marks=marks))


def test_a_screening_is_taken_where_old_journals_do_not_say_how_they_sampled(tmp_path: Path) -> None:
    make(tmp_path, Made())  # neither system nor thinking
    marks = Marks("tiny at rest", {"inc": "hard"}, {"system": "Be brief.", "thinking": True})
    assert report_of(tmp_path, replace(FEW, marks=marks)).problems[0].hardness == "hard"


@pytest.mark.parametrize(
    ("then", "now", "digest", "hardness"),
    [
        ("public", "public", "digest of inc", "hard"),
        ("public", "public", "of an earlier text", None),
        # What is visible is part of a digest.
        ("public", "all", "of other visible tests", "hard"),
        ("paper", "paper", "of another seed", "hard"),
    ],
)
def test_a_mark_counts_for_the_problem_that_was_screened(
    tmp_path: Path, then: str, now: str, digest: str, hardness: str | None
) -> None:
    make(tmp_path, Made(header={"feedback_mode": now}))
    marks = Marks("tiny at rest", {"inc": "hard"}, {"feedback_mode": then}, {"inc": digest})
    found = report_of(tmp_path, replace(FEW, marks=marks))
    assert found.problems[0].hardness == hardness
    assert any("tests of inc have changed" in notice for notice in found.notices) == (hardness is None)


def test_the_same_settings_are_one_arm_and_others_are_named_by_what_differs(tmp_path: Path) -> None:
    make(tmp_path / "a", Made(settings={"learner": {"lr": 1e-4, "rank": 16}}))
    make(tmp_path / "a", Made(seed=1, settings={"learner": {"lr": 1e-4, "rank": 16}}))
    make(tmp_path / "b", Made(settings={"learner": {"lr": 5e-5, "rank": 16}}))
    assert list(load_cohort([tmp_path]).arms) == ["sdpo (learner.lr=0.0001)", "sdpo (learner.lr=5e-05)"]


# -- what is said ------------------------------------------------------------------------------------------


def arms_of(tmp_path: Path, quick: int, slow: int | None, problems: int, seeds: int = 1) -> Report:
    for p in range(problems):
        for seed in range(seeds):
            make(tmp_path, Made(f"p{p}", seed=seed, limit=12, solved_at=(quick + seed,)))
            late = () if slow is None else (slow + seed,)
            make(tmp_path, Made(f"p{p}", "best-of-k", seed=seed, limit=12, solved_at=late))
    return report_of(tmp_path)


def test_one_problem_and_one_seed_are_too_little_to_tell(tmp_path: Path) -> None:
    found = arms_of(tmp_path, 2, 8, problems=1)
    assert found.comparisons[0].sentence.startswith("Too little data to say which of sdpo and best-of-k")
    assert any(notice.startswith("One problem") for notice in found.notices)


def test_enough_problems_give_a_speed_up_in_words(tmp_path: Path) -> None:
    found = arms_of(tmp_path, 2, 8, problems=6)
    row = found.comparisons[0].rows[0]
    assert (row.method_needs, row.baseline_needs, row.ratio, row.p_faster) == (2, 8, 4, 1)
    assert found.comparisons[0].sentence.startswith("sdpo needs 4.00x fewer attempts than best-of-k")


def test_one_solved_problem_of_six_decides_nothing(tmp_path: Path) -> None:
    """Where resamples without that problem count as a coin toss, 2 against 8 attempts is not enough."""
    for p in range(6):
        make(tmp_path, Made(f"p{p}", solved_at=() if p else (2,)))
        make(tmp_path, Made(f"p{p}", "best-of-k", solved_at=() if p else (8,)))
    comparison = report_of(tmp_path).comparisons[0]
    assert comparison.rows[0].ratio == 4
    assert comparison.rows[0].p_faster < 0.95
    assert comparison.sentence.startswith("Too little data to say")


def test_a_slower_sdpo_is_called_slower(tmp_path: Path) -> None:
    found = arms_of(tmp_path, 8, 2, problems=6)
    assert found.comparisons[0].sentence.startswith("best-of-k needs 4.00x fewer attempts than sdpo")
    assert found.comparisons[0].rows[0].p_faster == 0


def test_a_baseline_that_never_gets_there_is_said_so(tmp_path: Path) -> None:
    found = arms_of(tmp_path, 2, None, problems=6)
    assert found.comparisons[0].sentence == (
        "sdpo reaches 100 % discovery, best-of-k does not in 12 attempts."
    )


def test_comparisons_use_the_problems_that_both_arms_have(tmp_path: Path) -> None:
    make(tmp_path, Made("both", solved_at=(4,)))
    make(tmp_path, Made("both", "best-of-k", solved_at=(8,)))
    make(tmp_path, Made("sdpo-only", solved_at=(1,)))
    found = report_of(tmp_path)
    assert (found.comparisons[0].n_problems, found.comparisons[0].rows[0].ratio) == (1, 2.0)
    assert any("different problems" in notice for notice in found.notices)
    common = report_of(tmp_path, ReportOptions(common=True, n_replicates=200))
    assert [row.problem for row in common.problems] == ["both"]


def test_an_arm_of_which_every_run_failed_does_not_empty_what_is_common(tmp_path: Path) -> None:
    common = replace(FEW, common=True)
    make(tmp_path, Made("a", "multi-turn", fails_after=4))
    assert sections.answer(report_of(tmp_path, common)) == "Every run failed; none is in a rate."
    for method, first in (("sdpo", 2), ("best-of-k", 5)):
        make(tmp_path, Made("a", method, solved_at=(first,)))
    found = report_of(tmp_path, common)
    assert list(found.rates) == ["sdpo", "best-of-k"]
    assert [(arm.name, arm.n_runs, arm.n_failed) for arm in found.arms][1:] == [
        ("best-of-k", 1, 0),
        ("multi-turn", 0, 1),
    ]
    make(tmp_path, Made("b", "best-of-k"))
    make(tmp_path / "b", Made("b", header={"arm": "late"}))
    with pytest.raises(ConfigError, match="share no problem and seed"):
        report_of(tmp_path, common)


def test_the_table_goes_to_the_last_success_also_between_whole_seconds(tmp_path: Path) -> None:
    path = make(tmp_path, Made(limit=4, solved_at=(2,))) / "journal.jsonl"
    path.write_text(re.sub(r'"elapsed_s": [\d.]+', '"elapsed_s": 8.64', path.read_text()))
    found = report_of(tmp_path, replace(FEW, axis=Axis.SECONDS))
    assert [(rate.x, rate.y) for rate in found.rates["sdpo"]] == [(1, 0), (8.64, 1)]
    assert sections.answer(found).startswith("sdpo reaches 100 % discovery in 8.64 seconds")
    assert sections.summary(found).header == ["arm", "solved", "at 1", "at 8.64"]


# -- how it looks ------------------------------------------------------------------------------------------

HOSTILE = "x\x1b]0;title\x07\x1b[2J\x1b]8;;http://x\x1b\\\u202e<script>"


def test_the_text_fits_80_columns_and_carries_no_escape(tmp_path: Path) -> None:
    for problem in ("late-fees", "vowel-ribbon", HOSTILE.replace("/", "")):
        for method in ("sdpo", "best-of-k", "multi-turn"):
            for seed in range(2):
                make(
                    tmp_path / f"{abs(hash(problem))}",
                    Made(problem.replace("\x1b", "_").replace("\x07", "_"), method, seed, solved_at=(3 + seed,),
                         header={"problem": problem, "model": HOSTILE}),
                )  # fmt: skip
    shown = text_of(report_of(tmp_path))
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "\u202e" not in shown
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= 80
    assert "● sdpo   ■ best-of-k   ▲ multi-turn" in shown.replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize("width", [30, 40, 60, 69])
def test_a_narrow_terminal_loses_no_arm_and_no_figure(tmp_path: Path, width: int) -> None:
    for p in range(3):
        for method in ("sdpo", "best-of-k", "multi-turn"):
            make(tmp_path, Made(f"problem-{p}", method, solved_at=(3 + p,)))
    text = text_of(report_of(tmp_path), width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    lines = [line.strip() for line in text.splitlines()]
    assert "arm multi-turn" in lines
    assert "problem problem-2" in lines or any(line.startswith("problem-2 ") for line in lines)
    for figure in ("100 %", "confirmed 3", "1.00 (1.00–1.00)"):
        assert figure in text
    assert "…" not in text


def test_the_curve_of_the_terminal_steps_where_the_runs_succeed(tmp_path: Path) -> None:
    make(tmp_path, Made(limit=8, solved_at=(4,)))
    shown = str(plots.terminal_curves(report_of(tmp_path), 60, linear=True))
    body = [line for line in shown.splitlines() if "●" in line and ("┤" in line or "│" in line)]
    # All zero until attempt 4, where the drawn curve ends at 100 %.
    assert body[0].startswith("100 %")
    assert body[0].count("●") == 1
    assert body[-1].startswith("  0 %")


@pytest.mark.parametrize(
    ("rise", "last", "low", "ticks"),
    [
        (10, 10, 5, [5, 10]),  # a rise on a power of ten that is the last point as well
        (100, 2750, 50, [50, 100, 200, 500, 1000, 2000]),
        (28, 128, 10, [10, 20, 50, 100]),
        (1, 128, 1, [1, 2, 5, 10, 20, 50, 100]),  # there is no attempt before the first
        (1, 1, 0.5, [0.5, 1]),  # unless nothing comes behind it
        (0.4, 0.4, 0.2, [0.2, 0.3, 0.4]),
        (450, 450, 200, [200, 300, 400]),  # one round value alone would tell no scale
    ],
)
def test_a_logarithmic_axis_begins_below_the_first_rise(
    rise: float, last: float, low: float, ticks: list[float]
) -> None:
    x_K = (0.0, *sorted({rise, last}))
    y_K = (0.0,) + (1.0,) * (len(x_K) - 1)
    span = log_range([Curve("sdpo", Axis.ATTEMPTS, 0, x_K, y_K, y_K, y_K)])
    assert 10**span.low == pytest.approx(low)
    assert log_ticks(span) == pytest.approx(ticks)
    assert span.low < span.high


def test_a_first_success_at_ten_is_seen_as_a_rise(tmp_path: Path) -> None:
    make(tmp_path, Made(limit=16, group=16, solved_at=(10,)))
    shown = str(plots.terminal_curves(report_of(tmp_path), 60, linear=False))
    lines = {line.split("┤")[0].strip(): line for line in shown.splitlines() if "┤" in line}
    assert lines["0 %"].count("●") > 20
    assert lines["100 %"].rstrip("│ ").endswith("●")


def test_an_arm_that_solved_everything_is_drawn_as_far_as_the_others(tmp_path: Path) -> None:
    make(tmp_path, Made(solved_at=(2,)))
    make(tmp_path, Made(method="best-of-k"))
    found = {curve.arm: curve for curve in report_of(tmp_path).curves_on(Axis.ATTEMPTS)}
    assert (found["sdpo"].x_K[-1], found["sdpo"].y_K[-1]) == (8.0, 1.0)
    assert (found["best-of-k"].x_K[-1], found["best-of-k"].y_K[-1]) == (8.0, 0.0)


def test_json_is_json_without_nan(tmp_path: Path) -> None:
    make(tmp_path, Made(solved_at=(2,)))
    make(tmp_path, Made(method="best-of-k"))
    text = json.dumps(files.as_json(report_of(tmp_path)), allow_nan=False)
    found = json.loads(text)
    assert found["rates"]["sdpo"][-1]["y"] == 1.0
    assert found["comparisons"][0]["rows"][0]["baseline_needs"] is None


def test_csv_has_a_row_a_run_failed_ones_included(tmp_path: Path) -> None:
    make(tmp_path, Made(solved_at=(6,)))
    make(tmp_path, Made(seed=1, fails_after=4))
    make(tmp_path, Made("=1+1", header={"problem": "=1+1"}))
    rows = list(csv.DictReader(io.StringIO(files.as_csv(load_cohort([tmp_path])))))
    by_run = {(row["problem"], row["seed"]): row for row in rows}
    assert by_run["inc", "0"]["discovery_time"] == "6"
    assert by_run["inc", "0"]["tokens_to_discovery"] == "60"
    assert by_run["inc", "1"]["status"] == "failed"
    assert ("'=1+1", "0") in by_run  # a spreadsheet must not compute it


def test_markdown_escapes_what_would_be_markup(tmp_path: Path) -> None:
    make(tmp_path, Made("a|b", header={"problem": "a|b<img src=x>[l](http://x)"}))
    shown = files.as_markdown(report_of(tmp_path))
    assert "a\\|b\\<img src=x\\>\\[l\\](http://x)" in shown


@pytest.mark.parametrize("n", [1, 2, 5, 8, 12])
def test_every_form_of_output_takes_any_number_of_arms(tmp_path: Path, n: int) -> None:
    for place in range(n):
        header = {"arm": f"arm-{place}", "problem": "cost $x$", "model": "$\\bad$", "difficulty": "easy"}
        make(tmp_path / f"{place}", Made(solved_at=(place + 1,), limit=16, group=16, header=header))
    found = report_of(tmp_path)
    for form, start in (("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")):
        path = tmp_path / f"a.{form}"
        plots.write_picture(found, path, form=form, linear=False)
        assert path.read_bytes().startswith(start)
    text = page(found, load_cohort([tmp_path]))
    for shown in (text, files.as_markdown(found), text_of(found), text_of(found, full=False)):
        assert all(f"arm-{place}" in shown for place in range(n))
    assert max(len(line.rstrip()) for line in text_of(found, full=False).splitlines()) <= 80
    assert files.as_latex(found).count(r"\toprule") == 2


def test_no_two_arms_look_alike() -> None:
    looks = [arm_style(n) for n in range(24)]
    assert len({(look.colour, look.dash) for look in looks}) == 24
    assert len({look.character for look in looks[:12]}) == 12  # without colour and dashes
    assert len({(look.shape, look.is_filled) for look in looks[:12]}) == 12  # in print


def test_a_band_of_an_arm_that_is_not_there_is_refused(tmp_path: Path) -> None:
    make(tmp_path, Made(solved_at=(1,)))
    with pytest.raises(ConfigError, match="no arm of these runs"):
        plots.write_picture(report_of(tmp_path), tmp_path / "a.png", form="png", linear=False, band="x")


def test_the_answer_comes_first_and_names_what_is_decided(tmp_path: Path) -> None:
    for p in range(6):
        make(tmp_path, Made(f"p{p}", limit=12, solved_at=(2,)))
        make(tmp_path, Made(f"p{p}", "best-of-k", limit=12, solved_at=(8,)))
        make(tmp_path, Made(f"p{p}", "multi-turn", limit=12, solved_at=(2,)))
    found = report_of(tmp_path)
    answer = sections.answer(found)
    assert answer.startswith("sdpo reaches 100 % discovery in 2 attempts (90 % interval 100 to 100 %).")
    assert "needs fewer attempts than best-of-k." in answer
    assert "Against multi-turn there is too little data" in answer
    short = text_of(found, full=False)
    assert short.startswith("sdpo reaches 100 %")
    assert "which is quicker" in " ".join(short.split())
    assert len(short.splitlines()) < len(text_of(found).splitlines()) / 2


def test_points_beyond_the_curve_are_answered_with_its_end(tmp_path: Path) -> None:
    for seed, solved_at in enumerate([(6,), ()]):
        make(tmp_path, Made(seed=seed, solved_at=solved_at))
    for at in ((64.0,), (64.0, 128.0), (math.inf,)):
        answer = sections.answer(report_of(tmp_path, replace(FEW, at=at)))
        assert answer.startswith("sdpo reaches 50 % discovery in 6 attempts (90 % interval ")
        assert answer.endswith("; beyond 8 it is not known.")
    answer = sections.answer(report_of(tmp_path, replace(FEW, at=(6.0, 64.0))))
    assert answer.startswith("sdpo reaches 50 % discovery in 6 attempts")
    assert "not known" not in answer


def test_an_arm_that_solved_everything_is_known_beyond_its_last_attempt(tmp_path: Path) -> None:
    make(tmp_path, Made(solved_at=(6,)))
    for at in ((64.0,), (math.inf,)):
        answer = sections.answer(report_of(tmp_path, replace(FEW, at=at)))
        assert answer == "sdpo reaches 100 % discovery in 6 attempts (90 % interval 100 to 100 %)."


def test_a_rate_is_named_where_it_was_first_reached(tmp_path: Path) -> None:
    """Solved at 2 and at 5, and not in 8: two of three problems, from 5 attempts on."""
    for problem, solved_at in (("a", (2,)), ("b", (5,)), ("c", ())):
        make(tmp_path, Made(problem, solved_at=solved_at))
    for at, expected in ((None, "67 % discovery in 5"), ((4.0,), "33 % discovery in 2")):
        assert f"sdpo reaches {expected} attempts" in sections.answer(
            report_of(tmp_path, replace(FEW, at=at))
        )
    answer = sections.answer(report_of(tmp_path, replace(FEW, at=(1.0,))))
    assert answer.startswith("Nothing was solved by sdpo in 1 attempts")


def test_an_answer_without_a_curve_says_why(tmp_path: Path) -> None:
    path = make(tmp_path, Made()) / "journal.jsonl"
    path.write_text(path.read_text().splitlines()[0] + "\n")  # the header alone
    make(tmp_path, Made(method="best-of-k", solved_at=(2,)))
    found = report_of(tmp_path)
    assert sections.answer(found) == "Nothing of sdpo was graded yet."
    assert sections.answer(replace(found, curves=())) == "Nothing was graded yet."
    failed = replace(found, reference="", rates={}, curves=())
    assert sections.answer(failed) == "Every run failed; none is in a rate."


@pytest.mark.parametrize(
    ("axis", "unit"),
    [(Axis.ATTEMPTS, "attempts"), (Axis.TOKENS, "generated tokens"), (Axis.SECONDS, "seconds")],
)
def test_what_an_arm_needs_always_has_a_unit(tmp_path: Path, axis: Axis, unit: str) -> None:
    solved_at = {"sdpo": (9,), "multi-turn": (2,), "best-of-k": (2,)}
    for p in range(6):
        for method, first in solved_at.items():
            make(tmp_path, Made(f"p{p}", method, limit=12, solved_at=first))
    found = report_of(tmp_path, replace(FEW, axis=axis))
    assert f"It needs more {unit} than best-of-k and multi-turn." in sections.answer(found)


def test_what_an_arm_needs_has_its_unit_once(tmp_path: Path) -> None:
    solved_at = {"sdpo": (6,), "multi-turn": (2,), "best-of-k": (11,)}
    for p in range(6):
        for method, first in solved_at.items():
            make(tmp_path, Made(f"p{p}", method, limit=12, solved_at=first))
    answer = sections.answer(report_of(tmp_path))
    assert "It needs fewer attempts than best-of-k, and more than multi-turn." in answer


def test_what_an_arm_is_shows_only_what_differs(tmp_path: Path) -> None:
    for name, lr in (("slow", 1e-4), ("quick", 2e-4)):
        settings = {"learner": {"lr": lr, "lora_rank": 16}}
        make(tmp_path / name, Made(header={"arm": name}, settings=settings))
    make(tmp_path / "base", Made(method="best-of-k"))
    arms = {arm.name: arm for arm in report_of(tmp_path).arms}
    assert {name: dict(arm.settings) for name, arm in arms.items()} == {
        "quick": {"learner.lr": "0.0002"},
        "slow": {"learner.lr": "0.0001"},
        "best-of-k": {"learner.lr": "–"},
    }
    assert (arms["quick"].method, arms["quick"].budget) == ("sdpo", "8 attempts")


def test_pass_at_1_and_discovery_are_split_by_difficulty(tmp_path: Path) -> None:
    for problem, difficulty, first in (("a", "hard", ()), ("b", "easy", (1,)), ("c", "easy", (6,))):
        make(tmp_path, Made(problem, solved_at=first, header={"difficulty": difficulty}))
    groups = {group.label: [rate.y for rate in group.rates] for group in report_of(tmp_path).by_difficulty}
    assert groups == {"difficulty: easy": [0.5, 0.5, 1.0], "difficulty: hard": [0.0, 0.0, 0.0]}


def test_a_report_never_imports_torch(tmp_path: Path) -> None:
    make(tmp_path, Made(solved_at=(2,)))
    code = (
        "import sys; from pathlib import Path; from sdpo_solve.report import files, plots, text, page;"
        "from sdpo_solve.report.cohort import load_cohort;"
        "from sdpo_solve.report.figures import make_report, ReportOptions;"
        "make_report(load_cohort([Path(sys.argv[1])]), ReportOptions(n_replicates=100));"
        "sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=os.environ)


def test_a_named_arm_stands_beside_the_method_it_is_made_of(tmp_path: Path) -> None:
    make(tmp_path / "a", Made())
    make(tmp_path / "b", Made(header={"arm": "sdpo-paper"}, settings={"learner": {"preset": "paper"}}))
    make(tmp_path / "c", Made(method="best-of-k"))
    assert list(load_cohort([tmp_path]).arms) == ["sdpo", "sdpo-paper", "best-of-k"]


@pytest.mark.parametrize("methods", [("sdpo",), ("sdpo", "best-of-k"), ("sdpo", "best-of-k", "multi-turn")])
def test_where_nothing_was_solved_no_interval_and_no_comparison_is_claimed(
    tmp_path: Path, methods: tuple[str, ...]
) -> None:
    for problem in ("p", "q"):
        for method in methods:
            make(tmp_path, Made(problem, method, limit=8))
    answer = sections.answer(report_of(tmp_path))
    assert answer.startswith("Nothing was solved")
    assert "in 8 attempts" in answer
    assert "interval" not in answer
    assert "quicker" not in answer
