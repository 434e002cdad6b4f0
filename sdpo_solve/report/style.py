"""How the arms of a report look: the same colour, dash and marker in terminal, page and picture.

Colours are apart for every kind of colour vision (after Okabe and Ito); dashes and markers part arms in
print and without colour. No two of 24 arms have the same colour and dash, no two of 12 the same marker.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# Blue, vermilion, bluish green, purple, ink, amber, cyan, grey: on paper, on a dark page, in a terminal.
COLOURS = ("#0072b2", "#c24e00", "#00795a", "#a8407f", "#22272e", "#96660a", "#0f8a9d", "#7a828c")
DARK_COLOURS = ("#5db7ef", "#ff9452", "#3fcf9f", "#ee96cb", "#e4e8ec", "#f0c05a", "#52d3e4", "#9099a3")
_TERMINAL_COLOURS = ("blue", "red", "green", "magenta", "default", "yellow", "cyan", "bright_black")
_DASHES: tuple[tuple[float, ...], ...] = ((), (7, 4), (2, 3), (9, 3, 2, 3), (12, 4), (4, 2))

Shape = Literal["circle", "square", "up", "diamond", "down", "plus", "cross"]
_SHAPES: tuple[Shape, ...] = ("circle", "square", "up", "diamond", "down", "plus", "cross")
_CHARACTERS = "●■▲◆▼+×○□△◇▽"


@dataclass(frozen=True, slots=True)
class ArmStyle:
    """The look of one arm. `dash`: lengths on and off in pixels, empty for a whole line."""

    colour: int
    """Index into `COLOURS` and `DARK_COLOURS`."""
    dash: tuple[float, ...]
    shape: Shape
    is_filled: bool
    character: str
    """The marker in a terminal."""
    terminal_colour: str


def arm_style(n: int) -> ArmStyle:
    """The look of the n-th arm, counted from 0."""
    marker, colour = n % len(_CHARACTERS), n % len(COLOURS)
    return ArmStyle(
        colour=colour,
        dash=_DASHES[n % len(_DASHES)],
        shape=_SHAPES[marker % len(_SHAPES)],
        is_filled=marker < len(_SHAPES),
        character=_CHARACTERS[marker],
        terminal_colour=_TERMINAL_COLOURS[colour],
    )


def css() -> str:
    """One class a colour, for light and dark pages: `.c0` to `.c7` set `--c`."""

    def rules(colours: tuple[str, ...]) -> str:
        return " ".join(f".c{n} {{ --c: {colour}; }}" for n, colour in enumerate(colours))

    return f"{rules(COLOURS)}\n@media (prefers-color-scheme: dark) {{ {rules(DARK_COLOURS)} }}\n"
