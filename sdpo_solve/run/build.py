"""From names to objects: the only module that makes engines, sandboxes, methods and problems.

A `Workshop` holds what runs share (weights, engine, sandbox) and makes `Run`s. What a user can get wrong was
checked before by `parts.py`, which is offered here too. It runs nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from sdpo_solve import engines, methods, sandboxes
from sdpo_solve.config import RunOptions
from sdpo_solve.engines import EngineParts
from sdpo_solve.errors import ConfigError, PrerequisiteError
from sdpo_solve.grading import feedback, judge
from sdpo_solve.methods import MethodParts
from sdpo_solve.methods.prompts import Prompter
from sdpo_solve.model import names
from sdpo_solve.protocols import Engine, Grader, Learner, Method, Sandbox, TokenProgress
from sdpo_solve.run.identity import (
    check_config,
    check_grader,
    problem_digest,
    run_name,
    versions,
    write_config,
)
from sdpo_solve.run.journal import Journal, Listener
from sdpo_solve.run.options import Plan, has_weights, make_plan, plugin_names
from sdpo_solve.types import Budget, Problem, SamplingSpec

if TYPE_CHECKING:
    from sdpo_solve.model.adapted import AdaptedModel

__all__ = ["Plan", "Workshop", "make_plan", "plugin_names"]

# Answers on a CPU stay short by default: a group of 16 then takes well under a minute with the small model.
_MAX_TOKENS_CPU = 512
_MAX_TOKENS_CUDA = 8192  # arXiv 2601.20802, Table 12
_SCRIPTED_CONTEXT_TOKENS = 1 << 20


# -- the workshop --------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Shared:
    """What the runs of one process share, made when first needed; learners by the run they belong to."""

    sandbox: Sandbox | None = None
    sandbox_limits: Mapping[str, Any] = field(default_factory=dict)
    engine: Engine | None = None
    host: AdaptedModel | None = None
    model: names.ModelDir | None = None
    learners: dict[str, Learner] = field(default_factory=dict)


class Workshop:
    """Makes the runs of one plan from parts that are made when first needed and closed together.

    A context manager; leaving it removes every box and frees the weights.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        replies: Path | None = None,
        progress: TokenProgress | None = None,
        _shared: _Shared | None = None,
    ) -> None:
        reads_replies = engines.REGISTRY.load(plan.run.engine).reads_replies
        if reads_replies and replies is None:
            raise ConfigError(f"--engine {plan.run.engine} needs --replies FILE")
        if replies is not None and not reads_replies:
            raise ConfigError(f"--replies is for --engine scripted; this run uses {plan.run.engine}")
        self.plan = plan
        self._replies = replies
        self._progress = progress
        self._shared = _shared or _Shared()

    def sibling(self, plan: Plan) -> Workshop:
        """A workshop for another plan over the same parts; closing either closes them."""
        return Workshop(plan, replies=self._replies, progress=self._progress, _shared=self._shared)

    def __enter__(self) -> Workshop:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        shared = self._shared
        for part in (*shared.learners.values(), shared.engine, shared.sandbox):
            if part is not None:
                part.close()

    def warm_up(self) -> None:
        """Make sandbox and engine now, so that threads find them made.

        Raises PrerequisiteError where something is missing.
        """
        self.sandbox()
        self.engine(0)
        if self.uses_model:
            self.host()

    @property
    def uses_model(self) -> bool:
        """Whether there are weights; see `options.has_weights`."""
        return has_weights(self.plan.run)

    def model(self) -> names.ModelDir:
        """The model on disk.

        Raises PrerequisiteError where it is not there, ConfigError for an unknown name.
        """
        if self._shared.model is None:
            self._shared.model = names.resolve(self.plan.run.model or names.default_name())
        return self._shared.model

    def sandbox(self) -> Sandbox:
        """The sandbox, started when first asked for.

        Raises PrerequisiteError where none works, saying what to run.
        """
        if self._shared.sandbox is None:
            opened = _open_sandbox(self.plan)
            self._shared.sandbox, self._shared.sandbox_limits = opened.sandbox, opened.limits
        return self._shared.sandbox

    def grader(self) -> dict[str, Any]:
        """What decides verdicts besides the judge's options, for the record: the sandbox and its limits.

        Raises as `sandbox` does.
        """
        return {"identity": self.sandbox().identity(), **self._shared.sandbox_limits}

    def judge(self) -> judge.Judge:
        """What grades: the plan's judge over the sandbox."""
        options = self.plan.parts["judge"]
        assert isinstance(options, judge.Options)
        quoted_half = self.plan.run.feedback_mode == "paper"
        return judge.Judge(self.sandbox(), options, quoted_half=quoted_half, language=self.plan.run.language)

    def host(self) -> AdaptedModel:
        """The base weights in this process, loaded when first asked for."""
        if self._shared.host is None:
            from sdpo_solve.model.adapted import AdaptedModel

            self._shared.host = AdaptedModel.load(self.model().path)
        return self._shared.host

    def engine(self, consumed: int) -> Engine:
        """The engine; a queue of replies belongs to one run, anything else to all."""
        plugin = engines.REGISTRY.load(self.plan.run.engine)
        if self._shared.engine is None or plugin.reads_replies:
            parts = EngineParts(
                host=self.host if self.uses_model else None,
                model_dir=lambda: self.model().path,
                replies=self._replies,
                consumed=consumed,
                progress=self._progress,
            )
            self._shared.engine = plugin.build(self.plan.parts["engine"], parts)
        return self._shared.engine

    # -- one run -------------------------------------------------------------------------------------------

    def new_run(self, problem: Problem, out: Path, listeners: Sequence[Listener] = ()) -> Run:
        """The run of the plan's method and seed on `problem`, new or on from its journal under `out`.

        Raises ConfigError where the directory holds a run of other options, PrerequisiteError where
        something is missing, JournalError where the journal cannot be read or written.
        """
        options = self.plan.run
        judge.check_language(problem, options.language)
        problem = judge.with_feedback_mode(problem, options.feedback_mode, options.seed)
        name = run_name(problem, options)
        run_dir = out / name
        grader = self.judge()  # checks the sandbox before the weights are loaded
        config = {"grader": self.grader(), **self._config(problem)}
        check_config(run_dir, config, self._defaults())
        journal = Journal(run_dir, f"{out.name}/{name}", listeners)
        try:
            spec = self.sampling_spec()
            engine = self.engine(len(journal.history))
            method = self._method(journal, run_dir, spec)
            journal.start(self._header(problem, config, engine))
            write_config(run_dir, {**config, "versions": versions()})
        except BaseException:
            journal.close()
            raise
        feedback_options = self.plan.parts["feedback"]
        assert isinstance(feedback_options, feedback.Options)
        return Run(
            problem=problem,
            method=method,
            engine=engine,
            grader=grader,
            journal=journal,
            budget=Budget(options.attempts, options.tokens, options.wall_seconds),
            spec=spec,
            seed=options.seed,
            feedback_options=feedback_options,
            stop_at_first=not options.keep_going,
            language=options.language,
        )

    def check(self, problem: Problem, out: Path) -> None:
        """Raises ConfigError where `out` holds this run with other options; what grades is not asked."""
        problem = judge.with_feedback_mode(problem, self.plan.run.feedback_mode, self.plan.run.seed)
        check_config(out / run_name(problem, self.plan.run), self._config(problem), self._defaults())

    def check_graders(self, graders: Mapping[Path, Mapping[str, Any]]) -> None:
        """Raises ConfigError where a run, by its directory, was graded by something else than would now."""
        for run_dir, before in graders.items():
            check_grader(run_dir, before, self.grader())

    def close_run(self, run: Run) -> None:
        """Close the journal and free what only this run holds; the shared parts stay."""
        run.journal.close()
        learner = self._shared.learners.pop(run.journal.run, None)
        if learner is not None:
            learner.close()

    def _method(self, journal: Journal, run_dir: Path, spec: SamplingSpec) -> Any:
        options = self.plan.run
        parts = MethodParts(
            prompter=Prompter(options.system, options.thinking, options.language),
            spec=spec,
            run=journal.run,
            policies_dir=run_dir / "policies",
            seed=options.seed,
            stop_at_first=not options.keep_going,
            learner=lambda: self._learner(journal.run),
            count_tokens=self._count_tokens(),
            context_tokens=self._context_tokens(),
        )
        return methods.REGISTRY.load(options.method).build(self.plan.parts[options.method], parts)

    def _learner(self, run: str) -> Learner | None:
        if not self.uses_model:
            return None
        from sdpo_solve.learner import learner as lora

        learner = lora.build(self.plan.parts["learner"], self.host())
        self._shared.learners[run] = learner
        return learner

    def _count_tokens(self) -> Callable[[str], int]:
        if not self.uses_model:
            return lambda text: len(text.encode())
        tokenizer = self.host().tokenizer
        return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])

    def _context_tokens(self) -> int:
        return self.host().context_tokens if self.uses_model else _SCRIPTED_CONTEXT_TOKENS

    def sampling_spec(self) -> SamplingSpec:
        """How this plan samples; the default length depends on the machine."""
        on_cuda = self.uses_model and names.default_name() == names.DEFAULT_CUDA
        default = _MAX_TOKENS_CUDA if on_cuda else _MAX_TOKENS_CPU
        return SamplingSpec(self.plan.run.max_tokens or default, self.plan.run.temperature)

    def sampled_with(self) -> dict[str, Any]:
        """What decides how often the base model solves a problem besides what grades it, for the record."""
        spec, options = self.sampling_spec(), self.plan.run
        return {
            "model": self.model().identity if self.uses_model else "scripted replies",
            "max_tokens": spec.max_tokens,
            "temperature": spec.temperature,
            "language": options.language,
            "system": options.system,
            "thinking": options.thinking,
            "feedback_mode": options.feedback_mode,
        }

    def _config(self, problem: Problem) -> dict[str, Any]:
        """What decides the results of a run besides what grades it, for the record and a resume."""
        options = self.plan.run.model_dump(mode="json", exclude={"settings"})
        parts = {name: part.model_dump(mode="json") for name, part in self.plan.parts.items()}
        return {
            "options": {**options, "max_tokens": self.sampling_spec().max_tokens},
            "parts": parts,
            "problem": {"id": problem.id, "digest": problem_digest(problem)},
            "model": self.model().identity if self.uses_model else "scripted replies",
        }

    def _defaults(self) -> dict[str, Any]:
        """The options of `_config` as they are where nobody sets them."""
        parts = {
            name: type(part).model_construct().model_dump(mode="json")
            for name, part in self.plan.parts.items()
        }
        return {"options": RunOptions().model_dump(mode="json", exclude={"settings"}), "parts": parts}

    def _header(self, problem: Problem, config: Mapping[str, Any], engine: Engine) -> dict[str, Any]:
        options = self.plan.run
        model = options.model or (names.default_name() if self.uses_model else "scripted")
        return {
            "problem": problem.id,
            "method": options.method,
            "arm": options.arm_name,
            "seed": options.seed,
            "model": model,
            "engine": options.engine,
            "sandbox": options.sandbox,
            "feedback_mode": options.feedback_mode,
            "language": options.language,
            "keep_going": options.keep_going,
            "budget": asdict(Budget(options.attempts, options.tokens, options.wall_seconds)),
            "n_visible": sum(test.visible for test in problem.tests),
            "n_hidden": sum(not test.visible for test in problem.tests),
            "difficulty": problem.meta.get("difficulty"),
            "config": dict(config),
            "identity": {"engine": engine.identity(), "grader": self.sandbox().identity()},
            "versions": versions(),
        }


