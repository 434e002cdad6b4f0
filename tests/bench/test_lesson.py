"""What updates do to right answers: scored before and after, one setting after another, from the base."""

import io
import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from sdpo_solve.bench.lesson import Effect, Figures, InContext, page, settings_of
from sdpo_solve.cli.main import app
from sdpo_solve.errors import ConfigError
from sdpo_solve.model.adapted import AdaptedModel
from tests.helpers.tiny_model import save_tiny_model

PROBLEM = str(Path(__file__).parents[2] / "problems" / "letter-tally.json")


def run(*words: str) -> object:
    return CliRunner().invoke(app, list(words))


def sample(model: Path, out: Path, *more: str) -> str:
    """Eight attempts of a tiny model, none of which solves anything."""
    found = run(
        "run", PROBLEM, "--model", str(model), "--sandbox", "bubblewrap", "--method", "best-of-k", "--attempts", "8",
        "--group-size", "8", "--max-tokens", "12", "--keep-going", "--out", str(out), *more,
    )  # fmt: skip
    assert found.exit_code == 1, found.output
    return str(out)


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("lesson")
    return sample(save_tiny_model(folder / "tiny"), folder / "runs")


def test_every_setting_starts_from_the_base_and_a_larger_rate_moves_further(sampled: str) -> None:
    words = (
        "--references",
        PROBLEM,
        "--group-size",
        "4",
        "--updates",
        "2",
        "--vary",
        "learner.lr=0.001,0.01",
    )
    found = run("bench", "lesson", sampled, "--set", "learner.lr=1e-9", *words, "--json")
    assert found.exit_code == 0, found.output
    said = json.loads(found.stdout)
    assert [effect["setting"] for effect in said["effects"]] == ["lr=1e-9", "lr=0.001", "lr=0.01"]
    still, some, more = said["effects"]
    assert abs(still["gain"]) < 1e-3
    assert still["drift"] < 1e-6 < some["drift"] < more["drift"]
    assert abs(some["gain"]) < abs(more["gain"])
    (row,) = said["in_context"]
    assert (row["problem"], row["of_reference"], row["n_right"]) == ("letter-tally", True, 1)
    assert row["right"] != row["wrong"]


def test_the_same_setting_twice_gives_the_same_figures(sampled: str) -> None:
    words = ("--references", PROBLEM, "--group-size", "4", "--set", "learner.lr=0.01", "--json")
    both = run("bench", "lesson", sampled, *words, "--vary", "learner.lora_rank=8,16")
    said = json.loads(both.stdout)["effects"]
    alone = json.loads(run("bench", "lesson", sampled, *words).stdout)["effects"]
    assert said[0] == alone[0]
    by_default, rank_16 = said[0], said[2]
    assert {**rank_16, "setting": ""} == {**by_default, "setting": ""}  # 16 is the default rank
    assert said[1]["gain"] != rank_16["gain"]


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs bitsandbytes: the extra dev")
def test_runs_in_4_bits_are_measured_in_4_bits_and_not_among_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save_tiny_model(tmp_path / "tiny")
    whole, small = sample(model, tmp_path / "a"), sample(model, tmp_path / "b", "--quantization", "4bit")
    words = ("--references", PROBLEM, "--group-size", "4", "--json")
    for pair in ((whole, small), (small, whole)):
        mixed = run("bench", "lesson", *pair, *words)
        assert isinstance(mixed.exception, ConfigError)
        assert "these runs used different models: tiny@" in str(mixed.exception)
    held = []
    load = AdaptedModel.load
    monkeypatch.setattr(AdaptedModel, "load", lambda *a, **k: held.append(k["quantization"]) or load(*a, **k))
    found = run("bench", "lesson", small, *words)
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["model"].endswith("+4bit")
    assert held == ["4bit"]


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--references", PROBLEM, "--group-size", "9"), "1 groups of 9 want 9 attempts"),
        (("--group-size", "4"), "none of these runs solved it; add one that did, or --references"),
        (("--set", "judge.boxes=2"), "compares options of the learner, not of judge"),
        (("--vary", "learner.lrr=1"), "no option 'lrr'; did you mean lr?"),
        (("--vary", "learner.lr=fast"), "fast"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_its_reason(
    sampled: str, words: tuple[str, ...], what: str
) -> None:
    found = run("bench", "lesson", sampled, *words)
    assert isinstance(found.exception, ConfigError)
    assert what in str(found.exception)


def test_each_varied_value_stands_alone_in_its_place() -> None:
    rows = settings_of({"lr": "1e-4"}, {"lora_rank": ["4", "8"], "lr": ["1e-4", "1e-3"]})
    assert rows == [
        {"lr": "1e-4"},
        {"lr": "1e-4", "lora_rank": "4"},
        {"lr": "1e-4", "lora_rank": "8"},
        {"lr": "1e-3"},
    ]


def test_the_page_gives_means_over_problems_and_counts_those_that_were_helped() -> None:
    in_context = (InContext("a", 3, False, 4.0, 1.5), InContext("b", 1, True, -1.0, -4.0))
    effects = (
        Effect("a", "lr=1e-3", 2.0, -1.0, 0.02, ()),
        Effect("b", "lr=1e-3", -1.0, -3.0, 0.04, ("update skipped",)),
    )
    console = Console(file=io.StringIO(), width=80, color_system=None)
    console.print(page(Figures("m", 8, 3, in_context, effects)))
    lines = console.file.getvalue().splitlines()
    assert lines[1].split() == ["a", "3", "of", "the", "runs", "+4.00", "+1.50", "+2.50"]
    assert lines[2].split() == ["b", "its", "reference", "-1.00", "-4.00", "+3.00"]
    assert lines[5].split() == ["lr=1e-3", "+0.50", "-2.00", "+2.50", "2/2", "0.0300", "1"]
