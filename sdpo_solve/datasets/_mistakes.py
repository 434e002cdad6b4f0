"""The mistakes of a problem file: what each is, where it stands, and its remedy."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sdpo_solve.errors import ProblemError
from sdpo_solve.sanitize import middle_cut


@dataclass(frozen=True, slots=True)
class Mistake:
    """`place`: a path of keys, or words; `at`: its offset in the file's text, None where unknown."""

    place: str
    what: str
    remedy: str
    at: int | None = None

    def line(self, text: str) -> str:
        """All of it on one line; the line of the file is named where it has several."""
        line = f"line {text.count(chr(10), 0, self.at) + 1}" if self.at is not None else ""
        place = middle_cut(self.place, 120)
        where = ", ".join(part for part in (line if "\n" in text.strip() else "", place) if part)
        said = f"{where or 'line 1'}: {self.what}; {self.remedy}"
        return "".join(one if one.isprintable() else repr(one)[1:-1] for one in said)


def error_of(
    name: str, text: str, mistakes: Sequence[Mistake], offsets: Mapping[str, int] | None = None
) -> ProblemError:
    """All mistakes of the file `name` as one error, in the order of the file, those of a kind together.

    `offsets`: where the value at each path stands in `text`.
    """
    placed = [
        one if one.at is not None else replace(one, at=_offset(one.place, offsets or {})) for one in mistakes
    ]
    kinds: dict[tuple[str, str, str], list[Mistake]] = {}
    for one in sorted(placed, key=lambda one: one.at or 0):
        kinds.setdefault((re.sub(r"\d+", "", one.place), one.what, one.remedy), []).append(one)
    lines = [
        alike[0].line(text) + (f" (and {len(alike) - 1} more such)" if len(alike) > 1 else "")
        for alike in kinds.values()
    ]
    more = f" (and {len(lines) - 1} other mistakes)" if len(lines) > 2 else ""
    more = " (and 1 other mistake)" if len(lines) == 2 else more
    return ProblemError(f"{name}: {lines[0]}{more}", [f"{name}: {line}" for line in lines])


def _offset(place: str, offsets: Mapping[str, int]) -> int | None:
    """Where the value at `place` stands, or what holds it where there is none."""
    while place and place not in offsets:
        place = re.sub(r"(\.?[^.\[]*|\[\d+\])$", "", place)
    return offsets.get(place)
