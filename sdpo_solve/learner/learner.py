"""The learner of a run: one LoRA step a group towards the self-teacher (arXiv 2601.20802, Algorithm 1).

Owns the adapter's weights, its optimizer, the teacher's average and the health of one run, and puts a new
version on disk after every group, also where no step was taken. Knows examples, not methods; the loss is
`loss.py`, its gradient `gradient.py`, the teachers `teacher.py`, the rules of health `health.py`.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

from sdpo_solve.config import Options as BaseOptions
from sdpo_solve.errors import ConfigError, LearnerError
from sdpo_solve.learner import checkpoint as disk
from sdpo_solve.learner import teacher as teachers
from sdpo_solve.learner.examples import Lessons, Replay
from sdpo_solve.learner.gradient import Lesson, Passes, Sizes, Step, Targets, fitting
from sdpo_solve.learner.head import Mixture
from sdpo_solve.learner.health import Decision, Health, group_vitals
from sdpo_solve.learner.loss import LossSettings
from sdpo_solve.learner.optimizer import AdapterOptimizer
from sdpo_solve.learner.options import Options
from sdpo_solve.learner.packing import hidden_states
from sdpo_solve.model.adapted import TARGETS, AdaptedModel, AdapterShape
from sdpo_solve.model.capability import odd_layers
from sdpo_solve.model.chat import encode_chat
from sdpo_solve.model.cpu import is_out_of_memory
from sdpo_solve.types import Example, Policy, SamplingSpec, Update

__all__ = ["AdaptedModel", "LoraLearner", "Options", "build"]

ArgsP = ParamSpec("ArgsP")
ReturnT = TypeVar("ReturnT")


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
    sizes: Sizes
    health: Health = field(default_factory=Health)
    replay: Replay = field(default_factory=Replay)


def _in_turn(
    method: Callable[Concatenate[LoraLearner, ArgsP], ReturnT],
) -> Callable[Concatenate[LoraLearner, ArgsP], ReturnT]:
    """Held for the whole call: an engine's probe would take the adapter out of a gradient."""

    @functools.wraps(method)
    def taken(self: LoraLearner, /, *args: ArgsP.args, **kwargs: ArgsP.kwargs) -> ReturnT:
        with self._host.turn:
            return method(self, *args, **kwargs)

    return taken


