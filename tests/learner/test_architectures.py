"""Learning by many architectures: the gradient is autograd's through the model's own forward, or it is refused.

Sampling from them is tested in `tests/engines/test_architectures.py`.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sdpo_solve.engines.hf import HfEngine
from sdpo_solve.engines.hf import Options as EngineOptions
from sdpo_solve.errors import ConfigError
from sdpo_solve.learner.examples import TokenizedExample, tokenize
from sdpo_solve.learner.learner import LoraLearner
from sdpo_solve.learner.loss import distillation_loss
from sdpo_solve.learner.options import Options
from sdpo_solve.learner.packing import PackedPasses
from sdpo_solve.learner.passes_choice import choose
from sdpo_solve.learner.plain import PlainPasses
from sdpo_solve.model.adapted import AdaptedModel
from sdpo_solve.model.chat import encode_chat
from sdpo_solve.types import Example, Message, Policy, Prompt, SamplingSpec
from tests.helpers.architectures import ARCHITECTURES, config_of, save_architecture

SPEC = SamplingSpec(10)
OPTIONS: dict[str, Any] = {"lr": 1e-2, "lora_rank": 4, "max_base_kl": 1e9}
PACKED = {
    "qwen2", "llama", "qwen3", "gemma", "glm4", "olmo2", "phi", "opt", "gpt-neox", "gpt2", "qwen3-moe", "olmoe", "smollm3",
    "deepseek-v3", "phimoe",
}  # fmt: skip


def ask(text: str) -> Prompt:
    return Prompt((Message("user", text),))


def sampled(host: AdaptedModel, policy: Policy, seed: int) -> list[Example]:
    """Answers of the in-process engine, longer than a window, each with a teacher of its own."""
    samples = HfEngine(host, EngineOptions()).sample([ask("a" * 9)] * 3, range(seed, seed + 3), policy, SPEC)
    return [Example(sample, ask(f"a\n{n} no"), 0.0) for n, sample in enumerate(samples)]


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft's own
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")
def own_gradient(
    model_dir: Path, policy: Policy, examples: list[TokenizedExample]
) -> dict[str, torch.Tensor]:
    """Through peft's layers and the model's own forward, a row at a time, against the base as teacher."""
    from peft import PeftModel

    base = AdaptedModel.load(model_dir, "cpu", torch.float32).model
    model = PeftModel.from_pretrained(base, str(policy.adapter_dir), is_trainable=True).eval()
    total = sum(example.student.n_targets for example in examples)
    for example in examples:
        assert example.teacher is not None
        with torch.no_grad(), model.disable_adapter():
            teacher = completion_logits(model, example.teacher)
        loss = distillation_loss(
            completion_logits(model, example.student)[None],
            teacher[None],
            torch.tensor([example.student.completion_ids_T]),
            torch.ones(1, example.student.n_targets),
            old_logprobs_BT=torch.tensor([example.old_logprobs_T]),
            advantage_clip=5.0,
        )
        (loss * example.student.n_targets / total).backward()
    named = ((name, p.grad) for name, p in model.named_parameters() if p.requires_grad)
    return {name.replace(".default.", "."): grad for name, grad in named if grad is not None}


def completion_logits(model: Any, row: Any) -> torch.Tensor:
    ids = torch.tensor([row.prompt_ids + row.completion_ids_T])
    logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits[0, len(row.prompt_ids) - 1 : -1]
    return logits.float()


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")
@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_what_is_sampled_is_what_is_learned(name: str, tmp_path: Path) -> None:
    """An update with the preset `paper`, a resume that takes the same second step, and its gradient."""
    model_dir = save_architecture(tmp_path / "model", config_of(name))
    host = AdaptedModel.load(model_dir, "cpu", torch.float32)
    learner = LoraLearner(host, Options(preset="paper", **OPTIONS))
    kind = choose(host, Options(**OPTIONS)).passes
    assert kind is (PackedPasses if name in PACKED else PlainPasses)
    policy = learner.start("run", tmp_path / "policies", 0)
    update = learner.learn(sampled(host, policy, 0), SPEC)
    policy = update.policy
    assert update.metrics["skipped"] == 0
    assert update.metrics["logprob_gap"] < 1e-4
    assert any("own forward pass" in notice for notice in update.notices) == (kind is PlainPasses)

    group = sampled(host, policy, 3)
    encode = {"encode": lambda prompt: encode_chat(host.tokenizer, prompt), "context_tokens": 512}
    examples = tokenize(group, [], Options(), **encode).examples
    frozen = LoraLearner(host, Options(min_gap=0, **OPTIONS))
    frozen.resume("run", tmp_path / "policies", 0, 1)
    step = frozen.gradient(examples, SPEC)
    assert step.sums.means()["logprob_gap"] < 1e-4
    wanted = own_gradient(model_dir, policy, examples)
    gap = sum(float((step.gradients[x] - wanted[x]).double().square().sum()) for x in wanted)
    norm = sum(float(g.double().square().sum()) for g in wanted.values())
    assert norm > 0
    assert (gap / norm) ** 0.5 < (1e-5 if name in ("qwen2", "llama") else 1e-4)

    learner.learn(group, SPEC)
    whole = load_file(tmp_path / "policies" / "0002" / "adapter_model.safetensors")
    again = LoraLearner(host, Options(preset="paper", **OPTIONS))
    again.resume("run", tmp_path / "policies", 0, 1)
    again.learn(group, SPEC)
    resumed = load_file(tmp_path / "policies" / "0002" / "adapter_model.safetensors")
    assert all(torch.equal(whole[x], resumed[x]) for x in whole)


def test_an_adapter_on_too_few_of_the_weights_is_refused_before_anything_is_paid(tmp_path: Path) -> None:
    """DeepSeek's dense layer and shared experts are called as its experts are, so that PEFT cannot reach them."""
    host = AdaptedModel.load(save_architecture(tmp_path, config_of("deepseek-v3")), "cpu", torch.float32)
    with pytest.raises(ConfigError, match=r"reaches 58% .* learner\.min_lora_share"):
        LoraLearner(host, Options(min_lora_share=0.6))
