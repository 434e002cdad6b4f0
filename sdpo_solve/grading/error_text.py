"""The message in what a failed program left on standard error, and the line of the program that it names.

The text is untrusted: a program can write its own traceback, which is then quoted as one.
"""

from __future__ import annotations

import re

TRACEBACK = "Traceback (most recent call last):"
_GROUP = "+ Exception Group Traceback"
_ABORTED = "the program was ended by signal 6 "
_MAX_LINES = 6
# A frame of the model's own program in a traceback; the runner compiles it under this file name.
# A number longer than any file has lines is no line number.
_OWN_FRAME = re.compile(r'File "solution\.py", line (\d{1,9})\b')
_COMPILER_LINE = re.compile(r"^solution\.cpp:(\d{1,9}):", re.MULTILINE)
# Of g++, in the program or in a header of a library.
_COMPILER_ERROR = re.compile(r"^\S+:\d{1,9}:(?:\d{1,9}:)? (?:fatal )?error: ", re.MULTILINE)
_GROUP_BORDER = re.compile(r"^[\s|+\-]*[|+]\s?")
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(?:: .*)?")
# What the runner and Python put behind an exception's text.
_NEXT = re.compile(
    r"the program (?:ended|was)|During handling of the above|The above exception was|Exception "
)


def message(error: str) -> str:
    """Type and message of the last exception with its notes, else the last line; never empty."""
    lines = [line for line in error.splitlines() if line.strip()]
    if not lines:
        return "no message"
    if _GROUP in error:
        return _of_group(lines)
    starts = [number for number, line in enumerate(lines) if line.strip() == TRACEBACK]
    if starts:
        after = lines[starts[-1] + 1 :]
        first = next((n for n, line in enumerate(after) if not line[0].isspace()), None)
        if first is not None:
            return "\n".join(_until_next(after[first:]))
    before = lines[-2].strip() if len(lines) > 1 else ""
    # What aborts says why right before: a failed assertion, an exception, a corrupted heap.
    says_why = before.startswith("what():") or lines[-1].startswith(_ABORTED)
    return f"{before}\n{lines[-1]}" if before and says_why else lines[-1]


def of_compiler(text: str) -> str:
    """What a compiler wrote, g++'s from its first error on."""
    first = _COMPILER_ERROR.search(text)
    return text[first.start() :] if first else text


def own_line(error: str) -> int | None:
    """The 1-based number of the program's line that the error names last; None where it names none.

    Of g++: the line of its first error, or from where the code of a library was used that holds it.
    """
    first = _COMPILER_ERROR.search(error)
    numbers = _OWN_FRAME.findall(error) or _COMPILER_LINE.findall(error[: first.end()] if first else error)
    return int(numbers[-1]) if numbers else None


def _until_next(lines: list[str]) -> list[str]:
    end = next((n for n, line in enumerate(lines) if n and _NEXT.match(line)), len(lines))
    return lines[: min(end, _MAX_LINES)]


def _of_group(lines: list[str]) -> str:
    """The exceptions of a group, the group's own first."""
    texts = [_GROUP_BORDER.sub("", line) for line in lines if _GROUP_BORDER.match(line)]
    kept = [text for text in texts if _EXCEPTION.fullmatch(text) and text != TRACEBACK]
    return "\n".join(kept[:_MAX_LINES]) or lines[-1]
