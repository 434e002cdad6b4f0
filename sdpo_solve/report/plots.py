"""Curves of a report: in the terminal (plotext) and as a PNG file (matplotlib), both imported when drawn.

Each arm has a mark or a dash of its own: nothing depends on colour. Draws what `figures.Report` holds.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
from rich.text import Text

from sdpo_solve.errors import PrerequisiteError, UserError
from sdpo_solve.report.chart import Span, log_range, log_ticks
from sdpo_solve.report.figures import Curve, Report
from sdpo_solve.report.statistics import Floats
from sdpo_solve.report.text import UNITS, number
from sdpo_solve.sanitize import clean

MARKS = "o×+*#@^~"
_STYLES = ("blue", "red", "green", "magenta", "cyan", "yellow", "default", "bright_black")
_HEIGHT = 16
_MARGIN = 0.02  # of a panel, so that no line lies on its frame
# Blue, vermilion, bluish green, purple: apart for every kind of colour vision (Okabe and Ito).
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#555555", "#882255")
_DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)), (0, (3, 1, 1, 1)), (0, (8, 3)))


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
    for n, found in reversed([*enumerate(curves)]):  # the first arm lies on top
        y_N = step(found, x_N if linear else 10**x_N)
        known_N = ~np.isnan(y_N)
        points = (x_N[known_N].tolist(), (100 * y_N[known_N]).tolist())
        figure.draw(figure.signal(*points, marker=MARKS[n % len(MARKS)]))
    ticks = _ticks(span, linear)
    figure.ruler("x").ticks(ticks, [number(x if linear else 10**x) for x in ticks])
    figure.ruler("x").lim(span.low, span.high)
    figure.ruler("y").ticks([0, 25, 50, 75, 100], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    figure.ruler("y").lim(0, 100)
    body = Text(str(figure.build().string(colorless=True)).rstrip(), no_wrap=True)
    figure.clear()
    legend = Text("   ".join(f"{MARKS[n % len(MARKS)]} {clean(c.arm)}" for n, c in enumerate(curves)))
    for n in range(len(curves)):
        mark = re.escape(MARKS[n % len(MARKS)])
        body.highlight_regex(mark, _STYLES[n % len(_STYLES)])
        legend.highlight_regex(rf"(?:^|(?<=   )){mark}(?= )", _STYLES[n % len(_STYLES)])
    title = Text(f"discovery rate against {UNITS[report.options.axis]}\n", style="bold")
    return Text.assemble(title, legend, "\n", body)


def step(found: Curve, x_N: Floats) -> Floats:
    """The curve at `x_N`: level between its points, NaN beyond its end."""
    last_N = np.searchsorted(np.array(found.x_K), x_N, side="right") - 1
    y_N = np.array(found.y_K)[np.maximum(last_N, 0)]
    return np.where((last_N < 0) | (x_N > found.x_K[-1] * (1 + 1e-9)), np.nan, y_N)


def _ticks(span: Span, linear: bool) -> list[float]:
    if linear:
        return [span.high * n / 4 for n in range(5)]
    return [math.log10(value) for value in log_ticks(span)]


def write_png(report: Report, path: Path, *, linear: bool) -> None:
    """Three panels, one an axis, with intervals, to `path`.

    Raises PrerequisiteError where matplotlib is not installed, UserError where `path` cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise PrerequisiteError("--png needs matplotlib; run: pip install 'sdpo-solve[plots]'") from None
    axes_names = [axis for axis in UNITS if report.curves_on(axis)]
    figure = Figure(figsize=(4.6 * max(1, len(axes_names)), 3.8), layout="constrained")
    for n, axis in enumerate(axes_names):
        panel = figure.add_subplot(1, len(axes_names), n + 1)
        for k, found in enumerate(report.curves_on(axis)):
            colour, dash = PALETTE[k % len(PALETTE)], _DASHES[k % len(_DASHES)]
            # Dollar signs would start a formula in matplotlib.
            label = clean(found.arm).replace("$", r"\$")
            panel.step(found.x_K, found.y_K, dash, where="post", label=label, linewidth=1.8, color=colour)
            panel.fill_between(
                found.x_K,
                found.low_K,
                found.high_K,
                step="post",
                alpha=0.14,
                color=colour,
                linewidth=0,
            )
        span = log_range(report.curves_on(axis))
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
        panel.set_xlabel(UNITS[axis])
        panel.grid(alpha=0.25)
        if n == 0:
            panel.set_ylabel("discovery rate (90 % interval)")
            panel.legend(frameon=False, fontsize="small")
    try:
        figure.savefig(path, dpi=144, format="png")
    except OSError as exc:
        raise UserError(f"cannot write {path}: {exc.strerror or exc}") from None
