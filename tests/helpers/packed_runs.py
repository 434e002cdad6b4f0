"""Runs of the experiments that are kept, without texts, and the READMEs that tell of them."""

import json
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DISCOVERY = ROOT / "problems" / "discovery"
README = (DISCOVERY / "README.md").read_text("utf-8")


@dataclass
class Packed:
    """A run of the experiment on two sizes. `told` attempts read feedback: the second half of their group."""

    size: str
    problem: str
    arm: str
    events: list[dict[str, Any]]

    @property
    def seed(self) -> int:
        return int(self.events[0]["seed"])

    @property
    def attempts(self) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == "attempt"]

    @property
    def found(self) -> int | None:
        return next((event["index"] for event in self.attempts if event["solved"]), None)

    @property
    def passed(self) -> tuple[int, int]:
        return sum(event["solved"] for event in self.attempts), len(self.attempts)

    @property
    def found_or_open(self) -> str:
        """As in a table: `none in 19` where the run was cut off after 19."""
        is_open = self.events[-1]["event"] != "run_finished"
        return str(self.found or f"none in {len(self.attempts)}" if is_open else self.found or "none")

    def learned(self, *, told: bool) -> tuple[int, int]:
        """Successes and attempts after the first update, of those that read feedback or of those that do not."""
        later = [event for event in self.attempts if event["policy"]["version"] > 0]
        if self.arm == "sdpo-told":
            later = [event for event in later if ((event["index"] - 1) % 8 >= 4) == told]
        elif told:
            later = []
        return sum(event["solved"] for event in later), len(later)


def runs_in(path: Path) -> list[Packed]:
    runs = []
    with zipfile.ZipFile(path) as file:
        for name in sorted(file.namelist()):
            top, problem, arm, *_ = Path(name).parts
            lines = file.read(name).decode().splitlines()
            runs.append(Packed(top, problem, arm, [json.loads(line) for line in lines]))
    return runs


def added(pairs: Iterable[tuple[int, int]]) -> str:
    solved, n = map(sum, zip(*pairs, strict=True))
    return f"{solved} of {n}"


def rows(text: str) -> dict[str, list[str]]:
    """Cells of every table row by their first cell; the first row of a name counts."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("| "):
            name, *cells = [cell.strip() for cell in line.strip("|").split("|")]
            found.setdefault(name, cells)
    return found
