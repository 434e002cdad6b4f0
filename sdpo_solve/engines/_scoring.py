"""Log-probs of given tokens by passes with a cache: what every engine's own log-probs must agree with."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from sdpo_solve.errors import EngineError

_CHUNK_TOKENS = 64


def forced_logprobs(
    model: Any, prompt_ids: Sequence[int], token_ids_T: Sequence[int], temperature: float
) -> tuple[float, ...]:
    """Natural log-probs of `token_ids_T` after the prompt, under softmax(logits / temperature) in float32.

    Goes over `_CHUNK_TOKENS` positions at a time, so that a full T x V tensor never exists.
    """
    import torch

    device = model.get_input_embeddings().weight.device
    name = cache_argument(model)
    cached: dict[str, Any] = {}  # the model makes its own on the first pass
    logprobs: list[float] = []

    def logits_of(ids: Sequence[int], n_keep: int) -> Any:
        """[n_keep, V], the last `n_keep` positions of `ids`."""
        batch = torch.tensor([list(ids)], device=device)
        output = model(input_ids=batch, **cached, use_cache=True, **last_logits(model, n_keep))
        cached[name] = output[name]
        return output.logits[0, -n_keep:]

    with torch.no_grad():
        logits_TV = logits_of(prompt_ids, 1)
        for start in range(0, len(token_ids_T), _CHUNK_TOKENS):
            chunk = token_ids_T[start : start + _CHUNK_TOKENS]
            if len(chunk) > 1:
                logits_TV = torch.cat([logits_TV, logits_of(chunk[:-1], len(chunk) - 1)])
            logprobs_TV = torch.log_softmax(logits_TV.float() / temperature, dim=-1)
            targets_T1 = torch.tensor(chunk, device=device)[:, None]
            logprobs += logprobs_TV.gather(-1, targets_T1)[:, 0].tolist()
            if start + _CHUNK_TOKENS < len(token_ids_T):
                logits_TV = logits_of(chunk[-1:], 1)
    return tuple(logprobs)


def cache_argument(model: Any) -> str:
    """The name of the cache in the model's `forward`; transformers 5 renames `past_key_values` to `cache`.

    Raises EngineError for a model without one.
    """
    names = inspect.signature(_causal(model).forward).parameters
    name = next((x for x in ("cache", "past_key_values", "cache_params") if x in names), None)
    if name is None:
        raise EngineError("this model keeps no cache between tokens, so that it cannot be sampled from")
    return name


def last_logits(model: Any, n_keep: int) -> dict[str, int]:
    """The argument that makes a pass compute the logits of its last positions only, where there is one."""
    name = "logits_to_keep"
    return {name: n_keep} if name in inspect.signature(_causal(model).forward).parameters else {}


def _causal(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model
