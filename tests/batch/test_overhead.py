"""What a batch of many runs costs besides sampling, grading and learning: processor time, memory, its own share."""

import json
import resource
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sdpo_solve.batch.batch import prepare, run_batch
from sdpo_solve.batch.local_executor import local_executor
from sdpo_solve.batch.spec import make_spec
from sdpo_solve.batch.stop import StopSignal
from sdpo_solve.methods import PAPER_ARMS
from tests.helpers.batches import make_problems
from tests.helpers.tiny_model import save_tiny_model

pytestmark = pytest.mark.docker


def ignore(event: object) -> None:
    """No display."""


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def test_a_runs_own_cost_is_small_and_does_not_grow_with_the_plan(tmp_path: Path) -> None:
    """Replies without code: no model samples and no box runs, what is left is ours."""
    make_problems(tmp_path / "problems", 10)
    (tmp_path / "replies").write_text((json.dumps({"text": "An answer without code."}) + "\n") * 4)
    flags = {"sources": [str(tmp_path / "problems")], "methods": PAPER_ARMS, "attempts": 4, "group_size": 4,
             "engine": "scripted", "replies": tmp_path / "replies"}  # fmt: skip
    ms_a_run, again_ms_a_run = [], []
    for seeds in (1, 2, 6):  # 30, 60 and 180 runs; the first has everything imported
        batch = prepare(make_spec({}, {**flags, "seeds": seeds}), tmp_path / str(seeds))
        with local_executor(batch) as execute:
            execute.make_runner(batch, ignore, StopSignal())  # the sandbox, outside the clock
            began_s, began_mb = time.process_time(), peak_mb()
            assert run_batch(batch, execute, ignore, StopSignal()).unsolved == len(batch.keys)
            ran_s = time.process_time()
            again = prepare(batch.spec, batch.out)
            assert run_batch(again, execute, ignore, StopSignal()).kept == len(batch.keys)
            again_ms_a_run.append(1e3 * (time.process_time() - ran_s) / len(batch.keys))
            ms_a_run.append(1e3 * (ran_s - began_s) / len(batch.keys))
    assert ms_a_run[-1] < 60  # 9 on a quiet machine
    assert ms_a_run[-1] < 2 * ms_a_run[1]
    assert again_ms_a_run[-1] < ms_a_run[-1] / 2
    assert peak_mb() - began_mb < 30


def test_the_busy_shares_of_a_batch_that_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_problems(tmp_path / "problems", 2)
    save_tiny_model(tmp_path / "tiny")
    flags = {"sources": "problems", "model": "tiny", "methods": "sdpo", "max_tokens": 8, "attempts": 4,
             "group_size": 2, "keep_going": True, "settings": {"sdpo": {"preset": "paper"}}}  # fmt: skip
    batch = prepare(make_spec({}, flags), tmp_path / "runs")
    with local_executor(batch) as execute:
        for n in (1, 2):
            options = batch.spec.batch.model_copy(update={"in_flight": n})
            one = replace(batch, spec=replace(batch.spec, batch=options), out=tmp_path / f"runs-{n}")
            busy = run_batch(one, execute, ignore, StopSignal()).busy
            assert all(0 < busy[name] <= 1 for name in ("sampling", "grading", "learning"))
            assert 0 <= busy["own"] < 1
