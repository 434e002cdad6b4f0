"""Sampling from many architectures: log-probs are those of the model's own forward pass, or it is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

from sdpo_solve.engines import _batch_choice
from sdpo_solve.engines._decoding import Batch, CohortBatch
from sdpo_solve.engines._scoring import forced_logprobs
from sdpo_solve.engines.hf import HfEngine, Options
from sdpo_solve.errors import EngineError
from sdpo_solve.model.adapted import AdaptedModel
from sdpo_solve.types import Message, Policy, Prompt, SamplingSpec
from tests.helpers.architectures import ARCHITECTURES, config_of, save_architecture

BASE = Policy("base", 0)
# Layers that keep other states than all keys and values.
COHORTS = {
    "mistral-window", "mixtral-window", "phi3-window", "starcoder2-window", "gemma2", "gemma3", "cohere2", "gpt-oss",
    "qwen3-next", "qwen3.5", "lfm2", "falcon-h1", "exaone4", "mamba2",
}  # fmt: skip


def load(path: Path, config: Any) -> AdaptedModel:
    return AdaptedModel.load(save_architecture(path, config), "cpu", torch.float32)


def ask(text: str) -> Prompt:
    return Prompt((Message("user", text),))


@torch.no_grad()
def plain_logprobs(model: Any, prompt_ids: tuple[int, ...], token_ids: tuple[int, ...]) -> list[float]:
    """By one pass of the model's own forward, without any cache."""
    logits = model(input_ids=torch.tensor([prompt_ids + token_ids]), use_cache=False).logits[0]
    logprobs = logits[len(prompt_ids) - 1 : -1].float().log_softmax(-1)
    return [float(row[token]) for row, token in zip(logprobs, token_ids, strict=True)]


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_samples_are_of_the_models_own_distribution(name: str, tmp_path: Path) -> None:
    """Prompts of several lengths, longer than a window, refilled rows; also scored with a cache."""
    host = load(tmp_path, config_of(name))
    engine = HfEngine(host, Options(batch_rows=3))
    prompts = [ask("a"), ask("b" * 20), ask("a"), ask("a"), ask("ccc")]
    samples = engine.sample(prompts, range(5), BASE, SamplingSpec(10))
    for got in samples:
        want = plain_logprobs(host.model, got.prompt_ids, got.token_ids_T)
        assert got.logprobs_T == pytest.approx(want, abs=2e-4)
    scored = forced_logprobs(host.model, samples[1].prompt_ids, samples[1].token_ids_T, 1.0)
    assert scored == pytest.approx(samples[1].logprobs_T, abs=2e-4)
    if name in COHORTS:
        assert engine._batch_type is CohortBatch
    elif name in ("qwen2", "llama", "qwen3"):
        assert engine._batch_type is Batch


def test_cohorts_draw_the_same_tokens_as_other_batches(tmp_path: Path) -> None:
    host = load(tmp_path, config_of("qwen2"))
    prompts = [ask("a"), ask("b" * 20), ask("a"), ask("a"), ask("ccc")] * 2
    ours, cohorts = (
        HfEngine(host, Options(batch_rows=4), batch_type=form).sample(
            prompts, range(10), BASE, SamplingSpec(30)
        )
        for form in (Batch, CohortBatch)
    )
    assert [s.token_ids_T for s in ours] == [s.token_ids_T for s in cohorts]


@pytest.mark.parametrize(
    ("name", "fields", "limit"),
    [
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, 512),
        (
            "phi3-window",
            {
                "original_max_position_embeddings": 64,
                "rope_parameters": {
                    "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 8, "long_factor": [4.0] * 8,
                },
            },
            64,
        ),
    ],
)  # fmt: skip
def test_where_rope_depends_on_the_length_the_context_ends_before(
    name: str, fields: dict[str, Any], limit: int, tmp_path: Path
) -> None:
    """An answer does not depend on the rows beside it."""
    host = load(tmp_path, config_of(name, **fields))
    assert host.context_tokens == limit
    engine = HfEngine(host, Options())
    alone = engine.sample([ask("a")], [0], BASE, SamplingSpec(400))[0]
    beside = engine.sample([ask("a"), ask("b" * (limit - 60))], [0, 1], BASE, SamplingSpec(400))[0]
    assert alone.token_ids_T == beside.token_ids_T
    assert len(alone.prompt_ids) + len(alone.token_ids_T) <= limit
    want = plain_logprobs(host.model, alone.prompt_ids, alone.token_ids_T)
    assert alone.logprobs_T == pytest.approx(want, abs=2e-4)


def test_a_model_that_no_cache_follows_is_refused_before_anything_is_sampled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = load(tmp_path, config_of("qwen2"))
    before = type(host.model).forward

    def forward(self: Any, *args: Any, use_cache: bool = True, **kwargs: Any) -> Any:
        output = before(self, *args, use_cache=use_cache, **kwargs)
        output.logits = output.logits * (1.0 if use_cache else 0.5)
        return output

    monkeypatch.setattr(type(host.model), "forward", forward)
    monkeypatch.setattr(_batch_choice, "cache_argument", lambda _: "cache", raising=False)
    with pytest.raises(EngineError, match="cannot be sampled from"):
        HfEngine(host, Options()).sample([ask("a")], [0], BASE, SamplingSpec(5))
