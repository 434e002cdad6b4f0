"""The project's own problem file: one JSON object with a published schema (`sdpo-solve schema`).

Reads and writes problem files; a bad one is refused in one line with file, place and remedy. Whether the
reference solves the problem is checked by `sdpo-solve check`, not here. The format is described in
`problems/README.md`.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from datetime import date
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from sdpo_solve.datasets._mistakes import Mistake, error_of
from sdpo_solve.datasets._problem_mistakes import kind_mistake, other_mistakes, value_mistakes
from sdpo_solve.datasets._strict_json import read_json, read_text
from sdpo_solve.datasets._unchanged import Stamp
from sdpo_solve.datasets.selection import Candidate
from sdpo_solve.errors import ProblemError
from sdpo_solve.types import Checker, Kind, Limits, Problem, TestCase

SCHEMA_URI = "https://json-schema.org/draft/2020-12/schema"
# Rules that a file cannot state.
_OF_BENCHMARKS = ("livecodebench", "codecontests", "apps", "python", "set", "not-none")
_ID = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
_NAMES_PROGRAM = re.compile(r"[\w./\\ -]+\.(py|cpp)")
_INCLUDE = re.compile(r"^[ \t]*#[ \t]*include[ \t]*[<\"]", re.MULTILINE)
_ENTRY_POINT = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?$"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class LimitsModel(_Model):
    """What one test may use."""

    time_s: float = Field(default=Limits().time_s, gt=0, le=600, description="processor seconds of one test")
    memory_mb: int = Field(
        default=Limits().memory_mb, ge=16, le=65536, description="MiB of memory of one test"
    )


class FloatChecker(_Model):
    """Numbers match within a tolerance, two integers and the rest exactly."""

    tolerance: float = Field(alias="float", gt=0, lt=1, description="relative or absolute")


class TokenRules(_Model):
    case: Literal["ignore"]


class TokensChecker(_Model):
    """Tokens match whatever their case."""

    tokens: TokenRules


class ProgramChecker(_Model):
    """A program decides, with testlib's arguments and exit codes."""

    program: str = Field(min_length=1, description="file beside this one, .py or .cpp; or its source")


class StdinTest(_Model):
    """A text for standard input, and the expected output, or a list of several right ones."""

    input: str
    expected: str | Annotated[list[str], Field(min_length=1)]
    visible: bool = Field(description="whether feedback may quote this test")


class FunctionTest(_Model):
    """The arguments of one call, and the value expected back."""

    input: list[Any]
    expected: Any
    visible: bool = Field(description="whether feedback may quote this test")


class AssertTest(_Model):
    """One assert statement about the entry point, over plain values."""

    input: str
    visible: bool = Field(description="whether feedback may quote this test")


class _File(_Model):
    id: str = Field(pattern=_ID, description="names the problem and its directory of runs")
    statement: str = Field(min_length=1, pattern=r"\S", description="the question, as the model reads it")
    limits: LimitsModel = LimitsModel()
    reference: str | None = Field(
        None,
        min_length=1,
        description="a program that solves the problem, or the name of a .py or .cpp file beside this one",
    )
    meta: dict[str, Any] = Field(default_factory=dict, description="notes kept with the problem")


class StdinFile(_File):
    """A program that reads standard input and writes standard output."""

    kind: Literal["stdin"]
    tests: list[StdinTest] = Field(min_length=1)
    checker: Literal["exact", "tokens"] | FloatChecker | TokensChecker | ProgramChecker = "exact"


class FunctionFile(_File):
    """A function that is called with JSON arguments and returns a JSON value."""

    kind: Literal["function"]
    entry_point: str = Field(pattern=_ENTRY_POINT, description="the function's name, or Class.method")
    starter_code: str | None = Field(None, min_length=1, description="code that the answer completes")
    tests: list[FunctionTest] = Field(min_length=1)
    checker: Literal["exact"] | FloatChecker = "exact"


class AssertsFile(_File):
    """A function that is tested by assert statements."""

    kind: Literal["asserts"]
    entry_point: str = Field(pattern=_ENTRY_POINT, description="the function's name, or Class.method")
    starter_code: str | None = Field(None, min_length=1, description="code that the answer completes")
    tests: list[AssertTest] = Field(min_length=1)


