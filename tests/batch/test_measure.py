"""What a batch may cost: short runs show what every arm does, and a damaged journal stops nothing."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from sdpo_solve.batch import spec as plan
from sdpo_solve.batch.batch import Batch, Executed, RunsOnDisk
from sdpo_solve.batch.cost import Cost, cost_of
from sdpo_solve.batch.measure import _short, measure
from sdpo_solve.batch.stop import StopSignal
from sdpo_solve.errors import UserError
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


@pytest.mark.parametrize(("is_there", "place"), [(True, "runs/first"), (False, "runs")])
def test_short_runs_lie_in_the_directory_of_the_results(tmp_path: Path, is_there: bool, place: str) -> None:
    """Beside it only where it is not there yet: what is above it may not be ours to write."""
    (tmp_path / "runs").mkdir()
    if is_there:
        (tmp_path / "runs" / "first").mkdir()
    seen = []

    def execute(short: Batch, *_: object) -> Executed:
        seen.append(short.out.parent)
        return Executed()

    measure(unmeasured_batch(tmp_path / "runs" / "first"), execute, lambda _: None, StopSignal())
    assert seen == [tmp_path / place]
    assert not list(tmp_path.rglob(".sdpo-solve-measure-*"))


def test_short_runs_that_cannot_be_written_are_one_line() -> None:
    with pytest.raises(UserError, match=r"cannot write /proc: .*; leave out --measure"):
        measure(unmeasured_batch(Path("/proc/runs")), Mock(), lambda _: None, StopSignal())


def unmeasured_batch(out: Path) -> Batch:
    spec = plan.make_spec({"sources": ["problems"], "methods": ["best-of-k"]}, {})
    problems: Any = SimpleNamespace(ids=("inc",))
    on_disk = RunsOnDisk(costs={"best-of-k": Cost()})
    return Batch(spec, out, problems, tuple(plan.list_runs(spec, ["inc"])), on_disk=on_disk)
