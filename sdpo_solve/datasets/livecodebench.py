"""LiveCodeBench: its original rows of eleven texts each (https://github.com/LiveCodeBench/LiveCodeBench).

Decodes public and private tests; the pickles inside are read as data, never executed. Adds LiveCodeBench's
preamble and its checker. What differs from LiveCodeBench on purpose stands in the README of `grading`.
"""

from __future__ import annotations

import base64
import binascii
import pickletools
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import ClassVar

from sdpo_solve.datasets import Format
from sdpo_solve.datasets._lcb_hub import fetch, files_of, is_release
from sdpo_solve.datasets._lcb_rows import finding
from sdpo_solve.datasets._rows import FileRow, parse_json, read_rows, row_candidates, safe_id
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


class LiveCodeBench(Format):
    """LiveCodeBench's code generation problems: a release on the hub, or a file of its rows."""

    schemes: ClassVar = {"lcb": "lcb:v6 or lcb:FILE.jsonl"}
    columns: ClassVar = frozenset({"question_content", "public_test_cases"})

    @classmethod
    def candidates(cls, source: str, sandbox: Callable[[], Sandbox]) -> Iterator[Candidate]:
        """The tests of a row are decoded when it is made a problem. Raises as `rows` does for the files."""
        return (found for path in _files(source) for found in row_candidates(path, _candidate, FIELDS))


PLUGIN = LiveCodeBench


def rows(source: str, endpoint: str | None = None, cache_dir: Path | None = None) -> Iterator[FileRow]:
    """The rows of a file or a release, tests not decoded. `endpoint` and `cache_dir`: the hub client's.

    Raises ProblemError for a bad file, naming line and field, ConfigError for a release that does not exist,
    PrerequisiteError where the hub cannot be reached.
    """
    paths = _files(source, endpoint, cache_dir)
    return (check_row(row) for path in paths for row in read_rows(path, FIELDS))


def _files(source: str, endpoint: str | None = None, cache_dir: Path | None = None) -> list[Path]:
    if is_release(source) and not Path(source).exists():
        return [fetch(name, endpoint, cache_dir) for name in files_of(source)]
    return [Path(source)]


def check_row(row: FileRow) -> FileRow:
    """`row` with LiveCodeBench's eleven texts alone. Raises ProblemError where one is missing or no text."""
    for field in FIELDS:
        if not isinstance(row.data.get(field), str):
            fault = "is missing" if field not in row.data else "is not a text"
            raise ProblemError(
                f"{row.place}: {field} {fault}; expected the {len(FIELDS)} texts of LiveCodeBench"
            )
        _check_text(row.data[field], row.place, field)
    return FileRow({field: row.data[field] for field in FIELDS}, row.place, row.again)


def to_problem(row: FileRow) -> Problem:
    """The problem that a row states: public tests visible, private ones hidden.

    Raises ProblemError naming the row's place and the field.
    """
    fields, place = row.data, row.place
    public = _tests(
        parse_json(fields["public_test_cases"], place, "public_test_cases"), place, "public_test_cases"
    )
    private = _tests(_private(fields["private_test_cases"], place), place, "private_test_cases")
    kinds = {test["testtype"] for test in [*public, *private]}
    if kinds not in ({"stdin"}, {"functional"}):
        types = ", ".join(sorted(kinds)) or "no tests"
        raise ProblemError(f"{place}: tests are of type {types}; expected all stdin or all functional")
    kind = Kind.FUNCTION if kinds == {"functional"} else Kind.STDIN
    return Problem(
        id=safe_id(fields["question_id"], place),
        statement=fields["question_content"],
        kind=kind,
        tests=(
            *(_case(test, True, kind, f"{place}: public_test_cases[{n}]") for n, test in enumerate(public)),
            *(
                _case(test, False, kind, f"{place}: private_test_cases[{n}]")
                for n, test in enumerate(private)
            ),
        ),
        entry_point=_entry_point(row) if kind is Kind.FUNCTION else None,
        starter_code=(fields["starter_code"].rstrip() or None) if kind is Kind.FUNCTION else None,
        limits=LIMITS,
        checker=Checker("livecodebench", finding(fields).tolerance),
        preamble=PREAMBLE,
        meta={
            "source": "livecodebench",
            "title": fields["question_title"],
            **{key: fields[key] for key in ("platform", "contest_id", "contest_date", "difficulty")},
        },
    )


def _candidate(raw: FileRow, _: int) -> Candidate:
    row = check_row(raw)
    question_id, title, day = (row.data[key] for key in ("question_id", "question_title", "contest_date"))
    try:
        contest_day = date.fromisoformat(day[:10])
    except ValueError:
        raise ProblemError(f"{row.place}: contest_date {day[:40]!r} is no date such as 2025-02-01") from None
    return Candidate(
        make=row.later(lambda again: to_problem(check_row(again))),
        id=safe_id(question_id, row.place),
        other_name=title,
        day=contest_day,
        difficulty=row.data["difficulty"],
        platform=row.data["platform"],
        fault=finding(row.data).fault,
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
        return parse_json(text, place, "private_test_cases")
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
    return parse_json(decoded, place, "private_test_cases")


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


def _case(test: Mapping[str, str], visible: bool, kind: Kind, place: str) -> TestCase:
    if kind is Kind.STDIN:
        return TestCase(test["input"], test["output"], visible)
    lines = test["input"].rstrip("\n").split("\n")
    args = [parse_json(line, place, f"input line {number}") for number, line in enumerate(lines, 1)]
    return TestCase(args, parse_json(test["output"], place, "output"), visible)


def _entry_point(row: FileRow) -> str:
    metadata = parse_json(row.data["metadata"], row.place, "metadata")
    name = metadata.get("func_name") if isinstance(metadata, dict) else None
    if not isinstance(name, str) or not name.isidentifier():
        raise ProblemError(f"{row.place}: metadata names no function; expected func_name")
    # LiveCodeBench looks into a class Solution where the program has one; the starter code always does.
    return f"Solution.{name}" if "class Solution" in row.data["starter_code"] else name


def _check_text(text: str, place: str, what: str) -> None:
    if re.search("[\ud800-\udfff]", text):
        raise ProblemError(f"{place}: {what} holds a lone surrogate; write characters or whole pairs")
