"""Answers of 8192 tokens (Table 12) fit: an update's memory grows with the chunk, not with answer x vocabulary."""

import weakref
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sdpo_solve.model.adapted import AdaptedModel
from sdpo_solve.model.chat import encode_chat
from sdpo_solve.types import Example, Finish, Message, Prompt, Sample
from tests.helpers.tiny_model import save_tiny_model
from tests.helpers.updates import SPEC, learner

ANSWER_TOKENS, VOCABULARY = 8192, 4096
WHOLE_BYTES = 4 * ANSWER_TOKENS * VOCABULARY
"""One tensor of T x V in float32."""


class Memory(TorchDispatchMode):
    """Every tensor that an operation makes: the most bytes alive at once, and the rows of those as wide as
    the vocabulary."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = self.widest_rows = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor)
        return found

    def _note(self, tensor: torch.Tensor) -> None:
        if tensor.dim() > 1 and tensor.shape[-1] == VOCABULARY:
            self.widest_rows = max(self.widest_rows, tensor.numel() // VOCABULARY)
        storage = tensor.untyped_storage()
        if storage._cdata not in self._seen:
            self._seen.add(storage._cdata)
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._free, storage._cdata, storage.nbytes())

    def _free(self, key: int, n_bytes: int) -> None:
        self._seen.discard(key)
        self.live -= n_bytes


def test_the_measure_sees_what_is_alive_and_what_went() -> None:
    with Memory() as seen:
        kept = torch.ones(4, VOCABULARY)
        view = kept[:2]
        kept.exp().sum()
    assert (seen.live, seen.peak, seen.widest_rows) == (16 * VOCABULARY, 32 * VOCABULARY + 4, 4)
    del kept
    assert seen.live == 16 * VOCABULARY, "a view holds the whole"
    del view
    assert seen.live == 0


def test_an_update_with_8192_tokens_holds_a_chunk_of_the_vocabulary(tmp_path: Path) -> None:
    """Student, both models of the trust region, and the gradient, in float32 on the CPU."""
    chunk = 128
    model_dir = save_tiny_model(
        tmp_path / "m", layers=1, hidden=32, vocab_size=VOCABULARY, context_tokens=4 * ANSWER_TOKENS
    )
    host = AdaptedModel.load(model_dir, "cpu", torch.float32)
    found = learner(host, teacher="trust-region", chunk_positions=chunk, lora_rank=4)
    policy = found.start("run", tmp_path / "policies", 0)
    question = Prompt((Message("user", "Reverse a list."),))
    ids_T = tuple(
        torch.randint(0, 200, (ANSWER_TOKENS,), generator=torch.Generator().manual_seed(0)).tolist()
    )
    prompt_ids = tuple(encode_chat(host.tokenizer, question))
    sample = Sample(question, prompt_ids, ids_T, (-9.0,) * ANSWER_TOKENS, "", Finish.LENGTH, policy)
    told = Prompt((Message("user", "Reverse a list.\n\nWrong."),))
    with Memory() as seen:
        update = found.learn([Example(sample, told, 0.0)], SPEC)
    assert (update.n_examples, update.n_tokens) == (1, ANSWER_TOKENS)
    assert update.metrics["grad_norm"] > 0
    assert seen.widest_rows == chunk
    # Hidden states, keys and the activations of a layer grow with the answer, nothing with its square or with
    # the vocabulary.
    assert seen.peak < WHOLE_BYTES / 3, f"{seen.peak / 2**20:.0f} MiB"
