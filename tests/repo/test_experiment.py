"""The experiments as they are kept: their files are valid plans, and the READMEs' figures are those of the runs."""

import json
import math
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import spearmanr
from typer.testing import CliRunner

from sdpo_solve.batch import spec as plan
from sdpo_solve.batch.screening_file import read_screening
from sdpo_solve.cli.main import app
from sdpo_solve.datasets.selection import half_of
from sdpo_solve.learner.options import Options as LearnerOptions

ROOT = Path(__file__).parents[2]
DISCOVERY = ROOT / "problems" / "discovery"
PILOT = DISCOVERY / "pilot"
TOLD = DISCOVERY / "told"
SIZES = DISCOVERY / "sizes"
CONTROL = DISCOVERY / "control"
SCHEDULE = DISCOVERY / "schedule"
README = (DISCOVERY / "README.md").read_text("utf-8")
ARMS = ("best-of-k", "multi-turn", "sdpo", "sdpo-fast", "sdpo-told")


@dataclass
class Packed:
    """A run of the experiment on two sizes. `told` attempts read feedback: the second half of their group."""

    size: str
    problem: str
    arm: str
    events: list[dict[str, Any]]

    @property
    def seed(self) -> int:
        return int(self.events[0]["seed"])

    @property
    def attempts(self) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == "attempt"]

    @property
    def found(self) -> int | None:
        return next((event["index"] for event in self.attempts if event["solved"]), None)

    @property
    def passed(self) -> tuple[int, int]:
        return sum(event["solved"] for event in self.attempts), len(self.attempts)

    @property
    def found_or_open(self) -> str:
        """As in a table: `none in 19` where the run was cut off after 19."""
        is_open = self.events[-1]["event"] != "run_finished"
        return str(self.found or f"none in {len(self.attempts)}" if is_open else self.found or "none")

    def learned(self, *, told: bool) -> tuple[int, int]:
        """Successes and attempts after the first update, of those that read feedback or of those that do not."""
        later = [event for event in self.attempts if event["policy"]["version"] > 0]
        if self.arm == "sdpo-told":
            later = [event for event in later if ((event["index"] - 1) % 8 >= 4) == told]
        elif told:
            later = []
        return sum(event["solved"] for event in later), len(later)


def runs_in(path: Path) -> list[Packed]:
    runs = []
    with zipfile.ZipFile(path) as file:
        for name in sorted(file.namelist()):
            top, problem, arm, *_ = Path(name).parts
            lines = file.read(name).decode().splitlines()
            runs.append(Packed(top, problem, arm, [json.loads(line) for line in lines]))
    return runs


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


def added(pairs: Iterable[tuple[int, int]]) -> str:
    solved, n = map(sum, zip(*pairs, strict=True))
    return f"{solved} of {n}"


def rows(text: str) -> dict[str, list[str]]:
    """Cells of every table row by their first cell; the first row of a name counts."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("| "):
            name, *cells = [cell.strip() for cell in line.strip("|").split("|")]
            found.setdefault(name, cells)
    return found


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


def test_the_plan_of_the_schedules_is_valid_and_tells_reading_from_learning() -> None:
    spec = plan.make_spec(plan.read_toml(DISCOVERY / "schedule" / "batch.toml"), {})
    assert (spec.run.attempts, spec.batch.seeds) == (128, 2)
    early, reading = (spec.batch.arms[arm].settings["sdpo"] for arm in ("early", "reading"))
    assert reading["learn_after"] > spec.run.attempts > early["learn_after"]
    same = ("first_group", "group_size", "feedback_share", "feedback_floor")
    assert [early[name] for name in same] == [reading[name] for name in same]


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


def scheduled() -> dict[str, list[Packed]]:
    return {half: runs_in(SCHEDULE / f"{half}.zip") for half in ("dev", "test")}


def of_arms(runs: list[Packed]) -> list[str]:
    """Pairs; of best-of-k and of sdpo attempts a success and runs solved; the ratio.

    A pair counts as far as both of its runs came: a run that ended early would look quick.
    """
    pairs: dict[tuple[str, int], dict[str, Packed]] = {}
    for run in runs:
        arm = "best-of-k" if run.arm == "best-of-k" else "sdpo"
        pairs.setdefault((run.problem, run.seed), {})[arm] = run
    ends = {
        key: min(len(run.attempts) if run.found is None else math.inf for run in pair.values())
        for key, pair in pairs.items()
    }
    cells, costs = [], []
    for arm in ("best-of-k", "sdpo"):
        found = [(pair[arm].found or math.inf, ends[key]) for key, pair in pairs.items()]
        n_solved = sum(first <= end for first, end in found)
        costs.append(sum(min(each) for each in found) / n_solved if n_solved else math.inf)
        cells.append(f"{f'{costs[-1]:.1f}' if n_solved else 'none'} ({n_solved} of {len(pairs)})")
    ratio = f"{costs[1] / costs[0]:.2f}" if max(costs) < math.inf else "–"
    return [str(len(pairs)), *cells, ratio]


def test_the_schedule_of_sdpo_beside_best_of_k() -> None:
    """The five rows of the first README: problems by how often plain answers pass, and both halves."""
    halves, first = scheduled(), rows((ROOT / "README.md").read_text("utf-8"))
    groups: dict[str, list[Packed]] = {"1 of 32 or more": [], "fewer, but some": [], "none": []}
    for runs in halves.values():
        for problem in {run.problem for run in runs}:
            mine = [run for run in runs if run.problem == problem]
            passed, n = (sum(x) for x in zip(*(r.passed for r in mine if r.arm == "best-of-k"), strict=True))
            groups["1 of 32 or more" if 32 * passed >= n else "fewer, but some" if passed else "none"] += mine
    kept = rows(README)
    for name, mine in groups.items():
        assert first[name] == kept[name] == of_arms(mine)
    for name, half in (("all, development half", "dev"), ("all, test half", "test")):
        assert first[name] == kept[name] == of_arms(halves[half])


def test_what_the_schedule_learned() -> None:
    """Answers after updates that changed weights, by what they read, and the gaps of all runs with an update."""
    gaps, counts = [], {False: [0, 0], True: [0, 0]}
    for run in (run for half in scheduled().values() for run in half if run.arm in ("early", "gated")):
        loss = next((event["loss"] for event in run.events if event["event"] == "update"), None)
        if loss is None:
            continue
        gaps.append(loss)
        if run.arm == "gated" and loss < LearnerOptions().min_gap:
            continue
        for attempt in run.attempts:
            if attempt["policy"]["version"]:
                count = counts[attempt["prompt"] != run.attempts[0]["prompt"]]
                count[0], count[1] = count[0] + attempt["solved"], count[1] + 1
    (alone, n_alone), (told, n_told) = counts[False], counts[True]
    flat = " ".join(README.split())
    assert (
        f"sampled after them {alone} of {n_alone} plain ones pass, and {told} of {n_told} that read" in flat
    )
    far = sum(gap >= LearnerOptions().min_gap for gap in gaps)
    assert f"0.1 or more in {far} of the {len(gaps)} runs that came to one" in flat
    first = " ".join((ROOT / "README.md").read_text("utf-8").split())
    assert f"none of {n_alone} plain answers sampled after them passed" in first
    assert alone == 0


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
