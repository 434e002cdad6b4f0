"""The experiments as they are kept: their files are valid plans, and the READMEs' figures are those of the runs."""

import zipfile
from pathlib import Path

import pytest
from scipy.stats import spearmanr
from typer.testing import CliRunner

from sdpo_solve.batch import spec as plan
from sdpo_solve.batch.screening_file import read_screening
from sdpo_solve.cli.main import app
from sdpo_solve.datasets.selection import half_of
from sdpo_solve.learner.options import Options as LearnerOptions
from tests.helpers.packed_runs import DISCOVERY, README, Packed, added, rows, runs_in

PILOT = DISCOVERY / "pilot"
TOLD = DISCOVERY / "told"
SIZES = DISCOVERY / "sizes"
CONTROL = DISCOVERY / "control"
ARMS = ("best-of-k", "multi-turn", "sdpo", "sdpo-fast", "sdpo-told")


def packed_runs() -> list[Packed]:
    return [run for size in ("0.5b", "1.5b") for run in runs_in(SIZES / size / "results.zip")]


def per_success(runs: list[Packed]) -> str:
    n_solved = sum(run.found is not None for run in runs)
    return f"{sum(run.found or len(run.attempts) for run in runs) / n_solved:.1f}"


def expected(base: list[Packed], later: list[Packed]) -> str:
    """Successes that plain attempts after updates would have at the base's rates, problem by problem."""
    counts: dict[tuple[str, str], list[int]] = {}
    for run in base:
        solved, n = run.passed
        count = counts.setdefault((run.size, run.problem), [0, 0])
        count[0], count[1] = count[0] + solved, count[1] + n
    total = 0.0
    for run in later:
        solved, n = counts[run.size, run.problem]
        total += run.learned(told=False)[1] * solved / n
    return f"{total:.1f}"


def test_the_figures_in_the_readme_are_those_of_the_kept_runs() -> None:
    result = CliRunner().invoke(app, ["report", str(PILOT / "results.zip"), "--markdown"])
    assert result.exit_code == 0
    said = rows(result.stdout)
    # arm | problems | seeds | runs | solved | confirmed | unfinished | failed
    sdpo, best_of_k = said["sdpo"], said["best-of-k"]
    told = rows(README)
    assert told["sdpo"][:3] == [f"{sdpo[3]} of {sdpo[2]}", said["16"][0], said["32"][0]]
    assert told["best-of-k"][:3] == [f"{best_of_k[3]} of {best_of_k[2]}", said["16"][1], said["32"][1]]
    level, attempts, arm, own, needs, ratio, _ = ("24 %", *said["24 %"])
    assert (attempts, arm) == ("attempts", "best-of-k")
    assert (told["sdpo"][3], told["best-of-k"][3]) == (own, needs)
    value, interval = ratio.rstrip(")").split(" (")
    assert f"{value} times the attempts (90 % interval {interval.replace('–', ' to ')})" in README
    assert f"attempts to reach {level}" in README
    unfinished = int(sdpo[5]) + int(best_of_k[5])
    assert f"{unfinished} of the 58 runs are unfinished" in README


def test_the_problems_are_those_that_the_screening_chose() -> None:
    with zipfile.ZipFile(PILOT / "results.zip") as file:
        ran = {Path(name).parts[1] for name in file.namelist()}
    chosen = {name for name in read_screening(PILOT).named(0.171) if half_of(name) == "test"}
    assert ran == chosen - {"mbpp-69"}


@pytest.mark.parametrize(
    "stage", ["sdpo,best-of-k", "multi-turn", "sdpo-paper,sdpo-shuffled,sdpo-none", None]
)
def test_every_stage_of_the_experiment_is_a_valid_plan(stage: str | None) -> None:
    given = plan.read_toml(DISCOVERY / "batch.toml")
    spec = plan.make_spec(given, {"sources": "mbpp:rows.jsonl", "methods": stage})
    assert (spec.run.attempts, spec.batch.only, spec.batch.seeds) == (128, "hard", 3)


