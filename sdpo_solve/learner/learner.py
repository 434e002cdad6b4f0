"""The learner of a run: one LoRA step a group towards the self-teacher (arXiv 2601.20802, Algorithm 1).

Owns the adapter's weights, its optimizer, the teacher's average and the health of one run, and puts a new
version on disk after every group, also where no step was taken. Knows examples, not methods; the loss is
`loss.py`, its gradient `gradient.py`, the teachers `teacher.py`, the rules of health `health.py`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from sdpo_solve.config import Options as BaseOptions
from sdpo_solve.errors import LearnerError
from sdpo_solve.learner import checkpoint, teacher
from sdpo_solve.learner.examples import Replay, TokenizedExample, TokenizedGroup, tokenize
from sdpo_solve.learner.gradient import Step, StudentPasses
from sdpo_solve.learner.health import Decision, Health, group_vitals
from sdpo_solve.learner.loss import LossSettings
from sdpo_solve.learner.optimizer import AdapterOptimizer
from sdpo_solve.learner.options import EMA_RATE, Options
from sdpo_solve.learner.packing import PackedPasses
from sdpo_solve.learner.passes_choice import OUT_OF_MEMORY, choose, limits_of
from sdpo_solve.model.adapted import AdaptedModel
from sdpo_solve.model.chat import encode_chat
from sdpo_solve.model.cpu import memory_errors
from sdpo_solve.types import Example, Policy, SamplingSpec, Update

# Nats a token, for engines that share the learner's weights or serve copies of them; see `health.py`.
MAX_LOGPROB_GAPS = {torch.float64: 0.01, torch.float32: 0.01, torch.float16: 0.05, torch.bfloat16: 0.15}

__all__ = ["AdaptedModel", "LoraLearner", "Options", "build"]


@dataclass(slots=True)
class _Run:
    """All that one run has learned so far; a version directory holds the same."""

    name: str
    policies_dir: Path
    seed: int
    policy: Policy
    optimizer: AdapterOptimizer
    average: dict[str, Tensor]
    generator: torch.Generator
    passes: PackedPasses
    health: Health = field(default_factory=Health)
    replay: Replay = field(default_factory=Replay)


class LoraLearner:
    """Implements `protocols.Learner` on the weights of `host`.

    Each call holds the host's `turn` to its end: an engine's probe would take the adapter out of a gradient.
    """

    def __init__(self, host: AdaptedModel, options: Options) -> None:
        """Raises ConfigError for a model that cannot be trained, LearnerError where memory runs out."""
        self._host = host
        self._options = options
        self._choice = choose(host, options)
        self._shape = self._choice.shape
        self._average_shape = teacher.average_shape(options, self._shape)
        self._settings = loss_settings(options)
        self._max_gap = options.max_logprob_gap or MAX_LOGPROB_GAPS[host.dtype]
        self._run: _Run | None = None

    # -- a run's beginning and end -------------------------------------------------------------------------

    @memory_errors(LearnerError, OUT_OF_MEMORY)
    def start(self, run: str, policies_dir: Path, seed: int) -> Policy:
        """A fresh adapter. Version 0 is the base model itself and has no directory.

        Raises LearnerError where old versions cannot be cleared away.
        """
        with self._host.turn:
            checkpoint.clear_after(policies_dir, 0)
            generator = torch.Generator().manual_seed(seed)
            weights = self._initial_weights(generator)
            optimizer = self._optimizer(weights)
            average, policy = self._zero_average(), Policy(run, 0)
            self._run = _Run(run, policies_dir, seed, policy, optimizer, average, generator, self._passes())
            return policy

    @memory_errors(LearnerError, OUT_OF_MEMORY)
    def resume(self, run: str, policies_dir: Path, seed: int, version: int) -> Policy:
        """The state after `version`; what no journal has committed is removed.

        Raises LearnerError naming the file that is missing or damaged; nothing else is touched then.
        """
        if version == 0:
            return self.start(run, policies_dir, seed)
        with self._host.turn:
            saved = checkpoint.read_version(policies_dir, version, run)
            checkpoint.clear_after(policies_dir, version)
            generator = torch.Generator()
            generator.set_state(
                torch.tensor(list(bytes.fromhex(saved.facts["generator"])), dtype=torch.uint8)
            )
            optimizer = self._optimizer(saved.weights)
            optimizer.restore(saved.optimizer)
            policy = Policy(run, version, checkpoint.version_dir(policies_dir, version))
            self._run = _Run(
                run,
                policies_dir,
                seed,
                policy,
                optimizer,
                self._on_device(saved.teacher),
                generator,
                self._passes(saved.facts["microbatch_tokens"]),
                Health(**{"is_gap_known": True, **saved.facts["health"]}),  # early versions do not say it
                Replay.from_facts(saved.facts["replay"]),
            )
            return policy

    def keep(self, policy: Policy) -> None:
        """Never prune this version. The base needs no keeping."""
        run = self._active()
        if policy.run != run.name:
            raise LearnerError(f"cannot keep {policy.key}, a policy of another run than {run.name}")
        if policy.version > 0:
            checkpoint.mark_kept(run.policies_dir, policy.version)

    def close(self) -> None:
        with self._host.turn:
            self._run = None
            self._host.drop("policy")
            self._host.drop("teacher")

    @property
    def rests(self) -> bool:
        """Whether no further update would change this run's policy."""
        return self._active().health.rests

    # -- one update ----------------------------------------------------------------------------------------

    @memory_errors(LearnerError, OUT_OF_MEMORY)
    def learn(self, examples: Sequence[Example], spec: SamplingSpec) -> Update:
        """One step from the newest policy over the group; the next version is on disk when this returns.

        A group that teaches nothing, a gradient that explodes and a collapsed policy make a version too; the
        update's notices say what was done instead of a step. The update's loss is the mean divergence from
        the teacher, nats a token, NaN without one; what is differentiated (weights and clips applied) is
        the metric `objective`.

        Raises LearnerError for examples of a policy it cannot account for, where the version cannot be
        written, and where memory runs out.
        """
        with self._host.turn:
            return self._learn(examples, spec)

    def gradient(self, examples: Sequence[TokenizedExample], spec: SamplingSpec) -> Step:
        """The gradient of the mean loss at the newest policy, by adapter parameter."""
        run, host, options = self._active(), self._host, self._options
        key = run.policy.key
        with host.turn:
            host.put("policy", key, self._shape, run.optimizer.weights)
            if run.average:
                host.put("teacher", key, self._average_shape, run.average)
            mixture = None
            if any(example.teacher is not None for example in examples):
                mixture = teacher.teacher_mixture(host, options, examples, key, run.passes)
            with host.slot_active("policy", key):
                parameters = host.parameters("policy")
                student = StudentPasses(run.passes, parameters, self._settings, spec.temperature)
                return student.gradient(examples, mixture)

    def _learn(self, examples: Sequence[Example], spec: SamplingSpec) -> Update:
        started_s = time.monotonic()
        run, options = self._active(), self._options
        account_for(examples, run.policy, replay=options.replay > 0)
        metrics = group_vitals(examples)
        if run.policy.version > 0 and options.base_kl_attempts:
            metrics["kl_to_base"] = self._base_kl(examples, spec)
        decision = run.health.decide(run.policy.version, metrics, options)
        notices = [self._choice.notice if run.policy.version == 0 else "", decision.notice]
        n_examples = n_tokens = 0
        if decision.action == "step":
            group = self._tokenized(examples)
            metrics |= group.metrics
            n_examples, n_tokens = len(group.examples), group.n_tokens
            notices.append(run.health.note_examples(n_examples, metrics))
            if group.examples:
                notices.append(self._step(group.examples, spec, metrics))
        elif decision.action in ("rollback", "restart"):
            self._go_back(decision)
            metrics["rolled_back_to"] = float(decision.version)
        metrics["frozen"] = float(run.health.frozen)
        if options.replay:
            run.replay.add(examples)
        policy = self._commit()
        metrics["wall_s"] = time.monotonic() - started_s
        loss = metrics.get("divergence", math.nan)
        written = tuple(filter(None, notices))
        return Update(policy, loss, n_examples, n_tokens, metrics, written, decision.ignored)

    def _tokenized(self, examples: Sequence[Example]) -> TokenizedGroup:
        run = self._active()
        return tokenize(
            examples,
            run.replay.draw(self._options.replay, run.generator),
            self._options,
            encode=lambda prompt: encode_chat(self._host.tokenizer, prompt),
            context_tokens=self._host.context_tokens,
        )

    def _step(
        self, examples: Sequence[TokenizedExample], spec: SamplingSpec, metrics: dict[str, float]
    ) -> str:
        """Gradient, clip, AdamW, average; adds to `metrics`.

        Returns the notice of a step that is not taken, or of an average that lost too much; empty else.
        """
        run, options = self._active(), self._options
        step = self.gradient(examples, spec)
        norm = torch.nn.utils.get_total_norm(list(step.gradients.values())).item()
        metrics |= step.sums.means() | {"grad_norm": norm}
        # Replayed samples are of older versions: their log-probs must differ.
        gap = 0.0 if options.replay else metrics["logprob_gap"]
        refused = run.health.check_step(norm, gap, self._max_gap, options)
        metrics["skipped"] = float(bool(refused))
        if not refused and step.sums.n_taught:
            refused = run.health.check_gap(metrics["divergence"], options)
        if refused:
            return refused
        run.optimizer.step(step.gradients, scale=min(1.0, options.grad_clip / max(norm, 1e-12)))
        if not run.average:
            return ""
        rate = options.ema_rate or EMA_RATE
        rank = self._average_shape.rank
        run.average, error = teacher.averaged(run.average, run.optimizer.weights, rate, rank)
        metrics["ema_error"] = error
        if error <= teacher.MAX_ERROR:
            return ""
        return (
            f"the average of weights lost {error:.2g} of itself, limit {teacher.MAX_ERROR:g}: raise "
            "learner.ema_rank"
        )

    def _base_kl(self, examples: Sequence[Example], spec: SamplingSpec) -> float:
        """KL of the policy that sampled to the base, nats a token, estimated on some of the group's attempts.

        r - 1 - log r with r = base / policy at the sampled tokens: unbiased and never negative
        (J. Schulman, Approximating KL divergence, 2020, k3).
        """
        own = [TokenizedExample.of(e) for e in examples if e.sample.token_ids_T]
        own = own[: self._options.base_kl_attempts]
        if not own:
            return 0.0
        with self._host.base_active():
            base_N = self._active().passes.logprobs([x.student for x in own], spec.temperature)
        old_N = torch.tensor([p for example in own for p in example.old_logprobs_T], dtype=torch.float64)
        log_r_N = (base_N.cpu().double() - old_N).clamp(-20, 20)
        return float((log_r_N.exp() - 1 - log_r_N).mean())

    # -- versions ------------------------------------------------------------------------------------------

    def _go_back(self, decision: Decision) -> None:
        """Weights of an earlier version (0: the untrained adapter), with a fresh optimizer."""
        run = self._active()
        if decision.action == "restart" or decision.version == 0:
            weights = self._initial_weights(torch.Generator().manual_seed(run.seed))
            run.average = self._zero_average()
        else:
            saved = checkpoint.read_version(run.policies_dir, decision.version, run.name)
            weights, run.average = self._on_device(saved.weights), self._on_device(saved.teacher)
        run.optimizer = self._optimizer(weights)

    def _commit(self) -> Policy:
        """Write the state as the next version, drop versions that nothing needs, and move on to it."""
        run = self._active()
        number = run.policy.version + 1
        facts = {
            "generator": bytes(run.generator.get_state().tolist()).hex(),
            "health": run.health.facts(),
            "replay": run.replay.facts(),
            "microbatch_tokens": run.passes.limits.microbatch_tokens,
        }
        optimizer = run.optimizer
        version = checkpoint.Version(
            number, run.name, optimizer.weights, optimizer.moments(), run.average, facts
        )
        directory = checkpoint.write_version(run.policies_dir, version, self._shape)
        # The version before is needed until the journal has committed the new one.
        checkpoint.prune(run.policies_dir, {number, number - 1, run.health.best_version})
        run.policy = Policy(run.name, number, directory)
        self._host.put("policy", run.policy.key, self._shape, optimizer.weights)
        return run.policy

    # -- parts ---------------------------------------------------------------------------------------------

    def _initial_weights(self, generator: torch.Generator) -> dict[str, Tensor]:
        return initial_weights(self._host.shape_adapter("policy", self._shape), generator)

    def _zero_average(self) -> dict[str, Tensor]:
        """The average before the first step: the initial model. Empty where the teacher is another one."""
        if not self._options.keeps_average:
            return {}
        parameters = self._host.shape_adapter("teacher", self._average_shape)
        return {name: torch.zeros_like(p, requires_grad=False) for name, p in parameters.items()}

    def _optimizer(self, weights: Mapping[str, Tensor]) -> AdapterOptimizer:
        return AdapterOptimizer(self._on_device(weights), self._options.lr, self._options.weight_decay)

    def _on_device(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.to(self._host.device) for name, tensor in tensors.items()}

    def _passes(self, microbatch_tokens: int | None = None) -> PackedPasses:
        """`microbatch_tokens`: what an earlier lack of memory has left of the option."""
        limits = limits_of(self._options, self._host.model)
        limits.microbatch_tokens = microbatch_tokens or limits.microbatch_tokens
        return self._choice.passes(self._host.model, limits)

    def _active(self) -> _Run:
        if self._run is None:
            raise LearnerError("the learner has no run: call start or resume first")
        return self._run


