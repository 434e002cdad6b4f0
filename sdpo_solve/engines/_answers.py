"""Rules that all engines share: which tokens end an answer, what its text is, how long it may be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sdpo_solve.errors import EngineError
from sdpo_solve.model.chat import configured_eos, encode_chat, end_of_turn
from sdpo_solve.types import Prompt


def encode_all(tokenizer: Any, prompts_G: Sequence[Prompt]) -> dict[Prompt, tuple[int, ...]]:
    """Token ids of each distinct prompt.

    Raises EngineError for a prompt without text.
    """
    for prompt in prompts_G:
        require_text(prompt)
    return {prompt: tuple(encode_chat(tokenizer, prompt)) for prompt in dict.fromkeys(prompts_G)}


def require_text(prompt: Prompt) -> None:
    """Raises EngineError for a prompt whose messages are all blank."""
    if not any(message.content.strip() for message in prompt.messages):
        raise EngineError("the prompt is empty: the problem needs a statement")


def eos_ids(generation_config: Any, tokenizer: Any) -> frozenset[int]:
    """Every token that ends an answer, by generation config, tokenizer or, where neither does, chat template.

    Nothing else of a generation config is used: with its top-p, top-k and penalties log-probs were not those
    of the distribution sampled.
    """
    eos = configured_eos(generation_config, tokenizer)
    by_template = end_of_turn(tokenizer, eos)
    return eos if by_template is None else eos | {by_template}


def answer_text(tokenizer: Any, token_ids_T: Sequence[int], eos: frozenset[int]) -> str:
    """The text of an answer, without the token that ended it and without other special tokens."""
    ids = token_ids_T[:-1] if token_ids_T and token_ids_T[-1] in eos else token_ids_T
    text: str = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


def room_tokens(prompt_ids: Sequence[int], max_tokens: int, context_tokens: int) -> int:
    """The most tokens of an answer: what the context leaves, `max_tokens` at most.

    Raises EngineError where it leaves nothing.
    """
    room = context_tokens - len(prompt_ids)
    if room < 1:
        raise EngineError(
            f"the prompt has {len(prompt_ids)} tokens; the model's context of {context_tokens} leaves no "
            "room for an answer. Shorten the statement or the feedback"
        )
    return min(max_tokens, room)
