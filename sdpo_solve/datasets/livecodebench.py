"""LiveCodeBench's original rows, eleven texts each, as problems (https://github.com/LiveCodeBench/LiveCodeBench).

Decodes public and private tests; the pickles inside are read as data, never executed. Adds LiveCodeBench's
preamble and its checker.

Where it differs from LiveCodeBench on purpose: programs run as real processes with a real standard input,
each test in a fresh one, so programs that its mock of stdin fails (`for line in sys.stdin`, `open(0)`, a
module-level `global`) are judged by their answers.
"""

from __future__ import annotations

import base64
import binascii
import json
import pickletools
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from sdpo_solve.datasets import Format
from sdpo_solve.datasets._lcb_faults import KNOWN_BAD, KNOWN_TOLERANCE
from sdpo_solve.datasets._lcb_hub import fetch, files_of, is_release
from sdpo_solve.datasets._parquet import read_parquet
from sdpo_solve.datasets.selection import Candidate
from sdpo_solve.errors import ProblemError
from sdpo_solve.protocols import Sandbox
from sdpo_solve.sanitize import middle_cut
from sdpo_solve.types import Checker, Kind, Limits, Problem, TestCase

FIELDS = (
    "question_title",
    "question_content",
    "platform",
    "question_id",
    "contest_id",
    "contest_date",
    "starter_code",
    "difficulty",
    "public_test_cases",
    "private_test_cases",
    "metadata",
)
LIMITS = Limits(time_s=6.0, memory_mb=1024)
_RECURSION_LIMIT = 50_000
_MAX_TESTS_BYTES = 1 << 30
_STAR_MODULES = (
    *("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics"),
    *("itertools", "functools", "operator", "io", "sys", "json"),
)
PREAMBLE = "\n".join(
    [
        # In this order: later names win, and the builtins come back last but for typing's.
        *(f"from {name} import *" for name in (*_STAR_MODULES, "builtins", "typing")),
        *(f"import {name}" for name in _STAR_MODULES),
        f"sys.setrecursionlimit({_RECURSION_LIMIT})",
    ]
)
# Opcodes of a pickle that holds one text: frame, text, memo, stop. There is no way to call anything in them.
_TEXT_OPCODES = {"UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
_PLAIN_OPCODES = {"PROTO", "FRAME", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "STOP"}


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it stands in the file: its eleven texts, and where it was read."""

    fields: Mapping[str, str]
    place: str

    @property
    def question_id(self) -> str:
        return self.fields["question_id"]


def candidates(
    source: str, *, endpoint: str | None = None, cache_dir: Path | None = None
) -> Iterator[Candidate]:
    """Every row of a file, or of a release on the hub (`v6`, `release_v6`), to choose from.

    `endpoint` and `cache_dir` are the hub client's. The tests of a row are decoded when it is made a problem.
    Raises ProblemError for a bad file, ConfigError for a release that does not exist, PrerequisiteError where
    the hub cannot be reached.
    """
    if is_release(source) and not Path(source).exists():
        paths = [fetch(name, endpoint, cache_dir) for name in files_of(source)]
    else:
        paths = [Path(source)]
    return (_candidate(row) for path in paths for row in read_rows(path))


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a JSONL or parquet file (or a `.json` file: one row, or a list), tests not decoded yet.

    Raises ProblemError naming the file, the line and the field.
    """
    if path.suffix == ".parquet":
        for number, data in enumerate(read_parquet(path, FIELDS), 1):
            yield to_row(data, f"{path}: row {number}")
        return
    try:
        if path.suffix == ".json":
            data = _json(path.read_text(encoding="utf-8"), str(path), "the file")
            for number, row in enumerate(data if isinstance(data, list) else [data], 1):
                yield to_row(row, f"{path}: row {number}")
            return
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield to_row(_json(line, f"{path}: line {number}", "the row"), f"{path}: line {number}")
    except UnicodeDecodeError as exc:
        raise ProblemError(f"{path}: not UTF-8 near byte {exc.start}; save it as UTF-8") from None
    except OSError as exc:
        raise ProblemError(f"{path}: cannot be read: {exc.strerror}; check the path") from None


def to_row(data: object, place: str) -> Row:
    """`data` as a row: an object with LiveCodeBench's eleven texts, others ignored.

    Raises ProblemError where one is missing or is not a text.
    """
    if not isinstance(data, dict):
        raise ProblemError(f"{place}: not a LiveCodeBench row; expected one JSON object a line")
    for field in FIELDS:
        if not isinstance(data.get(field), str):
            found = "is missing" if field not in data else "is not a text"
            raise ProblemError(f"{place}: {field} {found}; expected the {len(FIELDS)} texts of LiveCodeBench")
        _check_text(data[field], place, field)
    return Row({field: data[field] for field in FIELDS}, place)


def to_problem(row: Row) -> Problem:
    """The problem that a row states: public tests visible, private ones hidden.

    Raises ProblemError naming the row's place and the field.
    """
    fields, place = row.fields, row.place
    public = _tests(
        _json(fields["public_test_cases"], place, "public_test_cases"), place, "public_test_cases"
    )
    private = _tests(_private(fields["private_test_cases"], place), place, "private_test_cases")
    kinds = {test["testtype"] for test in [*public, *private]}
    if kinds not in ({"stdin"}, {"functional"}):
        found = ", ".join(sorted(kinds)) or "no tests"
        raise ProblemError(f"{place}: tests are of type {found}; expected all stdin or all functional")
    functional = kinds == {"functional"}
    case = _functional_case if functional else _stdin_case
    return Problem(
        id=_safe_id(row.question_id, place),
        statement=fields["question_content"],
        kind=Kind.FUNCTION if functional else Kind.STDIN,
        tests=(
            *(case(test, True, f"{place}: public_test_cases[{n}]") for n, test in enumerate(public)),
            *(case(test, False, f"{place}: private_test_cases[{n}]") for n, test in enumerate(private)),
        ),
        entry_point=_entry_point(row) if functional else None,
        starter_code=(fields["starter_code"].rstrip() or None) if functional else None,
        limits=LIMITS,
        checker=Checker("livecodebench", KNOWN_TOLERANCE.get(row.question_id, 0.0)),
        preamble=PREAMBLE,
        meta={
            "source": "livecodebench",
            "title": fields["question_title"],
            **{key: fields[key] for key in ("platform", "contest_id", "contest_date", "difficulty")},
        },
    )


def _candidate(row: Row) -> Candidate:
    fields = row.fields
    try:
        day = date.fromisoformat(fields["contest_date"][:10])
    except ValueError:
        found = fields["contest_date"][:40]
        raise ProblemError(f"{row.place}: contest_date {found!r} is no date such as 2025-02-01") from None
    title = fields["question_title"]
    return Candidate(
        make=partial(to_problem, row),
        id=_safe_id(row.question_id, row.place),
        other_name=title,
        day=day,
        difficulty=fields["difficulty"],
        platform=fields["platform"],
        fault=KNOWN_BAD.get(row.question_id) or KNOWN_BAD.get(title),
    )


def pickled_text(data: bytes) -> str:
    """The one text that the pickle `data` holds, read without an unpickler.

    Raises ValueError for a pickle that holds anything else: every other opcode is refused.
    """
    text: str | None = None
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in _TEXT_OPCODES and text is None and isinstance(argument, str):
            text = argument
        elif opcode.name not in _PLAIN_OPCODES:
            raise ValueError(f"the pickle holds more than one text ({opcode.name})")
    if text is None:
        raise ValueError("the pickle holds no text")
    return text


def _private(text: str, place: str) -> object:
    """The private tests: JSON text, or base64 of zlib of a pickle of JSON text."""
    if text.lstrip().startswith("["):
        return _json(text, place, "private_test_cases")
    try:
        inflate = zlib.decompressobj()
        packed = inflate.decompress(base64.b64decode(text, validate=True), _MAX_TESTS_BYTES)
        if not inflate.eof:
            raise ValueError("it is cut off or too large")
        decoded = pickled_text(packed)
    except (binascii.Error, zlib.error, ValueError) as exc:
        reason = middle_cut(str(exc), 120)
        raise ProblemError(
            f"{place}: private_test_cases cannot be decoded: {reason}; fetch the file anew"
        ) from None
    return _json(decoded, place, "private_test_cases")


def _tests(data: object, place: str, field: str) -> list[dict[str, str]]:
    if not isinstance(data, list):
        raise ProblemError(f"{place}: {field} is not a list of tests")
    for number, test in enumerate(data):
        if not isinstance(test, dict) or any(
            not isinstance(test.get(key), str) for key in ("input", "output", "testtype")
        ):
            raise ProblemError(
                f"{place}: {field}[{number}] is not a test; expected input, output and testtype"
            )
        for key in ("input", "output"):
            _check_text(test[key], place, f"{field}[{number}].{key}")
    return data


def _stdin_case(test: Mapping[str, str], visible: bool, place: str) -> TestCase:
    return TestCase(test["input"], test["output"], visible)


def _functional_case(test: Mapping[str, str], visible: bool, place: str) -> TestCase:
    lines = test["input"].rstrip("\n").split("\n")
    args = [_json(line, place, f"input line {number}") for number, line in enumerate(lines, 1)]
    return TestCase(args, _json(test["output"], place, "output"), visible)


def _entry_point(row: Row) -> str:
    metadata = _json(row.fields["metadata"], row.place, "metadata")
    name = metadata.get("func_name") if isinstance(metadata, dict) else None
    if not isinstance(name, str) or not name.isidentifier():
        raise ProblemError(f"{row.place}: metadata names no function; expected func_name")
    # LiveCodeBench looks into a class Solution where the program has one; the starter code always does.
    return f"Solution.{name}" if "class Solution" in row.fields["starter_code"] else name


def _safe_id(question_id: str, place: str) -> str:
    """The id as a directory name."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", question_id).strip("-._")[:100]
    if not safe:
        raise ProblemError(f"{place}: question_id {question_id[:40]!r} holds no letter or digit")
    return safe


def _json(text: str, place: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        _not_json(exc, place, what)


def _not_json(exc: Exception, place: str, what: str) -> NoReturn:
    reason = "nested too deep" if isinstance(exc, RecursionError) else middle_cut(str(exc), 120)
    raise ProblemError(f"{place}: {what} is not JSON: {reason}") from None


def _check_text(text: str, place: str, what: str) -> None:
    if re.search("[\ud800-\udfff]", text):
        raise ProblemError(f"{place}: {what} holds a lone surrogate; write characters or whole pairs")


class LiveCodeBench(Format):
    """LiveCodeBench's code generation problems: a release on the hub, or a file of its rows."""

    schemes: ClassVar = {"lcb": "lcb:v6 or lcb:FILE.jsonl"}

    @classmethod
    def candidates(cls, source: str, sandbox: Callable[[], Sandbox]) -> Iterator[Candidate]:
        """See `candidates`; expected values stand in the rows."""
        return candidates(source)


PLUGIN = LiveCodeBench
