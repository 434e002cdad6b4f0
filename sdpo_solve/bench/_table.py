"""A table without lines for a terminal: names stand left and fold, figures stand right."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table


def plain_table(names: Sequence[str], figures: Sequence[str]) -> Table:
    """Its columns, those of names first."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in names:
        table.add_column(name, overflow="fold")
    for name in figures:
        table.add_column(name, justify="right")
    return table
