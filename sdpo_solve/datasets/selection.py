"""Selection of problems: by id, date, difficulty, platform, half, and the first N of the rest.

Problems that are known to be bad are left out and named, unless requested by id, or a source holds that one
alone. Reads no file and decodes no test: a problem that is not taken is never made.
"""

from __future__ import annotations

import datetime
import difflib
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from sdpo_solve.config import Flag, Names, Options
from sdpo_solve.errors import ConfigError, ProblemError
from sdpo_solve.types import Problem

# Problems as a command takes them: as arguments.
SOURCES_HELP = "Problem files, folders, lcb:v6, lcb:FILE, mbpp:FILE, humaneval:FILE"
SOURCES = Flag(metavar="SOURCE", is_argument=True)


class Selection(Options):
    """What to take; an empty field takes everything. Lists may be given as one comma-separated text."""

    panel = "What to solve"
    ids: Names = Field((), description="problems to keep, by id, comma-separated; bad ones too")
    difficulty: Names = Field((), description="difficulties to keep, comma-separated, e.g. hard")
    platform: Names = Field((), description="platforms to keep, e.g. atcoder,leetcode")
    from_date: Annotated[datetime.date | None, Flag(name="from")] = Field(
        None, description="first contest date to keep, e.g. 2025-02-01"
    )
    to_date: Annotated[datetime.date | None, Flag(name="to")] = Field(
        None, description="last contest date to keep"
    )
    half: Literal["dev", "test"] | None = Field(
        None, description="half of the problems, by their ids: dev to tune on, test to look at once"
    )
    first: int | None = Field(None, ge=1, description="problems to keep, the first ones of those left")
    include_bad: bool = Field(False, description="keep problems that are known to be bad")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A problem not made yet, with the facts that it is chosen by."""

    make: Callable[[], Problem]
    """Raises ProblemError for a broken one, Unfit for one that cannot be held faithfully."""
    id: str
    other_name: str = ""
    """A second name that `ids` may use."""
    day: datetime.date | None = None
    difficulty: str = ""
    platform: str = ""
    fault: str | None = None
    """Why the problem is known to be bad; None where it is not."""


class Unfit(ProblemError):
    """A problem that cannot be held faithfully: left out of a selection, an error where it is requested."""

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place}: {reason}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Selected:
    """The problems taken, and those left out that would have been: id -> why. Whoever prints counts them."""

    problems: tuple[Problem, ...]
    left_out: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The candidates that the filters take, bad ones apart."""

    candidates: tuple[Candidate, ...]
    left_out: dict[str, str]
    by_name: bool
    """Whether just these were requested, by id or as the only one of their source."""
    is_empty: bool
    """Whether there was nothing to choose from."""


def select(
    candidates: Iterable[Candidate],
    selection: Selection,
    source: str,
    *,
    among: frozenset[str] | None = None,
    on_broken: Callable[[ProblemError], None] | None = None,
) -> Selected:
    """The problems that `selection` takes from `source`, made in their order.

    `among`: ids that alone may be taken, such as those of a screening; None for all. A broken problem is
    passed to `on_broken` and skipped; without it, left out and named, or raised where it is requested. Raises
    ConfigError for an id,
    a difficulty or a platform that no problem has, for a filter on what they do not say, and for a `first`
    larger than what is left; ProblemError where two share an id, and for an unfit one that was requested.
    """
    chosen = _choose(candidates, selection, source, among)
    if chosen.is_empty:
        if on_broken is not None:
            return Selected((), {})
        raise ProblemError(f"{source}: there are no problems in it")
    problems: list[Problem] = []
    left_out = dict(chosen.left_out)
    n_broken = 0
    for candidate in chosen.candidates:
        if selection.first is not None and len(problems) + n_broken == selection.first:
            break
        try:
            problems.append(candidate.make())
        except ProblemError as exc:
            if isinstance(exc, Unfit) and not chosen.by_name:
                left_out[candidate.id] = exc.reason
            elif on_broken is not None:
                on_broken(exc)
                n_broken += 1
            elif chosen.by_name:
                raise
            else:
                left_out[candidate.id] = f"broken: {exc}"
    n_taken = len(problems) + n_broken
    if not n_taken or n_taken < (selection.first or 0):
        bad = f" ({describe_left_out(left_out)})" if left_out else ""
        what = f"only {n_taken}, not {selection.first}," if n_taken else "none"
        marked = "" if among is None else " that are marked so"
        raise ConfigError(f"{source}: the filters leave {what} of its problems{marked}{bad}")
    return Selected(tuple(problems), left_out)


