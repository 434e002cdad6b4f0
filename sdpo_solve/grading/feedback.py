"""Feedback: the text about an attempt that the model is shown, in the style of an online judge.

Quotes visible tests only; of a hidden one it states no more than that it failed. Everything quoted is
untrusted, so it is cleaned and capped here: the result is valid text, within its cap, without chat tokens.
"""

from __future__ import annotations

import re

from pydantic import Field

from sdpo_solve.config import Options as BaseOptions
from sdpo_solve.sanitize import break_chat_tokens, clean, middle_cut
from sdpo_solve.types import Case, Extracted, Kind, Problem, Status, Verdict

HEADLINES = {
    Status.WRONG_ANSWER: "Wrong Answer",
    Status.RUNTIME_ERROR: "Runtime Error",
    Status.COMPILE_ERROR: "Compile Error",
    Status.TIME_LIMIT: "Time Limit Exceeded",
    Status.MEMORY_LIMIT: "Memory Limit Exceeded",
    Status.OUTPUT_LIMIT: "Output Limit Exceeded",
    Status.NO_CODE: "No Code",
}
PASSED = "Accepted: the program passes all tests."
HIDDEN_FAILED = "The program passes all visible tests but fails a hidden test."
CUT_OFF = "No Code\nThe answer was cut off at the length limit before the program ended. Answer more briefly."
NO_CODE = "No Code\nThe answer holds no code block. Put the whole program into one code block."

# A frame of the model's own program in a traceback; the runner compiles it under this file name.
# A program can write its own error: a number longer than any file has lines is no line number.
_OWN_FRAME = re.compile(r'File "solution\.py", line (\d{1,9})\b')
_COMPILER_LINE = re.compile(r"^solution\.cpp:(\d{1,9}):", re.MULTILINE)


class Options(BaseOptions):
    """How much feedback may quote."""

    failing_tests: int = Field(2, ge=1, le=10, description="failing visible tests that are quoted")
    field_chars: int = Field(
        250, ge=40, description="characters of each quoted input, output, expected, error"
    )
    total_chars: int = Field(2000, ge=200, description="characters of the whole feedback")
    name_line: bool = Field(True, description="quote the line of the program that raised the error")


def render(problem: Problem, extracted: Extracted, verdict: Verdict, options: Options) -> str:
    """The feedback text of one attempt, at most `options.total_chars` characters."""
    code = extracted.code
    if code is None:
        return CUT_OFF if extracted.cut_off else NO_CODE
    if verdict.passed_all:
        return PASSED
    failures = [c for c in verdict.cases if c.visible and c.status not in (Status.ACCEPTED, Status.NOT_RUN)]
    if not failures:
        # Every visible test passed; in `paper` mode that is a success and the held-out half stays unnamed.
        return PASSED if verdict.solved else HIDDEN_FAILED
    if failures[0].status is Status.COMPILE_ERROR:
        failures = failures[:1]  # the same message for every test
    quoted = failures[: options.failing_tests]
    parts = [HEADLINES[quoted[0].status]]
    parts += [_case_text(problem, code, case, options, first=n == 0) for n, case in enumerate(quoted)]
    text = break_chat_tokens(clean("\n\n".join(parts)))
    return middle_cut(text, options.total_chars)


def _case_text(problem: Problem, code: str, case: Case, options: Options, *, first: bool) -> str:
    """One failing test: its own headline unless it is the first, then the fields that apply."""
    test = problem.tests[case.index]
    if case.status is Status.COMPILE_ERROR:
        return _error_text(code, case, options)
    lines = [] if first else [f"{HEADLINES[case.status]} on another test"]
    if problem.kind is Kind.ASSERTS:
        lines.append(_field("Failed test", str(test.input), options))
        lines += [_field("Value returned", case.output, options)] if case.output else []
    else:
        lines.append(_field("Input", _arguments(test.input, problem.kind), options))
        if case.status is Status.WRONG_ANSWER:
            lines.append(_field("Output", case.output if case.output.strip() else "(nothing)", options))
        lines.append(_field("Expected", _plain(test.expected, problem.kind), options))
    if case.status is Status.TIME_LIMIT:
        lines.append(f"It ran longer than {problem.limits.time_s:g} s.")
    if case.status is Status.MEMORY_LIMIT:
        lines.append(f"It used more than {problem.limits.memory_mb} MB.")
    if case.error.strip() and case.status is Status.RUNTIME_ERROR:
        lines.append(_error_text(code, case, options))
    return "\n".join(lines)


def _error_text(code: str, case: Case, options: Options) -> str:
    """The last line of the error, and the line of the model's own program that it names."""
    error = case.error.strip()
    message = (
        error if case.status is Status.COMPILE_ERROR else error.splitlines()[-1] if error else "no message"
    )
    text = _field("Error", message, options)
    frames = _OWN_FRAME.findall(error) or _COMPILER_LINE.findall(error)
    source = code.split("\n")
    if options.name_line and frames and 1 <= int(frames[-1]) <= len(source):
        number = int(frames[-1])
        text += f"\nLine {number}: {middle_cut(source[number - 1].strip(), options.field_chars)}"
    return text


def _field(name: str, value: str, options: Options) -> str:
    body = middle_cut(clean(value).strip("\n"), options.field_chars)
    return f"{name}:\n{body}" if "\n" in body else f"{name}: {body}"


def _plain(value: object, kind: Kind) -> str:
    """An expected value: a text for stdin, a Python value for calls."""
    if kind is Kind.STDIN:
        return str(value)
    return _repr(value)


def _arguments(value: object, kind: Kind) -> str:
    if kind is Kind.FUNCTION and isinstance(value, (list, tuple)):
        return ", ".join(_repr(item) for item in value)
    return _plain(value, kind)


def _repr(value: object) -> str:
    try:
        return repr(value)
    except ValueError:  # Python refuses decimal text for integers of more than 4300 digits
        return "(a value that holds a very large integer)"
