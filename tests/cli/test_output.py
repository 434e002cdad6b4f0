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


def test_an_output_without_utf_8_loses_signs_and_nothing_else() -> None:
    environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*COMMAND, "--help"], capture_output=True, env=environment, check=False)
    assert done.returncode == 0
    assert b"sdpo-solve" in done.stdout
    done.stdout.decode("ascii")
