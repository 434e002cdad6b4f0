"""From names to objects: makes the sandbox, the engine and the weights, and from these each `Run`.

`Parts` are what the runs of one process share; `new_run` makes one run on top of them. The options come
checked (see `options.py`), and what is written on disk is decided elsewhere (`identity.py`, `journal.py`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sdpo_solve import engines, methods, sandboxes
from sdpo_solve.config import RunOptions
from sdpo_solve.engines import EnginePlugin
from sdpo_solve.errors import ConfigError, JournalError, PrerequisiteError
from sdpo_solve.grading import feedback, judge
from sdpo_solve.methods.prompts import Prompter
from sdpo_solve.model import names
from sdpo_solve.paths import file_errors
from sdpo_solve.protocols import Grader, Learner, Method, PolicyHost, Sampler, TokenProgress
from sdpo_solve.run import identity
from sdpo_solve.run.events import FILE_NAME
from sdpo_solve.run.journal import Journal, Listener, lock_file
from sdpo_solve.run.options import Plan
from sdpo_solve.sandboxes import SandboxPlugin
from sdpo_solve.types import Problem, SamplingSpec

# Answers on a CPU stay short by default: a group of 16 then takes well under a minute with the small model.
_MAX_TOKENS_CPU = 512
_MAX_TOKENS_CUDA = 8192  # arXiv 2601.20802, Table 12
_SCRIPTED_CONTEXT_TOKENS = 1 << 20


# -- what runs share -----------------------------------------------------------------------------------------


class Parts:
    """Sandbox, weights and engine of the runs of one process, each made when it is first used.

    `plan` decides which; plans that differ from it in method, seed and budget alone can use the same parts.
    `n_policies`: policies that one call of the engine may sample from.
    A context manager; leaving it removes every box and frees the weights.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        replies: Path | None = None,
        progress: TokenProgress | None = None,
        n_policies: int = 1,
    ) -> None:
        self._engine_type = engines.REGISTRY.load(plan.run.engine)
        if self._engine_type.reads_replies and replies is None:
            raise ConfigError(f"--engine {plan.run.engine} needs --replies FILE")
        if replies is not None and not self._engine_type.reads_replies:
            raise ConfigError(f"--replies is for --engine scripted; this run uses {plan.run.engine}")
        self.plan = plan
        self._replies = replies
        self._progress = progress
        self._n_policies = n_policies

    def __enter__(self) -> Parts:
        return self

    def __exit__(self, *exc: object) -> None:
        made = vars(self)  # where `cached_property` keeps what it made
        if "engine" in made:
            self.engine.close()
        if "sandbox" in made:
            self.sandbox.close()

    def warm_up(self) -> None:
        """Make every part now: threads may use them afterwards.

        Raises PrerequisiteError where something is missing.
        """
        _ = self.sandbox, self.engine
        if self.plan.has_weights:
            _ = self.weights

    @cached_property
    def sandbox(self) -> SandboxPlugin:
        """The sandbox that the plan names; for `auto` the first that works.

        Raises PrerequisiteError where none does.
        """
        run = self.plan.run
        if run.sandbox != "auto":
            return sandboxes.REGISTRY.load(run.sandbox).build(self.plan.parts["sandbox"], run.language)
        plugins = [sandboxes.REGISTRY.load(name) for name in sandboxes.REGISTRY.names()]
        reasons = []
        for plugin in sorted(plugins, key=lambda plugin: plugin.auto_order or 0):
            if plugin.auto_order is not None:
                try:
                    return plugin.build(plugin.options_type(), run.language)
                except PrerequisiteError as exc:
                    reasons.append(str(exc))
        raise PrerequisiteError(" -- or, without Docker: ".join(reasons))

    def judge(self, plan: Plan | None = None) -> judge.Judge:
        """The grader of programs, by the options of `plan`; None: its own. Raises as `sandbox` does."""
        plan = plan or self.plan
        options, quoted_half = plan.parts["judge"], plan.run.feedback_mode == "paper"
        assert isinstance(options, judge.Options)
        language, rule = plan.run.language, plan.run.extract
        return judge.Judge(self.sandbox, options, quoted_half=quoted_half, language=language, rule=rule)

    def prompter(self, options: RunOptions) -> Prompter:
        """The prompts of a run, with the language as the sandbox has it. Raises as `sandbox` does."""
        toolchain = sandboxes.toolchain(self.sandbox, options.language)
        return Prompter(options.system, options.thinking, options.language, toolchain)

    @cached_property
    def model(self) -> names.ModelDir:
        """The model on disk.

        Raises PrerequisiteError where it is not there, ConfigError for an unknown name.
        """
        options = self.plan.run
        return names.resolve(options.model or names.default_name()).held_as(options.quantization)

    @property
    def model_identity(self) -> str:
        """The model, for the record. Raises as `model` does."""
        if self._engine_type.remote:
            return f"{self.plan.run.model} of a server"
        return self.model.identity if self.plan.has_weights else "scripted replies"

    @cached_property
    def weights(self) -> PolicyHost:
        """The base model in this process, for learner and engine. Raises as `model` does."""
        loaded: PolicyHost = _module("sdpo_solve.model.adapted").AdaptedModel.load(
            self.model.path, quantization=self.model.quantization
        )
        return loaded

    @cached_property
    def engine(self) -> EnginePlugin:
        """The engine that runs share. Raises as `EnginePlugin.build` does."""
        return self._new_engine(0)

    def engine_for(self, n_attempts: int) -> EnginePlugin:
        """The engine of a run with so many attempts: the shared one, or one that goes on in the replies."""
        return self._new_engine(n_attempts) if self._engine_type.reads_replies else self.engine

    def count_tokens(self) -> Callable[[str], int]:
        """A function from a text to its length in tokens; in bytes where there is no model.

        Of a server's model nobody here knows the tokens: three bytes count as one.
        """
        if not self.plan.has_weights:
            n_bytes = 3 if self._engine_type.remote else 1
            return lambda text: -(-len(text.encode()) // n_bytes)
        tokenizer = self.weights.tokenizer
        return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])

    def _new_engine(self, n_replies_used: int) -> EnginePlugin:
        parts = engines.EngineParts(
            host=(lambda: self.weights) if self.plan.has_weights else None,
            model_dir=lambda: self.model.path,
            replies=self._replies,
            consumed=n_replies_used,
            progress=self._progress,
            lora_rank=getattr(self.plan.parts.get("learner"), "lora_rank", 1),
            n_policies=self._n_policies,
            model_name=self.plan.model_name,
        )
        return self._engine_type.build(self.plan.parts["engine"], parts)


