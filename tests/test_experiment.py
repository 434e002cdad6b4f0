"""The experiment as it is kept: its file is a valid plan, and the README's figures are those of its runs."""

import json
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sdpo_solve import plan
from sdpo_solve.cli import app
from sdpo_solve.screening_file import read_screening
from sdpo_solve.selection import half_of

ROOT = Path(__file__).parent.parent
PILOT = ROOT / "problems" / "discovery" / "pilot"
TOLD = ROOT / "problems" / "discovery" / "told"


def rows(text: str) -> dict[str, list[str]]:
    """Cells of every table row by their first cell; the first row of a name counts."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("| "):
            name, *cells = [cell.strip() for cell in line.strip("|").split("|")]
            found.setdefault(name, cells)
    return found


def test_the_figures_in_the_readme_are_those_of_the_kept_runs() -> None:
    result = CliRunner().invoke(app, ["report", str(PILOT / "results.zip"), "--markdown"])
    assert result.exit_code == 0
    said = rows(result.stdout)
    # arm | problems | seeds | runs | solved | confirmed | unfinished | failed
    sdpo, best_of_k = said["sdpo"], said["best-of-k"]
    readme = (ROOT / "README.md").read_text("utf-8")
    told = rows(readme)
    assert told["sdpo"][:3] == [f"{sdpo[3]} of {sdpo[2]}", said["16"][0], said["32"][0]]
    assert told["best-of-k"][:3] == [f"{best_of_k[3]} of {best_of_k[2]}", said["16"][1], said["32"][1]]
    level, attempts, arm, own, needs, ratio, _ = ("24 %", *said["24 %"])
    assert (attempts, arm) == ("attempts", "best-of-k")
    assert (told["sdpo"][3], told["best-of-k"][3]) == (own, needs)
    value, interval = ratio.rstrip(")").split(" (")
    assert f"{value} times the attempts (90 % interval {interval.replace('–', ' to ')})" in readme
    assert f"attempts to reach {level}" in readme
    unfinished = int(sdpo[5]) + int(best_of_k[5])
    assert f"{unfinished} of the 58 runs are unfinished" in readme


def test_the_problems_are_those_that_the_screening_chose() -> None:
    with zipfile.ZipFile(PILOT / "results.zip") as file:
        ran = {Path(name).parts[1] for name in file.namelist()}
    chosen = {name for name in read_screening(PILOT).named(0.171) if half_of(name) == "test"}
    assert ran == chosen - {"mbpp-69"}


@pytest.mark.parametrize(
    "stage", ["sdpo,best-of-k", "multi-turn", "sdpo-paper,sdpo-shuffled,sdpo-none", None]
)
def test_every_stage_of_the_experiment_is_a_valid_plan(stage: str | None) -> None:
    given = plan.read_toml(ROOT / "problems" / "discovery" / "batch.toml")
    spec = plan.make_spec(given, {"sources": "mbpp:rows.jsonl", "methods": stage})
    assert (spec.run.attempts, spec.batch.only, spec.batch.seeds) == (128, "hard", 3)


def test_the_runs_whose_attempts_read_feedback_are_those_in_the_readme() -> None:
    found: dict[str, dict[str, dict[str, object]]] = {}
    with zipfile.ZipFile(TOLD / "results.zip") as file:
        for name in file.namelist():
            if name.endswith("journal.jsonl"):
                _, problem, arm, *_ = Path(name).parts
                events = [json.loads(line) for line in file.read(name).decode().splitlines()]
                n_solved = sum(e["n_solved"] for e in events if e["event"] == "group")
                found.setdefault(problem, {})[arm] = {**events[-1], "n_solved": n_solved}
    assert set(found) == set(plan.read_toml(TOLD / "batch.toml")["ids"])
    section = (ROOT / "README.md").read_text("utf-8").split("### What may pay")[1].split("\n## ")[0]
    said = rows(section)
    for problem, arms in found.items():
        base, ours = arms["best-of-k"], arms["sdpo-told"]
        assert said[problem] == [
            f"{base['n_solved']} of 64",
            *(str(arm["discovery_time"] or "not in 64") for arm in (base, ours)),
        ]


def test_the_problems_with_feedback_are_those_that_the_screening_chose() -> None:
    screened = read_screening(TOLD).problems
    hard = {name for name, item in screened.items() if not item.base.solved}
    chosen = {name for name in hard if screened[name].teacher.solved}
    assert chosen == set(plan.read_toml(TOLD / "batch.toml")["ids"])
    readme = (ROOT / "README.md").read_text("utf-8")
    for group, name in (
        (hard, "16 without a success in 10 to 16 plain samples"),
        (screened.keys() - hard, "the other 10"),
    ):
        cells = rows(readme)[name]
        base = [screened[problem].base for problem in group]
        teacher = [screened[problem].teacher for problem in group]
        assert cells[0] == f"{sum(x.solved for x in base)} of {sum(x.n for x in base)}"
        told_of = f"{sum(x.solved for x in teacher)} of {sum(x.n for x in teacher)}"
        assert cells[1].startswith(told_of)
