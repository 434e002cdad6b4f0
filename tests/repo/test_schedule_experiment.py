"""The schedule of sdpo as it was measured: the READMEs' figures are those of the kept runs."""

import math
from dataclasses import dataclass
from typing import Any

from sdpo_solve.batch import spec as plan
from sdpo_solve.learner.options import Options as LearnerOptions
from sdpo_solve.methods import _schedule
from tests.helpers.packed_runs import DISCOVERY, README, ROOT, Packed, rows, runs_in

SCHEDULE = DISCOVERY / "schedule"
FIRST = (ROOT / "README.md").read_text("utf-8")
FLAT = " ".join(FIRST.split())


def test_the_plan_of_the_schedules_is_valid_and_tells_reading_from_learning() -> None:
    spec = plan.make_spec(plan.read_toml(SCHEDULE / "batch.toml"), {})
    assert (spec.run.attempts, spec.batch.seeds) == (128, 2)
    early, reading = (spec.batch.arms[arm].settings["sdpo"] for arm in ("early", "reading"))
    assert reading["learn_after"] > spec.run.attempts > early["learn_after"]
    same = ("first_group", "group_size", "feedback_share", "feedback_floor")
    assert [early[name] for name in same] == [reading[name] for name in same]


def scheduled() -> dict[str, list[Packed]]:
    """Half -> its runs of the 0.5B, of all files that begin with its name."""
    return {
        half: [run for path in sorted(SCHEDULE.glob(f"{half}*.zip")) for run in runs_in(path)]
        for half in ("dev", "test")
    }


def by_plain_rate(runs: list[Packed]) -> dict[str, list[Packed]]:
    """The runs of problems of which plain answers pass so often."""
    groups: dict[str, list[Packed]] = {"1 of 32 or more": [], "fewer, but some": [], "none": []}
    for problem in {run.problem for run in runs}:
        mine = [run for run in runs if run.problem == problem]
        passed, n = (sum(x) for x in zip(*(r.passed for r in mine if r.arm == "best-of-k"), strict=True))
        groups["1 of 32 or more" if 32 * passed >= n else "fewer, but some" if passed else "none"] += mine
    return groups


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
    halves, first = scheduled(), rows(FIRST)
    kept = rows(README)
    for name, mine in by_plain_rate(halves["dev"] + halves["test"]).items():
        assert first[name] == kept[name] == of_arms(mine)
    for name, half in (("all, development half", "dev"), ("all, test half", "test")):
        assert first[name] == kept[name] == of_arms(halves[half])


@dataclass
class AfterUpdates:
    """Successes and answers after updates that changed weights: plain, and with feedback. The first gaps."""

    plain: list[int]
    told: list[int]
    gaps: list[float]


def after_updates(runs: list[Packed], min_gap: float = LearnerOptions().min_gap) -> AfterUpdates:
    seen = AfterUpdates([0, 0], [0, 0], [])
    for run in (run for run in runs if run.arm != "best-of-k"):
        loss = next((event["loss"] for event in run.events if event["event"] == "update"), None)
        if loss is None:
            continue
        seen.gaps.append(loss)
        if run.arm != "early" and loss < min_gap:
            continue
        for attempt in run.attempts:
            if attempt["policy"]["version"]:
                count = seen.plain if is_plain(run, attempt) else seen.told
                count[0], count[1] = count[0] + attempt["solved"], count[1] + 1
    return seen


def is_plain(run: Packed, attempt: dict[str, Any]) -> bool:
    return bool(attempt["prompt"] == run.attempts[0]["prompt"])


def test_the_schedule_with_the_larger_model() -> None:
    larger = runs_in(SCHEDULE / "1.5b.zip")
    row, groups = of_arms(larger), by_plain_rate(larger)
    assert rows(FIRST)["the 1.5B, test half"] == row
    section = README.split("### The 1.5B")[1]
    kept, flat = rows(section), " ".join(section.split())
    assert kept["all, test half"] == row
    assert all(kept[name] == of_arms(mine) for name, mine in groups.items())
    attempts = {
        arm: of_arms(groups["fewer, but some"])[n].split()[0] for n, arm in ((1, "best"), (2, "sdpo"))
    }
    assert f"(1.5B: {attempts['sdpo']} attempts against {attempts['best']})" in FLAT
    seen = after_updates(larger)
    assert sum(gap >= LearnerOptions().min_gap for gap in seen.gaps) == 3
    assert (
        "In the three runs with updates {} of {} plain answers after them pass, and {} of {} that".format(
            *seen.plain, *seen.told
        )
        in flat
    )
    hard = [run for run in groups["fewer, but some"] if run.arm == "four" and run.found]
    told = [run for run in hard if not is_plain(run, run.attempts[(run.found or 1) - 1])]
    assert f"{len(told)} of its {len(hard)} successes there read feedback" in flat


