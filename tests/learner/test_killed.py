"""kill -9 at every step of a run that samples and learns: the same command then ends as if undisturbed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.helpers.batches import journals
from tests.helpers.tiny_model import save_tiny_model

ROOT = Path(__file__).parents[2]


def weights(out: Path) -> dict[str, bytes]:
    """Every file of the versions that are left, by its path."""
    policies = out / "o" / "say" / "sdpo" / "seed-0" / "policies"
    return {str(p.relative_to(policies)): p.read_bytes() for p in policies.rglob("*") if p.is_file()}


def killed(tmp_path: Path, first: int, stride: int) -> tuple[dict[str, Any], Path]:
    model_dir, out = save_tiny_model(tmp_path / "tiny"), tmp_path / "out"
    out.mkdir()
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.helpers.killed_runs",
            str(model_dir),
            str(out),
            str(first),
            str(stride),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1]), out


def check(said: dict[str, Any], out: Path) -> None:
    assert said["odd"] == []
    wanted = journals_of(out / "whole")
    assert [event["event"] for event in wanted].count("update") == 3
    assert "ema_error" in next(e for e in wanted if e["event"] == "update")["metrics"]
    last = load_file(out / "whole/o/say/sdpo/seed-0/policies/0003/adapter_model.safetensors")
    assert any(bool(tensor.any()) for name, tensor in last.items() if "lora_B" in name), "it learned"
    for place in sorted(out.glob("killed-*")):
        number = int(place.name.split("-")[1])
        assert journals_of(place) == wanted, said["names"][number - 1]
        assert weights(place) == weights(out / "whole"), said["names"][number - 1]


def journals_of(out: Path) -> list[Any]:
    (events,) = journals(out / "o").values()
    return events


def test_a_kill_at_some_steps_changes_nothing(tmp_path: Path) -> None:
    said, out = killed(tmp_path, 9, 23)
    steps = " ".join(said["names"])
    for step in (".writing-0001", "state.json", "0002", "event sampling", "event learning", "event update"):
        assert step in steps
    check(said, out)


@pytest.mark.slow
@pytest.mark.parametrize("first", [1, 2, 3, 4])
def test_a_kill_at_any_step_changes_nothing(tmp_path: Path, first: int) -> None:
    check(*killed(tmp_path, first, 4))
