"""Screening: how often the base model solves each problem, from plain samples and a stop rule.

Samples of several problems go through the engine together while those before are graded; counts are kept
in `screening.jsonl` (see `screening_file.py`). It is no run, learns nothing, and its samples serve no
comparison.
With `teacher` every failed attempt at a problem that is not settled as easy is tried again under the prompt
that shows its feedback: where that rate is higher, self-distillation has something to learn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from sdpo_solve.batch.difficulty import Rule, Screened, below, next_looks
from sdpo_solve.batch.locks import Meter, use_threads
from sdpo_solve.batch.outage import Outage, RetryingEngine, RetryingGrader, probe
from sdpo_solve.batch.screening_file import (
    ScreenedGroup,
    Screening,
    ScreeningStarted,
    add,
    append,
    held,
    read_screening,
)
from sdpo_solve.batch.spec import BatchSpec, RunKey
from sdpo_solve.batch.stop import StopSignal
from sdpo_solve.datasets import load
from sdpo_solve.datasets.selection import Problems, Selected
from sdpo_solve.errors import ConfigError, ProblemError
from sdpo_solve.grading import feedback
from sdpo_solve.methods import PLAIN_SAMPLING
from sdpo_solve.run import build
from sdpo_solve.run.identity import check_out, problem_digest, sampling_record
from sdpo_solve.run.options import make_plan
from sdpo_solve.solve import attempt_seed
from sdpo_solve.types import Policy, Problem, Prompt, Sample

_POLICY = Policy("screen", 0)
# Looks graded at the same time; each grades several programs at once already.
_GRADERS = 2
# How long a signal waits for verdicts that are under way.
_LAST_VERDICTS_S = 0.5
_NO_LOCKS = "this file system has no locks: see to it that no second process screens into"


@dataclass(frozen=True, slots=True)
class ScreenSpec:
    """Problems and options as for a batch, and how samples are spent."""

    spec: BatchSpec
    out: Path
    rule: Rule
    round_size: int
    """Samples that go through the engine together."""
    total: int | None
    """Samples of this command at most, the teacher's left out."""
    teacher: bool
    seed: int


@dataclass(frozen=True, slots=True)
class ScreenResult:
    """`screening`: all that its file holds; `problems`: the counts of those chosen."""

    screening: Screening
    problems: Mapping[str, Screened]
    has_broken: bool
    """Broken problems were left out."""


class ScreenView(Protocol):
    """Receives what happens in a screening. `on_tokens` and `on_notice` are called from other threads too."""

    def on_start(self, screened: Mapping[str, Screened], selected: Selected) -> None:
        """The counts so far of each problem; which problems were taken and left out."""

    def on_sampling(self, n_samples: int, n_problems: int) -> None:
        """A call of the engine begins."""

    def on_tokens(self, n_tokens: int, n_ended: int) -> None:
        """Tokens and ended samples of the engine's call so far."""

    def on_look(self, item: Screened, n_samples: int) -> None:
        """A problem's new counts, after so many more samples."""

    def on_round(self) -> None:
        """All looks of a round were counted."""

    def on_notice(self, text: str) -> None:
        """A sentence for the user."""


def run(screen: ScreenSpec, view: ScreenView) -> ScreenResult:
    """Screen until every problem is settled or its samples are spent, or on from where the file ends.

    Raises UserError, PrerequisiteError, RunError and KeyboardInterrupt; each look that was graded is kept.
    """
    check_out(screen.out)
    use_threads(screen.spec.run.threads)
    key = RunKey(screen.seed, "", PLAIN_SAMPLING)
    plan = make_plan(screen.spec.options_for(key), places=screen.spec.places_for(key.arm))
    with build.Parts(plan, replies=screen.spec.batch.replies, progress=view.on_tokens) as parts:
        taken = load.load(screen.spec.batch.sources, screen.spec.batch, lambda: parts.sandbox)
        config = _config(screen, parts)  # what is missing is said before there is a file
        with held(screen.out) as is_locked:
            if not is_locked:
                view.on_notice(f"{_NO_LOCKS} {screen.out}")
            found = _read(screen, parts, taken.problems, config)
            before = {name: found.problems[name] for name in taken.problems.ids}
            view.on_start(before, taken)
            pipeline = _Pipeline(screen, parts, taken.problems, before, view)
            screened = pipeline.run()
    found = replace(found, problems={**found.problems, **screened})
    return ScreenResult(found, screened, has_broken=bool(taken.broken) or pipeline.has_broken)


def _problem(parts: build.Parts, problems: Problems, name: str) -> Problem:
    """A problem as the screening has it."""
    return build.problem_for(parts.plan.run, problems.named(name))


