"""Random and mutated input gives a clear error or a verdict, never a crash; feedback is always fit to show."""

import contextlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sdpo_solve.datasets import livecodebench, problem_json
from sdpo_solve.datasets._rows import FileRow
from sdpo_solve.errors import ProblemError
from sdpo_solve.grading import asserts, feedback
from sdpo_solve.grading.checkers import texts_match, values_match
from sdpo_solve.grading.extract import between_last_fences
from sdpo_solve.sandboxes.wire_values import NotPlain, decode, encode
from sdpo_solve.sanitize import break_chat_tokens
from sdpo_solve.types import Case, Checker, Extracted, Finish, Kind, Problem, Status, TestCase, Verdict

MANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

# Texts as programs and models write them: any character, lone surrogates, escapes, turn marks, fences.
nasty_pieces = st.sampled_from(
    [
        *("```", "\n", "\r\n", "<|im_end|>", "<|im_start|>", "</s>", "[INST]", "<think>", "<|", "|>", "<"),
        *("\x1b[31m", "\x1b]0;t\x07", "\x00", "\u202e", "\ufeff", "\ud800", "\udfff", "🧪"),
        *("nan", "1e400", "-0", "9" * 5000, "x" * 3000),
        *('File "solution.py", line 2', 'File "solution.py", line 99999999999999999999'),
    ]
)
nasty = st.lists(nasty_pieces | st.text(alphabet=st.characters(), max_size=8), max_size=12).map("".join)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | nasty,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(nasty, inner, max_size=4),
    max_leaves=12,
)
plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.integers() | st.text(max_size=3), inner, max_size=3)
        | st.sets(st.integers(), max_size=3)
    ),
    max_leaves=15,
)
checkers = st.sampled_from(
    [
        *(Checker(name) for name in ("exact", "tokens", "livecodebench", "python", "set")),
        *(Checker(name, 1e-6) for name in ("float", "livecodebench", "python")),
    ]
)

FILE: dict[str, Any] = {
    "id": "a",
    "statement": "s",
    "kind": "asserts",
    "entry_point": "f",
    "tests": [{"input": "assert f(1) == 2", "visible": True}],
    "limits": {"time_s": 1, "memory_mb": 64},
    "reference": "def f(x): return 2",
}
ROW = {
    **dict.fromkeys(livecodebench.FIELDS, ""),
    "question_id": "q",
    "contest_date": "2025-01-01",
    "metadata": '{"func_name": "f"}',
    "public_test_cases": '[{"input": "1", "output": "2", "testtype": "functional"}]',
    "private_test_cases": "eJyLVgIAALsAuQ==",
}


@st.composite
def mutated(draw: st.DrawFn, data: Any) -> Any:
    """`data` with values replaced, keys added or removed, at random places."""
    if isinstance(data, dict):
        found = {key: draw(mutated(value)) for key, value in data.items() if draw(st.integers(0, 15))}
        return (
            {**found, **draw(st.dictionaries(nasty, json_values, max_size=1))}
            if draw(st.booleans())
            else found
        )
    if isinstance(data, list):
        return [draw(mutated(item)) for item in data] * draw(st.integers(0, 2))
    return data if draw(st.integers(0, 7)) else draw(json_values)


def refusal(action: Callable[[], object]) -> str | None:
    """What the ProblemError of `action` says, None where it goes well; any other exception is a crash."""
    try:
        action()
    except ProblemError as exc:
        return str(exc)
    return None


def is_clear(message: str, start: str = "") -> bool:
    return message.startswith(start) and "\n" not in message and message.isprintable() and len(message) < 1500


@MANY
@given(mutated(FILE) | json_values)
def test_the_problem_loader_loads_or_says_why_not(data: Any) -> None:
    message = refusal(lambda: problem_json.parse_text(json.dumps(data), "p.json"))
    if message is None:
        problem = problem_json.parse_text(json.dumps(data), "p.json")
        assert problem_json.parse_text(problem_json.dump(problem), "again") == problem
    else:
        assert is_clear(message, "p.json: ")


@MANY
@given(st.text() | nasty, st.integers(0, 400), st.integers(0, 3))
def test_broken_json_is_a_problem_error(piece: str, place: int, cut: int) -> None:
    text = json.dumps(FILE)
    message = refusal(lambda: problem_json.parse_text(text[:place] + piece + text[place + cut :], "p.json"))
    assert message is None or is_clear(message, "p.json: ")


def lcb_problem(data: Any) -> Problem:
    return livecodebench.to_problem(livecodebench.check_row(FileRow(data, "rows: line 1")))


@MANY
@given(mutated(ROW))
def test_livecodebench_rows_load_or_say_why_not(data: Any) -> None:
    message = refusal(lambda: lcb_problem(data))
    assert message is None or is_clear(message, "rows: line 1: ")