def build(options: BaseOptions, host: AdaptedModel) -> LoraLearner:
    assert isinstance(options, Options)
    return LoraLearner(host, options)


def loss_settings(options: Options) -> LossSettings:
    """The options that the loss reads."""
    return LossSettings(
        alpha=options.alpha,
        top_k=options.top_k,
        tail=options.tail,
        is_clip=options.is_clip,
        advantage_clip=options.advantage_clip if options.alpha == 1 else None,
        granularity=options.granularity,
        grpo_weight=1.0 if options.is_without_feedback else options.grpo_weight,
    )


def initial_weights(
    parameters: Mapping[str, torch.nn.Parameter], generator: torch.Generator
) -> dict[str, Tensor]:
    """A drawn uniformly as PEFT draws it (Kaiming, a = sqrt 5), B zero: a product of zero."""
    weights = {}
    for name in sorted(parameters):
        shape, device = parameters[name].shape, parameters[name].device
        weights[name] = torch.zeros(shape, device=device)
        if name.endswith(teacher.A):
            bound = 1 / math.sqrt(shape[1])
            drawn = torch.empty(shape).uniform_(-bound, bound, generator=generator)
            weights[name].copy_(drawn)
    return weights


def account_for(examples: Sequence[Example], policy: Policy, *, replay: bool) -> None:
    """Raises LearnerError for an empty group, for samples of another run, of another version than the newest
    (older ones may come back where replay is on), and for log-probs that do not fit their tokens."""
    if not examples:
        raise LearnerError("an update needs at least one attempt")
    for example in examples:
        sample, sampled_by = example.sample, example.sample.policy
        older = sampled_by.run == policy.run and sampled_by.version < policy.version
        if sampled_by.key != policy.key and not (replay and older):
            raise LearnerError(
                f"a sample comes from policy {sampled_by.key}; the newest here is {policy.key}"
            )
        if len(sample.logprobs_T) != len(sample.token_ids_T):
            raise LearnerError(
                f"a sample has {len(sample.token_ids_T)} tokens and {len(sample.logprobs_T)} log-probs"
            )