def test_the_runs_whose_attempts_read_feedback_are_those_in_the_readme() -> None:
    runs = runs_in(TOLD / "results.zip")
    assert {run.problem for run in runs} == set(plan.read_toml(TOLD / "batch.toml")["ids"])
    section = README.split("## Earlier: attempts that read")[1]
    said = rows(section)
    for problem in {run.problem for run in runs}:
        cells = []
        for arm in ("best-of-k", "multi-turn", "sdpo", "sdpo-told"):
            mine = [run for run in runs if (run.problem, run.arm) == (problem, arm)]
            cells.append(", ".join(run.found_or_open for run in mine))
        assert said[problem] == [
            added(run.passed for run in runs if (run.problem, run.arm) == (problem, "best-of-k")),
            *cells,
        ]
    flat = " ".join(section.split())
    of_arm = {arm: [run for run in runs if run.arm == arm] for arm in ("best-of-k", "sdpo", "sdpo-told")}
    assert f"read feedback {added(run.learned(told=True) for run in of_arm['sdpo-told'])} pass" in flat
    assert f"{added(run.learned(told=False) for run in of_arm['sdpo-told'])} (`sdpo-told`)" in flat
    assert f"{added(run.learned(told=False) for run in of_arm['sdpo'])} (`sdpo`)" in flat
    assert f"best-of-k {added(run.passed for run in of_arm['best-of-k'])}" in flat


def test_the_problems_with_feedback_are_those_that_the_screening_chose() -> None:
    screened = read_screening(TOLD).problems
    hard = {name for name, item in screened.items() if not item.base.solved}
    chosen = {name for name in hard if screened[name].teacher.solved}
    assert chosen == set(plan.read_toml(TOLD / "batch.toml")["ids"])
    for group, name in (
        (hard, "16 without a success in 10 to 16 plain samples"),
        (screened.keys() - hard, "the other 10"),
    ):
        cells = rows(README)[name]
        base = [screened[problem].base for problem in group]
        teacher = [screened[problem].teacher for problem in group]
        assert cells[0] == f"{sum(x.solved for x in base)} of {sum(x.n for x in base)}"
        told_of = f"{sum(x.solved for x in teacher)} of {sum(x.n for x in teacher)}"
        assert cells[1].startswith(told_of)


def test_the_runs_of_two_sizes_are_those_in_the_readme() -> None:
    runs = packed_runs()
    section = " ".join(README.split("## The main measurement")[1].split("## Controls")[0].split())
    said = rows(README)
    taught = {
        ("1.5b", "letter-tally"),
        ("1.5b", "word-lengths"),
        ("0.5b", "letter-tally"),
        ("1.5b", "dial-digits"),
    }
    rest = {(run.size, run.problem) for run in runs} - taught
    for size, problem in taught:
        cells = said[f"{size.upper()}, {problem}"]
        for arm, cell in zip(ARMS, cells[1:], strict=True):
            mine = [run for run in runs if (run.size, run.problem, run.arm) == (size, problem, arm)]
            assert cell == ", ".join(str(run.found or "none") for run in mine)
            assert all(run.events[-1]["event"] == "run_finished" for run in mine)
    for group, name in ((taught, "these"), (rest, f"the other {len(rest)}")):
        mine = [run for run in runs if (run.size, run.problem) in group]
        of_arm = {arm: [run for run in mine if run.arm == arm] for arm in ARMS}
        assert said[f"{name}, attempts a success"][1:] == [per_success(of_arm[arm]) for arm in ARMS]
        for arm in ("sdpo", "sdpo-fast"):
            assert added(run.learned(told=False) for run in of_arm[arm]) in section
        both = (expected(of_arm["best-of-k"], of_arm[arm]) for arm in ("sdpo", "sdpo-fast"))
        assert " and ".join(both) in section
        assert added(run.passed for run in of_arm["best-of-k"]) in section
        if group is taught:
            assert added(run.learned(told=True) for run in of_arm["sdpo-told"]) in section
    for size in ("0.5b", "1.5b"):
        names = (arm if arm in ("best-of-k", "multi-turn") else f"`{arm}`" for arm in ARMS)
        mine = [[run for run in runs if (run.size, run.arm) == (size, arm)] for arm in ARMS]
        figures = ", ".join(f"{per_success(own)} ({name})" for own, name in zip(mine, names, strict=True))
        assert f"{size.upper()}: {figures}" in section
    cut = [run for run in runs if run.events[-1]["event"] != "run_finished"]
    n_turns = sum(run.arm == "multi-turn" for run in cut)
    assert f"{len(cut)} of the {len(runs)} runs, {n_turns} of them multi-turn, were cut off" in section


@pytest.mark.parametrize("size", ["0.5b", "1.5b"])
def test_the_problems_of_both_sizes_are_those_that_the_screening_chose(size: str) -> None:
    screened = read_screening(SIZES / size).problems
    chosen = {name for name, item in screened.items() if not item.base.solved and item.teacher.solved}
    assert chosen == {run.problem for run in packed_runs() if run.size == size}
    said = rows(README)
    for name in chosen:
        told = f"{screened[name].teacher.solved} of {screened[name].teacher.n}"
        assert screened[name].base.n == 16
        assert said.get(f"{size.upper()}, {name}", [told])[0] == told


