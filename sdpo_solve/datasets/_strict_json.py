"""JSON text read strictly, with every fault named: comments, Python's words, commas, quotes, line breaks.

What people write instead of JSON is named and read as it was meant, so that the faults behind it are found
too. Refused as values: keys that stand twice, numbers that are not finite, lone surrogates, deep nesting.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdpo_solve.datasets._mistakes import Mistake
from sdpo_solve.errors import ProblemError
from sdpo_solve.sandboxes.wire_values import MAX_DEPTH
from sdpo_solve.sanitize import middle_cut

_MOST_REPAIRS = 100
_MOST_DIGITS = 4300  # that Python reads
_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


@dataclass(slots=True)
class JsonText:
    """What a text holds. `data` is None where it could not be read; `text` is as it was meant."""

    text: str
    data: Any = None
    mistakes: list[Mistake] = field(default_factory=list)
    is_deep: bool = False
    has_twice: bool = False

    def offsets(self) -> dict[str, int]:
        """Where in `text` the value at each path of keys stands; nothing where that cannot be said."""
        return {} if self.data is None or self.is_deep else _walk(self.text)[0]


def read_text(path: Path) -> str:
    """The file's text. Raises ProblemError where it is missing, or not UTF-8."""
    try:
        content = path.read_bytes()
        return content.decode("utf-8").removeprefix("\ufeff")
    except FileNotFoundError:
        raise ProblemError(f"{path}: no such file; check the path") from None
    except UnicodeDecodeError as exc:
        found = "UTF-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "not UTF-8"
        raise ProblemError(f"{path}: byte {exc.start}: the file is {found}; save it as UTF-8") from None
    except OSError as exc:
        raise ProblemError(f"{path}: cannot be read: {exc.strerror}") from None


def read_json(text: str) -> JsonText:
    """`text` as JSON, with every fault that could be found."""
    read = JsonText(text)
    read.data = _parse(read)
    _check_values(read)
    if read.has_twice and not read.is_deep and read.data is not None:
        twice = "the key stands twice in one object"
        read.mistakes += [Mistake(place, twice, "keep one of the two") for place in _walk(read.text)[1]]
    return read


# -- from text to data ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Rule:
    """What may stand where a reader of JSON stops. `meant`: what is read instead; None: nothing can be."""

    pattern: str
    what: str
    remedy: str
    meant: Callable[[str], str] | None = None
    after: str = ""
    """Begins the reader's own message, where the rule is only for that."""


def _blank(text: str) -> str:
    return re.sub(r"[^\n]", " ", text)


def _as_json(text: str) -> str:
    """A Python text literal as JSON, with as many lines."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text.strip("'\"")
    return json.dumps(value) + "\n" * text.count("\n")


def _number(text: str) -> str:
    """A number of Python's as JSON has it, 1 for what is none."""
    for read in (lambda: float(text), lambda: int(text, 0)):
        with suppress(ValueError):
            return f"{read():.17g}"
    return "1"


