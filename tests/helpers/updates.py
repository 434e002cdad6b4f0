"""A learner on a tiny model, groups that its own policies sampled, and what it left on disk."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from sdpo_solve.learner.learner import LoraLearner, Options, build
from sdpo_solve.model.adapted import AdaptedModel
from sdpo_solve.model.chat import encode_chat
from sdpo_solve.types import Example, Finish, Message, Policy, Prompt, Sample, SamplingSpec

SPEC = SamplingSpec(max_tokens=32)
QUESTION = Prompt((Message("user", "Reverse a list."),))


def prompt(text: str) -> Prompt:
    return Prompt((Message("user", text),))


def group(
    host: AdaptedModel, policy: Policy, *, size: int = 4, seed: int = 0, feedback: str = "No."
) -> list[Example]:
    """Answers of the policy's own, sampled token by token; every other one with a feedback of its own."""
    generator = torch.Generator().manual_seed(seed)
    prompt_ids = tuple(encode_chat(host.tokenizer, QUESTION))
    examples = []
    for g in range(size):
        ids, logprobs = sample(host, policy, prompt_ids, 6 + 3 * g, generator)
        drawn = Sample(QUESTION, prompt_ids, ids, logprobs, f"answer {g}", Finish.STOP, policy)
        teacher = prompt(f"Reverse a list.\n\n{feedback} {g % 2}")
        examples.append(Example(drawn, teacher, reward=0.0))
    return examples


def sample(
    host: AdaptedModel, policy: Policy, prompt_ids: Sequence[int], n: int, generator: torch.Generator
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    ids, logprobs = list(prompt_ids), []
    with host.policy_active(policy) as model, torch.no_grad():
        for _ in range(n):
            logprobs_V = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
            token = int(torch.multinomial(logprobs_V.exp(), 1, generator=generator))
            ids.append(token)
            logprobs.append(float(logprobs_V[token]))
    return tuple(ids[len(prompt_ids) :]), tuple(logprobs)


def learner(host: AdaptedModel, **options: Any) -> LoraLearner:
    return build(Options(**{"lr": 1e-3, "on_collapse": "ignore", "min_gap": 0, **options}), host)


def run_updates(
    host: AdaptedModel, policies: Path, n: int, **options: Any
) -> tuple[LoraLearner, list[Policy]]:
    found = learner(host, **options)
    policy = found.start("run", policies, seed=0)
    chain = [policy]
    for step in range(n):
        policy = found.learn(group(host, policy, seed=step), SPEC).policy
        chain.append(policy)
    return found, chain


def weights(policies: Path, version: int) -> dict[str, torch.Tensor]:
    return load_file(policies / f"{version:04d}" / "adapter_model.safetensors")


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
