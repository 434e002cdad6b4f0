"""The main job on its real parts: the embedded model, real containers, an update from real failures."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROBLEM = Path(__file__).parents[2] / "problems" / "letter-tally.json"
SIZE = ("--attempts", "6", "--group-size", "3", "--max-tokens", "64", "--keep-going")
# Groups of equal size from the question alone, an update after each, whatever its teacher says.
EACH_LEARNS = ("--set", "sdpo.preset=paper", "--set", "learner.min_gap=0")


def command(*arguments: str) -> list[str]:
    return [
        sys.executable,
        "-c",
        "from sdpo_solve.cli.main import main; main()",
        "run",
        str(PROBLEM),
        *arguments,
    ]


@pytest.mark.docker
@pytest.mark.model
def test_the_embedded_model_tries_learns_and_tries_again(tmp_path: Path) -> None:
    arguments = command(*SIZE, *EACH_LEARNS, "--model", "qwen2.5-coder-0.5b", "--out", "out", "--json")
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode in (0, 1), done.stderr
    result = json.loads(done.stdout)
    assert result["attempts"] == 6

    run_dir = tmp_path / result["out"]
    events = [json.loads(line) for line in (run_dir / "journal.jsonl").read_text().splitlines()]
    attempts = [event for event in events if event["event"] == "attempt"]
    assert [attempt["policy"]["version"] for attempt in attempts] == [0, 0, 0, 1, 1, 1]
    assert all(len(a["token_ids"]) == len(a["logprobs"]) <= 64 for a in attempts)
    assert all(logprob <= 0 for a in attempts for logprob in a["logprobs"])

    (update,) = [event for event in events if event["event"] == "update"]
    assert update["version"] == 1
    assert update["metrics"]["grad_norm"] > 0
    # The sampler and the learner hold the same weights: what was sampled has the probability it was given.
    assert abs(update["metrics"]["logprob_gap"]) < 0.05

    from peft import PeftConfig

    adapter = run_dir / "policies" / "0001"
    assert PeftConfig.from_pretrained(next(adapter.rglob("adapter_config.json")).parent).peft_type == "LORA"
