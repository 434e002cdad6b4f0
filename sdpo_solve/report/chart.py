"""Discovery curves laid out for an SVG picture on a logarithmic x axis; the template draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sdpo_solve.report.figures import Curve
from sdpo_solve.report.sections import number
from sdpo_solve.report.statistics import Floats
from sdpo_solve.report.style import ArmStyle, arm_style

_WIDTH, _HEIGHT = 720.0, 380.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 74.0, 36.0, 12.0, 66.0  # room for the larger letters of a narrow screen
_STEPS = (1, 2, 5)  # round values of a decade
_N_MARKERS = 6


@dataclass(frozen=True, slots=True)
class Span:
    """A range of powers of ten, as exponents."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Point:
    """A place in a picture, in pixels from its upper left corner; on a curve, x and the rate."""

    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Tick:
    """A labelled place on an axis, in pixels."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class DrawnCurve:
    """One arm: SVG paths of its line and of its interval."""

    arm: str
    place: int
    style: ArmStyle
    line: str
    band: str
    markers: tuple[Point, ...]

    @property
    def dash(self) -> str:
        """As SVG writes it; `none` for a whole line."""
        return " ".join(f"{length:g}" for length in self.style.dash) or "none"


@dataclass(frozen=True, slots=True)
class Chart:
    """Everything in one picture, in pixels."""

    unit: str
    curves: tuple[DrawnCurve, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    width: float = _WIDTH
    height: float = _HEIGHT
    left: float = _LEFT
    right: float = _WIDTH - _RIGHT
    bottom: float = _HEIGHT - _BOTTOM


def chart(curves: Sequence[Curve], unit: str) -> Chart:
    """The curves with their intervals, x on the decades of `log_range`."""
    span = log_range(curves)
    return Chart(
        unit=unit,
        curves=tuple(_drawn(found, span) for found in curves),
        x_ticks=tuple(Tick(_x(value, span), number(value)) for value in log_ticks(span)),
        y_ticks=tuple(Tick(_y(percent / 100), f"{percent} %") for percent in (0, 25, 50, 75, 100)),
    )


def _drawn(found: Curve, span: Span) -> DrawnCurve:
    there = _corners(found.x_K, found.high_K, span)
    back = _corners(found.x_K, found.low_K, span)[::-1]
    markers = (
        Point(round(_x(point.x, span), 1), round(_y(point.y), 1)) for point in marker_points(found, span)
    )
    return DrawnCurve(
        arm=found.arm,
        place=found.place,
        style=arm_style(found.place),
        line="M" + "L".join(_corners(found.x_K, found.y_K, span)),
        band="M" + "L".join([*there, *back]) + "Z",
        markers=tuple(markers),
    )


def _corners(x_K: Sequence[float], y_K: Sequence[float], span: Span) -> list[str]:
    """Corner points of the step function, from left to right."""
    points, before = [], None
    for x, y in zip(x_K, y_K, strict=True):
        if before is not None:
            points.append(f"{_x(x, span):.1f} {_y(before):.1f}")
        points.append(f"{_x(x, span):.1f} {_y(y):.1f}")
        before = y
    return points


def _x(value: float, span: Span) -> float:
    share = (math.log10(max(value, 10**span.low)) - span.low) / (span.high - span.low)
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _y(rate: float) -> float:
    return _TOP + (1.0 - rate) * (_HEIGHT - _TOP - _BOTTOM)


# -- shared with other pictures ------------------------------------------------------------------------------


def step(found: Curve, x_N: Floats) -> Floats:
    """The curve at each x; NaN beyond its end."""
    at_N = np.searchsorted(found.x_K, x_N, side="right") - 1
    y_N = np.asarray(found.y_K)[np.maximum(at_N, 0)]
    # The last x may miss the end of the curve by a rounding.
    return np.where((at_N < 0) | (x_N > found.x_K[-1] * (1 + 1e-9)), np.nan, y_N)


def marker_points(found: Curve, span: Span) -> list[Point]:
    """A few places on the curve, even on the logarithmic axis, other ones than its neighbours'."""
    shares_M = (np.arange(_N_MARKERS) + (found.place * 0.37) % 1) / _N_MARKERS
    x_M = 10 ** (span.low + shares_M * (span.high - span.low))
    known = [(x, y) for x, y in zip(x_M, step(found, x_M), strict=True) if not math.isnan(y)]
    return [Point(float(x), float(y)) for x, y in known]


def log_range(curves: Sequence[Curve]) -> Span:
    """From a tick at half the first rise or below it to the last point of any arm.

    The rise is seen as one then, also where it is the last point. Less than 1 is shown only where there is
    nothing beyond.
    """
    last = max(found.x_K[-1] for found in curves) or 1.0
    rises = [x for found in curves for x, y in zip(found.x_K, found.high_K, strict=True) if x > 0 and y > 0]
    first = min(rises, default=1.0 if last > 1 else last)
    if first >= 1 and last >= 2:
        first = max(first, 2.0)
    decade = math.floor(math.log10(first / 2) + 1e-9)
    start = max(m for m in _STEPS if m * 10**decade <= first / 2 * (1 + 1e-9))
    return Span(math.log10(start * 10**decade), math.log10(last))


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
