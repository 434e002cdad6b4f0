"""The error tree. It draws who has to act; it handles nothing.

SdpoSolveError
├── UserError            exit 2: something the user wrote; one line, no traceback
│   ├── ConfigError      an option or a combination of options
│   └── ProblemError     a problem file; the message names file and place
├── PrerequisiteError    exit 3: no sandbox, image or weights; the message says what to run
└── RunError             exit 4: ends one run, a batch goes on
    ├── EngineError      sampling failed
    ├── PromptError      exit 2: the model's chat template cannot say these messages
    ├── SandboxError     the box broke: infrastructure, never a verdict
    ├── LearnerError     the update failed or its state on disk is not what it must be
    └── JournalError     the run's journal cannot be written, or is not one of this run; to a command that
                         only reads journals it is a UserError: nothing ran, so that nothing failed
"""

from __future__ import annotations

from collections.abc import Sequence


class SdpoSolveError(Exception):
    """Any error this package raises on purpose. The message is one line for the user."""


class UserError(SdpoSolveError):
    """Something the user can mend in what they wrote (exit 2)."""


class ConfigError(UserError):
    """An unknown, contradictory or ineffective option."""


class ProblemError(UserError):
    """A problem that cannot be read. The message names the file, the place and the remedy.

    `mistakes`: a message for each, where a file has several.
    """

    def __init__(self, message: str, mistakes: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.mistakes = tuple(mistakes) or (message,)


class PrerequisiteError(SdpoSolveError):
    """Something is missing on this machine (exit 3). The message names the command that mends it."""


class RunError(SdpoSolveError):
    """One run cannot go on (exit 4); others can."""


class EngineError(RunError):
    """Sampling failed, or the engine does not hold the policy that was requested."""


class PromptError(RunError):
    """The model's chat template refuses the messages of a prompt, or leaves some of them out."""


class SandboxError(RunError):
    """The sandbox itself failed. Never graded, never shown to the model."""


class LearnerError(RunError):
    """An update failed, or policy state on disk is missing or damaged."""


class JournalError(RunError):
    """The journal cannot be written or read back. `place`: file and line, where a line is damaged."""

    def __init__(self, message: str, place: str = "") -> None:
        super().__init__(message)
        self.place = place

    @property
    def short(self) -> str:
        """The text in a list of many runs."""
        return f"damaged: {self.place}" if self.place else str(self)


def one_line(exc: BaseException) -> str:
    """A library's message on one line of at most 300 characters, or the type of its exception."""
    return " ".join(str(exc).split())[:300] or type(exc).__name__
