"""Scripted replies: used in order, resumed by count, and every mistake in the file named."""

from pathlib import Path

import pytest

from sdpo_solve.engines._scoring import forced_logprobs
from sdpo_solve.engines.scripted import ScriptedEngine, read_replies
from sdpo_solve.errors import EngineError, UserError
from sdpo_solve.types import Finish, Message, Prompt, SamplingSpec
from tests.helpers.hosts import BASE, PlainHost
from tests.helpers.tiny_model import save_tiny_model

PROMPT = Prompt((Message("user", "hi"),))
SPEC = SamplingSpec(4)


def replies(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "replies.jsonl"
    path.write_text("".join(line + "\n" for line in lines), "utf-8")
    return path


def test_replies_come_in_order_and_whole(tmp_path: Path) -> None:
    engine = ScriptedEngine(replies(tmp_path, '{"text": "grüße"}', "", '{"text": "two", "note": 1}'))
    first, second = engine.sample([PROMPT] * 2, [0, 1], BASE, SPEC)
    assert (first.text, second.text) == ("grüße", "two")
    assert bytes(first.token_ids_T).decode() == "grüße"
    assert first.logprobs_T == (0.0,) * 7
    assert first.finish is Finish.STOP


def test_a_resumed_run_goes_on_with_the_next_reply(tmp_path: Path) -> None:
    path = replies(tmp_path, *(f'{{"text": "{n}"}}' for n in range(4)))
    whole = ScriptedEngine(path)
    texts = [whole.sample([PROMPT], [0], BASE, SPEC)[0].text for _ in range(4)]
    resumed = ScriptedEngine(path, consumed=2).sample([PROMPT] * 2, [0, 1], BASE, SPEC)
    assert [s.text for s in resumed] == texts[2:]


def test_running_out_names_file_and_count_and_uses_nothing(tmp_path: Path) -> None:
    engine = ScriptedEngine(replies(tmp_path, '{"text": "a"}', '{"text": "b"}'))
    with pytest.raises(EngineError, match=r"replies\.jsonl holds 2 replies; attempts 1 to 3 need 1 more"):
        engine.sample([PROMPT] * 3, [0, 1, 2], BASE, SPEC)
    assert engine.sample([PROMPT], [0], BASE, SPEC)[0].text == "a"


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"text": 1}', '{"txt": "a"}', '{"text": "\\ud800"}', "[" * 9999]
)
def test_a_bad_line_is_named_by_file_and_number(tmp_path: Path, line: str) -> None:
    path = replies(tmp_path, '{"text": "fine"}', line)
    with pytest.raises(UserError, match=r"replies\.jsonl:2: "):
        read_replies(path)


def test_a_missing_file_and_a_binary_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read_replies(tmp_path / "none.jsonl")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not UTF-8"):
        read_replies(tmp_path / "binary")


def test_line_separators_inside_a_text_do_not_split_it(tmp_path: Path) -> None:
    assert read_replies(replies(tmp_path, '{"text": "a\u2028b\x85c"}')) == ["a\u2028b\x85c"]


def test_with_a_model_ids_and_logprobs_are_its_own(tmp_path: Path) -> None:
    host = PlainHost(save_tiny_model(tmp_path / "model"))
    engine = ScriptedEngine(replies(tmp_path, '{"text": "ab"}'), host=lambda: host)
    got = engine.sample([PROMPT], [0], BASE, SPEC)[0]
    assert host.tokenizer.decode(got.token_ids_T, skip_special_tokens=True) == "ab"
    assert got.token_ids_T[-1] == host.tokenizer.eos_token_id
    assert got.logprobs_T == pytest.approx(forced_logprobs(host.model, got.prompt_ids, got.token_ids_T, 1.0))
    assert max(got.logprobs_T) < 0
