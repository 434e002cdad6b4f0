"""`bench plan` and `bench batch` at their smallest: every run is carried out, counted and shown. No time is tested."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from sdpo_solve.bench import overhead
from sdpo_solve.bench.batch import parse_numbers
from sdpo_solve.cli import batch
from sdpo_solve.errors import ConfigError
from tests.helpers.batches import make_problems
from tests.helpers.tiny_model import save_tiny_model

pytestmark = pytest.mark.docker


def invoke(*given: str) -> str:
    """What the command prints."""
    app = typer.Typer()
    batch.add_bench_to(app)
    result = CliRunner().invoke(app, list(given))
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    return result.stdout


def test_a_plan_is_carried_out_by_quarters_and_grows_with_its_runs() -> None:
    rows = json.loads(invoke("plan", "--problems", "4", "--seeds", "2", "--json"))["plans"]
    assert [row["runs"] for row in rows] == [6, 12, 24]  # 1, 2 and 4 problems x 3 methods x 2 seeds
    sizes_mb = [row["journals_mb"] for row in rows]
    assert sizes_mb == pytest.approx([sizes_mb[0], 2 * sizes_mb[0], 4 * sizes_mb[0]], rel=0.02)
    assert rows[0]["peak_mb"] <= rows[1]["peak_mb"] <= rows[2]["peak_mb"]


def test_the_plans_are_a_line_each() -> None:
    cost = overhead.Cost(
        runs=6, cpu_ms_a_run=12.345, peak_mb=70.4, again_ms_a_run=0.204, report_s=1.5, journals_mb=0.26
    )
    page = overhead.table([cost])
    cells = [list(column.cells) for column in page.columns]
    assert cells == [["6"], ["12.3"], ["0.20"], ["70"], ["1.50"], ["0.3"]]


def test_shares_of_a_batch_that_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_problems(tmp_path / "problems", 2)
    save_tiny_model(tmp_path / "tiny")
    flags = ("--model", "tiny", "--max-tokens", "8", "--attempts", "4", "--group-size", "2", "--json")
    rows = json.loads(invoke("batch", "problems", "--methods", "sdpo", *flags))["batches"]
    assert [(row["in_flight"], row["runs"]) for row in rows] == [(1, 2), (2, 2)]
    for row in rows:
        assert all(0 < row[name] <= 1 for name in ("sampling", "grading", "learning"))
        assert 0 <= row["own"] < 1
    assert {path.name for path in tmp_path.iterdir()} == {"problems", "tiny"}  # it leaves nothing


def test_shares_of_scripted_replies_are_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_problems(tmp_path / "problems", 1)
    (tmp_path / "replies").write_text(json.dumps({"text": "no code"}) + "\n" + json.dumps({"text": "no"}))
    scripted = ("--engine", "scripted", "--replies", "replies")
    said = invoke(
        "batch", "problems", "--methods", "multi-turn", "--attempts", "2", "--in-flight", "3", *scripted
    )
    header, row = said.splitlines()
    assert header.split() == [
        "under",
        "way",
        "runs",
        "seconds",
        "sampling",
        "grading",
        "learning",
        "orchestrator",
    ]
    assert row.split()[:2] == ["3", "1"]
    assert row.count("%") == 4  # shares of the time, which no test can foretell


@pytest.mark.parametrize("text", ["", "0", "1,x", "-1", "1.5"])
def test_numbers_of_runs_under_way_are_whole_and_above_nothing(text: str) -> None:
    with pytest.raises(ConfigError, match="--in-flight wants numbers such as 1,2"):
        parse_numbers(text)
