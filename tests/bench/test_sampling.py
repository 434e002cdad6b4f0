"""The bench of sampling: what it counts, and which ratios it draws. No times are asserted."""

import json
from pathlib import Path

import pytest

from sdpo_solve.bench.sampling import Figures, Speed, Wanted, as_record, page, parse_engines, ratios, run
from sdpo_solve.errors import ConfigError
from tests.helpers.tiny_model import save_tiny_model

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft's own
SPEEDS = (
    Speed("hf", 900, 10.0),
    Speed("generate", 500, 10.0),
    Speed("vllm", 1000, 10.0),
    Speed("raw vllm", 2000, 19.0),
)


def test_ratios_are_of_tokens_a_second_and_know_their_targets() -> None:
    """90, 50, 100 and 105.26 tokens a second."""
    found = {ratio.name: ratio for ratio in ratios(SPEEDS, on_cpu=True)}
    assert {name: round(ratio.value, 3) for name, ratio in found.items()} == {
        "hf / generate": 1.8,
        "hf / vllm": 0.9,
        "vllm / raw vllm": 0.95,
    }
    assert all(ratio.ok for ratio in found.values())
    slow = ratios([Speed("hf", 169, 1.0), Speed("generate", 100, 1.0)], on_cpu=True)
    assert [ratio.ok for ratio in slow] == [False], "1.69 is under 1.7"


def test_on_a_gpu_only_the_ratio_to_raw_vllm_has_a_target() -> None:
    assert [ratio.least for ratio in ratios(SPEEDS, on_cpu=False)] == [None, None, 0.95]


def test_arms_sample_what_is_wanted(tmp_path: Path) -> None:
    """Four answers of at most 6 tokens an arm, as text at 80 columns and as JSON."""
    figures = run(save_tiny_model(tmp_path), Wanted(4, 2, 6, 2, ("hf",)))
    assert [speed.name for speed in figures.speeds] == ["hf", "generate"]
    assert all(4 <= speed.tokens <= 24 for speed in figures.speeds)
    assert [ratio.name for ratio in figures.ratios] == ["hf / generate"]
    record = json.loads(json.dumps(as_record(figures)))
    assert record["ratios"][0]["ok"] == figures.ok


def test_the_page_shows_targets_and_what_missed() -> None:
    from rich.console import Console

    console = Console(width=80, record=True)
    console.print(page(Figures(SPEEDS, tuple(ratios(SPEEDS, on_cpu=True)))))
    text = console.export_text()
    assert "105.3" in text
    assert [line.split() for line in text.splitlines() if "hf / generate" in line] == [
        ["hf", "/", "generate", "1.80", "1.70", "met"]
    ]


def test_what_cannot_be_measured_is_an_error(tmp_path: Path) -> None:
    assert parse_engines("hf, vllm,hf") == ("hf", "vllm")
    with pytest.raises(ConfigError, match="no engine 'scripted'"):
        parse_engines("hf,scripted")
    with pytest.raises(ConfigError, match="no whole number of batches"):
        run(tmp_path, Wanted(n_samples=10, batch_rows=4))