class LoraLearner:
    """Implements `protocols.Learner` on the weights of `host`."""

    def __init__(self, host: AdaptedModel, options: Options) -> None:
        if (layers := odd_layers(host.model.config)) is not None:
            raise ConfigError(f"a model with {layers} can be sampled from, but not trained here")
        self._host = host
        self._options = options
        self._shape = AdapterShape(options.lora_rank, options.lora_alpha, TARGETS[options.lora_targets])
        rank = options.ema_rank_used
        self._teacher_shape = AdapterShape(rank, self._shape.scaling * rank, self._shape.targets)
        self._settings = loss_settings(options)
        self._run: _Run | None = None

    # -- a run's beginning and end -------------------------------------------------------------------------

    @_in_turn
    def start(self, run: str, policies_dir: Path, seed: int) -> Policy:
        """A fresh adapter. Version 0 is the base model itself and has no directory.

        Raises LearnerError where old versions cannot be cleared away.
        """
        disk.clear_after(policies_dir, 0)
        generator = torch.Generator().manual_seed(seed)
        parameters = self._host.shape_adapter("policy", self._shape)
        weights = initial_weights(parameters, generator)
        average = teachers.zero_average(weights, self._teacher_shape.rank) if self._has_average else {}
        policy = Policy(run, 0)
        optimizer = AdapterOptimizer(weights, self._options.lr, self._options.weight_decay)
        self._run = _Run(run, policies_dir, seed, policy, optimizer, average, generator, self._sizes())
        return policy

    @_in_turn
    def resume(self, run: str, policies_dir: Path, seed: int, version: int) -> Policy:
        """The state after `version`; what no journal has committed is removed.

        Raises LearnerError naming the file that is missing or damaged; nothing else is touched then.
        """
        if version == 0:
            return self.start(run, policies_dir, seed)
        saved = disk.read_version(policies_dir, version, run)
        disk.clear_after(policies_dir, version)
        policy = Policy(run, version, disk.version_dir(policies_dir, version))
        device = self._host.device
        optimizer = AdapterOptimizer.restored(
            saved.weights, saved.optimizer, self._options.lr, self._options.weight_decay, device
        )
        generator = torch.Generator()
        generator.set_state(torch.tensor(list(bytes.fromhex(saved.facts["generator"])), dtype=torch.uint8))
        self._run = _Run(
            run,
            policies_dir,
            seed,
            policy,
            optimizer,
            {name: t.to(device) for name, t in saved.teacher.items()},
            generator,
            self._sizes(saved.facts["microbatch_tokens"]),
            Health.from_facts(saved.facts["health"]),
            Replay.from_facts(saved.facts["replay"]),
        )
        return policy

    def keep(self, policy: Policy) -> None:
        """Never prune this version. The base needs no keeping."""
        run = self._active()
        if policy.run != run.name:
            raise LearnerError(f"asked to keep {policy.key}, a policy of another run than {run.name}")
        if policy.version > 0:
            disk.mark_kept(run.policies_dir, policy.version)

    @_in_turn
    def close(self) -> None:
        self._run = None
        self._host.drop("policy")
        self._host.drop("teacher")

    # -- one update ----------------------------------------------------------------------------------------

    @_in_turn
    def learn(self, examples: Sequence[Example], spec: SamplingSpec) -> Update:
        """One step from the newest policy over the group; the next version is on disk when this returns.

        A group that teaches nothing, a gradient that explodes and a collapsed policy make a version too; the
        update's notices say what was done instead of a step. The update's loss is the mean divergence from
        the teacher, nats a token; what is differentiated (weights and clips applied) is the metric
        `objective`. Raises LearnerError for examples of a policy it cannot account for, and where the version
        cannot be written.
        """
        started_s = time.monotonic()
        run = self._active()
        account_for(examples, run.policy, replay=self._options.replay > 0)
        metrics = group_vitals(examples)
        if run.policy.version > 0 and self._options.base_kl_attempts:
            metrics["kl_to_base"] = self._base_kl(examples, spec)
        decision = run.health.decide(run.policy.version, metrics, self._options)
        notices = [decision.notice] if decision.notice else []
        n_examples = n_tokens = 0
        if decision.action == "step":
            lessons = self._lessons(examples)
            metrics |= lessons.metrics
            n_examples, n_tokens = len(lessons.lessons), lessons.n_tokens
            notices += [n for n in (run.health.note_lessons(n_examples, metrics),) if n]
            if lessons.lessons:
                notices += self._step(lessons.lessons, spec, metrics)
        elif decision.action in ("rollback", "restart"):
            self._go_back(decision)
            metrics["rolled_back_to"] = float(decision.version)
        metrics["frozen"] = float(run.health.frozen)
        if self._options.replay:
            run.replay.add(examples)
        policy = self._commit()
        metrics["wall_s"] = time.monotonic() - started_s
        loss = metrics["divergence"] if n_examples else math.nan
        return Update(policy, loss, n_examples, n_tokens, metrics, tuple(notices), decision.ignored)

    def _lessons(self, examples: Sequence[Example]) -> Lessons:
        run = self._active()
        drawn = run.replay.draw(self._options.replay, run.generator)
        return Lessons.of(
            examples,
            drawn,
            self._options,
            encode=lambda prompt: encode_chat(self._host.tokenizer, prompt),
            context_tokens=self._host.context_tokens,
        )

    def _step(self, lessons: Sequence[Lesson], spec: SamplingSpec, metrics: dict[str, float]) -> list[str]:
        """Gradient, clip, AdamW, average. Returns the notice of a step that was not taken."""
        run, options = self._active(), self._options
        try:
            step = self.gradient(lessons, spec)
        except RuntimeError as exc:
            if not is_out_of_memory(exc):
                raise
            raise LearnerError("out of memory in the pass over the question itself") from None
        norm = torch.nn.utils.get_total_norm(list(step.gradients.values())).item()
        metrics |= _means(step) | {"grad_norm": norm}
        refused = run.health.check_gradient(norm, options)
        metrics["skipped"] = float(bool(refused))
        if refused:
            return [refused]
        run.optimizer.step(step.gradients, scale=min(1.0, options.grad_clip / max(norm, 1e-12)))
        if self._has_average:
            run.average, metrics["ema_error"] = teachers.averaged(
                run.average, run.optimizer.weights, options.ema_rate_used
            )
            if metrics["ema_error"] > teachers.MAX_ERROR:
                lost = f"the average of weights lost {metrics['ema_error']:.2g} of itself"
                return [f"{lost}, limit {teachers.MAX_ERROR:g}: raise learner.ema_rank"]
        return []

    @_in_turn
    def gradient(self, lessons: Sequence[Lesson], spec: SamplingSpec) -> Step:
        """The gradient of the mean loss at the newest policy, by adapter parameter."""
        run, host = self._active(), self._host
        key = run.policy.key
        host.put("policy", key, self._shape, run.optimizer.weights)
        if self._has_average:
            host.put("teacher", key, self._teacher_shape, run.average)
        targets = self._targets(lessons, key)
        with host.slot_active("policy", key) as model:
            passes = Passes(model, host.parameters("policy"), self._settings, run.sizes, spec.temperature)
            return passes.gradient(lessons, targets)

    def _targets(self, lessons: Sequence[Lesson], key: str) -> Targets:
        sizes, host, options = self._active().sizes, self._host, self._options
        teacher = reference = None
        if any(lesson.teacher is not None for lesson in lessons):
            teacher = fitting(sizes, lambda size: teachers.teacher_word(host, options, lessons, key, size))
        if options.reference_kl:
            rows = [lesson.student for lesson in lessons]
            with host.base_active() as model:
                reference = fitting(sizes, lambda size: Mixture.of(hidden_states(model, rows, size)))
        return Targets(teacher, reference)

    def _base_kl(self, examples: Sequence[Example], spec: SamplingSpec) -> float:
        """KL of the policy that sampled to the base, nats a token, estimated on some of the group's attempts.

        r - 1 - log r with r = base / policy at the sampled tokens: unbiased and never negative
        (J. Schulman, Approximating KL divergence, 2020, k3).
        """
        lessons = Lessons.plain([e for e in examples if e.sample.token_ids_T])
        lessons = lessons[: self._options.base_kl_attempts]
        if not lessons:
            return 0.0
        run = self._active()
        rows = [lesson.student for lesson in lessons]
        with self._host.base_active() as model:
            passes = Passes(model, {}, self._settings, run.sizes, spec.temperature)
            hidden_Nd = fitting(run.sizes, lambda size: hidden_states(model, rows, size))
            ids_N = torch.tensor([i for row in rows for i in row.completion_ids_T], device=hidden_Nd.device)
            base_N = passes.head.logprobs(Mixture.of(hidden_Nd), ids_N, run.sizes.chunk_positions)
        old_N = torch.tensor([p for lesson in lessons for p in lesson.old_logprobs_T], dtype=torch.float64)
        log_r_N = (base_N.cpu().double() - old_N).clamp(-20, 20)
        return float((log_r_N.exp() - 1 - log_r_N).mean())

    # -- versions ------------------------------------------------------------------------------------------

    def _go_back(self, decision: Decision) -> None:
        """Weights of an earlier version (0: the untrained adapter), with a fresh optimizer."""
        run, options = self._active(), self._options
        if decision.action == "restart" or decision.version == 0:
            parameters = self._host.shape_adapter("policy", self._shape)
            weights = initial_weights(parameters, torch.Generator().manual_seed(run.seed))
            average = teachers.zero_average(weights, self._teacher_shape.rank)
        else:
            saved = disk.read_version(run.policies_dir, decision.version, run.name)
            weights = {name: t.to(self._host.device) for name, t in saved.weights.items()}
            average = {name: t.to(self._host.device) for name, t in saved.teacher.items()}
        run.optimizer = AdapterOptimizer(weights, options.lr, options.weight_decay)
        run.average = average if self._has_average else {}

    def _commit(self) -> Policy:
        """Write the state as the next version, drop versions nobody will ask for, and move on to it."""
        run = self._active()
        number = run.policy.version + 1
        facts: dict[str, Any] = {
            "run": run.name,
            "generator": bytes(run.generator.get_state().tolist()).hex(),
            "health": run.health.facts(),
            "replay": run.replay.facts(),
            "microbatch_tokens": run.sizes.microbatch_tokens,
        }
        version = disk.Version(number, run.optimizer.weights, run.optimizer.tensors(), run.average, facts)
        directory = disk.write_version(run.policies_dir, version, self._shape)
        # The version before is needed until the journal has committed the new one.
        disk.prune(run.policies_dir, {number, number - 1, run.health.best_version})
        run.policy = Policy(run.name, number, directory)
        self._host.put("policy", run.policy.key, self._shape, run.optimizer.weights)
        return run.policy

    # -- small things --------------------------------------------------------------------------------------

    @property
    def _has_average(self) -> bool:
        return self._options.teacher == "ema"

    def _sizes(self, microbatch_tokens: int | None = None) -> Sizes:
        options = self._options
        return Sizes(
            microbatch_tokens or options.microbatch_tokens,
            options.checkpoint_tokens,
            options.chunk_positions,
        )

    def _active(self) -> _Run:
        if self._run is None:
            raise LearnerError("the learner has no run: call start or resume first")
        return self._run


