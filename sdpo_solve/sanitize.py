"""Texts that a model or a program wrote: made harmless for prompts, terminals and pages.

`clean` drops what can move a cursor, change a title, hide or reorder text, or is not valid text at all.
`break_chat_tokens` keeps a text from ending its own chat turn. Escaping for HTML is the page's own business.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

# Escape sequences go whole (CSI, OSC up to its end, and two-character ones), so that no digits stay behind.
_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x9b[0-?]*[ -/]*[@-~]"
    r"|\x1b[\]PX^_][^\x07\x1b]{0,4096}(?:\x07|\x1b\\)?|\x1b[@-Z\\-_]"
)
# What is left: control characters but tab and newline, lone surrogates, and marks that reorder or hide text.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)
_LOOK_ALIKES: dict[int, Any] = {
    **str.maketrans({"…": "...", "≥": ">=", "≤": "<=", "∞": "inf"}),
    **str.maketrans("✓✗×–·•\xa0", "+xx--* "),
    **str.maketrans("─│┌┐└┘├┤┬┴┼▁▂▃▄▅▆▇", "-|+++++++++_.-=+*#"),  # frames, and the bars of a line
    **str.maketrans("●■▲◆▼○□△◇▽", "*#^%vo@A&V"),  # the arms of a chart: no two alike
}
# Turn marks of the common chat formats: <|im_end|>, <s>, <start_of_turn>, [INST], <<SYS>>, <think>.
_CHAT_TOKENS = re.compile(
    r"<\|(?=[^\s<>|]{1,64}\|>)|<(?=/?(?:s|bos|eos|pad|unk|think|tool_call|tool_response|start_of_turn|end_of_turn)>)"
    r"|\[(?=/?INST\])|<(?=<SYS>>)|<(?=</SYS>>)",
    re.IGNORECASE,
)


def clean(text: str) -> str:
    """`text` without escape sequences, control characters (but tab and newline) and lone surrogates."""
    unified = text.replace("\r\n", "\n").replace("\r", "\n")
    return _INVISIBLE.sub("", _ESCAPES.sub("", unified))


def look_alike(error: UnicodeError) -> tuple[str, int]:
    """An error handler of `codecs`: what an encoding lacks is shown by what looks like it, else by `?`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    shown = error.object[error.start : error.end].translate(_LOOK_ALIKES)
    return "".join(letter if letter.isascii() else "?" for letter in shown), error.end


def break_chat_tokens(text: str, special_tokens: Iterable[str] = ()) -> str:
    """`text` with a space put into every turn mark, known ones and those of `special_tokens`."""
    for token in sorted(set(special_tokens), key=len, reverse=True):
        if len(token) > 1 and token in text:
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return _CHAT_TOKENS.sub(lambda found: found.group()[0] + " " + found.group()[1:], text)


def middle_cut(text: str, limit_chars: int) -> str:
    """At most `limit_chars` characters: head and tail, with a mark of how much is missing."""
    if len(text) <= limit_chars:
        return text
    mark = f" ...({len(text) - limit_chars} more)... "
    if limit_chars <= len(mark) + 2:
        return text[:limit_chars]
    head = (limit_chars - len(mark) + 1) // 2
    tail = limit_chars - len(mark) - head
    return text[:head] + mark + text[len(text) - tail :]
