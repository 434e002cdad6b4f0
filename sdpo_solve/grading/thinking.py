"""Thinking in an answer: the part before the reply proper, between marks or in a channel of its own.

Marks of common chat formats: `<think>` and its kin, `[THINK]` (Mistral), Gemma's channel of thought, the
channels of harmony (gpt-oss) with or without their special tokens. Often the text holds the closing mark
alone: the opening one was in the prompt. A mark that is only mentioned (in a sentence, a comment, a fenced
block) is text like any other.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_MARKS = (
    *((f"<{name}>", f"</{name}>") for name in ("think", "thinking", "thought", "reasoning", "seed:think")),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("◁think▷", "◁/think▷"),
    ("<|channel>thought", "<channel|>"),
)
_HARMONY = re.compile(r"\A\s*<\|(?:start|channel)\|>|<\|start\|>assistant[^<\n]{0,80}<\|channel\|>")
_FINAL = re.compile(
    r"(?<![\"'])<\|channel\|>final\b[^<\n]{0,80}(?:<\|constrain\|>[^<\n]{0,80})?<\|message\|>"
)
# Harmony without its special tokens: names of channels run into the text.
_BARE_HARMONY = re.compile(r"(?:assistant)?(?:analysis|commentary)(?=[A-Z\"'`])")
_BARE_FINAL = "assistantfinal"
_FENCE_LINE = re.compile(r"^[ \t>]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)?(?:```+|~~~+)([^`\n]*)$", re.MULTILINE)
_A_FENCE = re.compile(r"[ \t]*(?:```|~~~)")
_COMMENT = re.compile(r"(?:^|\s)(?:#|//)")
# What is before and after a mark in a sentence about it: "there is no </think> in it".
_WORD_END = re.compile(r"(?:[\w,;][ \t]+|\()\Z")
_SENTENCE_GOES_ON = re.compile(r"[ \t]+[a-z(]|[.,;:!?)]")
_MAX_LINE_CHARS = 300  # of a mark's line, before it


@dataclass(frozen=True, slots=True)
class Answer:
    """The reply without thinking; `unfinished`: some thinking does not end, the text stops where it began."""

    text: str
    unfinished: bool = False


def without_thinking(text: str) -> Answer:
    """The reply in `text`."""
    finals = list(_FINAL.finditer(text))
    if finals:
        return Answer(re.split(r"<\|(?:end|return)\|>", text[finals[-1].end() :])[0])
    if _HARMONY.search(text):
        return Answer("", True)
    if _BARE_HARMONY.match(text.lstrip()):
        _, final, reply = text.rpartition(_BARE_FINAL)
        return Answer(reply) if final else Answer("", True)
    unfinished = False
    for opening, closing in _MARKS:
        if opening in text or closing in text:
            answer = _outside(text, opening, closing)
            text, unfinished = answer.text, unfinished or answer.unfinished
    return Answer(text, unfinished)


def _outside(text: str, opening: str, closing: str) -> Answer:
    """What stands outside the marks; what is before a closing mark without an opening one is thinking too.

    An opening mark stands at the start of its line. Of the closing marks without one, those after the first
    stand there too; after a whole pair, one that no fence follows closes nothing.
    """
    parts, position = list[str](), 0
    opened: int | None = None
    closed = paired = False
    last_fence = max(text.rfind("```"), text.rfind("~~~"))
    for start, end in _unfenced(text, opening, closing):
        line_start = max(text.rfind("\n", 0, start) + 1, position, start - _MAX_LINE_CHARS)
        before = text[line_start:start]
        if text.startswith(opening, start):
            opened = start if opened is None and not before.strip() else opened
        elif opened is not None:
            parts.append(text[position:opened])
            position, opened, closed, paired = end, None, True, True
        elif paired and end > last_fence and not before.strip():
            parts.append(text[position:start])
            position = end
        elif not before.strip() or not (closed or _is_mentioned(before, text, end, opening)):
            parts, position, closed = [], end, True
    return Answer("".join([*parts, text[position:opened]]), opened is not None)


def _is_mentioned(before: str, text: str, end: int, opening: str) -> bool:
    """Whether a closing mark, between `before` on its line and `end`, is in a comment or a sentence."""
    if _A_FENCE.match(text, end):
        return False
    if opening in before or _COMMENT.search(before):
        return True
    return bool(_WORD_END.search(before) and _SENTENCE_GOES_ON.match(text, end))


def _unfenced(text: str, *marks: str) -> Iterator[tuple[int, int]]:
    """Where `marks` stand: not quoted, and in no fenced block."""
    fences = list(_FENCE_LINE.finditer(text))
    starts = [fence.start() for fence in fences]
    within = _within_blocks([bool(fence[1].strip()) for fence in fences])
    for match in re.finditer("|".join(map(re.escape, marks)), text):
        before, after = text[max(match.start() - 3, 0) : match.start()], text[match.end() : match.end() + 1]
        quoted = (before.endswith(("'", '"', "`")) and before != "```") or after in ("'", '"', "\\")
        fenced = within[bisect_left(starts, match.start())] and not _A_FENCE.match(text, match.end())
        if not quoted and not fenced:
            yield match.span()


def _within_blocks(named: Sequence[bool]) -> list[bool]:
    """Before each fence and after the last: whether a mark is in a block. `named`: those with an info string.

    A block whose end is missing is none: the next fence has an info string, or the fences that follow make
    whole blocks among themselves. Thinking often stops in such a draft.
    """
    n_fences = len(named)
    makes_blocks = [False] * n_fences + [True, False]
    for number in range(n_fences - 2, -1, -1):
        makes_blocks[number] = not named[number + 1] and makes_blocks[number + 2]
    within, is_open = list[bool](), False
    for number in range(n_fences):
        within.append(is_open and not named[number] and not makes_blocks[number])
        is_open = named[number] or not is_open
    return [*within, False]