ProblemFile = StdinFile | FunctionFile | AssertsFile
_KINDS: dict[str, type[ProblemFile]] = {
    "stdin": StdinFile,
    "function": FunctionFile,
    "asserts": AssertsFile,
}


def schema() -> dict[str, Any]:
    """The JSON Schema of a problem file."""
    tagged: Any = Annotated[ProblemFile, Field(discriminator="kind")]
    body = TypeAdapter(tagged).json_schema()
    return {"$schema": SCHEMA_URI, "title": "sdpo-solve problem", **body}


def load(path: Path) -> Problem:
    """The problem in the file `path`.

    Raises ProblemError: for each mistake the file, the place in it, and the remedy.
    """
    return parse_text(read_text(path), str(path), path.parent)


def candidates(path: Path) -> Iterator[Candidate]:
    """The problem in a file, or those of every `*.json` in a folder by file name, to choose from.

    A broken file goes by its name, and raises when it is made a problem. Raises ProblemError for an id that
    two files share, and for an empty folder.
    """
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise ProblemError(f"{path}: no problem files here; expected *.json")
    homes: dict[str, Path] = {}
    for file in files:
        try:
            found = _candidate(file)
        except ProblemError as exc:
            yield Candidate.broken(file.stem, exc)
            continue
        if found.id in homes:
            raise ProblemError(f"{file}: id {found.id!r} is also that of {homes[found.id]}; change one")
        homes[found.id] = file
        yield found


def _candidate(file: Path) -> Candidate:
    """The problem in a file, read again when it is made, with the facts that its notes state."""
    problem = load(file)
    facts = {key: str(problem.meta.get(key) or "") for key in ("contest_date", "difficulty", "platform")}
    day = None
    with contextlib.suppress(ValueError):
        day = date.fromisoformat(facts["contest_date"][:10])
    make = partial(_load_again, file, Stamp.of(file))
    return Candidate(make, problem.id, "", day, facts["difficulty"], facts["platform"])


def _load_again(file: Path, stamp: Stamp) -> Problem:
    """Raises RunError where the file has changed, ProblemError where it is gone."""
    problem = load(file)
    stamp.check(file)
    return problem


def parse_text(text: str, name: str, folder: Path = Path()) -> Problem:
    """The problem that the JSON `text` states; `name` stands for the file in messages.
    `folder`: where a checker program lies.

    Raises ProblemError as `load` does.
    """
    read = read_json(text.removeprefix("\ufeff"))
    mistakes, data = read.mistakes, read.data
    if data is None and mistakes and not re.match(r"\s*[\[{/#]", text):
        remedy = "it begins with {; 'sdpo-solve new NAME' writes one to fill in"
        mistakes = [Mistake("", "this is no problem file, which is JSON", remedy)]
    if isinstance(data, dict):
        data.pop("$schema", None)
        kind, of_kind = kind_mistake(data, list(_KINDS))
        mistakes += of_kind
        data["kind"] = kind
        try:
            file = _KINDS[kind].model_validate(data)
        except ValidationError as exc:
            named = {mistake.place for mistake in mistakes}
            found = value_mistakes(exc, _KINDS[kind], _KINDS, data)
            mistakes += [mistake for mistake in found if mistake.place not in named]
        mistakes += [] if read.is_deep else other_mistakes(data)  # values are compared to their depth
    elif data is not None or not mistakes:
        one = "a problem is one JSON object, and each has a file of its own"
        mistakes.append(Mistake("top level", one, 'begin with {"id": ...}'))
    if mistakes:
        raise error_of(name, read.text, mistakes, read.offsets())
    missing: list[Mistake] = []
    problem = _problem(file, folder, missing)
    if missing:
        raise error_of(name, read.text, missing, read.offsets())
    return problem


