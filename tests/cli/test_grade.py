"""The verdicts that `grade` and `check` print, at every width; the commands themselves: test_main.py."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from rich.padding import Padding
from typer.testing import CliRunner

from sdpo_solve.cli.grade import verdict_table
from sdpo_solve.cli.main import app
from sdpo_solve.errors import UserError
from sdpo_solve.types import Case, Kind, Problem, Status, TestCase, Verdict

PROBLEM = Problem("inc", "Add one.", Kind.FUNCTION, (TestCase([1], 2, True), TestCase([2], 3, False)))
VERDICT = Verdict((Case(0, Status.ACCEPTED, True), Case(1, Status.MEMORY_LIMIT, True)))


@pytest.mark.parametrize("indent", [0, 4])
@pytest.mark.parametrize("width", [24, 32, 40, 56, 80])
def test_no_verdict_is_cut_however_narrow_the_terminal(width: int, indent: int) -> None:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(Padding(verdict_table(PROBLEM, VERDICT), (0, 0, 0, indent)))
    text = console.file.getvalue()
    said = Status.MEMORY_LIMIT.value.replace("_", " ").split()
    assert {"visible", "hidden", "accepted", *said} <= set(text.split())
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize(
    ("name", "code"),
    [("A.java", 2), ("sol.rs", 2), ("book.ipynb", 2), ("a.txt", 0), ("answer", 0), ("A.PY", 0)],
)
def test_a_program_in_another_language_is_refused_by_name(name: str, code: int, tmp_path: Path) -> None:
    tests = [{"input": "", "expected": "1\n", "visible": True}]
    problem = {"id": "one", "statement": "Say 1.", "kind": "stdin", "tests": tests}
    (tmp_path / "one.json").write_text(json.dumps(problem))
    (tmp_path / name).write_text("print(1)")
    arguments = ["grade", str(tmp_path / "one.json"), str(tmp_path / name), "--sandbox", "bubblewrap"]
    done = CliRunner().invoke(app, arguments)
    if code:
        assert isinstance(done.exception, UserError)
        said = f"{name}: programs in .{name.partition('.')[2]} cannot be judged; known: .cpp, .cc, .cxx, .py"
        assert str(done.exception).endswith(said)
    else:
        assert done.exit_code == 0, done.output


def test_a_checker_that_crashes_leaves_the_other_problems_to_be_judged(tmp_path: Path) -> None:
    (tmp_path / "crash.py").write_text("raise SystemExit('no')[0]")
    common = {
        "statement": "Say 1.",
        "kind": "stdin",
        "tests": [{"input": "", "expected": "1\n", "visible": True}],
    }
    for name, more in {"a": {"checker": {"program": "crash.py"}}, "b": {}}.items():
        content = {"id": name, **common, "reference": "print(1)", **more}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    done = CliRunner().invoke(app, ["check", str(tmp_path), "--sandbox", "bubblewrap"])
    assert done.exit_code == 2, done.output
    assert "a: its checker failed" in " ".join(done.output.split())
    assert "1 of 2 problems are right" in done.output
