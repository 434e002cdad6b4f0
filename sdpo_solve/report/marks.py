"""One character for each verdict, with its meaning and colour; the same in every terminal view and page."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text

from sdpo_solve.run.records import Graded
from sdpo_solve.types import Status

SOLVED, HIDDEN = "✓", "H"
_OF_STATUS = {
    Status.WRONG_ANSWER: "w",
    Status.RUNTIME_ERROR: "e",
    Status.COMPILE_ERROR: "c",
    Status.TIME_LIMIT: "t",
    Status.MEMORY_LIMIT: "m",
    Status.OUTPUT_LIMIT: "o",
    Status.NO_CODE: "-",
}
LEGEND = {
    SOLVED: "solved",
    HIDDEN: "hidden test failed",
    **{mark: status.value.replace("_", " ") for status, mark in _OF_STATUS.items()},
}
_STYLES = {SOLVED: "bold green", HIDDEN: "yellow", "-": "dim", "e": "magenta", "c": "magenta"}


def mark(attempt: Graded) -> str:
    """The character for an attempt: solved, or the status of its first failing test."""
    if attempt.solved:
        return SOLVED
    failing = [case for case in attempt.cases if case.status not in (Status.ACCEPTED, Status.NOT_RUN)]
    if not failing:
        return _OF_STATUS[Status.WRONG_ANSWER]
    return _OF_STATUS[failing[0].status] if any(case.visible for case in failing) else HIDDEN


def strip(marks: Iterable[str]) -> Text:
    """The characters in a row, coloured."""
    text = Text(overflow="fold")
    for character in marks:
        text.append(character, style=_STYLES.get(character, "red"))
    return text