def build(options: BaseOptions, host: AdaptedModel) -> LoraLearner:
    assert isinstance(options, Options)
    return LoraLearner(host, options)


def loss_settings(options: Options) -> LossSettings:
    """The options that the loss reads."""
    by_reward = options.teacher == "none-negative"
    return LossSettings(
        alpha=options.alpha,
        top_k=options.top_k,
        tail=options.tail,
        is_clip=options.is_clip,
        advantage_clip=options.advantage_clip if options.alpha == 1 else None,
        granularity=options.granularity,
        kl_clip=options.kl_clip,
        entropy_weight=options.entropy_weight,
        position_ramp_tokens=options.position_ramp_tokens,
        grpo_weight=1.0 if by_reward else options.grpo_weight,
        reference_kl=options.reference_kl,
    )


def initial_weights(
    parameters: Mapping[str, torch.nn.Parameter], generator: torch.Generator
) -> dict[str, Tensor]:
    """A drawn uniformly as PEFT draws it (Kaiming, a = sqrt 5), B zero: a product of zero."""
    weights = {}
    for name in sorted(parameters):
        shape, device = parameters[name].shape, parameters[name].device
        weights[name] = torch.zeros(shape, device=device)
        if name.endswith(teachers.A):
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
        sample, said = example.sample, example.sample.policy
        old = replay and said.run == policy.run and said.version < policy.version
        if said.key != policy.key and not old:
            raise LearnerError(f"a sample comes from policy {said.key}; the newest here is {policy.key}")
        if len(sample.logprobs_T) != len(sample.token_ids_T):
            raise LearnerError(
                f"a sample has {len(sample.token_ids_T)} tokens and {len(sample.logprobs_T)} log-probs"
            )


def _means(step: Step) -> dict[str, float]:
    sums, n = step.sums, max(1, step.sums.n)
    return {
        "objective": sums.loss / n,
        "entropy": sums.entropy / n,
        "divergence": sums.divergence / n,
        "importance_ratio": sums.ratio / n,
        "importance_clipped_share": sums.clipped / n,
        "logprob_gap": sums.gap / n,
    }
