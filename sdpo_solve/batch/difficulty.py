"""How hard problems are for the base model, from counts: rates, intervals, marks, and when to stop sampling.

A problem is sampled until the exact interval of its rate lies on one side of a level, or its samples are
spent (error rates: `README.md`). Pure numbers: `screening.py` samples, `screening_file.py` keeps
the counts. Problems that a screening chose and the samples that chose them must not meet in one comparison
(selection bias).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache

from sdpo_solve.errors import ConfigError
from sdpo_solve.report.statistics import Interval, pass_at_k

# arXiv 2601.20802, section 5: hard is pass@64 < 0.5, very hard pass@64 < 0.03, here as rates of one sample.
HARD_RATE = 1 - 0.5 ** (1 / 64)
VERY_HARD_RATE = 1 - 0.97 ** (1 / 64)
LEVELS = {"hard": HARD_RATE, "very-hard": VERY_HARD_RATE}
# Where self-distillation was seen to pay: a threshold read off the README's measurement on two models.
TAUGHT = "taught"
TAUGHT_RATE = 0.25
TAUGHT_TIMES = 4
TAUGHT_SAMPLES = 8
CONFIDENCE = 0.90
# Samples of a problem's first look: one success among them already says that it is not hard.
FIRST_LOOK = 4


def rate_of(level: str) -> float:
    """`hard`, `very-hard`, or a rate such as 0.05, as the rate of one sample.

    Raises ConfigError for anything else.
    """
    try:
        rate = LEVELS[level] if level in LEVELS else float(level)
    except ValueError:
        rate = math.nan
    if not 0 < rate < 1:
        raise ConfigError(
            f"a level is hard, very-hard, or a rate between 0 and 1 such as 0.05; got {level!r}"
        )
    return rate


@dataclass(frozen=True, slots=True)
class Counts:
    """Samples of one problem and how many of them solved it."""

    n: int = 0
    solved: int = 0

    @property
    def rate(self) -> float | None:
        return self.solved / self.n if self.n else None

    def plus(self, n: int, solved: int) -> Counts:
        return Counts(self.n + n, self.solved + solved)


@dataclass(frozen=True, slots=True)
class Screened:
    """What is known of one problem: base samples, and samples from the feedback-conditioned prompt."""

    problem: str
    base: Counts = Counts()
    teacher: Counts = Counts()
    tokens: int = 0
    digest: str = ""

    def is_below(self, level: float) -> bool | None:
        """Whether the rate is below `level`; None while the samples are too few to tell."""
        return below(self.base, level)

    @property
    def is_taught(self) -> bool:
        """Whether feedback solves it at least every fourth time, and four times as often as the question."""
        teacher, base = self.teacher.rate, self.base.rate
        if teacher is None or base is None or self.teacher.n < TAUGHT_SAMPLES:
            return False
        return teacher >= TAUGHT_RATE and teacher >= TAUGHT_TIMES * base

    @property
    def mark(self) -> str:
        """One word for the table."""
        hard, very_hard = self.is_below(HARD_RATE), self.is_below(VERY_HARD_RATE)
        if hard is None:
            return "undecided"
        if not hard:
            return "not hard"
        return {True: "very hard", False: "hard", None: "hard, very hard undecided"}[very_hard]


# -- intervals -----------------------------------------------------------------------------------------------


@lru_cache(maxsize=1 << 14)
def interval(counts: Counts) -> Interval:
    """The exact (Clopper-Pearson) two-sided interval of the rate; 0..1 without samples."""
    if not counts.n:
        return Interval(0.0, 1.0)
    from scipy.stats import binomtest  # takes seconds to import

    ends = binomtest(counts.solved, counts.n).proportion_ci(CONFIDENCE, method="exact")
    return Interval(float(ends.low), float(ends.high))


def below(counts: Counts, level: float) -> bool | None:
    """True where the whole interval lies below the level, False where it lies above, else None."""
    ends = interval(counts)
    if ends.high < level:
        return True
    return False if ends.low > level else None


def pass_at(k: int, counts: Counts) -> float | None:
    """The unbiased estimate of pass@k (arXiv 2107.03374, equation 1); None with fewer than k samples."""
    if counts.n < k:
        return None
    return pass_at_k(counts.n, counts.solved, k)


# -- the stop rule -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rule:
    """How samples are spent: at most `group` of a problem at a time, `most` in all.

    `ceiling`: a problem whose rate lies surely above it is left alone at once.
    """

    group: int
    most: int
    ceiling: float = HARD_RATE

    def is_settled(self, counts: Counts) -> bool:
        """Whether a problem gets no more samples."""
        return counts.n >= self.most or self.open_level(counts) is None

    def open_level(self, counts: Counts) -> float | None:
        """The level that the next samples are compared with; None where the problem is settled.

        The ceiling first; then each lower level that `most` samples without a success would settle.
        """
        for level in sorted({self.ceiling, *LEVELS.values()}, reverse=True):
            if level != self.ceiling and not below(Counts(self.most, 0), level):
                continue
            is_below = below(counts, level)
            if is_below is None:
                return level
            if not is_below:
                return None
        return None

    def look_size(self, counts: Counts) -> int:
        """A short first look, then as many samples as the problem has had, up to a group."""
        return min(self.group, max(FIRST_LOOK, counts.n), self.most - counts.n)


@dataclass(frozen=True, slots=True)
class Look:
    """The next `n` samples of a problem."""

    problem: str
    n: int


def next_looks(screened: Sequence[Screened], busy: Collection[str], rule: Rule, room: int) -> list[Look]:
    """The next looks, at most `room` samples in all: the problems with the fewest samples first.

    Problems that are `busy` or settled are left out.
    """
    looks: list[Look] = []
    for item in sorted(screened, key=lambda item: item.base.n):
        if room <= 0:
            break
        if item.problem not in busy and not rule.is_settled(item.base):
            looks.append(Look(item.problem, min(rule.look_size(item.base), room)))
            room -= looks[-1].n
    return looks
