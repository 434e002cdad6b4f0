"""How hard problems are for the base model, from counts: rates, intervals, marks, and what to sample next.

Pure numbers; the file that keeps the counts is `screening_file.py`, and `screen.py` samples. Problems chosen
by a screening and the samples that chose them must not meet in one comparison (selection bias).

A problem is looked at again and again until it is settled, so marks err more often than one look would: of
problems whose rate is exactly that of `hard`, with up to 512 samples, 7 % are called hard and 17 % not hard.
Further off it fades: at a third of that rate 2 % are called not hard, at twice it 0.2 % hard. A problem that
the model solves in every third sample costs 6 samples, in every tenth 21, and one of the rate of `hard` 324.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache

from sdpo_solve.errors import ConfigError

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
# A problem is left alone where the samples it may still get settle nothing with at least this probability.
_HOPELESS = 0.01


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
class Interval:
    """A rate's interval, both ends in 0..1."""

    low: float
    high: float


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


def interval(counts: Counts, confidence: float = CONFIDENCE) -> Interval:
    """The exact (Clopper-Pearson) two-sided interval of the rate; 0..1 without samples."""
    n, solved = counts.n, counts.solved
    tail = (1 - confidence) / 2
    low = 0.0 if solved == 0 else _bisect(lambda p: _at_most(n, solved - 1, p) >= 1 - tail)
    high = 1.0 if solved == n else _bisect(lambda p: _at_most(n, solved, p) >= tail)
    return Interval(low, high)


def below(counts: Counts, threshold: float) -> bool | None:
    """True where the whole interval lies below the threshold, False where it lies above, else None."""
    cuts = _cuts(counts.n, threshold)
    if counts.solved <= cuts.most_below:
        return True
    return False if counts.solved >= cuts.least_above else None


def pass_at(k: int, counts: Counts) -> float | None:
    """The unbiased estimate of pass@k (arXiv 2107.03374, equation 1); None with fewer than k samples."""
    n, failed = counts.n, counts.n - counts.solved
    if n < k:
        return None
    return 1.0 - math.prod((failed - i) / (n - i) for i in range(k)) if failed >= k else 1.0


@dataclass(frozen=True, slots=True)
class _Cuts:
    """Of n samples: at most so many successes put the interval below a rate, at least so many above it."""

    most_below: int
    least_above: int


@lru_cache(maxsize=1 << 14)
def _cuts(n: int, threshold: float) -> _Cuts:
    """The interval's ends lie on one side of a rate exactly where its binomial tails are small there."""
    tail = (1 - CONFIDENCE) / 2
    most_below, at_most = -1, 0.0
    for solved in range(n + 1):
        if 1 - at_most < tail:  # P(X >= solved)
            return _Cuts(most_below, solved)
        at_most += math.exp(_log_binomial(n, solved, threshold))
        if at_most < tail:
            most_below = solved
    return _Cuts(most_below, n + 1)


def _at_most(n: int, most: int, p: float) -> float:
    """P(X <= most) for X binomial with n trials of probability p."""
    if p <= 0:
        return 1.0
    if p >= 1:
        return float(most >= n)
    return min(1.0, math.fsum(math.exp(_log_binomial(n, k, p)) for k in range(most + 1)))


def _log_binomial(n: int, k: int, p: float) -> float:
    """log P(X = k) for X binomial with n trials of probability p."""
    return _log_choose(n, k) + k * math.log(p) + (n - k) * math.log1p(-p)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _bisect(holds_at: Callable[[float], bool]) -> float:
    """The largest p in 0..1 at which a condition that holds at 0 still holds."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if holds_at(middle) else (low, middle)
    return low


# -- what to sample next -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rule:
    """How samples are spent. `ceiling`: a problem whose rate lies surely above it is left alone at once."""

    group: int
    most: int
    ceiling: float = HARD_RATE

    @property
    def levels(self) -> tuple[float, ...]:
        """The rates that are asked about, the easiest first; each only of problems below the one before."""
        return tuple(sorted({self.ceiling, *LEVELS.values()}, reverse=True))


@dataclass(frozen=True, slots=True)
class Look:
    """The next `n` samples of a problem."""

    problem: str
    n: int


def open_level(counts: Counts, rule: Rule) -> float | None:
    """The rate that the next samples are to be told from; None where the problem is settled."""
    for level in rule.levels:
        is_below = below(counts, level)
        if is_below is None:
            return level
        if not is_below:
            return None
    return None


def worth(counts: Counts, rule: Rule) -> float:
    """The best chance a sample, over all numbers of further samples, that the open level is settled.

    0 for a problem that is settled, has had its samples, or will hardly be settled by those it may get. Rates
    are taken to be distributed as Jeffreys' prior and the counts say.
    """
    level, left = open_level(counts, rule), rule.most - counts.n
    if level is None or left <= 0:
        return 0.0
    best, chance, more = 0.0, 0.0, min(look_size(counts, rule), left)
    while True:
        chance = max(chance, _chance(counts.n, counts.solved, more, level))
        best = max(best, chance / more)
        if more == left:
            return best if chance >= _HOPELESS else 0.0
        more = min(2 * more, left)


def look_size(counts: Counts, rule: Rule) -> int:
    """A short first look, then as many samples as the problem has had, up to a group."""
    return min(rule.group, max(FIRST_LOOK, counts.n), rule.most - counts.n)


def choose_looks(screened: Sequence[Screened], busy: Collection[str], rule: Rule, room: int) -> list[Look]:
    """The next looks, about `room` samples in all: problems never looked at first, then those worth most.

    Problems that are `busy` are left out. Empty where nothing is left to sample.
    """
    free = [item for item in screened if item.problem not in busy]
    ranked = sorted(
        ((math.inf if not item.base.n else worth(item.base, rule), item) for item in free),
        key=lambda pair: -pair[0],
    )
    looks: list[Look] = []
    for value, item in ranked:
        size = min(look_size(item.base, rule), room)
        if value <= 0 or size <= 0:
            break
        looks.append(Look(item.problem, size))
        room -= size
    return looks


@lru_cache(maxsize=1 << 16)
def _chance(n: int, solved: int, more: int, level: float) -> float:
    """The chance that `more` samples put the rate on one side of `level` (beta-binomial)."""
    cuts = _cuts(n + more, level)
    a, b = solved + 0.5, n - solved + 0.5
    below_by = cuts.most_below - solved
    above_by = cuts.least_above - solved

    def probability(k: int) -> float:
        return math.exp(_log_choose(more, k) + _log_beta(a + k, b + more - k) - _log_beta(a, b))

    to_below = math.fsum(probability(k) for k in range(below_by + 1))
    short_of_above = math.fsum(probability(k) for k in range(min(above_by, more + 1)))
    return max(0.0, to_below + 1 - short_of_above)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
