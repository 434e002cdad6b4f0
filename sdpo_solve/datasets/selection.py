"""Selection of problems: by id, date, difficulty, platform, half, and the first N of the rest.

Problems that are known to be bad are left out and named, unless requested by id, or a source holds that one
alone. Reads no file and decodes no test: a problem that is not taken is never made.
"""

from __future__ import annotations

import datetime
import difflib
import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal, NoReturn, overload
from weakref import WeakValueDictionary

from pydantic import Field

from sdpo_solve.config import Flag, Names, Options
from sdpo_solve.errors import ConfigError, ProblemError, RunError
from sdpo_solve.types import Problem

# Problems as a command takes them: as arguments.
SOURCES_HELP = "Problem files, folders, lcb:v6, lcb:FILE, mbpp:FILE, humaneval:FILE"
_BROKEN = "broken: "  # how the reason of a broken problem begins
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
    is_readable: bool = True
    """Whether its facts could be read; without them no filter but `ids` leaves it out."""

    @classmethod
    def broken(cls, name: str, error: ProblemError) -> Candidate:
        """One whose facts could not be read; `name`: its place."""
        return cls(partial(_raise, error), name, is_readable=False)


class Unfit(ProblemError):
    """A problem that cannot be held faithfully: left out of a selection, an error where it is requested."""

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place}: {reason}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Selected:
    """The problems taken, and those left out that would have been: id -> why. Whoever prints counts them."""

    problems: Problems
    left_out: dict[str, str]
    broken: tuple[str, ...] = ()
    """Those left out that are no sound problem: a mistake of the file, which exit codes report."""


class Problems(Sequence[Problem]):
    """Problems that are made when they are looked up, and shared while somebody holds them.

    So a whole release costs the memory of the problems under way. Looking one up raises RunError where its
    file has changed.
    """

    def __init__(self, candidates: Iterable[Candidate] = ()) -> None:
        self._candidates = {candidate.id: candidate for candidate in candidates}
        self.ids = tuple(self._candidates)
        self._held: WeakValueDictionary[str, Problem] = WeakValueDictionary()
        self._lock = threading.Lock()

    def named(self, problem_id: str) -> Problem:
        with self._lock:
            problem = self._held.get(problem_id)
            if problem is None:
                try:
                    problem = self._held[problem_id] = self._candidates[problem_id].make()
                except ProblemError as exc:  # it was sound when it was selected
                    raise RunError(str(exc)) from None
            return problem

    def lend(self, problem: Problem) -> None:
        """Have `problem` looked up by its name while the caller holds it."""
        with self._lock:
            self._held[problem.id] = problem

    def __reduce__(self) -> tuple[type[Problems], tuple[()]]:
        """Another process gets none, for it may not have the files; it is lent each."""
        return Problems, ()

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Problem: ...
    @overload
    def __getitem__(self, index: slice) -> Problems: ...
    def __getitem__(self, index: int | slice) -> Problem | Problems:
        if isinstance(index, slice):
            return Problems(self._candidates[name] for name in self.ids[index])
        return self.named(self.ids[index])


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
    on_made: Callable[[Problem], None] | None = None,
    on_broken: Callable[[ProblemError], None] | None = None,
) -> Selected:
    """The problems that `selection` takes from `source`, each made once in its order and not kept.

    `among`: ids that alone may be taken, such as those of a screening; None for all. `on_made`: receives
    each. A broken problem is passed to `on_broken` and skipped; without it, left out and named, or raised
    where it is requested. Raises ConfigError for an id, a difficulty or a platform that no problem has, for
    a filter on what they do not say, and for a `first` larger than what is left; ProblemError where two
    share an id, for an unfit one that was requested, and where all are broken.
    """
    chosen = _choose(candidates, selection, source, among)
    if chosen.is_empty:
        if on_broken is not None:
            return Selected(Problems(), {})
        raise ProblemError(f"{source}: there are no problems in it")
    sound: list[Candidate] = []
    left_out = dict(chosen.left_out)
    broken: dict[str, ProblemError] = {}
    for candidate in chosen.candidates:
        n_broken = len(broken) if on_broken is not None else 0
        if selection.first is not None and len(sound) + n_broken == selection.first:
            break
        try:
            _make(candidate, on_made)
            sound.append(candidate)
        except Unfit as exc:
            if chosen.by_name:
                raise
            left_out[candidate.id] = exc.reason
        except ProblemError as exc:
            if on_broken is not None:
                on_broken(exc)
            elif chosen.by_name:
                raise
            else:
                left_out[candidate.id] = f"{_BROKEN}{exc}"
            broken[candidate.id] = exc
    _check_enough(selection, source, among, sound, left_out, broken, on_broken is not None)
    return Selected(Problems(sound), left_out, tuple(broken))


