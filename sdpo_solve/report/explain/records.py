"""Records of one attempt under its teacher, token by token, and sums over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

# A token beyond this many nats is one that the teacher finds e times less, or more, likely.
STRONG_NATS = 1.0
_MOST_TOKENS_A_CHARACTER = 8


@dataclass(frozen=True, slots=True)
class Alternative:
    """A token that the teacher would rather have seen; its probabilities for both (None: unknown)."""

    text: str
    teacher: float
    student: float | None


@dataclass(frozen=True, slots=True)
class Token:
    """One sampled token. `log_ratio` = log teacher - log student, nats: positive: the teacher's is larger.

    `text` may be empty where several tokens make one character; the last of them has it.
    """

    position: int
    text: str
    log_ratio: float
    alternatives: tuple[Alternative, ...]


@dataclass(frozen=True, slots=True)
class Signal:
    """An attempt under its teacher. `feedback` is what the teacher's prompt held besides the question.

    `recorded`: the student's log-probs are the journal's, because its weights are not on disk any more; else
    they were computed again and differ from the journal's by `drift_nats` in the mean.
    """

    attempt: int
    version: int
    teacher: str
    feedback: str
    tokens: tuple[Token, ...]
    recorded: bool
    drift_nats: float

    @property
    def mean_log_ratio(self) -> float:
        return sum(token.log_ratio for token in self.tokens) / max(1, len(self.tokens))

    @property
    def n_strong(self) -> int:
        return sum(abs(token.log_ratio) > STRONG_NATS for token in self.tokens)

    def strongest(self, n: int) -> list[Token]:
        """The `n` tokens of largest |log ratio|, strongest first; none where all are zero."""
        ranked = sorted(self.tokens, key=lambda token: -abs(token.log_ratio))
        return [token for token in ranked[:n] if token.log_ratio]


def n_carrying(log_ratios: Sequence[float], share: float = 0.8) -> int:
    """How few tokens hold `share` of the sum of |log ratio|: the sparser the signal, the fewer."""
    sizes = sorted((abs(value) for value in log_ratios), reverse=True)
    total, held = sum(sizes), 0.0
    for n, size in enumerate(sizes):
        if held >= share * total * (1 - 1e-12):
            return n
        held += size
    return len(sizes)


def sparseness(signal: Signal) -> str:
    """One sentence on how sparse the signal is and where it points."""
    n = len(signal.tokens)
    carrying = n_carrying([token.log_ratio for token in signal.tokens])
    verbs = ("carries" if carrying == 1 else "carry", "differs" if signal.n_strong == 1 else "differ")
    return (
        f"{carrying} of {n} tokens {verbs[0]} 80 % of the signal; {signal.n_strong} {verbs[1]} by more than "
        f"{STRONG_NATS:g} nat; mean log(teacher/student) {signal.mean_log_ratio:+.3f} nats a token"
    )


def pieces(decode: Callable[[list[int]], str], token_ids: Sequence[int]) -> list[str]:
    """The text that each token adds; a character made of several tokens comes with the last of them.

    Decoded behind the tokens before it, because some tokenizers drop the space in front of a first word.
    """
    texts: list[str] = []
    context: list[int] = []
    pending: list[int] = []
    for token_id in token_ids:
        pending.append(token_id)
        text = decode([*context, *pending])[len(decode(context)) :]
        if text.endswith("\ufffd") and len(pending) < _MOST_TOKENS_A_CHARACTER:
            texts.append("")
            continue
        texts.append(text)
        context, pending = pending, []
    if pending:
        texts[-1] = decode([*context, *pending])[len(decode(context)) :]
    return texts
