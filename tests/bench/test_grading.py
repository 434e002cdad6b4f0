"""`bench grading` at a small size: every figure is there, and memory stays within its bound. No times."""

import io
import json
import subprocess
import sys

import pytest
from rich.console import Console

from sdpo_solve.bench.grading import Figure, page
from sdpo_solve.sandboxes._base import BoxOptions

# In a process of its own, whose peak of memory is not that of other tests.
SMALL = """
import json
from sdpo_solve.bench import grading as bench
said = []
figures = bench.run(said.append, 1, bench.Size(attempts=4, tests=3))
print(json.dumps({"said": said, **bench.as_record(figures)}))
"""


@pytest.mark.docker
def test_every_figure_is_measured_and_loud_programs_do_not_fill_the_host() -> None:
    done = subprocess.run([sys.executable, "-c", SMALL], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["said"] == [
        "4 attempts x 3 tests of 10 ms, round 1 of 1",
        "programs that print for ever",
        "4 attempts with one docker run each",
    ]
    figures = {figure["name"]: figure for figure in found["figures"]}
    memory_mb = figures.pop("host memory for 4 loud attempts")["value"]
    assert 0 <= memory_mb <= 4 * BoxOptions().total_output_mb  # four at a time, each within its cap
    assert [name for name, figure in figures.items() if figure["value"] <= 0 and name[:4] != "load"] == []
    bare, warm, cold = (
        figures[name]["value"] for name in ("bare subprocesses", "warm boxes", "one docker run an attempt")
    )
    assert figures["warm boxes / bare subprocesses"]["value"] == pytest.approx(warm / bare)
    assert figures["docker run / warm boxes"]["value"] == pytest.approx(cold / warm)


def test_a_page_has_a_line_a_figure() -> None:
    shown = io.StringIO()
    Console(file=shown, width=80).print(page([Figure("a", 2.0, "x"), Figure("b", 40.0, "ms")]))
    assert [line.split() for line in shown.getvalue().splitlines()] == [["a", "2.00", "x"], ["b", "40", "ms"]]
