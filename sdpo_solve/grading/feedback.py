"""Feedback: the text about an attempt that the model is shown, in the style of an online judge.

Quotes visible tests only; of a hidden one it states no more than that it failed. Everything quoted is
untrusted, so it is cleaned and capped here: the result is valid text, within its cap, without chat tokens.
"""

from __future__ import annotations

import unicodedata

from pydantic import Field

from sdpo_solve.config import Options as BaseOptions
from sdpo_solve.grading import error_text
from sdpo_solve.grading.difference import EXCERPT_CHARS, shown_value
from sdpo_solve.sanitize import break_chat_tokens, clean, middle_cut
from sdpo_solve.types import Case, Difference, Extracted, Kind, Problem, Status, Verdict

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
NO_CODE = "No Code\nThe answer holds no program. Put the whole program into one code block."

_DOTS = "..."
_FEW_LINES, _FEW_CHARS = 3, 12
_SELECTORS = frozenset(map(chr, range(0xFE00, 0xFE10)))  # of the form of the sign before


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
    if case.status is Status.COMPILE_ERROR:
        return _error_text(code, case, options)
    test = problem.tests[case.index]
    lines = [] if first else [f"{HEADLINES[case.status]} on another test"]
    if problem.kind is Kind.ASSERTS:
        lines.append(_field("Failed test", str(test.input), options))
        lines += [_field("Value returned", case.output, options)] if case.output else []
    else:
        lines.append(_field("Input", _arguments(test.input, problem.kind), options))
        lines += _answer(case, test.expected, problem.kind, options)
    if case.status is Status.TIME_LIMIT:
        lines.append(f"It ran longer than {problem.limits.time_s:g} s.")
    if case.status is Status.MEMORY_LIMIT:
        lines.append(f"It used more than {problem.limits.memory_mb} MB.")
    raised = case.status is Status.RUNTIME_ERROR or error_text.TRACEBACK in case.error
    if case.error.strip() and raised:  # an exception in a thread ends in a wrong answer
        lines.append(_error_text(code, case, options))
    return "\n".join(lines)


def _answer(case: Case, expected: object, kind: Kind, options: Options) -> list[str]:
    """Output and expected text; around their first difference where they are long or look alike."""
    name = "Expected"
    if kind is Kind.STDIN and isinstance(expected, (list, tuple)) and len(expected) > 1:
        name = f"Expected (one of {len(expected)})"
    wrong = case.status is Status.WRONG_ANSWER
    output = case.output if case.output.strip() else "(nothing)"
    difference = case.difference if wrong else None
    if difference is None:
        shown = [_field("Output", output, options)] if wrong else []
        return [*shown, _field(name, _plain(expected, kind), options)]
    chars = options.field_chars
    alike = _look_alike(difference, chars)
    if alike:
        given, wanted = _written_out(difference, chars)
    else:
        given, wanted = _quoted(difference, chars)
    long = max(difference.output_chars, difference.expected_chars) > chars
    if not alike and not long:
        given = output
    lines = [_field("Output", given, options), _field(name, wanted, options)]
    if difference.place and (long or alike or wanted.count("\n") > _FEW_LINES):
        lines.append(f"First difference: {difference.place}")
    return lines


def _quoted(difference: Difference, limit: int) -> tuple[str, str]:
    """Output and expected text around their first difference, at most `limit` characters of each."""
    return (
        _around(difference.output, difference.output_at, difference.output_chars, limit),
        _around(difference.expected, difference.expected_at, difference.expected_chars, limit),
    )


def _written_out(difference: Difference, limit: int) -> tuple[str, str]:
    """The same with white space, control characters and what has no width written as Python does."""
    size = limit
    while True:
        pair = _quoted(difference, size)
        shown = tuple(map(repr, pair))
        if _as_seen(shown[0]) == _as_seen(shown[1]):  # one sign in two forms
            shown = tuple(map(ascii, pair))
        if max(map(len, shown)) <= limit or size <= _FEW_CHARS:
            return shown[0], shown[1]
        size -= size // 4


def _look_alike(difference: Difference, chars: int) -> bool:
    """Whether a reader would see the same where the two texts first differ, as far as they are quoted."""

    def seen(excerpt: str, at: int, n_chars: int) -> tuple[str, bool]:
        goes_on = n_chars > chars and len(excerpt) > at + chars // 2
        return _as_seen(excerpt[max(at - chars, 0) : at + chars // 2 if goes_on else None]), goes_on

    given, given_goes_on = seen(difference.output, difference.output_at, difference.output_chars)
    wanted, wanted_goes_on = seen(difference.expected, difference.expected_at, difference.expected_chars)
    if len(given) < len(wanted):
        return given_goes_on and wanted.startswith(given)
    return given == wanted or (wanted_goes_on and given.startswith(wanted))


def _as_seen(text: str) -> str:
    """A text as a reader sees it: white space is one blank, a sign has one form, what has none is gone."""
    visible = (sign for sign in clean(text) if unicodedata.category(sign) != "Cf" and sign not in _SELECTORS)
    return unicodedata.normalize("NFC", " ".join("".join(visible).split()))


def _around(excerpt: str, at: int, n_chars: int, limit: int) -> str:
    """At most `limit` characters of an excerpt around `at`; dots where the text of `n_chars` goes on."""
    if n_chars <= limit:
        return excerpt
    size = limit - 2 * len(_DOTS)
    start = max(0, min(at - size // 2, len(excerpt) - size))
    body = excerpt[start : start + size]
    before = _DOTS if start or at >= EXCERPT_CHARS else ""
    after = _DOTS if start + size < len(excerpt) or len(excerpt) - at >= EXCERPT_CHARS else ""
    return f"{before}{body}{after}"


def _error_text(code: str, case: Case, options: Options) -> str:
    """The message of the error, and the line of the model's own program that it names."""
    error = case.error.strip()
    is_compilers = case.status is Status.COMPILE_ERROR
    message = error_text.of_compiler(error) if is_compilers else error_text.message(error)
    text = _field("Error", message, options)
    number, source = error_text.own_line(error), code.split("\n")
    if options.name_line and number is not None and 1 <= number <= len(source):
        text += f"\nLine {number}: {middle_cut(source[number - 1].strip(), options.field_chars)}"
    return text


def _field(name: str, value: str, options: Options) -> str:
    # Chat tokens are broken before the cut, which could leave half of one.
    body = middle_cut(break_chat_tokens(clean(value)).strip("\n"), options.field_chars)
    return f"{name}:\n{body}" if "\n" in body else f"{name}: {body}"


def _plain(value: object, kind: Kind) -> str:
    """An expected value: a text for stdin (the first of several), a Python value for calls."""
    if kind is Kind.STDIN:
        return str(value[0] if isinstance(value, (list, tuple)) else value)
    return shown_value(value)


def _arguments(value: object, kind: Kind) -> str:
    if kind is Kind.FUNCTION and isinstance(value, (list, tuple)):
        return ", ".join(map(shown_value, value))
    text = _plain(value, kind)
    has_blank_ends = text.startswith(("\n", "\r\n")) or text.endswith(("\n\n", "\n\r\n"))
    return repr(text) if has_blank_ends else text  # a field shows no blank lines at its ends