def test_the_schedule_without_updates() -> None:
    """The same problems and seeds to 112 attempts: attempts a success, and runs solved."""
    section = README.split("### Reading without learning")[1]
    shuffled = runs_in(SCHEDULE / "control.zip")
    control = shuffled + runs_in(SCHEDULE / "controls-without-feedback.zip")
    runs = runs_in(SCHEDULE / "test-seeds-2-3.zip") + runs_in(SCHEDULE / "reading.zip") + control
    costs = {}
    for arm, name in (
        ("best-of-k", "samples only (best-of-k)"),
        ("four", "reads and learns (`four`)"),
        ("reading-four", "reads only (`reading-four`)"),
        ("four-shuffled", "reads, and learns from another problem's feedback (`four-shuffled`)"),
        ("no-teacher-four", "reads, and pushes failed answers down, without a teacher (`no-teacher-four`)"),
        ("own-answers-four", "reads, and is fine-tuned on its own answers as they are (`own-answers-four`)"),
    ):
        found = [run.found or 113 for run in runs if run.arm == arm]
        n_solved = sum(n <= 112 for n in found)
        costs[arm] = f"{sum(min(n, 112) for n in found) / n_solved:.1f}"
        assert rows(section)[name] == [costs[arm], f"{n_solved} of {len(found)}"]
    assert f"({costs['reading-four']} attempts a success, with them {costs['four']}, with con" in FLAT
    of_controls = sorted(round(float(costs[run.arm])) for run in control)
    assert f"controls in place of the feedback {of_controls[0]} to {of_controls[-1]})" in FLAT
    seen, flat = after_updates(control, min_gap=0.0), " ".join(section.split())
    assert (
        "after updates {} of {} plain ones pass, and {} of {} with feed".format(*seen.plain, *seen.told)
        in flat
    )
    seen = after_updates(shuffled, min_gap=0.0)
    low, high = min(seen.gaps), max(seen.gaps)
    assert f"gap was {low:.2f} to {high:.2f} in all nine runs that came to one" in flat
    assert (len(seen.gaps), high < LearnerOptions().min_gap) == (9, True)


def test_the_baselines_beside_best_of_k() -> None:
    """Pairs as far as both runs came; of the arms that were begun last only their first groups are known."""
    section = README.split("### The other baselines")[1]
    best = [run for run in runs_in(SCHEDULE / "test-seeds-2-3.zip") if run.arm == "best-of-k"]
    baselines = runs_in(SCHEDULE / "baselines.zip")
    for arm in ("multi-turn", "sdpo", "paper"):
        mine = [run for run in baselines if run.arm == arm]
        assert rows(section)[f"`{arm}`"] == of_arms(best + mine)
        cut = {len(run.attempts) for run in mine if run.found is None}
        assert (min(cut), max(cut)) == ((16, 18) if arm == "multi-turn" else (8, 16))
    learning = [run for run in baselines if run.arm != "multi-turn"]
    n_updates = sum(event["event"] == "update" for run in learning for event in run.events)
    n_attempts = sum(len(run.attempts) for run in learning)
    assert f"where {n_attempts} attempts with {n_updates} updates took" in " ".join(section.split())


