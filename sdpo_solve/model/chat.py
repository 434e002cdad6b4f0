"""Messages to token ids, by the model's own chat template."""

from __future__ import annotations

from typing import Any

from sdpo_solve.errors import EngineError
from sdpo_solve.sanitize import break_chat_tokens
from sdpo_solve.types import Prompt


def encode_chat(tokenizer: Any, prompt: Prompt) -> list[int]:
    """Token ids of `prompt` under the tokenizer's chat template, up to where the assistant speaks.

    Special tokens inside a message are broken up first: a statement or a feedback cannot end its turn.
    Raises EngineError where the tokenizer has no chat template.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise EngineError("this model's tokenizer has no chat template; choose an instruction-tuned model")
    special = [token for token in tokenizer.get_added_vocab() if token.strip()]
    turns = [{"role": m.role, "content": break_chat_tokens(m.content, special)} for m in prompt.messages]
    text = tokenizer.apply_chat_template(
        turns, tokenize=False, add_generation_prompt=True, enable_thinking=prompt.thinking
    )
    # The template writes the beginning-of-text token itself where the model wants one.
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
