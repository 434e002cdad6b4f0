"""JSON text read strictly: what is no sound JSON, or no sound value, is refused in one line.

Refused are keys that stand twice, NaN and infinities, monster integers, lone surrogates and deep nesting.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

from sdpo_solve.errors import ProblemError
from sdpo_solve.sandboxes.wire_values import MAX_DEPTH
from sdpo_solve.sanitize import middle_cut


def refuse(name: str, place: str, fault: str, remedy: str) -> NoReturn:
    place = middle_cut(place if place.isprintable() else repr(place), 120)
    raise ProblemError(f"{name}: {place}: {fault}; {remedy}")


def read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8").removeprefix("\ufeff")
    except FileNotFoundError:
        raise ProblemError(f"{path}: no such file; check the path") from None
    except UnicodeDecodeError as exc:
        refuse(str(path), f"byte {exc.start}", "the file is not UTF-8", "save it as UTF-8")
    except OSError as exc:
        raise ProblemError(f"{path}: cannot be read: {exc.strerror}") from None


def strict_json(text: str, name: str) -> Any:
    """`text` as JSON; keys that stand twice, NaN and infinities, and monster integers refused."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        data = dict(pairs)
        if len(data) < len(pairs):
            twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
            refuse(name, f"key {twice[:60]!r}", "it stands twice in one object", "keep one of the two")
        return data

    def no_constant(token: str) -> NoReturn:
        refuse(name, token, "it is not JSON", "use finite numbers, or asserts with math.inf and math.nan")

    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=no_constant)
    except json.JSONDecodeError as exc:
        refuse(name, f"line {exc.lineno} column {exc.colno}", f"broken JSON: {exc.msg}", "mend it there")
    except RecursionError:
        refuse(name, "top level", "nested too deep", f"stay within {MAX_DEPTH} levels")
    except ValueError:  # more digits than Python reads
        refuse(name, "an integer", "it has more than 4300 digits", "use a smaller one")


def check_values(data: Any, name: str) -> None:
    """Raises ProblemError for texts that are not valid Unicode, numbers beyond floats, and deep nesting."""
    waiting: list[tuple[Any, str, int]] = [(data, "", 0)]
    while waiting:
        value, place, depth = waiting.pop()
        if depth > MAX_DEPTH // 2:
            refuse(name, place, "nested too deep", f"stay within {MAX_DEPTH // 2} levels")
        if isinstance(value, str) and not _is_text(value):
            refuse(name, place, "a lone surrogate (\\ud800 to \\udfff)", "write characters or whole pairs")
        if isinstance(value, float) and not math.isfinite(value):
            refuse(name, place, "a number beyond the range of floats", "use a smaller one")
        if isinstance(value, dict):
            for key, item in value.items():
                if not _is_text(key):
                    refuse(name, place or "top level", "a key with a lone surrogate", "rename the key")
                waiting.append((item, f"{place}.{key}" if place else key, depth + 1))
        if isinstance(value, list):
            waiting.extend((item, f"{place}[{number}]", depth + 1) for number, item in enumerate(value))


def _is_text(text: str) -> bool:
    return re.search("[\ud800-\udfff]", text) is None
