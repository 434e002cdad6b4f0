"""Feedback that was given on other problems, for the control `sdpo.teacher=shuffled`.

`_shuffled_feedback.json` holds texts by problem id: this package's feedback, at its default options, on wrong
programs for ten of the problems shipped with it. For six of them the programs were sampled from the embedded
model, 24 a problem, in their order; those of the other four were written by hand after the mistakes of small
models. Answers without a program, and programs that failed hidden tests only, are left out.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

_FILE = Path(__file__).with_name("_shuffled_feedback.json")


def foreign_feedback(problem_id: str, seed: int, index: int) -> str:
    """Feedback of another problem, in place of that of attempt `index` of a run.

    One other problem for the whole run, so that the feedback of a group is as alike among itself as genuine
    feedback is, and never the run's own; of that problem's texts one for each attempt. Both depend on the
    arguments alone.
    """
    texts_by_id: dict[str, list[str]] = json.loads(_FILE.read_text("utf-8"))
    others = sorted(name for name in texts_by_id if name != problem_id)
    texts = texts_by_id[others[_draw(len(others), seed, problem_id)]]
    return texts[_draw(len(texts), seed, problem_id, index)]


def _draw(n: int, *key: object) -> int:
    """A number under `n` that `key` decides."""
    digest = hashlib.sha256("/".join(map(str, ("foreign", *key))).encode()).digest()
    return int.from_bytes(digest[:8], "big") % n
