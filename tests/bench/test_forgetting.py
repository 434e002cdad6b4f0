"""What an adapter does to other problems: counted by problem, and the base must come out as it was."""

import io
import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from sdpo_solve.bench.forgetting import Figures, ProblemRates, page
from sdpo_solve.cli.main import app
from sdpo_solve.errors import ConfigError
from sdpo_solve.report.statistics import Interval
from tests.helpers.tiny_model import save_tiny_model

PROBLEMS = Path(__file__).parents[2] / "problems"


def run(*words: str) -> object:
    return CliRunner().invoke(app, list(words))


def make_run(folder: Path, *more: str) -> Path:
    """A run of a tiny model with one update."""
    model = save_tiny_model(folder / "tiny")
    found = run(
        "run", str(PROBLEMS / "letter-tally.json"), "--model", str(model), "--sandbox", "bubblewrap", "--attempts", "6",
        "--group-size", "3", "--max-tokens", "12", "--set", "learner.lr=0.05", "--set", "sdpo.preset=paper",
        "--set", "learner.min_gap=0", "--out", str(folder / "runs"), *more,
    )  # fmt: skip
    assert found.exit_code == 1, found.output
    return folder / "runs"


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("forgetting"))


def test_every_answer_is_counted_and_the_base_is_unharmed(learned: Path) -> None:
    chosen = ["--ids", "letter-tally,word-lengths,double-call", "--samples", "9"]
    found = run(
        "bench", "forgetting", str(learned), str(PROBLEMS), *chosen, "--sandbox", "bubblewrap", "--json"
    )
    assert found.exit_code == 0, found.output
    said = json.loads(found.stdout)
    assert sorted(row["problem"] for row in said["rows"]) == ["double-call", "word-lengths"]
    assert said["own"] == {"problem": "letter-tally", "base": 0, "adapted": 0}
    assert (said["version"], said["same_again"], said["again"]) == (1, 16, 16)
    assert said["change"] == 0  # a model of random weights solves nothing


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs bitsandbytes: the extra dev")
def test_a_run_in_4_bits_is_measured_in_4_bits(tmp_path: Path) -> None:
    runs = make_run(tmp_path, "--quantization", "4bit")
    chosen = ("--ids", "word-lengths", "--samples", "2", "--sandbox", "bubblewrap", "--json")
    found = run("bench", "forgetting", str(runs), str(PROBLEMS), *chosen)
    assert found.exit_code == 0, found.output
    said = json.loads(found.stdout)
    assert (said["version"], said["same_again"], said["again"]) == (1, 2, 2)


def test_the_runs_own_problem_alone_says_what_was_learned(learned: Path) -> None:
    own = str(PROBLEMS / "letter-tally.json")
    found = run("bench", "forgetting", str(learned), own, "--samples", "2", "--sandbox", "bubblewrap")
    assert found.exit_code == 0, found.output
    assert "0 other problems" in found.output
    assert "its own problem solved without the adapter 0, with it 0 times" in found.output
    assert "interval" not in found.output


def test_a_version_whose_weights_are_gone_names_those_that_are_there(learned: Path) -> None:
    found = run("bench", "forgetting", str(learned), str(PROBLEMS), "--version", "7")
    assert isinstance(found.exception, ConfigError)
    assert "no policy 7 any more; there are 1" in str(found.exception)


def test_the_page_gives_rates_and_the_problems_that_changed_most() -> None:
    rows = (ProblemRates("kept", 4, 4), ProblemRates("lost", 8, 2), ProblemRates("won", 0, 3))
    console = Console(file=io.StringIO(), width=80, color_system=None)
    console.print(
        page(
            Figures(
                "p/sdpo/seed-0", 5, 8, ProblemRates("own", 1, 6), rows, -0.125, Interval(-0.5, 0.25), 16, 16
            )
        )
    )
    text = console.file.getvalue()
    assert [line.split()[0] for line in text.splitlines()[1:4]] == ["lost", "won", "kept"]
    assert "its own problem solved without the adapter 1, with it 6 times" in text
    assert "solved without the adapter 50.0%, with it 37.5%; change -12.5 points" in text
    assert "16 of 16 answers and log-probs as before" in text