# -- one run -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Run:
    """Everything one run is made of: problem, method and seed, the parts, and the options of its loop."""

    problem: Problem
    method: Method
    engine: Sampler
    grader: Grader
    journal: Journal
    options: RunOptions
    spec: SamplingSpec
    feedback_options: feedback.Options
    header: Mapping[str, Any]
    """What the journal begins with."""
    learner: Learner | None = None

    def close(self) -> None:
        """Close the journal and free the run's adapters; shared parts stay."""
        self.journal.close()
        if self.learner is not None:
            self.learner.close()


def sampling_spec(plan: Plan) -> SamplingSpec:
    """How the runs of a plan sample; the default length of an answer depends on the machine."""
    is_remote = engines.REGISTRY.load(plan.run.engine).remote
    is_fast = is_remote or (plan.has_weights and names.default_name() == names.DEFAULT_CUDA)
    default = _MAX_TOKENS_CUDA if is_fast else _MAX_TOKENS_CPU
    return SamplingSpec(plan.run.max_tokens or default, plan.run.temperature)


def problem_for(options: RunOptions, problem: Problem) -> Problem:
    """`problem`, just loaded, as a run of these options has it: the only place that decides what is visible.

    Raises ConfigError where language or feedback mode do not go with the problem.
    """
    judge.check_language(problem, options.language)
    return judge.with_feedback_mode(problem, options.feedback_mode, options.seed)


