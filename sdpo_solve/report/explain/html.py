"""An explanation as one self-contained HTML page: how answers moved, and attempts with shaded tokens.

Gives the template `explain.html.j2` what it draws; everything a model wrote is escaped there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sdpo_solve.paths import write_text
from sdpo_solve.report import html
from sdpo_solve.report.explain.policies import Stage, moves
from sdpo_solve.report.explain.records import Signal, sparseness
from sdpo_solve.report.explain.text import (
    LEVELS,
    N_STRONGEST,
    STRIP_LEGEND,
    level,
    metric_rows,
    notices,
    strip,
    strongest_rows,
)
from sdpo_solve.report.runs import RunRecord


def write_page(
    run: RunRecord, stages: Sequence[Stage], diffs: Sequence[str], signals: Sequence[Signal], path: Path
) -> None:
    """`diffs`: unified differences from each stage to the next.

    Raises UserError where `path` cannot be written.
    """
    header, rows = metric_rows(stages)
    page = html.render(
        "explain.html.j2",
        title="sdpo-solve explain",
        run=run,
        strips=[(stage.version, strip(stage.attempts)) for stage in stages],
        strip_legend=STRIP_LEGEND,
        header=header,
        rows=rows,
        notices=notices(run, stages),
        moves=list(moves(stages, diffs)),
        signals=signals,
        levels=LEVELS,
        sparseness=sparseness,
        shade=_shade,
        strongest=lambda signal: strongest_rows(signal.strongest(N_STRONGEST)),
    )
    write_text(path, page)


def _shade(log_ratio: float) -> str:
    """The style class of a token: none, or its sign and level."""
    steps = level(log_ratio)
    return f"{'up' if log_ratio > 0 else 'down'}{steps}" if steps else ""