_WORDS = {"True": "true", "False": "false", "None": "null"}
_RULES = (
    _Rule(r"//[^\n]*|#[^\n]*|/\*[\s\S]*?\*/", "a comment, which JSON has not", "remove it", _blank),
    _Rule(
        r"[rRfFbBuU]{0,2}('''[\s\S]*?'''|\"\"\"[\s\S]*?\"\"\")",
        "a text in triple quotes",
        'write it in double quotes on one line, with \\n for line breaks, or add it with Python\'s json.dump',
        _as_json,
    ),
    _Rule(r"[rRfFbBuU]{1,2}(?=\")", "a letter before the quote", "remove it", _blank),
    _Rule(r"[rRfFbBuU]{0,2}'(?:[^'\\\n]|\\.)*'", "a text in single quotes", "use double quotes", _as_json),
    _Rule(r"[“”][^“”\"\n]*[“”\"]", "curly quotes", 'use straight ones (")', lambda read: f'"{read[1:-1]}"'),
    _Rule(r"(True|False|None)\b", "a Python word", "write true, false or null", lambda read: _WORDS[read]),
    _Rule(r"\(", "a Python tuple", "write a list: [ ]", lambda _: "["),
    _Rule(r"\)", "", "", lambda _: "]"),
    _Rule(r",(?=\s*[}\]])", "a comma after the last item", "remove it", _blank),
    _Rule(r",", "a comma too many", "remove it", _blank, after="Expecting value"),
    _Rule(r",", "a comma too many", "remove it", _blank, after="Expecting property"),
    _Rule(r";", "a semicolon", "write a comma", lambda _: ","),
    _Rule(r"=>?", "= after a key", "write a colon", lambda _: ":", after="Expecting ':'"),
    _Rule(
        r"[A-Za-z_]\w*\"(?=\s*:)", "a key without its opening quote", "write one before it",
        lambda read: f'"{read}', after="Expecting property",
    ),
    _Rule(
        r"[A-Za-z][^\"\n]*\"(?=\s*[,}\]])", "a text without its opening quote", "write one before it",
        lambda read: f'"{read}', after="Expecting value",
    ),
    _Rule(r"[A-Za-z_]\w*(?=\s*[:=])", "a key without quotes", "put it in double quotes", json.dumps),
    _Rule(r"[-+]?\.?\d[\w.]*", "no number of JSON", "write as 1000 or 0.5", _number, "Expecting value"),
    _Rule(r"\d[\w.]*", "no number of JSON", "write as 1000 or 0.5", _number, "Within a number"),
    _Rule(
        r"(?=[\"{\[\d-]|(true|false|null)\b)", "a comma is missing before this", "write one",
        lambda _: ",", after="Expecting ','",
    ),
    _Rule(
        r"\w", "a quote within a text, or a text without quotes", 'write \\" within texts',
        after="Expecting ','",
    ),
    _Rule(r"[A-Za-z]\w*", "a text without quotes", "put it in double quotes", json.dumps, "Expecting value"),
    _Rule(r"\{", "a second object", "write one problem a file", None, "Extra data"),
)  # fmt: skip


def _parse(read: JsonText) -> Any:
    """The data; faults of the text are noted, and mended where it is clear what was meant."""
    strict = True

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        data = dict(pairs)
        read.has_twice |= len(data) < len(pairs)
        return data

    for _ in range(_MOST_REPAIRS):
        try:
            data = json.loads(read.text, strict=strict, parse_int=_whole_number, object_pairs_hook=unique)
        except RecursionError:
            read.mistakes.append(Mistake("top level", "nested too deep", f"stay within {MAX_DEPTH} levels"))
            return None
        except json.JSONDecodeError as exc:
            if exc.msg.startswith("Invalid control character"):
                strict = False
            elif not _mend(read, exc):
                return None
        else:
            if not strict:
                _note_line_breaks(read)
            return data
    return None


def _mend(read: JsonText, exc: json.JSONDecodeError) -> bool:
    """Note the fault at which the reader stopped; whether the text could be mended."""
    text, at = read.text, exc.pos
    if exc.msg.startswith("Invalid \\"):
        given = text[at : at + 2]
        read.mistakes.append(Mistake("", f"the escape {given}", f"write \\{given} for a backslash", at))
        read.text = f"{text[:at]}\\{text[at:]}"
        return given != "\\u"
    at += len(text[at:]) - len(text[at:].lstrip())
    before = text[:at].rstrip()
    if text[at : at + 1] in ("}", "]") and before.endswith(","):
        at = len(before) - 1
    if text[at:].startswith('"') and before.endswith('""'):
        at = len(before) - 2  # the reader took the first two of three quotes for an empty text
    message = exc.msg
    if _close_text(read, at, message):
        return True
    if begun := re.search(r"(?<![\w.])\d[\w.]*$", text[:at]) if re.match(r"[\w.]", text[at:]) else None:
        at, message = begun.start(), "Within a number"
    for rule in _RULES:
        found = re.compile(rule.pattern).match(text, at)
        if found and message.startswith(rule.after):
            if rule.what:
                read.mistakes.append(Mistake("", rule.what, rule.remedy, at))
            if rule.meant is None:
                return False
            read.text = text[:at] + rule.meant(found[0]) + text[found.end() :]
            return True
    read.mistakes.append(_unknown(text, at, exc))
    return False


def _close_text(read: JsonText, at: int, message: str) -> bool:
    """Close the text that went on to the next quote, which opens another text; whether there was one.

    `at`: where the reader stopped, right after that quote.
    """
    text = read.text
    last = next((found for found in _TEXT.finditer(text, 0, at) if found.end() == at), None)
    if last is None or not re.match(r"\w", text[at:]):
        return False
    held = last[0][:-1]
    if message.startswith("Expecting ':'") and (key := re.match(r'"\w+(?=\s*:\s*$)', held)):
        what, end = "a key", last.start() + key.end()
    elif message.startswith("Expecting ','") and (rest := re.search(r",?\s*\n\s*$", held)):
        what, end = "a text", last.start() + rest.start()
    else:
        return False
    read.mistakes.append(Mistake("", f"{what} without its closing quote", "write one after it", end))
    read.text = f'{text[:end]}"{text[end:]}'
    return True


