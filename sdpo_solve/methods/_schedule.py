"""The composition of sdpo's next group: its size, and how many of its attempts are sampled in which form.

The two forms: from the question alone, or with the feedback of an earlier failure in the prompt. All of it
follows from the recorded history, so that a resumed run goes on alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from sdpo_solve.methods.prompts import is_question_alone
from sdpo_solve.types import Attempt, Status


def group_size(n_attempts: int, first: int | None, most: int) -> int:
    """The size of the next group after `n_attempts`: that of all before it, at least `first`, at most `most`.

    `first` None: `most` from the beginning.
    """
    return most if first is None else min(most, max(first, n_attempts))


def split(share: float, size: int) -> int:
    """How many of `size` attempts a share in 0..1 makes, rounded half up; each side gets one where it can."""
    n = math.floor(share * size + 0.5)
    return min(max(n, 1), size - 1) if size > 1 and 0 < share < 1 else n


def feedback_share(history: Sequence[Attempt], start: float, floor: float | None) -> float:
    """The share of the next group that is sampled with feedback.

    `start` where `floor` is None. Otherwise the odds of the forms are those of `start`, multiplied by the
    odds of their mean progress so far, and neither share is below `floor`: a run needs at most 1 / floor
    times the attempts of the better form.
    """
    if floor is None:
        return start
    progress = _progress(history)
    means = []
    for alone in (False, True):
        own = [
            value
            for value, attempt in zip(progress, history, strict=True)
            if is_question_alone(attempt.sample.prompt) is alone
        ]
        means.append((1 + sum(own)) / (2 + len(own)))  # mean of Beta(1 + progress, 1 + the rest)
    weight, other = start * means[0], (1 - start) * means[1]
    return min(max(weight / (weight + other), floor), 1 - floor)


def _progress(history: Sequence[Attempt]) -> list[float]:
    """Of each attempt the share of visible tests passed, in 0..1; 0 for a program that was tried before.

    Without visible tests every new program counts 1.
    """
    seen: set[str | None] = {None}
    progress = []
    for attempt in history:
        visible = [case.status is Status.ACCEPTED for case in attempt.verdict.cases if case.visible]
        share = sum(visible) / len(visible) if visible else 1.0
        progress.append(0.0 if attempt.code in seen else share)
        seen.add(attempt.code)
    return progress