@dataclass(frozen=True, slots=True)
class _Opened:
    """A sandbox and those of its options that may change a verdict."""

    sandbox: Sandbox
    limits: Mapping[str, Any]


def _open_sandbox(plan: Plan) -> _Opened:
    """The sandbox that the plan names; for `auto` the first that works.

    Raises PrerequisiteError where none does.
    """
    language = plan.run.language
    if plan.run.sandbox != "auto":
        return _opened(sandboxes.REGISTRY.load(plan.run.sandbox), plan.parts["sandbox"], language)
    known = [sandboxes.REGISTRY.load(name) for name in sandboxes.REGISTRY.names()]
    able = [plugin for plugin in known if plugin.auto_order is not None]
    reasons = []
    for plugin in sorted(able, key=lambda plugin: plugin.auto_order or 0):
        try:
            return _opened(plugin, plugin.options_type(), language)
        except PrerequisiteError as exc:
            reasons.append(str(exc))
    raise PrerequisiteError(" -- or, without Docker: ".join(reasons))


def _opened(plugin: type[sandboxes.SandboxPlugin], options: BaseModel, language: str) -> _Opened:
    limits = options.model_dump(include=set(plugin.verdict_options))
    return _Opened(plugin.build(options, language), limits)


@dataclass(frozen=True, slots=True)
class Run:
    """Everything one run is made of: problem x method x seed, the parts, and what may be spent."""

    problem: Problem
    method: Method
    engine: Engine
    grader: Grader
    journal: Journal
    budget: Budget
    spec: SamplingSpec
    seed: int
    feedback_options: feedback.Options
    stop_at_first: bool = True
    language: str = "python"
