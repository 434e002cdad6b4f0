"""The file `screening.jsonl`: what a screening was made with, and the counts of every group.

A screening is not a run: it lies in no journal, and no report can take it for an arm. Samples nothing (see
`screen.py`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from sdpo_solve.batch.difficulty import TAUGHT, Screened, rate_of
from sdpo_solve.errors import ConfigError
from sdpo_solve.paths import file_errors
from sdpo_solve.run.journal import lock_file
from sdpo_solve.run.records import RawText

FILE_NAME = "screening.jsonl"
# What the samples of files were made with that do not say it.
_OF_EARLY_FILES: Mapping[str, Any] = {"feedback_mode": "public", "seed": 0}


class ScreeningStarted(BaseModel):
    """The first line: what the samples are made with."""

    model_config = ConfigDict(frozen=True)

    event: Literal["screening"] = "screening"
    config: Mapping[str, Any]


class ScreenedGroup(BaseModel):
    """One look at a problem: its samples, and those of the teacher under the feedback of the failed ones."""

    model_config = ConfigDict(frozen=True)

    event: Literal["group"] = "group"
    problem: RawText
    digest: str
    n: int
    solved: int
    teacher_n: int
    teacher_solved: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Screening:
    """A screening on disk: what it was made with, and the counts of each problem in file order."""

    config: Mapping[str, Any] = field(default_factory=dict)
    problems: Mapping[str, Screened] = field(default_factory=dict)

    @property
    def feedback_mode(self) -> str:
        return str({**_OF_EARLY_FILES, **self.config}["feedback_mode"])

    @property
    def seed(self) -> int:
        return int({**_OF_EARLY_FILES, **self.config}["seed"])

    def named(self, level: float) -> frozenset[str]:
        """The problems whose rate is surely below `level`, the undecided ones left out."""
        return frozenset(name for name, item in self.problems.items() if item.is_below(level))

    def marked(self, mark: str) -> frozenset[str]:
        """The problems that `--only` means: those that feedback teaches (`taught`), or those below a level.

        Raises ConfigError for another mark, and for `taught` where nothing was sampled with feedback.
        """
        if mark != TAUGHT:
            try:
                return self.named(rate_of(mark))
            except ConfigError:
                raise ConfigError(
                    f"--only is hard, very-hard, taught, or a rate between 0 and 1 such as 0.05; got {mark!r}"
                ) from None
        if not any(item.teacher.n for item in self.problems.values()):
            raise ConfigError("--only taught: nothing was sampled with feedback; screen with --teacher first")
        return frozenset(name for name, item in self.problems.items() if item.is_taught)


_LINE: TypeAdapter[ScreeningStarted | ScreenedGroup] = TypeAdapter(
    Annotated[ScreeningStarted | ScreenedGroup, Field(discriminator="event")]
)


def read_marks(out: Path) -> Screening:
    """The screening in a directory.

    Raises ConfigError where there is none.
    """
    found = read_screening(out)
    if not found.problems:
        raise ConfigError(f"no screening in {out}; run 'sdpo-solve screen SOURCE --out {out}' first")
    return found


def check_marks(
    found: Screening,
    out: Path,
    sampled_with: Mapping[str, Any],
    digests: Mapping[str, str],
    *,
    feedback: Mapping[str, Any] | None = None,
) -> None:
    """Refuse marks for runs that sample otherwise, or for problems that are not those that were screened.

    `digests`: of the problems chosen, as the screening had them. Public tests or all of them, what is solved
    is the same; `paper` counts half. `feedback`: what decides the feedback, where the marks come from it;
    then the mode must be the same. Raises ConfigError naming every difference.
    """
    now = {**sampled_with, "feedback_mode": _counted(sampled_with["feedback_mode"])}
    then = {**found.config, "feedback_mode": _counted(found.feedback_mode)}
    if feedback is not None:
        now, then = {**sampled_with, **feedback}, dict(found.config)
    differing = [name for name in now if name in then and then[name] != now[name]]
    remedy = "screen as the runs will sample (into another --out), or name the problems with --ids"
    if differing:
        said = ", ".join(f"{name} = {then[name]!r}, here it is {now[name]!r}" for name in differing)
        raise ConfigError(f"--only: {out} was screened with {said}; {remedy}")
    changed = [name for name, digest in digests.items() if digest != found.problems[name].digest]
    if changed:
        names = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
        raise ConfigError(
            f"--only: the text or tests of {names} have changed since {out} was screened; {remedy}"
        )


def _counted(feedback_mode: str) -> str:
    return "paper" if feedback_mode == "paper" else "public or all"


def read_screening(out: Path) -> Screening:
    """What the file says so far; nothing where there is no file. An incomplete last line is ignored.

    Raises ConfigError naming the line for anything else that is not a screening.
    """
    path = out / FILE_NAME
    with file_errors(ConfigError, f"read {path}"):
        if not path.exists():
            return Screening()
        lines = path.read_bytes().split(b"\n")[:-1]
    config: Mapping[str, Any] = {}
    problems: dict[str, Screened] = {}
    for number, line in enumerate(lines, 1):
        try:
            match _LINE.validate_python(json.loads(line)):
                case ScreeningStarted() as started:
                    config = {**_OF_EARLY_FILES, **started.config}
                case ScreenedGroup() as group:
                    before = problems.get(group.problem, Screened(group.problem))
                    problems[group.problem] = add(before, group)
        except ValueError:
            raise ConfigError(f"{path}, line {number}: not a line of a screening") from None
    return Screening(config, problems)


def add(before: Screened, group: ScreenedGroup) -> Screened:
    """The counts with one more group.

    Raises ValueError where its samples are of another text of the problem.
    """
    if before.digest not in ("", group.digest):
        raise ValueError(f"{before.problem} has changed")
    return replace(
        before,
        base=before.base.plus(group.n, group.solved),
        teacher=before.teacher.plus(group.teacher_n, group.teacher_solved),
        tokens=before.tokens + group.tokens,
        digest=group.digest,
    )


@contextmanager
def held(out: Path) -> Iterator[bool]:
    """The file, made where there is none, is this process's alone meanwhile; false where there are no locks.

    Two processes would draw the same samples, and their counts would be added up. Raises ConfigError where
    another process holds it, or the directory cannot be written.
    """
    path = out / FILE_NAME
    with file_errors(ConfigError, f"write {path}"):
        out.mkdir(parents=True, exist_ok=True)
        file = path.open("ab", buffering=0)
    with file:
        yield lock_file(file, out, ConfigError)


def append(out: Path, line: ScreeningStarted | ScreenedGroup) -> None:
    """One more line, on disk when this returns; a torn line before it is cut off.

    Raises ConfigError where the directory cannot be written.
    """
    path = out / FILE_NAME
    with file_errors(ConfigError, f"write {path}"):
        out.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            if file.seek(0, os.SEEK_END) and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
            file.write(json.dumps(line.model_dump()).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