def _make(candidate: Candidate, on_made: Callable[[Problem], None] | None) -> None:
    problem = candidate.make()
    if on_made is not None:
        on_made(problem)


def _check_enough(
    selection: Selection,
    source: str,
    among: frozenset[str] | None,
    sound: Sequence[Candidate],
    left_out: Mapping[str, str],
    broken: Mapping[str, ProblemError],
    reported: bool,
) -> None:
    """Raises where too little is left; broken problems that were `reported` count as taken."""
    n_taken = len(sound) + len(broken) * reported
    if n_taken and n_taken >= (selection.first or 0):
        return
    if broken and not n_taken:
        raise ProblemError(
            f"{source}: no problem in it can be read; the first: {next(iter(broken.values()))}"
        )
    bad = f" ({describe_left_out(left_out, tuple(broken))})" if left_out else ""
    what = f"only {n_taken}, not {selection.first}," if n_taken else "none"
    marked = "" if among is None else " that are marked so"
    raise ConfigError(f"{source}: the filters leave {what} of its problems{marked}{bad}")


def _choose(
    candidates: Iterable[Candidate], selection: Selection, source: str, among: frozenset[str] | None
) -> _Chosen:
    seen: dict[str, Candidate] = {}
    kept: list[Candidate] = []
    for candidate in candidates:
        if candidate.id in seen:
            raise ProblemError(f"{source}: two problems have the id {candidate.id!r}; remove one")
        seen[candidate.id] = candidate
        if (among is None or candidate.id in among) and _takes(selection, candidate):
            kept.append(candidate)
    readable = [candidate for candidate in seen.values() if candidate.is_readable]
    if readable:
        _check_known(selection, readable, [*seen], source)
    by_name = bool(selection.ids) or len(seen) == 1
    spare_none = selection.include_bad or by_name
    left_out = {} if spare_none else {c.id: c.fault for c in kept if c.fault is not None}
    return _Chosen(tuple(c for c in kept if c.id not in left_out), left_out, by_name, not seen)


def half_of(problem_id: str) -> Literal["dev", "test"]:
    """The half that a problem belongs to for ever, whatever source it comes from and whatever is selected."""
    return "test" if hashlib.sha256(problem_id.encode()).digest()[0] % 2 else "dev"


def describe_left_out(left_out: Mapping[str, str], broken: Sequence[str] = (), most: int = 8) -> str:
    """One line that counts them and names the first, broken ones before others; empty where there is none."""
    if not left_out:
        return ""
    others = [name for name in left_out if name not in broken]
    names = ", ".join([*broken, *others][:most]) + (", ..." if len(left_out) > most else "")
    line = f"left out {len(left_out)} bad problem{'s' * (len(left_out) > 1)}: {names}"
    return (
        f"{line}; {len(broken)} broken, the first: {left_out[broken[0]].removeprefix(_BROKEN)}"
        if broken
        else line
    )


def _raise(error: ProblemError) -> NoReturn:
    raise error


def _takes(selection: Selection, candidate: Candidate) -> bool:
    if selection.ids and not {candidate.id, candidate.other_name} & set(selection.ids):
        return False
    if not candidate.is_readable:
        return True
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


def _check_known(selection: Selection, seen: Sequence[Candidate], ids: Sequence[str], source: str) -> None:
    """Raises ConfigError for a filter that names what no problem has; `ids`: broken ones too."""
    if (selection.from_date or selection.to_date) and not any(candidate.day for candidate in seen):
        raise ConfigError(f"{source}: these problems carry no date to select by")
    wanted_known = (
        ("id", selection.ids, ids),
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
