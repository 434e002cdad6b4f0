"""The bench of sampling: what it counts, and which ratios it draws. No times are asserted."""

import json
from pathlib import Path

import pytest

from sdpo_solve.bench.sampling import Figures, Size, Speed, check_engines, page, run
from sdpo_solve.errors import ConfigError
from tests.helpers.tiny_model import save_tiny_model

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft's own
FIGURES = Figures(
    (
        Speed("hf", 900, 10.0),
        Speed("generate", 500, 10.0),
        Speed("vllm", 1000, 10.0),
        Speed("raw vllm", 2000, 19.0),
    )
)


def test_ratios_are_of_tokens_a_second() -> None:
    """90, 50, 100 and 105.26 tokens a second."""
    assert {name: round(value, 3) for name, value in FIGURES.ratios.items()} == {
        "hf / generate": 1.8,
        "hf / vllm": 0.9,
        "vllm / raw vllm": 0.95,
    }


def test_arms_sample_what_is_wanted(tmp_path: Path) -> None:
    """Four answers of at most 6 tokens an arm, as JSON; the last beside another process."""
    figures = run(save_tiny_model(tmp_path), Size(4, 2, 6, 2, ("hf",), beside_load=True))
    assert [speed.name for speed in figures.speeds] == ["hf", "generate", "hf beside a busy process"]
    assert all(4 <= speed.tokens <= 24 for speed in figures.speeds)
    record = json.loads(json.dumps(figures.record()))
    assert list(record["ratios"]) == ["hf / generate", "hf beside a busy process / hf"]


def test_the_page_shows_speeds_and_ratios() -> None:
    from rich.console import Console

    console = Console(width=80, record=True)
    console.print(page(FIGURES))
    lines = [line.split() for line in console.export_text().splitlines()]
    assert ["raw", "vllm", "2000", "19.0", "105.3"] in lines
    assert ["hf", "/", "generate", "1.80"] in lines


def test_what_cannot_be_measured_is_an_error(tmp_path: Path) -> None:
    check_engines(["hf", "vllm"])
    with pytest.raises(ConfigError, match="no engine 'scripted'"):
        check_engines(["hf", "scripted"])
    with pytest.raises(ConfigError, match="no whole number of batches"):
        run(tmp_path, Size(n_samples=10, batch_rows=4))


@pytest.mark.model
@pytest.mark.slow
def test_refilled_batches_are_faster_than_plain_generation() -> None:
    """64 answers in batches of 16, on a CPU."""
    from sdpo_solve.model import names

    figures = run(names.resolve(names.DEFAULT_CPU).path, Size(engines=("hf",)))
    assert figures.ratios["hf / generate"] >= 1.7
