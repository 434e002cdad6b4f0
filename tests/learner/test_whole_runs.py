"""Whole runs of models of other kinds, by the command: sampled, judged in a sandbox, learned from, to the end."""

from pathlib import Path

import pytest
import torch

from sdpo_solve.learner.learner import MAX_LOGPROB_GAPS
from sdpo_solve.model.cpu import cpu_dtype
from tests.helpers.architectures import config_of, save_architecture
from tests.helpers.command import Place

RUNS = [
    ("gemma3", "default"),
    ("qwen3-next", "default"),
    ("mixtral-window", "default"),
    ("qwen3-moe", "paper"),
]


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.parametrize(("name", "preset"), RUNS)
def test_a_run_learns_what_it_sampled_to_its_end(name: str, preset: str, tmp_path: Path) -> None:
    """Three groups, an update after each but the last; samples of random weights are never right."""
    model = save_architecture(tmp_path / "model", config_of(name, max_position_embeddings=2048))
    place = Place(tmp_path)
    budget = ("--attempts", "6", "--group-size", "2", "--max-tokens", "16", "--out", "out")
    learns = ("--set", f"learner.preset={preset}", "--set", "learner.min_gap=0", "--set", "sdpo.preset=paper")
    done = place("run", "inc.json", "--model", str(model), *budget, *learns)
    assert done.returncode == 1, done.stderr
    updates = [x for x in place.events("sdpo") if x["event"] == "update"]
    assert len(updates) >= 2
    # The precision of this processor: bfloat16 rounds.
    most = 1e-4 if cpu_dtype() == "float32" else MAX_LOGPROB_GAPS[torch.bfloat16]
    assert all(x["metrics"]["logprob_gap"] < most and x["metrics"]["skipped"] == 0 for x in updates)
