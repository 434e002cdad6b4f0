"""Standard output that cannot be written as it stands: one line and an exit code, no traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-c", "from sdpo_solve.cli.main import main; main()"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("arguments", [("schema",), ("--help",), ("model", "list")])
def test_a_full_output_is_one_line_and_exit_code_2(arguments: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr == "sdpo-solve: cannot write the output: No space left on device\n"


def test_an_output_without_utf_8_shows_signs_by_what_looks_like_them(tmp_path: Path) -> None:
    text = '{"id": "p", "statement": "∑ of two × three", "kind": "stdin", "tests": []}'
    (tmp_path / "p.json").write_text(text, encoding="utf-8")
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    options = {"capture_output": True, "env": environment, "check": False, "cwd": tmp_path}
    done = subprocess.run([*COMMAND, "options", "learner"], **options)
    assert (done.returncode, b">= 1" in done.stdout) == (0, True), done.stdout
    done = subprocess.run([*COMMAND, "check", "p.json"], **options)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    for text in (done.stdout, done.stderr):
        text.decode("ascii")


@pytest.mark.parametrize("closed", ["1", "2"])
def test_an_output_that_is_closed_is_no_traceback(closed: str) -> None:
    """As `sdpo-solve ... >&-`: the file itself is closed, where a pipe would have lost its reader."""
    command = ["sh", "-c", f'exec {closed}>&-; exec "$@"', "sh", *COMMAND, "model", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
