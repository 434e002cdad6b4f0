"""The schedule of sdpo as it was measured: the READMEs' figures are those of the kept runs."""

import math

from sdpo_solve.batch import spec as plan
from sdpo_solve.learner.options import Options as LearnerOptions
from tests.helpers.packed_runs import DISCOVERY, README, ROOT, Packed, rows, runs_in

SCHEDULE = DISCOVERY / "schedule"


def test_the_plan_of_the_schedules_is_valid_and_tells_reading_from_learning() -> None:
    spec = plan.make_spec(plan.read_toml(DISCOVERY / "schedule" / "batch.toml"), {})
    assert (spec.run.attempts, spec.batch.seeds) == (128, 2)
    early, reading = (spec.batch.arms[arm].settings["sdpo"] for arm in ("early", "reading"))
    assert reading["learn_after"] > spec.run.attempts > early["learn_after"]
    same = ("first_group", "group_size", "feedback_share", "feedback_floor")
    assert [early[name] for name in same] == [reading[name] for name in same]


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