def _read(screen: ScreenSpec, parts: build.Parts, problems: Problems, config: Mapping[str, Any]) -> Screening:
    """What the file holds of these problems; a line before them states what the samples were made with."""
    before = read_screening(screen.out)
    if not before.problems and before.config != config:  # without a sample there is nothing to mix with
        append(screen.out, ScreeningStarted(config=config))
        before = Screening(config)
    for name, value in before.config.items():
        if name in ("judge", "feedback"):  # an option that there was not yet had its default
            defaults = type(parts.plan.parts[name])().model_dump(mode="json", exclude={"boxes"})
            value = {**defaults, **value}
        if value != config.get(name):
            raise ConfigError(
                f"{screen.out} was screened with {name} = {value!r}, now it is {config.get(name)!r}; "
                "rates must not mix: choose another --out"
            )
    known = {name: before.problems.get(name, Screened(name)) for name in problems.ids}
    for name, item in known.items():
        if item.digest and item.digest != problem_digest(_problem(parts, problems, name)):
            raise ConfigError(
                f"{screen.out} holds samples of {name} as it was before its text or tests changed; "
                "rates must not mix: choose another --out"
            )
    return Screening(config, {**before.problems, **known})


def _config(screen: ScreenSpec, parts: build.Parts) -> dict[str, Any]:
    """What decides the rates: samples of other settings must not be added up with these."""
    config = {
        **sampling_record(parts.plan, build.sampling_spec(parts.plan), parts.model_identity),
        "engine": screen.spec.run.engine,
        "grader": parts.sandbox.record(),
        "judge": parts.plan.parts["judge"].model_dump(mode="json", exclude={"boxes"}),
        "teacher": screen.teacher,
        "seed": screen.seed,
    }
    if screen.teacher:
        config["feedback"] = parts.plan.parts["feedback"].model_dump(mode="json")
    return config


@dataclass(frozen=True, slots=True)
class _Look:
    """Samples of one problem that are under way: the student's, or the teacher's after `base`."""

    problem: Problem
    first: int
    prompts_G: Sequence[Prompt]
    base: _Graded | None = None

    @property
    def seed_stream(self) -> str:
        """Not that of any run: no arm of a comparison draws these samples again."""
        return f"{'screen-teacher' if self.base else 'screen'}/{self.problem.id}"


@dataclass(frozen=True, slots=True)
class _Graded:
    """What came of a look. `feedback` is that of the failed attempts, where the teacher is to see it."""

    look: _Look
    n: int
    solved: int
    tokens: int
    feedback: Sequence[str] = field(default_factory=list)


