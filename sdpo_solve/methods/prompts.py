"""The prompts of a run, as chat turns of text: of the student, the self-teacher and the multi-turn baseline.

Feedback arrives as text; verdicts are not known here, and token ids are the engine's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sdpo_solve.sandboxes import languages
from sdpo_solve.sandboxes.languages import Toolchain
from sdpo_solve.types import Kind, Message, Problem, Prompt

_FENCE = "```"
_AGAIN = "Correctly solve the original question."  # how every prompt ends that holds more than the question


def is_question_alone(prompt: Prompt) -> bool:
    """Whether a prompt, also of an earlier version's journal, holds no feedback and no solution."""
    return not any(message.content.endswith(_AGAIN) for message in prompt.messages[-1:])


@dataclass(frozen=True, slots=True)
class Prompter:
    """Builder of every prompt of a run: student, teacher and baselines share one question.

    `system`: the system message, None for the model's own default. `thinking`: the template's switch.
    `toolchain`: version and libraries of the sandbox in use; None: they are not named.
    """

    system: str | None = None
    thinking: bool = False
    language: str = "python"
    toolchain: Toolchain | None = None

    def student(self, problem: Problem) -> Prompt:
        """The question alone."""
        return self._prompt(self.question(problem))

    def teacher(
        self,
        problem: Problem,
        *,
        feedback: str | None,
        solution: str | None = None,
        attempt: str | None = None,
    ) -> Prompt:
        """The question with what was learned since (arXiv 2601.20802, Table 2), in that order.

        A paragraph that does not apply is left out. `attempt` pastes the failed program into the prompt; the
        paper found that harmful, so it serves as an ablation only.
        """
        parts = [self.question(problem)]
        if solution is not None:
            parts.append(f"Correct solution:\n\n{self._block(solution)}")
        if attempt is not None:
            parts.append(f"Your unsuccessful earlier attempt:\n\n{self._block(attempt)}")
        if feedback is not None and solution is None:
            parts.append(
                f"The following is feedback from your unsuccessful earlier attempt:\n\n{feedback.strip()}"
            )
        parts.append(_AGAIN)
        return self._prompt("\n\n".join(parts))

    def multi_turn(self, problem: Problem, turns: Sequence[str]) -> Prompt:
        """The question and what earlier attempts brought, oldest first (2601.20802, section 5, baselines)."""
        if not turns:
            return self.student(problem)
        parts = [self.question(problem)]
        parts.append("The following is feedback from your unsuccessful earlier attempts:")
        parts += [turn.strip() for turn in turns]
        parts.append(_AGAIN)
        return self._prompt("\n\n".join(parts))

    def turn(self, feedback: str, attempt: str | None = None) -> str:
        """One earlier attempt as the multi-turn prompt holds it: its feedback, and on request its program."""
        if attempt is None:
            return feedback.strip()
        return f"{self._block(attempt)}\n\n{feedback.strip()}"

    def question(self, problem: Problem) -> str:
        """The statement with the form the answer must have."""
        name = languages.get(self.language).title
        parts = [*self._environment(), problem.statement.strip()]
        if problem.kind is Kind.STDIN:
            parts.append(
                f"Write a {name} program that reads the input from standard input and writes the answer to "
                "standard output."
            )
        elif problem.starter_code:
            parts.append(f"Complete this {name} code:\n\n{self._block(problem.starter_code)}")
        else:
            parts.append(f"Write a {name} function `{problem.entry_point}`.")
        parts.append(
            f"Answer with the whole program in one {_FENCE}{self.language} code block and nothing else."
        )
        return "\n\n".join(parts)

    def _environment(self) -> list[str]:
        """The version and the libraries that programs have, before the statement.

        Behind the statement, with versions, small models import them needlessly (figures: methods/README).
        """
        if self.toolchain is None:
            return []
        if not self.toolchain.libraries:
            return [f"Programs run under {self.toolchain.title}."]
        *others, last = self.toolchain.libraries
        names = f"{', '.join(others)} and {last} are" if others else f"{last} is"
        return [f"Programs run under {self.toolchain.title}; {names} installed."]

    def _block(self, code: str) -> str:
        return f"{_FENCE}{self.language}\n{code.strip(chr(10)).rstrip()}\n{_FENCE}"

    def _prompt(self, content: str) -> Prompt:
        system = (Message("system", self.system),) if self.system else ()
        return Prompt((*system, Message("user", content)), thinking=self.thinking)
