"""`python -m tests`: format, lint, types and tests, in this order; stops at the first that fails.

Arguments go to pytest. Without any, the slow tests and those that need vLLM, Ray, Chromium or an accelerator
are left out: `python -m tests -m slow` (vllm, ray, chromium, accelerator) runs those.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
LEFT_OUT = "not slow and not vllm and not ray and not chromium and not accelerator"
# A file stays in one process: its containers and models are started once. More processes need more memory.
FAST = ["-m", LEFT_OUT, "-n", "auto", "--maxprocesses", "4", "--dist", "loadfile", "--durations=15"]
# Threads that wait for each other by spinning take a multiple of the time beside other processes.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", **os.environ}


def main(arguments: list[str]) -> int:
    run = [sys.executable, "-m"]
    steps = [
        [*run, "ruff", "format", "--check", "--quiet", "."],
        [*run, "ruff", "check", "--quiet", "."],
        [*run, "mypy"],
        [*run, "pytest", *(arguments or FAST)],
    ]
    for step in steps:
        print("$", " ".join(step[2:]), flush=True)
        code = subprocess.run(step, cwd=ROOT, env=ENVIRONMENT, check=False).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