def test_the_plan_for_two_sizes_holds_the_arms_that_were_run() -> None:
    given = plan.read_toml(SIZES / "batch.toml")
    spec = plan.make_spec(given, {"sources": "problems", "methods": ",".join(ARMS)})
    assert (spec.run.attempts, spec.batch.seeds, spec.batch.merge) == (128, 2, True)


def test_the_controls_are_those_in_the_readme() -> None:
    runs = runs_in(CONTROL / "results.zip")
    assert {run.arm for run in runs} < set(plan.read_toml(CONTROL / "batch.toml")["methods"])
    said = rows(README)
    teachers = {
        "sdpo-fast": "the own feedback, 1.5e-4",
        "sdpo-paper": "the preset `paper`",
        "sdpo-fast-shuffled": "another problem's feedback, 1.5e-4",
        "sdpo-fast-none": "none: failed answers are pushed down, 1.5e-4",
    }
    for arm, teacher in teachers.items():
        mine = [run for run in runs if (run.problem, run.arm) == ("letter-tally", arm)]
        found = ", ".join(run.found_or_open for run in mine)
        assert said[teacher] == [found, added(run.learned(told=False) for run in mine)]
    rest = {
        arm: [r.found_or_open for r in runs if (r.problem, r.arm) == ("stop-numbers", arm)]
        for arm in teachers
    }
    assert rest == {
        "sdpo-fast": ["18", "8"],
        "sdpo-paper": [],
        "sdpo-fast-shuffled": ["none in 40", "8"],
        "sdpo-fast-none": ["30"],
    }
    assert "the own feedback at 18 and 8, another's not in 40 and at 8 (" in README
    assert "without a teacher at 30" in README


def test_the_look_at_livecodebench_is_that_in_the_readme() -> None:
    screened = read_screening(DISCOVERY / "lcb").problems.values()
    base = added((item.base.solved, item.base.n) for item in screened)
    told = added((item.teacher.solved, item.teacher.n) for item in screened)
    flat = " ".join(README.split())
    assert f"of {len(screened)} easy rows of v6" in flat
    assert f"the 0.5B passes {base} plain samples and {told} with feedback, both on one problem" in flat
    assert sum(item.base.solved + item.teacher.solved > 0 for item in screened) == 1


def test_the_gap_of_the_first_update_says_where_updates_helped() -> None:
    """The table of gaps and gains, the limit between them, and the rank correlations."""
    section = README.split("## Where updates help")[1]
    runs, told, found, teacher = packed_runs(), rows(section), {}, {}
    for size in ("0.5b", "1.5b"):
        screened = read_screening(SIZES / size).problems
        for problem in {run.problem for run in runs if run.size == size}:
            mine = [run for run in runs if (run.size, run.problem) == (size, problem)]
            firsts = [next((e["loss"] for e in run.events if e["event"] == "update"), None) for run in mine]
            losses = [loss for loss in firsts if loss]
            if not losses:
                continue
            name, gap = f"{size.upper()}, {problem}", sum(losses) / len(losses)
            learned = [run.learned(told=False) for run in mine if run.arm in ("sdpo", "sdpo-fast")]
            plain = [run.passed for run in mine if run.arm == "best-of-k"]
            rates = [sum(k for k, _ in pairs) / sum(n for _, n in pairs) for pairs in (learned, plain)]
            found[name], teacher[name] = (gap, rates[0] / rates[1]), screened[problem].teacher.solved
            said = [f"{teacher[name]} of 16", f"{gap:.2f}", added(learned), added(plain)]
            assert told[name] == [*said, f"{rates[0] / rates[1]:.1f}"]
    far = [gain for gap, gain in found.values() if gap >= LearnerOptions().min_gap]
    near = [gain for gap, gain in found.values() if gap < LearnerOptions().min_gap]
    flat = " ".join(section.split())
    assert (len(far), len(near)) == (5, 8)
    assert f"0.1 nats or more updates raise the plain rate {min(far):.1f} to {max(far):.1f} times" in flat
    assert f"in the eight with less it is {min(near):.1f} to {max(near):.1f} times" in flat
    gains = [gain for _, gain in found.values()]
    by_gap, by_teacher = (
        spearmanr(values, gains).statistic
        for values in ([gap for gap, _ in found.values()], [*teacher.values()])
    )
    assert f"of gap and gain is {by_gap:.2f}, about that of the teacher's successes" in flat
    assert f"in 16 samples ({by_teacher:.2f})" in flat
    assert sum(n >= 4 for n in teacher.values()) == 4
