"""LiveCodeBench rows with something to know: which are bad, and which statements grant an error.

Three sources, the first that names a row decides: rows that were read (below, by question id or title); the
table `_lcb_rows.json`, the dated findings of a scan over whole files, made again by

    python -m sdpo_solve.datasets._lcb_scan FILE-OR-RELEASE...

and the same scan, live, for rows that are in no scanned file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sdpo_solve.datasets._statements import (
    INTERACTIVE,
    SEVERAL,
    granted_error,
    starter_fault,
    statement_fault,
)

TABLE = Path(__file__).with_name("_lcb_rows.json")


@dataclass(frozen=True, slots=True)
class Finding:
    """`fault`: why the row is bad, or None; `tolerance`: the granted error; `reason`: of both."""

    fault: str | None = None
    tolerance: float = 0.0
    reason: str = ""


_ERRATA = "ERRATA.md of LiveCodeBench's repository"
_READ = "read in 2026-11: the statement accepts any of several outputs, the tests hold one"
_BY_HAND: dict[str, Finding] = {
    **{
        name: Finding(SEVERAL, reason=_ERRATA)
        for name in (
            *("abc311_c", "abc326_d", "abc327_b", "abc333_e", "abc343_a", "abc343_e", "abc362_c", "arc185_c"),
            *("arc189_a", "find-words-containing-character", "find-the-peaks", "most-frequent-ids"),
            *("apply-operations-to-make-string-empty", "generate-binary-strings-without-adjacent-zeros"),
        )
    },
    **{name: Finding(INTERACTIVE, reason=_ERRATA) for name in ("abc337_e", "abc355_e")},
    "abc350_c": Finding("broken tests", reason=_ERRATA),
    **{name: Finding(SEVERAL, reason=_READ) for name in ("abc396_e", "abc397_d", "arc195_c", "3234")},
    "abc398_f": Finding(reason="any solution is accepted, but the shortest one is unique"),
}


def finding(fields: Mapping[str, str]) -> Finding:
    """What is known of a row."""
    for name in (fields["question_id"], fields["question_title"]):
        if name in _BY_HAND:
            return _BY_HAND[name]
    return _table().get(fields["question_id"]) or scan(fields)


def scan(fields: Mapping[str, str]) -> Finding:
    """What a row's statement and starter code say."""
    statement, tolerance = fields["question_content"], granted_error(fields["question_content"])
    fault = statement_fault(statement) or starter_fault(fields["starter_code"])
    if fault:
        return Finding(fault, tolerance, f"the row says so: {fault}")
    return Finding(None, tolerance, f"the statement grants an error of {tolerance:g}" if tolerance else "")


@cache
def _table() -> dict[str, Finding]:
    rows: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))["rows"]
    return {
        name: Finding(**{key: value for key, value in values.items() if key != "scanned"})
        for name, values in rows.items()
    }
