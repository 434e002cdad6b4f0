"""Thinking in an answer: the part before the reply proper, between marks or in a channel of its own.

Marks of common chat formats: `<think>` and its kin, `[THINK]` (Mistral), the channels of harmony (gpt-oss)
with or without their special tokens. Often the text holds the closing mark alone: the opening one was in the
prompt.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_MARKS = (
    *((f"<{name}>", f"</{name}>") for name in ("think", "thinking", "thought", "reasoning", "seed:think")),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("◁think▷", "◁/think▷"),
)
_FINAL = "<|channel|>final<|message|>"
# Harmony without its special tokens: names of channels run into the text.
_BARE_HARMONY = re.compile(r"(?:assistant)?(?:analysis|commentary)(?=[A-Z\"'`])")
_BARE_FINAL = "assistantfinal"


@dataclass(frozen=True, slots=True)
class Answer:
    """The reply without thinking; `unfinished`: some thinking does not end, the text stops where it began."""

    text: str
    unfinished: bool = False


def without_thinking(text: str) -> Answer:
    """The reply in `text`."""
    if "<|channel|>" in text:
        _, final, reply = text.rpartition(_FINAL)
        return Answer(re.split(r"<\|(?:end|return)\|>", reply)[0]) if final else Answer("", True)
    if _BARE_HARMONY.match(text.lstrip()):
        _, final, reply = text.rpartition(_BARE_FINAL)
        return Answer(reply) if final else Answer("", True)
    unfinished = False
    for opening, closing in _MARKS:
        text = _after_close(text, opening, closing)
        start = _find(text, opening)
        if start is not None:
            text, unfinished = text[:start], True
    return Answer(text, unfinished)


def _after_close(text: str, opening: str, closing: str) -> str:
    """What follows the mark that ends the thinking; later ones count after an opening, or alone on a line."""
    end = _find(text, closing)
    while end is not None:
        text = text[end + len(closing) :]
        end = _find(text, closing)
        if end is not None and not text.lstrip().startswith(opening):
            line_start = text.rfind("\n", 0, end) + 1
            line = text[line_start : end + len(closing)]
            if line.strip() != closing:
                break
    return text


def _find(text: str, mark: str) -> int | None:
    """Where `mark` stands as a mark: not quoted, as in a program or a sentence about it."""
    for match in re.finditer(re.escape(mark), text):
        before, after = text[max(match.start() - 3, 0) : match.start()], text[match.end() : match.end() + 1]
        quoted = before.endswith(("'", '"', "`")) and before != "```"
        if not quoted and after not in ("'", '"', "\\"):
            return match.start()
    return None
