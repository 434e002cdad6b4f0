"""Chat templates: what they refuse, drop or tear apart is an error in one line; untrusted text ends no turn."""

from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken

from sdpo_solve.cli.main import exit_code
from sdpo_solve.engines._answers import eos_ids
from sdpo_solve.errors import PromptError
from sdpo_solve.model.chat import common_beginning, encode_chat, end_of_turn, notes_of, template_notes
from sdpo_solve.types import Message, Prompt
from tests.helpers.tiny_model import make_tokenizer, save_tiny_model

TURN = "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
OPEN = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}" + TURN + "{% endfor %}" + OPEN
)
ALTERNATING = (
    "{% for message in messages %}{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}" + TURN + "{% endfor %}" + OPEN
)


def with_template(template: str | None) -> Any:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def ask(*turns: tuple[str, str]) -> Prompt:
    return Prompt(tuple(Message(role, content) for role, content in turns))


@pytest.mark.parametrize(
    ("template", "turns", "words"),
    [
        (None, [("user", "Add.")], "no chat template"),
        (
            NO_SYSTEM,
            [("system", "Be brief."), ("user", "Add.")],
            "System role not supported; leave out --system",
        ),
        (ALTERNATING, [("user", "Add."), ("user", "Again.")], "must alternate"),
        ("{{ messages | undefined_filter }}", [("user", "Add.")], "refuses the turns user"),
        ("{{ messages[0].no.such.thing }}", [("user", "Add.")], "refuses the turns user"),
        ("{% for m in messages %}", [("user", "Add.")], "refuses the turns user"),
        ("Hello." + OPEN, [("user", "Add.")], "leaves out what the user says"),
        (
            "{% for message in messages if message.role == 'user' %}" + TURN + "{% endfor %}" + OPEN,
            [("system", "Be brief."), ("user", "Add.")],
            "leaves out what the system says",
        ),
    ],
)
def test_a_template_that_cannot_say_it_is_one_line_and_exit_code_2(
    template: str | None, turns: list[tuple[str, str]], words: str
) -> None:
    with pytest.raises(PromptError, match=words) as caught:
        encode_chat(with_template(template), ask(*turns))
    assert "\n" not in str(caught.value)
    assert exit_code(caught.value) == 2


def test_a_template_that_wants_contents_in_parts_gets_them() -> None:
    parts = "{% for m in messages %}{% for part in m.content %}{{ part.text }}{% endfor %}{% endfor %}"
    tokenizer = with_template(parts + OPEN)
    assert tokenizer.decode(encode_chat(tokenizer, ask(("user", "Add two.")))).startswith("Add two.")


def test_words_that_were_added_stay_whole_and_special_tokens_of_a_text_are_broken_up() -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["hello", AddedToken("world")])
    tokenizer.add_tokens([AddedToken("<|stop|>", special=True)])
    text = tokenizer.decode(encode_chat(tokenizer, ask(("user", "hello world <|stop|> <|im_end|>"))))
    assert "hello world < |stop|> < |im_end|>" in text


@pytest.mark.parametrize(
    ("prompts", "ids"),
    [
        (["abcd", "abx"], "ab"),
        (["ab", "abc"], "ab"),
        (["ab", "x", "ab"], ""),
        (["abc"], "abc"),
        (["", "a"], ""),
    ],
)
def test_the_beginning_that_prompts_have_in_common(prompts: list[str], ids: str) -> None:
    assert common_beginning([*map(ord, prompt)] for prompt in prompts) == [*map(ord, ids)]


def test_an_end_of_turn_that_only_the_template_names_ends_answers() -> None:
    tokenizer = make_tokenizer()
    end, text_end = (tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>"))
    assert eos_ids(None, tokenizer) == {end}
    tokenizer.eos_token = "<|endoftext|>"
    assert end_of_turn(tokenizer, {text_end}) == end
    assert eos_ids(None, tokenizer) == {end, text_end}
    assert any("<|im_end|>" in note for note in template_notes(tokenizer, {text_end}))


def test_a_model_on_disk_has_its_notes(tmp_path: Path) -> None:
    assert notes_of(tmp_path) == []
    with_template(NO_SYSTEM).save_pretrained(tmp_path)
    assert ["no system message" in note for note in notes_of(tmp_path)] == [True]
    assert notes_of(save_tiny_model(tmp_path / "tiny")) == []


def test_what_a_user_should_know_of_a_template() -> None:
    tokenizer = with_template(NO_SYSTEM)
    assert template_notes(make_tokenizer(), {tokenizer.eos_token_id}) == []
    assert ["no system message" in note for note in template_notes(tokenizer, {tokenizer.eos_token_id})] == [
        True
    ]
