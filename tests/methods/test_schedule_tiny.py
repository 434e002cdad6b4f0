"""The schedule of sdpo on the tiny model: real updates, samples of two policies in a group, an exact resume."""

import json
from pathlib import Path
from typing import Any

import torch

from sdpo_solve.model.adapted import AdaptedModel
from tests.helpers.killed_runs import OPTIONS, Points, run_once
from tests.helpers.tiny_model import save_tiny_model

SCHEDULE = {
    "first_group": 1,
    "feedback_share": 0.5,
    "feedback_floor": 0.25,
    "learn_after": 4,
    "base_share": 0.5,
}


def policy_files(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("policies/*/*") if p.is_file()}


def events(out: Path) -> list[dict[str, Any]]:
    (journal,) = out.rglob("journal.jsonl")
    return [json.loads(line) for line in journal.read_text().splitlines()]


def test_a_run_whose_budget_grew_twice_has_the_groups_and_weights_of_one_with_all_of_it(
    tmp_path: Path,
) -> None:
    torch.set_num_threads(1)
    model = save_tiny_model(tmp_path / "tiny")
    host = AdaptedModel.load(model, "cpu", torch.float32)
    settings = {**OPTIONS.settings, "sdpo": SCHEDULE}

    def run(name: str, attempts: int) -> None:
        options = OPTIONS.model_copy(update={"attempts": attempts, "group_size": 4, "settings": settings})
        run_once(host, model, tmp_path / name / "o", Points(tmp_path / name, 0), options)

    run("whole", 16)
    for attempts in (4, 12, 16):
        run("grown", attempts)
    whole, grown = events(tmp_path / "whole"), events(tmp_path / "grown")
    assert [event["size"] for event in whole if event["event"] == "group"] == [1, 1, 2, 4, 4, 4]
    versions = [event["policy"]["version"] for event in whole if event["event"] == "attempt"]
    assert [sorted(versions[n : n + 4]) for n in (0, 4, 8, 12)] == [
        [0] * 4,
        [0, 0, 1, 1],
        [0, 0, 2, 2],
        [0, 0, 3, 3],
    ]
    assert [e["token_ids"] for e in grown if e["event"] == "attempt"] == [
        e["token_ids"] for e in whole if e["event"] == "attempt"
    ]
    assert policy_files(tmp_path / "grown") == policy_files(tmp_path / "whole") != {}
