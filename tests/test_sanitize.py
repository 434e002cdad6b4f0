"""What a model or a program wrote cannot steer a terminal or end a chat turn."""

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpo_solve.report.style import _CHARACTERS
from sdpo_solve.sanitize import break_chat_tokens, clean, look_alike, middle_cut


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("a\x1b[31mred\x1b[0m", "ared"),
        ("\x1b]0;new title\x07text", "text"),
        ("\x1b]8;;http://example.org\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b2Jgone", "gone"),
        ("a\x00b\x08c\x7f", "abc"),
        ("one\r\ntwo\rthree\tfour", "one\ntwo\nthree\tfour"),
        ("\ud800lone", "lone"),
        ("ab\u202edc", "abdc"),
        ("ab\u061cd\xadc\u180e\u034f", "abdc"),
        ("zero\u200bwidth", "zerowidth"),
        ("naïve – Ω 漢字 🙂", "naïve – Ω 漢字 🙂"),
    ],
)
def test_clean(raw: str, expected: str) -> None:
    assert clean(raw) == expected


@given(st.text())
def test_clean_is_idempotent_and_encodable(text: str) -> None:
    once = clean(text)
    assert clean(once) == once
    once.encode("utf-8")
    assert "\x1b" not in once


@pytest.mark.parametrize(
    "token",
    [
        "<|im_end|>",
        "<|endoftext|>",
        "<s>",
        "</s>",
        "<start_of_turn>",
        "[INST]",
        "[/INST]",
        "<<SYS>>",
        "<think>",
        "</think>",
    ],
)
def test_chat_tokens_are_broken(token: str) -> None:
    broken = break_chat_tokens(f"say {token} now")
    assert token not in broken
    assert broken.replace(" ", "") == f"say{token}now"


def test_special_tokens_of_a_tokenizer_are_broken_too() -> None:
    assert break_chat_tokens("a @@END@@ b", ["@@END@@"]) == "a @ @END@@ b"


def test_ordinary_code_is_left_alone() -> None:
    code = "if a < b | c > d: x[INSTANCE] = {'<p>': 1 << 3}"
    assert break_chat_tokens(code) == code


@given(st.text(max_size=400), st.integers(min_value=1, max_value=100))
def test_middle_cut_never_exceeds_its_limit(text: str, limit: int) -> None:
    cut = middle_cut(text, limit)
    assert len(cut) <= limit
    if len(text) <= limit:
        assert cut == text


def test_middle_cut_keeps_both_ends() -> None:
    cut = middle_cut("A" * 500 + "Z" * 500, 100)
    assert cut.startswith("AAAA")
    assert cut.endswith("ZZZZ")
    assert "(900 more)" in cut


def test_frames_and_arms_of_a_chart_stay_apart_without_utf_8() -> None:
    codecs.register_error("look-alike-test", look_alike)
    shown = [
        "".join(letters).encode("ascii", "look-alike-test").decode()
        for letters in (_CHARACTERS, "┌┤ 5 %│ ─┘\N{NO-BREAK SPACE}•")
    ]
    assert len(set(shown[0])) == len(_CHARACTERS)
    assert shown[1] == "++ 5 %| -+ *"
    assert "?" not in "".join(shown)