class _Pipeline:
    """Samples one round while the one before is graded. Only the thread that calls `run` counts."""

    def __init__(
        self,
        screen: ScreenSpec,
        parts: build.Parts,
        problems: Problems,
        before: Mapping[str, Screened],
        view: ScreenView,
    ) -> None:
        options = screen.spec.run
        self._screen, self._parts, self._problems, self._view = screen, parts, problems, view
        self._screened = dict(before)
        self._stop = stop = StopSignal()  # set at the end, for graders that wait for a sandbox
        engine = parts.engine_for(sum(item.base.n + item.teacher.n for item in before.values()))
        self._engine = RetryingEngine.of(engine, Outage("engine", stop, engine.probe, view.on_notice))
        self._spec = build.sampling_spec(parts.plan)
        self._prompter = parts.prompter(options)
        feedback_options = parts.plan.parts["feedback"]
        assert isinstance(feedback_options, feedback.Options)
        self._feedback = feedback_options
        outage = Outage("sandbox", stop, lambda: probe(parts.sandbox), view.on_notice)
        self._judge = RetryingGrader(parts.judge(), outage, Meter())
        self._left = screen.total
        self._under_way: set[str] = set()
        self._for_teacher: list[_Look] = []
        self.has_broken = False
        self._grading: list[Future[_Graded]] = []
        """Of the looks that are not counted yet, in the order of sampling."""

    def run(self) -> dict[str, Screened]:
        """The counts of every problem, once nothing is left to sample.

        Raises EngineError, PromptError, SandboxError and PrerequisiteError, and KeyboardInterrupt and
        SystemExit after a signal. Whatever ends it, looks that were graded are counted first; a look that the
        teacher has not answered yet is drawn again.
        """
        pool = ThreadPoolExecutor(_GRADERS, thread_name_prefix="screen")
        try:
            while True:
                looks = self._next_looks()
                if not looks and not self._grading:
                    return dict(self._screened)
                n_before, samples = len(self._grading), self._sample(looks)
                for look, samples_G in zip(looks, samples, strict=True):
                    self._grading.append(pool.submit(self._grade, look, samples_G))
                self._count_first(n_before)
        except BaseException as exc:  # a signal too: what was judged need not be drawn again
            self._count_last(None if isinstance(exc, Exception) else _LAST_VERDICTS_S)
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _next_looks(self) -> list[_Look]:
        """Answers of the teacher that are due, and looks at problems that are not under way."""
        looks, self._for_teacher = self._for_teacher, []
        room = self._screen.round_size - sum(len(look.prompts_G) for look in looks)
        room = room if self._left is None else min(room, self._left)
        for next_look in next_looks(list(self._screened.values()), self._under_way, self._screen.rule, room):
            problem = _problem(self._parts, self._problems, next_look.problem)
            first = self._screened[next_look.problem].base.n
            looks.append(_Look(problem, first, [self._prompter.student(problem)] * next_look.n))
            self._under_way.add(problem.id)
            if self._left is not None:
                self._left -= next_look.n
        return looks

    def _sample(self, looks: Sequence[_Look]) -> list[list[Sample]]:
        """The samples of each look, all from one call of the engine."""
        if not looks:
            return []
        prompts = [prompt for look in looks for prompt in look.prompts_G]
        seeds = [
            attempt_seed(self._screen.seed, look.seed_stream, look.first + g)
            for look in looks
            for g in range(len(look.prompts_G))
        ]
        self._view.on_sampling(len(prompts), len(looks))
        samples = iter(self._engine.sample(prompts, seeds, _POLICY, self._spec))
        return [[next(samples) for _ in look.prompts_G] for look in looks]

    def _grade(self, look: _Look, samples_G: Sequence[Sample]) -> _Graded:
        extracted_G = [self._judge.extract(look.problem, sample) for sample in samples_G]
        verdicts_G = self._judge.grade(look.problem, [extracted.code for extracted in extracted_G])
        tokens = sum(len(sample.token_ids_T) for sample in samples_G)
        solved = sum(verdict.solved for verdict in verdicts_G)
        texts: list[str] = []
        if self._screen.teacher and look.base is None:
            texts = [
                feedback.render(look.problem, extracted, verdict, self._feedback)
                for extracted, verdict in zip(extracted_G, verdicts_G, strict=True)
                if not verdict.solved
            ]
        return _Graded(look, len(samples_G), solved, tokens, texts)

    def _count_first(self, n: int) -> None:
        """Wait for the grading of the first `n` looks, and count them."""
        for _ in range(n):
            future = self._grading[0]
            wait([future])
            del self._grading[0]  # before it is written: after a signal in between, no look counts twice
            try:
                graded = future.result()
            except ProblemError as exc:  # its checker crashed: it stays under way, and nothing more is drawn
                self.has_broken = True
                self._view.on_notice(f"left out: {exc}")
            else:
                self._count(graded)
        self._view.on_round()

    def _count_last(self, within_s: float | None) -> None:
        """Count what is graded by then (None: all that can be), and nothing of the looks that failed."""
        self._stop.set()
        done, _ = wait(self._grading, within_s)
        self._grading = [one for one in self._grading if one in done and one.exception() is None]
        self._count_first(len(self._grading))

    def _count(self, graded: _Graded) -> None:
        """Write a look down, or first pass its failures to the teacher."""
        look = graded.look
        if look.base is not None:
            self._write(look.problem, look.base, graded)
        elif graded.feedback and not self._is_easy(graded):
            prompts_G = [self._prompter.teacher(look.problem, feedback=text) for text in graded.feedback]
            self._for_teacher.append(_Look(look.problem, look.first, prompts_G, base=graded))
        else:
            self._write(look.problem, graded, _Graded(look, 0, 0, 0))

    def _is_easy(self, graded: _Graded) -> bool:
        counts = self._screened[graded.look.problem.id].base.plus(graded.n, graded.solved)
        return below(counts, self._screen.rule.ceiling) is False

    def _write(self, problem: Problem, base: _Graded, teacher: _Graded) -> None:
        group = ScreenedGroup(
            problem=problem.id,
            digest=problem_digest(problem),
            n=base.n,
            solved=base.solved,
            teacher_n=teacher.n,
            teacher_solved=teacher.solved,
            tokens=base.tokens + teacher.tokens,
        )
        append(self._screen.out, group)
        self._under_way.discard(problem.id)
        self._screened[problem.id] = add(self._screened[problem.id], group)
        self._view.on_look(self._screened[problem.id], base.n + teacher.n)