def check_run(parts: Parts, plan: Plan, problem: Problem, out: Path) -> None:
    """Raises ConfigError where `out` holds this run with other options; what grades is left out."""
    config = identity.config_of(plan, sampling_spec(plan), problem, parts.model_identity)
    identity.check_config(out / identity.run_name(problem, plan.run), config, plan)


def new_run(parts: Parts, plan: Plan, problem: Problem, out: Path, listeners: Sequence[Listener] = ()) -> Run:
    """The run of the plan's method and seed on a problem (see `problem_for`), new or on from its journal.

    Its journal is open and as it was; `solve` writes to it.

    Raises ConfigError where the directory holds a run of other options, PrerequisiteError where something is
    missing, JournalError where the journal cannot be read or written.
    """
    options, spec = plan.run, sampling_spec(plan)
    grader = parts.judge(plan)  # checks the sandbox before the weights are loaded
    config = {
        "grader": parts.sandbox.record(),
        **identity.config_of(plan, spec, problem, parts.model_identity),
    }
    name = identity.run_name(problem, options)
    run_dir = out / name
    identity.check_config(run_dir, config, plan)
    _check_free(run_dir)
    # Before the run's clock starts: what runs share, and waiting for the weights, is none of its budget.
    parts.warm_up()
    method_type = methods.REGISTRY.load(options.method)
    learner = _new_learner(parts, plan) if method_type.learns and plan.has_weights else None
    journal = Journal(run_dir, f"{out.name}/{name}", listeners)
    try:
        goes_on = identity.check_config(run_dir, config, plan, journal.state.header_event)
        if not goes_on:
            journal.begin_anew()
        engine = parts.engine_for(len(journal.history))
        method_parts = methods.MethodParts(
            prompter=parts.prompter(options),
            spec=spec,
            run=journal.run,
            policies_dir=run_dir / "policies",
            seed=options.seed,
            learner=learner,
            count_tokens=parts.count_tokens(),
            context_tokens=_context_tokens(parts, engine),
        )
        method = method_type.build(plan.parts[options.method], method_parts)
        header = identity.header_of(plan, problem, config, engine.identity())
        identity.write_config(run_dir, {**config, "versions": identity.versions()}, anew=not goes_on)
    except BaseException:
        journal.close()
        raise
    feedback_options = plan.parts["feedback"]
    assert isinstance(feedback_options, feedback.Options)
    return Run(
        problem=problem,
        method=method,
        engine=engine,
        grader=grader,
        journal=journal,
        options=options,
        spec=spec,
        feedback_options=feedback_options,
        header=header,
        learner=learner,
    )


def _context_tokens(parts: Parts, engine: EnginePlugin) -> int:
    """Tokens that prompt and answer may take together, for the model and for the engine."""
    own = parts.weights.context_tokens if parts.plan.has_weights else _SCRIPTED_CONTEXT_TOKENS
    return min(own, engine.context_tokens or own)


def _check_free(run_dir: Path) -> None:
    """Raises JournalError where another process writes this run: its weights may leave no room for ours."""
    path = run_dir / FILE_NAME
    if path.exists():
        with file_errors(JournalError, f"write {path}"), path.open("ab", buffering=0) as file:
            lock_file(file, run_dir, JournalError)


def _new_learner(parts: Parts, plan: Plan) -> Learner:
    learner: Learner = _module("sdpo_solve.learner.learner").build(plan.parts["learner"], parts.weights)
    return learner


def _module(name: str) -> Any:
    """A module by its name, as plug-ins are loaded: a run without weights or learner needs none of it."""
    return importlib.import_module(name)