def _choose(
    candidates: Iterable[Candidate], selection: Selection, source: str, among: frozenset[str] | None
) -> _Chosen:
    seen: dict[str, Candidate] = {}
    kept: list[Candidate] = []
    for candidate in candidates:
        if candidate.id in seen:
            raise ProblemError(f"{source}: two problems have the id {candidate.id!r}; remove one")
        facts = (candidate.other_name, candidate.day, candidate.difficulty, candidate.platform)
        seen[candidate.id] = Candidate(_forgotten, candidate.id, *facts)  # the row itself may be large
        if (among is None or candidate.id in among) and _takes(selection, candidate):
            kept.append(candidate)
    if seen:
        _check_known(selection, list(seen.values()), source)
    by_name = bool(selection.ids) or len(seen) == 1
    spare_none = selection.include_bad or by_name
    left_out = {} if spare_none else {c.id: c.fault for c in kept if c.fault is not None}
    return _Chosen(tuple(c for c in kept if c.id not in left_out), left_out, by_name, not seen)


def half_of(problem_id: str) -> Literal["dev", "test"]:
    """The half that a problem belongs to for ever, whatever source it comes from and whatever is selected."""
    return "test" if hashlib.sha256(problem_id.encode()).digest()[0] % 2 else "dev"


def describe_left_out(left_out: Mapping[str, str], most: int = 8) -> str:
    """One line that counts them and names the first; empty where there is none."""
    if not left_out:
        return ""
    names = ", ".join(list(left_out)[:most]) + (", ..." if len(left_out) > most else "")
    return f"left out {len(left_out)} bad problem{'s' * (len(left_out) > 1)}: {names}"


def _forgotten() -> Problem:
    raise AssertionError("only the facts were kept")


def _takes(selection: Selection, candidate: Candidate) -> bool:
    if selection.ids and not {candidate.id, candidate.other_name} & set(selection.ids):
        return False
    if selection.difficulty and candidate.difficulty not in selection.difficulty:
        return False
    if selection.platform and candidate.platform not in selection.platform:
        return False
    if selection.half and half_of(candidate.id) != selection.half:
        return False
    if selection.from_date is None and selection.to_date is None:
        return True
    day = candidate.day
    return day is not None and (selection.from_date or day) <= day <= (selection.to_date or day)


def _check_known(selection: Selection, seen: Sequence[Candidate], source: str) -> None:
    """Raises ConfigError for a filter that names what no problem has."""
    if (selection.from_date or selection.to_date) and not any(candidate.day for candidate in seen):
        raise ConfigError(f"{source}: these problems carry no date to select by")
    wanted_known = (
        ("id", selection.ids, [c.id for c in seen]),
        ("difficulty", selection.difficulty, [c.difficulty for c in seen if c.difficulty]),
        ("platform", selection.platform, [c.platform for c in seen if c.platform]),
    )
    for what, wanted, known in wanted_known:
        other_names = [c.other_name for c in seen if c.other_name] if what == "id" else []
        for name in wanted:
            if name in known or name in other_names:
                continue
            near = difflib.get_close_matches(name, [*known, *other_names], n=1)
            values = sorted(set(known))
            some = ", ".join(values) if 0 < len(values) <= 12 else f"{len(values) or 'no'} others"
            hint = f"did you mean {near[0]!r}?" if near else f"it has {some}"
            raise ConfigError(f"{source}: no problem has the {what} {name!r}; {hint}")
