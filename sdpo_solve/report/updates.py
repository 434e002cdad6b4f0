"""A run's updates as a table, and its other figures in words: shared by live views and pages of text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sdpo_solve.report.table import AlignedTable
from sdpo_solve.run.records import UpdateEvent
from sdpo_solve.sanitize import clean

# The learner's figures that fit beside the loss, in this order; those that it reports are shown.
_SHOWN_METRICS = ("entropy", "mean_length_tokens", "kl_to_base", "grad_norm", "repetition")
CONFIRMED = {True: "hidden tests passed", False: "hidden tests failed", None: "no hidden tests"}


def shown_metrics(updates: Iterable[UpdateEvent]) -> list[str]:
    """The names of the learner's figures that are shown and that one of the updates reports."""
    known = {name for update in updates for name, value in update.metrics.items() if value is not None}
    return [name for name in _SHOWN_METRICS if name in known]


def updates_table(updates: Sequence[UpdateEvent]) -> AlignedTable:
    """Loss and the learner's health figures, one update a line."""
    names = shown_metrics(updates)
    table = AlignedTable(["update", "loss", *(name.replace("_", " ") for name in names)], first_is_name=False)
    for update in updates:
        values = [figure(update.metrics.get(name)) for name in names]
        table.add([str(update.version), figure(update.loss), *values])
    return table


def notice_lines(updates: Iterable[UpdateEvent]) -> list[str]:
    """What the learner did instead of an ordinary step, a line each."""
    return [f"update {each.version}: {clean(notice)}" for each in updates for notice in each.notices]


def figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
