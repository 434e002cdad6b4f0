"""Feedback that was given on other problems, for the control `sdpo.teacher=shuffled`.

`_shuffled_feedback.json` holds, by problem id, what this package's judge said of wrong programs for ten of
the problems shipped with it, in real containers, feedback options at their defaults. The programs of letter-
tally (2026-11-25), cargo-totals, coin-tray, day-clock, gull-count and longest-word (2026-11-26) were sampled
from the embedded model, 24 for each problem, and stand in the order in which they came; those of the other
four were written by hand (2026-11-25) and make the mistakes that small models make. Answers without a
program, and programs that failed hidden tests only, are left out: what they hear says nothing of a problem.
Draws texts; builds no prompt.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

_FILE = Path(__file__).with_name("_shuffled_feedback.json")


def foreign_feedback(problem_id: str, seed: int, index: int) -> str:
    """What attempt `index` of a run is told instead of its own feedback.

    One other problem for the whole run, so that the feedback of a group is as alike among itself as genuine
    feedback is, and never the run's own; of that problem's texts one for each attempt. Both depend on the
    arguments alone.
    """
    texts_by_id: dict[str, list[str]] = json.loads(_FILE.read_text("utf-8"))
    others = sorted(name for name in texts_by_id if name != problem_id)
    texts = texts_by_id[others[_draw(len(others), seed, problem_id)]]
    return texts[_draw(len(texts), seed, problem_id, index)]


def _draw(n: int, *said: object) -> int:
    """A number under `n` that the words decide."""
    digest = hashlib.sha256("/".join(map(str, ("foreign", *said))).encode()).digest()
    return int.from_bytes(digest[:8], "big") % n
