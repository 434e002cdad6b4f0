"""The command line as a process of its own, in a directory with a problem and replies to it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PROBLEM = {
    "id": "inc",
    "statement": "Return x plus one.",
    "kind": "function",
    "entry_point": "inc",
    "tests": [
        {"input": [1], "expected": 2, "visible": True},
        {"input": [5], "expected": 6, "visible": False},
    ],
    "reference": "def inc(x):\n    return x + 1\n",
}
WRONG = "```python\ndef inc(x):\n    return x\n```"
VISIBLE_ONLY = "```python\ndef inc(x):\n    return 2\n```"
RIGHT = "```python\ndef inc(x):\n    return x + 1\n```"
SLOW = "```python\nimport time\ndef inc(x):\n    time.sleep(5)\n```"


class Place:
    """A directory with a problem in it, where commands are run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "inc.json").write_text(json.dumps(PROBLEM))

    def replies(self, *texts: str) -> None:
        (self.path / "replies.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-c", "from sdpo_solve.cli.main import main; main()", *arguments]

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), cwd=self.path, capture_output=True, text=True, timeout=120, check=False
        )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        scripted = ("--engine", "scripted", "--replies", "replies.jsonl", "--out", "out")
        return self("run", "inc.json", *scripted, *arguments)

    def events(self, method: str, seed: int = 0) -> list[dict[str, Any]]:
        journal = self.path / "out" / "inc" / method / f"seed-{seed}" / "journal.jsonl"
        return [json.loads(line) for line in journal.read_text().splitlines()]


def one_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    assert len(lines) == 1, text
    return lines[0]
