"""The program in an answer: the one rule that finds it. Prompts ask for one fenced block."""

from __future__ import annotations

_FENCE = "```"


def extract_code(text: str) -> str | None:
    """The program in an answer: what stands between the last two lines that hold ```, else None.

    LiveCodeBench's rule (lcb_runner/utils/extraction_utils.py), used for every source, so that one answer
    never has two readings. An answer cut off before its closing fence has no code.
    """
    lines = text.split("\n")
    fences = [number for number, line in enumerate(lines) if _FENCE in line]
    if len(fences) < 2:
        return None
    return "\n".join(lines[fences[-2] + 1 : fences[-1]])
