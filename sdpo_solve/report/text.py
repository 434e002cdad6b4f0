"""A report for the terminal: calm at 80 columns, without colour, and in a pipe.

Draws what `sections.py` makes of a report. Names from files are cleaned before they reach a terminal.
"""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from sdpo_solve.report.figures import Report
from sdpo_solve.report.sections import Section, answer, sections, shared_facts, summary
from sdpo_solve.report.table import AlignedTable, labelled
from sdpo_solve.sanitize import clean


def report_renderable(report: Report, curves: Text | None = None, *, full: bool = False) -> RenderableType:
    """The answer, one table and the plot `curves` (None for none); all tables where `full`."""
    parts: list[RenderableType] = [
        Text(clean(answer(report)), style="bold"),
        Text(),
        *_section(summary(report)),
    ]
    if curves:
        parts += [Text(), curves]
    parts += [Text(), labelled(shared_facts(report))]
    for section in sections(report) if full else ():
        parts += [Text(), *_section(section)]
    if report.notices:
        parts.append(Text())
        parts += [Text(f"note: {clean(notice)}", style="yellow") for notice in report.notices]
    if not full:
        parts += [Text(), Text("--full: every table; --html FILE: one page with every attempt", style="dim")]
    return Group(*parts)


def _section(section: Section) -> Iterator[RenderableType]:
    if section.rows:
        table = AlignedTable(section.header, names=section.names)
        for row in section.rows:
            table.add(row)
        yield Text(clean(section.title), style="bold")
        yield table
    yield from (Text(clean(note), style="dim") for note in section.notes)
    yield from (Text(clean(sentence)) for sentence in section.sentences)
