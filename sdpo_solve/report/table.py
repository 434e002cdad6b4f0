"""Layout for the terminal: tables, rows with a label, phrases, times. A figure is never cut."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from sdpo_solve.sanitize import clean

_GAP = 2
# Below so many columns even a table that could fold its names is hard to read.
_NARROW = 70
# A name's column may be folded to its longest word, and to this where that is longer.
_FOLDED = 24
NONE = "·"
"""A cell that says there is nothing; a paragraph leaves it out."""


@dataclass
class AlignedTable:
    """A table that becomes a paragraph a row where the terminal is too narrow for its figures.

    Names stand left and may fold, figures stand right and never do. `names`: the columns besides the first
    that hold names, where the first is one (`first_is_name`).
    """

    header: Sequence[str]
    names: Sequence[str] = ()
    first_is_name: bool = True
    rows: list[list[Text]] = field(default_factory=list)

    def add(self, cells: Sequence[str | Text]) -> None:
        """One row; what came from a file is cleaned, a Text is taken as it is."""
        self.rows.append([cell if isinstance(cell, Text) else Text(clean(cell)) for cell in cells])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        natural, least = self._width(folded=False), self._width(folded=True)
        if least > options.max_width or natural > options.max_width < _NARROW:
            yield from self._paragraphs()
        else:
            yield self._table()

    def _is_name(self, n: int) -> bool:
        return (n == 0 and self.first_is_name) or self.header[n] in self.names

    def _width(self, *, folded: bool) -> int:
        """Columns that the table takes; `folded`: with its names folded."""
        total = _GAP * (len(self.header) - 1)
        for n, title in enumerate(self.header):
            cells = [clean(title), *(row[n].plain for row in self.rows)]
            if folded and self._is_name(n):
                total += max(min(cell_len(word), _FOLDED) for cell in cells for word in cell.split() or [""])
            else:
                total += max(map(cell_len, cells))
        return total

    def _table(self) -> Table:
        table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="dim")
        for n, title in enumerate(self.header):
            name = self._is_name(n)
            table.add_column(
                clean(title), justify="left" if name else "right", overflow="fold", no_wrap=not name
            )
        for row in self.rows:
            table.add_row(*row)
        return table

    def _paragraphs(self) -> RenderResult:
        """The first cell as a heading, the others below it, each with its column's title."""
        titles = [clean(title) for title in self.header]
        for row in self.rows:
            yield Text.assemble((f"{titles[0]} ", "dim"), row[0], overflow="fold")
            cells = zip(titles[1:], (cell.plain.strip() for cell in row[1:]), strict=True)
            phrases = [f"{title} {cell}" for title, cell in cells if cell and cell != NONE]
            yield Padding(Phrases(phrases), (0, 0, 0, _GAP))


@dataclass(frozen=True)
class Phrases:
    """Phrases with dots between; a line ends between two of them, never inside one that fits."""

    phrases: Sequence[str]
    style: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        line = ""
        for phrase in self.phrases:
            longer = f"{line} · {phrase}" if line else phrase
            if line and cell_len(longer) > options.max_width:
                yield Text(line, style=self.style, overflow="fold")
                longer = phrase
            line = longer
        yield Text(line, style=self.style, overflow="fold")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        longest, whole = max(map(cell_len, self.phrases), default=0), cell_len(" · ".join(self.phrases))
        return Measurement(longest, whole).with_maximum(options.max_width)


def labelled(rows: Iterable[tuple[str, RenderableType]], width: int = 8) -> Table:
    """Rows of a dim label, at least `width` wide, and what it names; texts are cleaned and fold."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", min_width=width)
    table.add_column(overflow="fold")
    for label, value in rows:
        table.add_row(clean(label), Text(clean(value)) if isinstance(value, str) else value)
    return table


def plural(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def clock(seconds: float) -> str:
    """Hours, minutes, seconds; days once there are any."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
