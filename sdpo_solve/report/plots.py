"""Curves of a report: in the terminal (plotext) and as a picture (matplotlib), both imported when drawn.

Each arm has the look of `style.py`: nothing depends on colour. Draws what `figures.Report` holds.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.text import Text

from sdpo_solve.errors import ConfigError, PrerequisiteError, UserError
from sdpo_solve.paths import file_errors
from sdpo_solve.report.chart import Span, log_range, log_ticks, marker_points, step
from sdpo_solve.report.figures import Curve, Report
from sdpo_solve.report.sections import UNITS, number
from sdpo_solve.report.style import COLOURS, arm_style
from sdpo_solve.sanitize import clean

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HEIGHT = 16
_PAGE_INCHES = 7.0  # the text width of a two-column paper
_MARGIN = 0.02  # of a panel, so that no line lies on its frame
_SHAPES = {"circle": "o", "square": "s", "up": "^", "diamond": "D", "down": "v", "plus": "+", "cross": "x"}


def terminal_curves(report: Report, width: int, *, linear: bool) -> Text | None:
    """The curves on the report's axis, at most `width` columns wide; None where nothing was observed."""
    curves = report.curves_on(report.options.axis)
    if not curves:
        return None
    import plotext

    span = Span(0.0, max(found.x_K[-1] for found in curves)) if linear else log_range(curves)
    x_N = np.linspace(span.low, span.high, 2 * width)
    figure = plotext.figure  # the library keeps one figure for the process; it is left empty
    figure.clear()
    figure.plot_size(min(width, 100), _HEIGHT)
    for found in reversed(curves):  # the first arm lies on top
        y_N = step(found, x_N if linear else 10**x_N)
        known_N = ~np.isnan(y_N)
        points = (x_N[known_N].tolist(), (100 * y_N[known_N]).tolist())
        figure.draw(figure.signal(*points, marker=arm_style(found.place).character))
    ticks = [span.high * n / 4 for n in range(5)] if linear else [math.log10(x) for x in log_ticks(span)]
    figure.ruler("x").ticks(ticks, [number(x if linear else 10**x) for x in ticks])
    figure.ruler("x").lim(span.low, span.high)
    figure.ruler("y").ticks([0, 25, 50, 75, 100], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    figure.ruler("y").lim(0, 100)
    body = Text(str(figure.build().string(colorless=True)).rstrip(), no_wrap=True)
    figure.clear()
    legend = Text()
    for n, found in enumerate(curves):
        look = arm_style(found.place)
        body.highlight_regex(re.escape(look.character), look.terminal_colour)
        legend.append("   " if n else "").append(look.character, style=look.terminal_colour)
        legend.append(f"\N{NO-BREAK SPACE}{clean(found.arm)}")
    title = Text(f"discovery rate against {UNITS[report.options.axis]}\n", style="bold")
    return Text.assemble(title, legend, "\n", body)


def write_picture(report: Report, path: Path, *, form: str, linear: bool, band: str | None = None) -> None:
    """Three panels, one an axis, to `path` as png, pdf or svg, as wide as a page of a paper.

    Intervals are drawn where there are two arms at most, and of the arm `band`. Raises ConfigError where that
    is no arm, PrerequisiteError where matplotlib is not installed, UserError where `path` cannot be written.
    """
    if band is not None and band not in report.rates:
        raise ConfigError(f"--band {band!r} is no arm of these runs (there are: {', '.join(report.rates)})")
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise PrerequisiteError("a picture needs matplotlib; run: pip install 'sdpo-solve[plots]'") from None
    panels = {axis: curves for axis in UNITS if (curves := report.curves_on(axis))}
    # Type 42: fonts stay text in a PDF, which publishers want.
    with matplotlib.rc_context({"font.size": 7, "axes.linewidth": 0.6, "pdf.fonttype": 42}):
        figure = Figure(figsize=(_PAGE_INCHES, 2.6), layout="constrained")
        for n, (axis, curves) in enumerate(panels.items()):
            panel = figure.add_subplot(1, len(panels), n + 1)
            for found in curves:
                _draw(panel, found, log_range(curves), with_band=len(curves) <= 2 or found.arm == band)
            _scale(panel, log_range(curves), linear=linear)
            panel.set_xlabel(UNITS[axis])
            if n == 0:
                panel.set_ylabel("discovery rate")
                handles, labels = panel.get_legend_handles_labels()
                figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
        with file_errors(UserError, f"write {path}"):
            figure.savefig(path, dpi=300, format=form)


def _draw(panel: Axes, found: Curve, span: Span, *, with_band: bool) -> None:
    look = arm_style(found.place)
    dash = (0, tuple(length / 1.3 for length in look.dash)) if look.dash else "-"  # in line widths
    line: dict[str, Any] = {"color": COLOURS[look.colour], "linestyle": dash, "linewidth": 1.3}
    marker: dict[str, Any] = {
        "marker": _SHAPES[look.shape],
        "markersize": 3.5,
        "fillstyle": "full" if look.is_filled else "none",
    }
    points = marker_points(found, span)
    panel.step(found.x_K, found.y_K, where="post", **line)
    panel.plot(
        [point.x for point in points], [point.y for point in points], **{**line, "linestyle": ""}, **marker
    )
    # For the legend: line and marker together. Dollar signs would start a formula in matplotlib.
    panel.plot([], [], label=clean(found.arm).replace("$", r"\$"), **line, **marker)
    if with_band:
        colour = line["color"]
        panel.fill_between(
            found.x_K, found.low_K, found.high_K, step="post", alpha=0.14, color=colour, linewidth=0
        )


def _scale(panel: Axes, span: Span, *, linear: bool) -> None:
    panel.set_xscale("linear" if linear else "log")
    if linear:
        panel.set_xlim(left=0)
    else:
        panel.set_xlim(10**span.low, 10 ** (span.high + _MARGIN * (span.high - span.low)))
        panel.set_xticks(log_ticks(span))
        panel.set_xticks([], minor=True)
    panel.xaxis.set_major_formatter(lambda x, _: number(x))
    panel.set_ylim(-_MARGIN, 1 + _MARGIN)
    panel.yaxis.set_major_formatter(lambda y, _: f"{100 * y:.0f} %")
    panel.grid(alpha=0.25)
