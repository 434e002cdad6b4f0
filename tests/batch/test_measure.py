"""What a batch may cost: short runs show what every arm does, and a damaged journal stops nothing."""

from pathlib import Path

from sdpo_solve.batch import spec as plan
from sdpo_solve.batch.batch import Batch
from sdpo_solve.batch.cost import cost_of
from sdpo_solve.batch.measure import _short
from tests.helpers.small_runs import KEYS, SmallRuns, reply

ARMS = """
sources = ["problems"]
methods = ["best-of-k", "sdpo", "slow", "reading"]
attempts = 64
[arms.slow]
settings.sdpo = {group_size = 8, learn_after = 48}
settings.learner = {min_gap = 0.2}
[arms.reading]
settings.sdpo = {learn_after = 1000}
"""


def test_short_runs_come_to_an_update_where_the_whole_ones_do(tmp_path: Path) -> None:
    (tmp_path / "batch.toml").write_text(ARMS)
    spec = plan.make_spec(plan.read_toml(tmp_path / "batch.toml"), {})
    batch = Batch(spec, tmp_path, None, tuple(plan.list_runs(spec, ["inc"])), (), ())  # type: ignore[arg-type]
    short = _short(batch, tmp_path / "short")
    seen = {}
    for key in short.keys:
        made = short.plan_for(key)
        learner = made.parts.get("learner")
        after = getattr(made.parts[made.run.method], "learn_after", None)
        seen[key.arm] = (made.run.attempts, after, learner and learner.min_gap)
    assert seen == {
        "best-of-k": (8, None, None), "sdpo": (8, 0, 0), "slow": (8, 0, 0), "reading": (8, 1000, 0.1)
    }  # fmt: skip


def test_a_damaged_journal_counts_up_to_its_damage(tmp_path: Path) -> None:
    SmallRuns(tmp_path, reply).perform(KEYS[:2])
    run_dirs = [tmp_path / key.name for key in KEYS[:2]]
    journal = run_dirs[0] / "journal.jsonl"
    whole = cost_of(run_dirs)
    lines = journal.read_text().splitlines()
    second = [number for number, line in enumerate(lines) if '"event": "group"' in line][1]
    journal.write_text("\n".join([*lines[:second], "{broken", *lines[second + 1 :], ""]))
    assert whole.groups - cost_of(run_dirs).groups == 1
    assert whole.attempts - cost_of(run_dirs).attempts == 4