@MANY
@given(st.binary(max_size=80))
def test_pickles_are_read_as_data_or_refused(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(livecodebench.pickled_text(data), str)


expression_pieces = st.sampled_from(
    [
        *("assert ", "f(", "f(1)", ")", "(", " == ", "1", "[", "]", ", ", "not ", " and ", "**", "*", "-"),
        *("x", "lambda: ", "'a'", " for x in ", "{", "}", ":", "set(", "sum(", "range(", " is None", "\\"),
        *("10**9", "9" * 40),
    ]
)


@MANY
@given(st.lists(expression_pieces, max_size=14).map("".join), plain_values)
def test_an_assert_is_refused_or_decided(text: str, value: object) -> None:
    message = refusal(lambda: asserts.parse("assert " + text, "f"))
    if message is None:
        parsed = asserts.parse("assert " + text, "f")
        assert parsed.holds([value] * len(parsed.calls)) in (True, False)
    else:
        assert is_clear(message)


@MANY
@given(nasty)
def test_code_extraction_takes_what_stands_between_the_last_two_fences(text: str) -> None:
    code = between_last_fences(text)
    lines = text.split("\n")
    fences = [number for number, line in enumerate(lines) if "```" in line]
    if code is None:
        assert len(fences) < 2
    else:
        assert code.split("\n") == (lines[fences[-2] + 1 : fences[-1]] or [""])
        assert "```" not in code


@MANY
@given(checkers, nasty, nasty)
def test_text_checkers_give_a_verdict_and_accept_the_expected_text(
    checker: Checker, expected: str, output: str
) -> None:
    assert texts_match(checker, expected, output) in (True, False)
    assert texts_match(checker, expected, expected)
    assert texts_match(checker, expected, expected + "\n")


@MANY
@given(checkers, plain_values, plain_values)
def test_value_checkers_give_a_verdict(checker: Checker, expected: object, value: object) -> None:
    assert values_match(checker, expected, value) in (True, False)


@MANY
@given(plain_values)
def test_a_value_equals_its_copy_from_the_wire(value: object) -> None:
    assert values_match(Checker("exact"), value, decode(encode(value)))


@MANY
@given(st.text() | json_values.map(json.dumps))
def test_what_no_encoder_wrote_is_refused_or_plain(text: str) -> None:
    with contextlib.suppress(NotPlain):
        encode(decode(text))


@st.composite
def graded(draw: st.DrawFn) -> tuple[Problem, str | None, Verdict]:
    """A problem, a program, and any verdict on it."""
    kind = draw(st.sampled_from(Kind))
    given_ = {Kind.STDIN: nasty, Kind.FUNCTION: st.lists(plain_values, max_size=3), Kind.ASSERTS: nasty}[kind]
    expected = nasty if kind is Kind.STDIN else plain_values
    tests = draw(st.lists(st.builds(TestCase, given_, expected, st.booleans()), min_size=1, max_size=4))
    cases = [
        Case(n, draw(st.sampled_from(Status)), test.visible, output=draw(nasty), error=draw(nasty))
        for n, test in enumerate(tests)
    ]
    problem = Problem("p", "s", kind, tuple(tests), entry_point="f")
    return problem, draw(st.none() | nasty), Verdict(tuple(cases), draw(st.booleans()))


@MANY
@given(
    graded(),
    st.sampled_from(Finish),
    st.builds(
        feedback.Options,
        failing_tests=st.integers(1, 4),
        field_chars=st.integers(40, 400),
        total_chars=st.integers(200, 900),
        name_line=st.booleans(),
    ),
)
def test_feedback_is_valid_text_within_its_cap_without_chat_tokens(
    attempt: tuple[Problem, str | None, Verdict], finish: Finish, options: feedback.Options
) -> None:
    problem, code, verdict = attempt
    text = feedback.render(problem, Extracted(code, finish is Finish.LENGTH), verdict, options)
    assert text
    assert len(text) <= options.total_chars
    assert text.encode()  # no lone surrogate
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e\ufeff]", text)
    assert break_chat_tokens(text) == text
    assert "<|im_" not in text


@MANY
@given(graded(), st.integers(0, 2**32))
def test_feedback_never_quotes_a_hidden_test(attempt: tuple[Problem, str | None, Verdict], mark: int) -> None:
    problem, code, verdict = attempt
    secret = f"secret-{mark}-secret"
    tests = [replace(t, input=t.input if t.visible else secret) for t in problem.tests]
    tests = [replace(t, expected=t.expected if t.visible else secret) for t in tests]
    cases = [c if c.visible else replace(c, output=secret, error=secret) for c in verdict.cases]
    hidden = replace(problem, tests=tuple(tests))
    text = feedback.render(hidden, Extracted(code), replace(verdict, cases=tuple(cases)), feedback.Options())
    assert secret not in text