def _unknown(text: str, at: int, exc: json.JSONDecodeError) -> Mistake:
    """A fault that no rule names."""
    if not text.strip():
        return Mistake("", "the file is empty", "'sdpo-solve new NAME' writes one to fill in")
    if exc.msg.startswith("Unterminated string"):
        return Mistake("", "a text without a closing quote", "close it on the same line", exc.pos)
    if at >= len(text):
        opened: list[int] = []
        without_texts = _TEXT.sub(lambda found: "_" * len(found[0]), text)
        for bracket in re.finditer(r"[\[\]{}]", without_texts):
            if bracket[0] in "[{":
                opened.append(bracket.start())
            elif opened:
                opened.pop()
        last = opened[-1] if opened else 0
        return Mistake(
            "", f"{text[last]} is never closed", f"write the {'}' if text[last] == '{' else ']'}", last
        )
    near = json.dumps(middle_cut(text[at : at + 20].split("\n")[0], 20), ensure_ascii=False)
    return Mistake(f"column {exc.colno}", f"broken JSON: {exc.msg}, not {near}", "mend it there", exc.pos)


def _note_line_breaks(read: JsonText) -> None:
    """Note each text that holds a line break or another control character as it is."""
    for found in _TEXT.finditer(read.text):
        if mark := re.search(r"[\x00-\x1f]", found[0]):
            name = {"\n": "line break", "\r": "line break", "\t": "tab"}.get(mark[0], "control character")
            escape = json.dumps(mark[0]).strip('"')
            fault = Mistake("", f"a {name} within a text", f"write {escape}", found.start() + mark.start())
            read.mistakes.append(fault)


def _whole_number(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MOST_DIGITS else math.inf


# -- values --------------------------------------------------------------------------------------------------


def _check_values(read: JsonText) -> None:
    """Note texts that are not valid Unicode, numbers that are none, and deep nesting."""
    waiting: list[tuple[Any, str, int]] = [(read.data, "", 0)]
    while waiting:
        value, place, depth = waiting.pop()
        if depth > MAX_DEPTH // 2:
            read.mistakes.append(Mistake(place, "nested too deep", f"stay within {MAX_DEPTH // 2} levels"))
            read.is_deep = True
            return
        if isinstance(value, str) and not _is_text(value):
            what = "a lone surrogate (\\ud800 to \\udfff)"
            read.mistakes.append(Mistake(place, what, "write characters or whole pairs"))
        if isinstance(value, float) and not math.isfinite(value):
            what = "NaN, an infinity, or a number beyond what can be read"
            read.mistakes.append(Mistake(place, what, "use finite numbers, or kind asserts with math.inf"))
        if isinstance(value, dict):
            for key, item in value.items():
                if not _is_text(key):
                    what = "a key with a lone surrogate"
                    read.mistakes.append(Mistake(place or "top level", what, "rename the key"))
                waiting.append((item, f"{place}.{key}" if place else key, depth + 1))
        if isinstance(value, list):
            waiting.extend((item, f"{place}[{number}]", depth + 1) for number, item in enumerate(value))


def _is_text(text: str) -> bool:
    return re.search("[\ud800-\udfff]", text) is None


def _walk(text: str) -> tuple[dict[str, int], list[str]]:
    """The offset of the value at each path, and the paths of keys that stand twice in their object."""
    found: dict[str, int] = {}
    twice: list[str] = []
    gap = re.compile(r"[\s,:]*")
    scalar = json.JSONDecoder(strict=False, parse_int=_whole_number)

    def skip(at: int) -> int:
        match = gap.match(text, at)
        return match.end() if match else at

    def value(place: str, at: int) -> int:
        if place in found:
            twice.append(place)
        found[place] = at
        if text[at] not in "{[":
            return scalar.raw_decode(text, at)[1]
        is_object, n = text[at] == "{", 0
        at = skip(at + 1)
        while text[at] not in "}]":
            below = f"{place}[{n}]"
            if is_object:
                key, at = scalar.raw_decode(text, at)
                below, at = (f"{place}.{key}" if place else key), skip(at)
            at, n = skip(value(below, at)), n + 1
        return at + 1

    value("", skip(0))
    return found, twice