def dump(problem: Problem) -> str:
    """`problem` as the text of a problem file, defaults left out.

    Raises ProblemError for a problem that the format cannot hold: a preamble, a benchmark's checker, values
    that are not JSON.
    """
    if problem.preamble or problem.checker.name in _OF_BENCHMARKS:
        raise ProblemError(
            f"{problem.id}: a preamble or a benchmark's checker has no place in a problem file"
        )
    data: dict[str, Any] = {"id": problem.id, "statement": problem.statement, "kind": problem.kind.value}
    if problem.entry_point is not None:
        data["entry_point"] = problem.entry_point
    if problem.starter_code is not None:
        data["starter_code"] = problem.starter_code
    if problem.limits != Limits():
        data["limits"] = {"time_s": problem.limits.time_s, "memory_mb": problem.limits.memory_mb}
    if problem.checker != Checker():
        data["checker"] = _checker_data(problem.checker)
    data["tests"] = [_test_data(test, problem.kind) for test in problem.tests]
    if problem.reference is not None:
        data["reference"] = problem.reference
    if problem.meta:
        data["meta"] = dict(problem.meta)
    try:
        text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as exc:
        raise ProblemError(f"{problem.id}: cannot be written as JSON: {exc}") from None
    parse_text(text, problem.id)
    return text


def _test_data(test: TestCase, kind: Kind) -> dict[str, Any]:
    if kind is Kind.ASSERTS:
        return {"input": test.input, "visible": test.visible}
    given = list(test.input) if kind is Kind.FUNCTION else test.input
    return {"input": given, "expected": test.expected, "visible": test.visible}


# -- from data to a problem


def _problem(file: ProblemFile, folder: Path, missing: list[Mistake]) -> Problem:
    """`missing`: gets the programs that are named and not in the folder."""
    entry_point = starter_code = None
    if not isinstance(file, StdinFile):
        entry_point, starter_code = file.entry_point, file.starter_code
    return Problem(
        id=file.id,
        statement=file.statement,
        kind=Kind(file.kind),
        tests=tuple(
            TestCase(test.input, None if isinstance(test, AssertTest) else test.expected, test.visible)
            for test in file.tests
        ),
        entry_point=entry_point,
        starter_code=starter_code,
        limits=Limits(file.limits.time_s, file.limits.memory_mb),
        checker=Checker() if isinstance(file, AssertsFile) else _checker(file.checker, folder, missing),
        reference=_reference(file, folder, missing),
        meta=file.meta,
    )


def _reference(file: ProblemFile, folder: Path, missing: list[Mistake]) -> str | None:
    """The program, or that in the file beside the problem's which is named instead."""
    if file.reference is None or not _NAMES_PROGRAM.fullmatch(file.reference.strip()):
        return file.reference
    return _program_beside(file.reference.strip(), folder, "reference", missing)


def language_of(source: str) -> str:
    """The language of a program of which only the source is kept: C++ where it includes a header."""
    return "cpp" if _INCLUDE.search(source) else "python"


def _program_beside(given: str, folder: Path, place: str, missing: list[Mistake]) -> str:
    path = folder / given
    if not _NAMES_PROGRAM.fullmatch(given) or not path.is_file():
        remedy = "name a .py or .cpp file beside it, or write the program itself"
        missing.append(Mistake(place, f"no program {given!r}", remedy))
        return ""
    return read_text(path) + "\n"


def _checker(given: object, folder: Path, missing: list[Mistake]) -> Checker:
    match given:
        case FloatChecker(tolerance=tolerance):
            return Checker("float", tolerance)
        case TokensChecker():
            return Checker("tokens", ignore_case=True)
        case ProgramChecker(program=program):
            if "\n" in program:
                return Checker("program", program=program, language=language_of(program))
            source = _program_beside(program, folder, "checker.program", missing)
            language = "cpp" if program.endswith(".cpp") else "python"
            return Checker("program", program=source, language=language)
    return Checker("tokens" if given == "tokens" else "exact")


def _checker_data(checker: Checker) -> object:
    if checker.is_program:
        return {"program": checker.program}
    if checker.ignore_case:
        return {"tokens": {"case": "ignore"}}
    return {"float": checker.tolerance} if checker.tolerance else checker.name
