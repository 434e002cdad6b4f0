"""Messages to token ids, by the model's own chat template."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Any

from sdpo_solve.errors import PromptError, one_line
from sdpo_solve.sanitize import break_chat_tokens
from sdpo_solve.types import Message, Prompt

_PROBE = (Message("user", "a question"), Message("assistant", "an answer"))


def encode_chat(tokenizer: Any, prompt: Prompt) -> list[int]:
    """Token ids of `prompt` under the tokenizer's chat template, up to where the assistant speaks.

    Special tokens inside a message are broken up first: a statement or a feedback cannot end its turn. Raises
    PromptError where there is no template, where it refuses these messages or leaves one of them out.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise PromptError("this model's tokenizer has no chat template; choose an instruction-tuned model")
    special = special_tokens(tokenizer)
    messages = [Message(m.role, break_chat_tokens(m.content, special)) for m in prompt.messages]
    text = _rendered(tokenizer, messages, thinking=prompt.thinking)
    if (lost := _lost(messages, text)) is not None:
        text = _rendered(tokenizer, messages, thinking=prompt.thinking, in_parts=True)
        if _lost(messages, text) is not None:
            raise PromptError(f"this model's chat template leaves out what the {lost.role} says")
    # The template writes the beginning-of-text token itself where the model wants one.
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def common_beginning(prompts: Iterable[Sequence[int]]) -> list[int]:
    """The token ids that all prompts begin with."""
    columns = takewhile(lambda column: len(set(column)) == 1, zip(*prompts, strict=False))
    return [token for token, *_ in columns]


def special_tokens(tokenizer: Any) -> list[str]:
    """The tokens that mean something to the model besides text; words that were merely added are none."""
    added = tokenizer.added_tokens_decoder.values()
    names = {*tokenizer.all_special_tokens, *(token.content for token in added if token.special)}
    return sorted(name for name in names if name.strip())


def configured_eos(generation_config: Any, tokenizer: Any) -> frozenset[int]:
    """The tokens that end an answer by generation config or tokenizer."""
    configured = getattr(generation_config, "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(i for i in (*ids, tokenizer.eos_token_id) if i is not None)


def end_of_turn(tokenizer: Any, eos: Collection[int]) -> int | None:
    """The special token that the template ends an assistant's turn with, where none of `eos` stands there."""
    try:
        text = _rendered(tokenizer, _PROBE, is_open=False)
    except PromptError:
        return None
    _, found, rest = text.rpartition(_PROBE[-1].content)
    ids = tokenizer(rest, add_special_tokens=False)["input_ids"] if found else []
    special = set(tokenizer.convert_tokens_to_ids(special_tokens(tokenizer)))
    if set(ids) & set(eos):
        return None
    return next((int(i) for i in ids if i in special), None)


def notes_of(model_dir: Path) -> list[str]:
    """What a user should know of the template and special tokens on disk; empty where there are none yet."""
    from transformers import AutoTokenizer, GenerationConfig

    try:
        tokenizer = AutoTokenizer.from_pretrained(model_dir, local_files_only=True)
    except Exception:  # noqa: BLE001 -- a broken tokenizer is an error where it is loaded to be used
        return []
    config = None
    with suppress(OSError, ValueError):  # a model need not have one
        config = GenerationConfig.from_pretrained(model_dir, local_files_only=True)
    return template_notes(tokenizer, configured_eos(config, tokenizer))


def template_notes(tokenizer: Any, eos: Collection[int]) -> list[str]:
    """As `notes_of`, of a tokenizer and the tokens that are known to end an answer."""
    if not getattr(tokenizer, "chat_template", None):
        return ["its tokenizer has no chat template: it cannot be used"]
    notes = []
    try:
        encode_chat(tokenizer, Prompt((Message("system", "Be brief."), _PROBE[0])))
    except PromptError as exc:
        notes.append(f"it takes no system message ({exc})")
    if (token_id := end_of_turn(tokenizer, eos)) is not None:
        token = tokenizer.convert_ids_to_tokens(token_id)
        notes.append(f"only its chat template says that {token} ends an answer; it does here")
    if tokenizer.pad_token_id is None:
        notes.append("its tokenizer names no pad token; none is needed here")
    return notes


def _rendered(
    tokenizer: Any,
    messages: Sequence[Message],
    *,
    thinking: bool = False,
    is_open: bool = True,
    in_parts: bool = False,
) -> str:
    """`in_parts`: contents as lists of text parts, as templates of multimodal models want them."""
    turns = [
        {"role": m.role, "content": [{"type": "text", "text": m.content}] if in_parts else m.content}
        for m in messages
    ]
    try:
        text: str = tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=is_open, enable_thinking=thinking
        )
    except Exception as exc:  # noqa: BLE001 -- a template is a program of the model's author
        roles = ", ".join(m.role for m in messages)
        hint = "; leave out --system" if messages[0].role == "system" else ""
        raise PromptError(
            f"this model's chat template refuses the turns {roles}: {one_line(exc)}{hint}"
        ) from None
    return text


def _lost(messages: Sequence[Message], text: str) -> Message | None:
    """The first message of user or system that is not in the prompt's text, white space aside."""
    there = "".join(text.split())
    given = (m for m in messages if m.role != "assistant")
    return next((m for m in given if "".join(m.content.split()) not in there), None)
