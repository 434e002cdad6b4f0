"""Attempts of made-up verdicts, and the method that learns from them."""

from pathlib import Path
from typing import Any

from sdpo_solve.methods import sdpo
from sdpo_solve.methods.prompts import Prompter
from sdpo_solve.types import Attempt, Case, Finish, Policy, Prompt, Sample, SamplingSpec, Status, Verdict


def method(seed: int = 0, **options: Any) -> sdpo.Sdpo:
    """The paper's schedule, and `options` over it."""
    given = sdpo.Options(**{"preset": "paper", **options})
    return sdpo.Sdpo(Prompter(), SamplingSpec(16), "run", Path(), seed, given, None)


def attempt(index: int, passed: int, *, hidden: bool = False) -> Attempt:
    """An attempt that passed so many of three visible tests, and the hidden one only where it says so."""
    cases = [Case(n, Status.ACCEPTED if n < passed else Status.WRONG_ANSWER, True) for n in range(3)]
    last = Case(3, Status.ACCEPTED if hidden else Status.NOT_RUN, False)
    sample = Sample(Prompt(()), (1,), (2, 3), (-0.1, -0.2), "", Finish.STOP, Policy("run", 0))
    return Attempt(index, sample, f"program {index}", Verdict((*cases, last)), f"feedback {index}")


FAILED, SOLVED = attempt(1, 0), attempt(3, 3, hidden=True)