def test_the_long_runs() -> None:
    """Of six problems the answers that pass: of the base and after updates, plain and with feedback."""
    section = README.split("### Long runs")[1]
    runs = runs_in(SCHEDULE / "long.zip")
    kept, by_update = rows(section), [0, 0]
    for run in (run for run in runs if run.seed == 4):
        gap = next(event["loss"] for event in run.events if event["event"] == "update")
        learned = gap >= LearnerOptions().min_gap
        counts = {(later, plain): [0, 0] for later in (False, True) for plain in (True, False)}
        for attempt in run.attempts:
            count = counts[learned and attempt["policy"]["version"] > 0, is_plain(run, attempt)]
            count[0], count[1] = count[0] + attempt["solved"], count[1] + 1
        cells = [f"{passed} of {n}" if n else "–" for passed, n in counts.values()]
        assert kept[run.problem] == [f"{gap:.2f}", *cells, str(run.found or "none")]
        if run.found and run.attempts[run.found - 1]["policy"]["version"]:
            by_update[not is_plain(run, run.attempts[run.found - 1])] += 1
    assert by_update == [1, 0], (
        "one problem of six was solved under a policy that had learned, by a plain answer"
    )
    solved = [run for run in runs if run.seed == 4 and run.found]
    assert len(solved) == 2
    assert "six problems that no answer had solved before" in FLAT
    assert "runs of 512 attempts solved two, one of them by a learned policy" in FLAT
    fresh = [run for run in runs if run.seed > 4]
    for name in kept:
        if name.startswith("`"):
            mine = {run.seed: run.found for run in fresh if run.arm == name.split("`")[1]}
            assert kept[name] == [str(mine[seed]) for seed in (5, 6, 7, 8)]
    first = [(run, run.attempts[(run.found or 1) - 1]) for run in fresh]
    assert not [run for run, attempt in first if is_plain(run, attempt)]
    assert len([run for run, attempt in first if not attempt["policy"]["version"]]) == 11
    assert len(first) == 12


def test_what_the_schedule_learned() -> None:
    """Answers after updates that changed weights, by what they read, and the gaps of all runs with an update."""
    halves = scheduled()
    seen = after_updates(halves["dev"] + halves["test"])
    (alone, n_alone), (told, n_told), gaps = seen.plain, seen.told, seen.gaps
    flat = " ".join(README.split())
    assert (
        f"sampled after them {alone} of {n_alone} plain ones pass, and {told} of {n_told} that read" in flat
    )
    far = sum(gap >= LearnerOptions().min_gap for gap in gaps)
    assert f"0.1 or more in {far} of the {len(gaps)} runs that came to one" in flat
    assert f"none of {n_alone} plain answers of the 0.5B sampled after them passed" in FLAT
    assert alone == 0


def rates(runs: list[Packed]) -> tuple[float, float]:
    """Of the base's answers the shares that pass: to the question alone, and with feedback."""
    counts = {True: [0, 0], False: [0, 0]}
    for run in runs:
        for attempt in run.attempts:
            if not attempt["policy"]["version"]:
                count = counts[attempt["prompt"] == run.attempts[0]["prompt"]]
                count[0], count[1] = count[0] + attempt["solved"], count[1] + 1
    alone, told = (passed / n if n else 0.0 for passed, n in counts.values())
    return alone, told


def expected_run(alone: float, told: float, first: int | None, share: float) -> tuple[float, float, float]:
    """Of a run of 128 attempts: the attempts up to the first success, the time, the chance of a success.

    Time in groups of 16: one attempt takes half of that (measured on two cores), each further one a 32nd.
    """
    open_, n, attempts, time = 1.0, 0, 0.0, 0.0
    while n < 128:
        size = min(_schedule.group_size(n, first, 16), 128 - n)
        n_told = _schedule.split(share, size) if n and share else 0
        time += open_ * (1 + size / 16) / 2
        for index in range(size):
            attempts += open_
            open_ *= 1 - (alone if index < size - n_told else told)
        n += size
    return attempts, time, 1 - open_


def test_the_first_group_costs_no_attempts_and_saves_time() -> None:
    """The table of first groups: by the kept runs' rates, attempts a success and time over best-of-k's."""
    halves = scheduled()
    said = rows(README.split("### How large the first group is")[1])
    groups = by_plain_rate(halves["dev"] + halves["test"])
    for name, first, share in (
        ("plain, groups of 16", None, 0.0),
        *((str(n), n, 0.5) for n in (1, 2, 4, 8, 16)),
    ):
        cells = []
        for group in ("1 of 32 or more", "fewer, but some"):
            mine = groups[group]
            both = [rates([r for r in mine if r.problem == problem]) for problem in {r.problem for r in mine}]
            of = [expected_run(*pair, first, share) for pair in both]
            base = [expected_run(*pair, None, 0.0) for pair in both]
            cells.append(f"{sum(x[0] for x in of) / sum(x[2] for x in of):.1f}")
            cells.append(f"{sum(x[1] for x in of) / sum(x[1] for x in base):.2f}")
        assert said[name] == cells
