"""Discovery curves as inline SVG, on a logarithmic x axis, each arm with a colour and a dash of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sdpo_solve.report.figures import Curve
from sdpo_solve.report.html import Markup, element, join
from sdpo_solve.report.text import number

_WIDTH, _HEIGHT = 720.0, 300.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 56.0, 14.0, 12.0, 50.0
_DASHES = (None, "7 4", "2 3", "9 3 2 3", "12 4", "4 2")
N_STYLES = len(_DASHES)
_STEPS = (1, 2, 5)  # round values of a decade


def chart(curves: Sequence[Curve], unit: str) -> Markup:
    """The curves with their intervals, x on the decades of `log_range`."""
    span = log_range(curves)
    parts = [_grid(span, unit)]
    parts += [_band(found, n % N_STYLES, span) for n, found in enumerate(curves)]
    parts += [_line(found, n % N_STYLES, span) for n, found in enumerate(curves)]
    names = ", ".join(found.arm for found in curves)
    return element(
        "svg", parts, viewBox=f"0 0 {_WIDTH:g} {_HEIGHT:g}", role="img", class_="plot",
        aria_label=f"discovery rate against {unit}: {names}",
    )  # fmt: skip


def key(n: int) -> Markup:
    """A short piece of the n-th arm's line, for a legend."""
    line = element(
        "path", d="M1 6H33", class_=f"curve s{n % N_STYLES}", stroke_dasharray=_DASHES[n % N_STYLES]
    )
    return element("svg", line, viewBox="0 0 34 12", aria_hidden="true")


@dataclass(frozen=True, slots=True)
class Span:
    """A range of powers of ten, as exponents."""

    low: float
    high: float


def log_range(curves: Sequence[Curve]) -> Span:
    """From a tick at half the first rise or below it to the last point that any arm knows.

    The rise is seen as one then, also where it is the last point. Less than 1 is shown only where there is
    nothing beyond.
    """
    last = max(found.x_K[-1] for found in curves) or 1.0
    rises = [x for found in curves for x, y in zip(found.x_K, found.high_K, strict=True) if x > 0 and y > 0]
    first = min(rises, default=1.0 if last > 1 else last)
    if first >= 1 and last >= 2:
        first = max(first, 2.0)
    decade = math.floor(math.log10(first / 2) + 1e-9)
    step = max(m for m in _STEPS if m * 10**decade <= first / 2 * (1 + 1e-9))
    return Span(math.log10(step * 10**decade), math.log10(last))


def _x(value: float, span: Span) -> float:
    share = (math.log10(max(value, 10**span.low)) - span.low) / (span.high - span.low)
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _y(rate: float) -> float:
    return _TOP + (1.0 - rate) * (_HEIGHT - _TOP - _BOTTOM)


def _grid(span: Span, unit: str) -> Markup:
    parts = []
    for percent in (0, 25, 50, 75, 100):
        y = _y(percent / 100)
        parts.append(element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(element("text", f"{percent} %", x=_LEFT - 8, y=y + 4, text_anchor="end"))
    for value in log_ticks(span):
        x = _x(value, span)
        parts.append(element("line", x1=x, x2=x, y1=_y(0), y2=_y(0) + 5, class_="grid"))
        parts.append(element("text", number(value), x=x, y=_y(0) + 19, text_anchor="middle"))
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(element("text", unit, x=middle, y=_HEIGHT - 8, text_anchor="middle"))
    return join(*parts)


def log_ticks(span: Span) -> list[float]:
    """Round values in the span, two at least: the more of a decade, the fewer decades there are."""
    decades = span.high - span.low
    steps = _STEPS if decades < 2.5 else (1, 3) if decades < 4 else (1,)
    ticks = _round_values(span, steps)
    return ticks if len(ticks) > 1 else _round_values(span, range(1, 10))


def _round_values(span: Span, steps: Sequence[int]) -> list[float]:
    exponents = range(math.floor(span.low + 1e-9), math.floor(span.high + 1e-9) + 1)
    values = [float(m * 10**n) for n in exponents for m in steps]
    return [value for value in values if span.low - 1e-9 <= math.log10(value) <= span.high + 1e-9]


def _steps(x_K: Sequence[float], y_K: Sequence[float], span: Span) -> list[str]:
    """Corner points of the step function, from left to right."""
    points, before = [], None
    for x, y in zip(x_K, y_K, strict=True):
        if before is not None:
            points.append(f"{_x(x, span):.1f} {_y(before):.1f}")
        points.append(f"{_x(x, span):.1f} {_y(y):.1f}")
        before = y
    return points


def _line(found: Curve, style: int, span: Span) -> Markup:
    path = "M" + "L".join(_steps(found.x_K, found.y_K, span))
    return element("path", d=path, class_=f"curve s{style}", stroke_dasharray=_DASHES[style])


def _band(found: Curve, style: int, span: Span) -> Markup:
    there = _steps(found.x_K, found.high_K, span)
    back = _steps(found.x_K, found.low_K, span)[::-1]
    return element("path", d="M" + "L".join([*there, *back]) + "Z", class_=f"band f{style}")
