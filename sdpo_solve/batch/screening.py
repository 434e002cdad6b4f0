"""Screening: how often the base model solves each problem, sampled where it decides most.

Samples of several problems go through the engine together while those before are graded; counts are kept
in `screening.jsonl` (see `screening_file.py`). It is no run, learns nothing, and its samples serve no
comparison.
With `teacher` every failed attempt at a problem that is not settled as easy is tried again under the prompt
that shows its feedback: where that rate is higher, self-distillation has something to teach.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from sdpo_solve.batch.difficulty import Look, Rule, Screened, below, choose_looks
from sdpo_solve.batch.locks import Meter, use_threads
from sdpo_solve.batch.sandbox_outage import RetryingGrader, SandboxOutage, probe
from sdpo_solve.batch.screening_file import Screening, add, append, read_screening
from sdpo_solve.batch.spec import BatchSpec, RunKey
from sdpo_solve.batch.stop import StopSignal, stop_on_signals
from sdpo_solve.datasets import load
from sdpo_solve.errors import ConfigError, EngineError
from sdpo_solve.grading import feedback
from sdpo_solve.methods.prompts import Prompter
from sdpo_solve.run import build
from sdpo_solve.run.identity import check_out, problem_digest, sampling_record
from sdpo_solve.run.options import make_plan
from sdpo_solve.solve import attempt_seed
from sdpo_solve.types import Policy, Problem, Prompt, Sample, SamplingSpec, Verdict

_POLICY = Policy("screen", 0)
# Looks graded at the same time; each grades several programs at once already.
_GRADERS = 2


@dataclass(frozen=True, slots=True)
class Asked:
    """Problems and options as for a batch. `round_size`: samples that go through the engine together;
    `total`: samples of this command at most."""

    spec: BatchSpec
    out: Path
    rule: Rule
    round_size: int
    total: int | None
    teacher: bool
    seed: int


@dataclass(frozen=True, slots=True)
class ScreenResult:
    """How a screening ended. `screening`: all that its file holds; `problems`: the counts of those chosen."""

    screening: Screening
    problems: Mapping[str, Screened]
    stopped: bool


class ScreenView(Protocol):
    """Receives what happens in a screening. `on_tokens` and `on_notice` are called from other threads too."""

    def on_start(self, screened: Mapping[str, Screened], left_out: Mapping[str, str]) -> None:
        """The counts so far of each problem; problems left out as bad, with the reason."""

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


@dataclass(frozen=True, slots=True)
class Tried:
    """One attempt of a screening."""

    sample: Sample
    code: str | None
    verdict: Verdict


@dataclass(slots=True)
class _Job:
    """A look under way: first the student's samples, then, where asked for, the teacher's."""

    problem: Problem
    first: int
    stream: str
    prompts_G: list[Prompt]
    samples_G: list[Sample] = field(default_factory=list)
    base: list[Tried] | None = None


@dataclass(frozen=True, slots=True)
class _Graded:
    job: _Job
    tried: list[Tried]


def run(asked: Asked, view: ScreenView) -> ScreenResult:
    """Screen until every problem is settled or its samples are spent, or on from where the file ends.

    The first Ctrl-C ends after the looks under way. Raises UserError, PrerequisiteError, RunError, and
    KeyboardInterrupt at the second Ctrl-C; each look that was graded is kept.
    """
    check_out(asked.out)
    use_threads(asked.spec.run.threads)
    key = RunKey(asked.seed, "", "best-of-k")
    plan = make_plan(asked.spec.options_for(key), places=asked.spec.places_for(key.arm))
    stop = StopSignal()
    with build.Parts(plan, replies=asked.spec.batch.replies, progress=view.on_tokens) as parts:
        taken = load.load(asked.spec.batch.sources, asked.spec.batch, lambda: parts.sandbox)
        problems = {problem.id: build.problem_for(plan.run, problem) for problem in taken.problems}
        found = _open(asked, parts, problems)
        before = {name: found.problems[name] for name in problems}
        view.on_start(before, taken.left_out)
        with stop_on_signals(stop, view.on_notice):
            screened = _Pipeline(asked, parts, problems, before, view, stop).run()
    found = replace(found, problems={**found.problems, **screened})
    return ScreenResult(found, screened, stop.is_set)


def _open(asked: Asked, parts: build.Parts, problems: Mapping[str, Problem]) -> Screening:
    """What the file says of these problems; its first line states what the samples were made with."""
    config = _config(asked, parts)
    before = read_screening(asked.out)
    if not before.config:
        append(asked.out, {"event": "screening", "config": config})
    for name, said in before.config.items():
        if said != config.get(name):
            raise ConfigError(
                f"{asked.out} was screened with {name} = {said!r}, now it is {config.get(name)!r}; "
                "rates must not mix: choose another --out"
            )
    known = {name: before.problems.get(name, Screened(name)) for name in problems}
    for name, item in known.items():
        if item.digest not in ("", problem_digest(problems[name])):
            raise ConfigError(
                f"{asked.out} holds samples of {name} as it was before its text or tests changed; "
                "rates must not mix: choose another --out"
            )
    return Screening(config, {**before.problems, **known})


def _config(asked: Asked, parts: build.Parts) -> dict[str, Any]:
    """What decides the rates: samples of other settings must not be added up with these."""
    config = {
        **sampling_record(parts.plan, build.sampling_spec(parts.plan), parts.model_identity),
        "engine": asked.spec.run.engine,
        "grader": parts.grader,
        "judge": parts.plan.parts["judge"].model_dump(mode="json", exclude={"boxes"}),
        "teacher": asked.teacher,
        "seed": asked.seed,
    }
    if asked.teacher:
        config["feedback"] = parts.plan.parts["feedback"].model_dump(mode="json")
    return config


class _Pipeline:
    """Samples one round while the one before is graded. Only the thread that calls `run` counts."""

    def __init__(
        self,
        asked: Asked,
        parts: build.Parts,
        problems: Mapping[str, Problem],
        before: Mapping[str, Screened],
        view: ScreenView,
        stop: StopSignal,
    ) -> None:
        parts.warm_up()
        options = asked.spec.run
        self._asked, self._problems, self._view, self._stop = asked, problems, view, stop
        self._screened = dict(before)
        self._engine = parts.engine_for(sum(item.base.n + item.teacher.n for item in before.values()))
        self._spec: SamplingSpec = build.sampling_spec(parts.plan)
        self._prompter = Prompter(options.system, options.thinking, options.language)
        feedback_options = parts.plan.parts["feedback"]
        assert isinstance(feedback_options, feedback.Options)
        self._feedback = feedback_options
        outage = SandboxOutage(stop, lambda: probe(parts.sandbox), view.on_notice)
        self._judge = RetryingGrader(parts.judge(), outage, Meter())
        self._left = asked.total
        self._under_way: set[str] = set()
        self._to_teach: list[_Job] = []

    def run(self) -> dict[str, Screened]:
        """The counts of every problem, once nothing is left to sample or the signal is set.

        Raises EngineError and SandboxError, and Stopped where the signal is set during an outage.
        """
        pool = ThreadPoolExecutor(_GRADERS, thread_name_prefix="screen")
        graded: list[Future[_Graded]] = []
        try:
            while True:
                jobs = self._next_jobs()
                if not jobs and not graded:
                    return dict(self._screened)
                try:
                    self._sample(jobs)
                except EngineError:
                    self._take_all(graded)
                    raise
                ended, graded = graded, [pool.submit(self._grade, job) for job in jobs]
                self._take_all(ended)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _next_jobs(self) -> list[_Job]:
        """Answers of the teacher that are due, and looks at problems that are not under way."""
        jobs, self._to_teach = self._to_teach, []
        room = self._asked.round_size - sum(len(job.prompts_G) for job in jobs)
        room = room if self._left is None else min(room, self._left)
        if self._stop.is_set or room <= 0:
            return jobs
        screened = list(self._screened.values())
        return jobs + [
            self._job(look) for look in choose_looks(screened, self._under_way, self._asked.rule, room)
        ]

    def _job(self, look: Look) -> _Job:
        self._under_way.add(look.problem)
        if self._left is not None:
            self._left -= look.n
        problem, first = self._problems[look.problem], self._screened[look.problem].base.n
        return _Job(problem, first, "screen", [self._prompter.student(problem)] * look.n)

    def _sample(self, jobs: Sequence[_Job]) -> None:
        """One call for all. Seeds come from streams of their own: no arm of a comparison draws them again."""
        if not jobs:
            return
        prompts = [prompt for job in jobs for prompt in job.prompts_G]
        seeds = [
            attempt_seed(self._asked.seed, f"{job.stream}/{job.problem.id}", job.first + g)
            for job in jobs
            for g in range(len(job.prompts_G))
        ]
        self._view.on_sampling(len(prompts), len(jobs))
        samples = iter(self._engine.sample(prompts, seeds, _POLICY, self._spec))
        for job in jobs:
            job.samples_G = [next(samples) for _ in job.prompts_G]

    def _grade(self, job: _Job) -> _Graded:
        codes_G = [self._judge.extract(job.problem, sample).code for sample in job.samples_G]
        verdicts_G = self._judge.grade(job.problem, codes_G)
        tried = [Tried(*item) for item in zip(job.samples_G, codes_G, verdicts_G, strict=True)]
        return _Graded(job, tried)

    def _take_all(self, graded: Sequence[Future[_Graded]]) -> None:
        """Wait for the grading of a round, and count it."""
        for future in graded:
            self._take(future.result())
        self._view.on_round()

    def _take(self, graded: _Graded) -> None:
        """Write the look down, or first ask the teacher where it failed."""
        job, tried = graded.job, graded.tried
        if job.base is not None:
            self._write(job.problem, job.base, tried)
            return
        failed = [item for item in tried if not item.verdict.solved]
        if self._asked.teacher and failed and not self._is_easy(job.problem, tried):
            prompts = [
                self._prompter.teacher(job.problem, feedback=self._hears(job.problem, item))
                for item in failed
            ]
            self._to_teach.append(_Job(job.problem, job.first, "screen-teacher", prompts, base=tried))
        else:
            self._write(job.problem, tried, [])

    def _is_easy(self, problem: Problem, tried: Sequence[Tried]) -> bool:
        counts = self._screened[problem.id].base
        now = counts.plus(len(tried), sum(item.verdict.solved for item in tried))
        return below(now, self._asked.rule.ceiling) is False

    def _hears(self, problem: Problem, item: Tried) -> str:
        extracted = self._judge.extract(problem, item.sample)
        return feedback.render(problem, extracted, item.verdict, self._feedback)

    def _write(self, problem: Problem, tried: Sequence[Tried], taught: Sequence[Tried]) -> None:
        event = {
            "event": "group",
            "problem": problem.id,
            "digest": problem_digest(problem),
            "n": len(tried),
            "solved": sum(item.verdict.solved for item in tried),
            "teacher_n": len(taught),
            "teacher_solved": sum(item.verdict.solved for item in taught),
            "tokens": sum(len(item.sample.token_ids_T) for item in (*tried, *taught)),
        }
        append(self._asked.out, event)
        self._under_way.discard(problem.id)
        self._screened[problem.id] = add(self._screened[problem.id], event)
        self._view.on_look(self._screened[problem.id], len(tried) + len(taught))
