"""Plug-ins of another package: added by entry points, run by the real commands, and known by their classes alone."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sdpo_solve import engines, methods, sandboxes
from sdpo_solve.errors import ConfigError
from sdpo_solve.registry import Registry
from tests.helpers.batches import COMMAND

OUTSIDE = Path(__file__).parent.parent / "helpers" / "outside" / "outside_plugins.py"
ENTRY_POINTS = """
[sdpo_solve.methods]
pairs = outside_plugins:Pairs
[sdpo_solve.engines]
counting = outside_plugins:CountingEngine
[sdpo_solve.sandboxes]
process = outside_plugins:PlainProcess
[sdpo_solve.sandboxes.languages]
plain-python = outside_plugins:PLAIN_PYTHON
[sdpo_solve.datasets]
successors = outside_plugins:Successors
"""
SETTINGS = ("--engine", "counting", "--sandbox", "process", "--language", "plain-python", "--attempts", "6")


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A directory with the other package, as an installer would leave it."""
    shutil.copy(OUTSIDE, tmp_path)
    info = tmp_path / "outside_plugins-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-plugins\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (tmp_path / "numbers.txt").write_text("1\n20\n")
    return tmp_path


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_run_is_made_of_plugins_of_another_package(installed: Path) -> None:
    done = command(
        installed,
        "run",
        "successors:numbers.txt",
        "--ids",
        "after-20",
        "--method",
        "pairs",
        *SETTINGS,
        "--out",
        "o",
    )
    assert done.returncode == 0, done.stderr
    run_dir = installed / "o" / "after-20" / "pairs" / "seed-0"
    header, *events = [json.loads(line) for line in (run_dir / "journal.jsonl").read_text().splitlines()]
    assert (header["method"], header["engine"], header["sandbox"]) == ("pairs", "counting", "process")
    assert header["config"]["grader"] == {"identity": "plain process", "seconds": 20.0}
    assert [event["size"] for event in events if event["event"] == "group"] == [2, 2]
    assert events[-1]["discovery_time"] == 3
    assert (run_dir / "solution.plain").read_text() == "print(int(input()) + 1)\n"
    refused = command(
        installed, "run", "successors:numbers.txt", "--set", "learner.lr=1", "--method", "pairs", *SETTINGS
    )
    assert refused.returncode == 2
    assert "learner" in refused.stderr


def test_a_batch_and_its_report_are_made_of_plugins_of_another_package(installed: Path) -> None:
    flags = ("--methods", "pairs,best-of-k", "--seeds", "2", "--set", "engine.right_at=2", "--keep-going")
    done = command(installed, "batch", "successors:numbers.txt", *flags, *SETTINGS, "--out", "o")
    assert done.returncode == 0, done.stderr
    assert len(list((installed / "o").glob("*/*/seed-*/journal.jsonl"))) == 8
    report = command(installed, "report", "o", "--json")
    assert report.returncode == 0, report.stderr
    arms = json.loads(report.stdout)["arms"]
    assert {arm["name"] if isinstance(arm, dict) else arm for arm in arms} == {"pairs", "best-of-k"}
    elsewhere = subprocess.run(
        [sys.executable, "-c", COMMAND, "report", "o"],
        cwd=installed,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert elsewhere.returncode == 0, elsewhere.stderr  # also where the plug-ins are not installed
    assert "pairs" in elsewhere.stdout


def test_a_spent_budget_grows_in_the_same_directory(installed: Path) -> None:
    plugins = ("--engine", "counting", "--sandbox", "process", "--language", "plain-python")
    for name, first, status in (("run", "after-20", 1), ("batch", "after-1,after-20", 0)):
        arms = ("--method", "pairs") if name == "run" else ("--methods", "pairs")
        never = ("--set", "engine.right_at=99")
        given = (name, "successors:numbers.txt", "--ids", first, *arms, *plugins, *never, "--out", name)
        assert command(installed, *given, "--attempts", "2").returncode == status
        journal = installed / name / "after-20" / "pairs" / "seed-0" / "journal.jsonl"
        spent = [json.loads(line) for line in journal.read_text().splitlines()]
        assert (spent[-1]["status"], spent[-1]["attempts"]) == ("unsolved", 2)
        more = command(installed, *given, "--attempts", "6", "--temperature", "0.5")
        assert more.returncode == 2, "other options make another run"
        assert command(installed, *given, "--attempts", "6").returncode == status
        grown = [json.loads(line) for line in journal.read_text().splitlines()]
        assert grown[: len(spent)] == spent
        assert (grown[-1]["status"], grown[-1]["attempts"]) == ("unsolved", 6)
        assert command(installed, *given, "--attempts", "4").returncode == 2


def test_every_plugin_of_the_package_states_its_facts() -> None:
    for registry in (methods.REGISTRY, engines.REGISTRY, sandboxes.REGISTRY):
        for name in registry.names():
            assert registry.load(name).options_type.model_fields is not None
    assert [name for name in methods.REGISTRY.names() if methods.REGISTRY.load(name).learns] == ["sdpo"]
    with pytest.raises(ConfigError, match=r"unknown method .x. \(known: best-of-k, multi-turn, sdpo\)"):
        methods.REGISTRY.load("x")
    assert methods.REGISTRY.find("x") is None


def test_a_plugin_that_cannot_be_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sdpo_solve.methods]\nbroken = no_such_module\nhollow = json\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry: Registry[object] = Registry("method", "sdpo_solve.methods", frozenset({"prompts"}))
    for name in ("broken", "hollow"):
        with pytest.raises(ConfigError, match=f"the method '{name}' cannot be imported"):
            registry.load(name)
