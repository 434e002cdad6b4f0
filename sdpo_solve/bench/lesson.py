"""`bench lesson`: what a few updates on a run's failures do to right answers, for one setting after another.

The question behind every default of the learner, asked without sampling: does the update make programs that
solve the problem likelier, and how far does it move the model for that? The failures are a run's own attempts
of the base model, in groups as the loop would have had them; right answers are attempts of the given runs
that solved the problem, or its reference. Every setting starts from the base. Samples of the later groups
come from the base instead of the policy of the moment (the importance weights correct for it as far as they
go), so this compares settings and predicts no discovery time. Writes nothing but a scratch directory.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from sdpo_solve.config import read_options
from sdpo_solve.datasets import load
from sdpo_solve.datasets.selection import Selection
from sdpo_solve.errors import ConfigError
from sdpo_solve.learner.options import Options as LearnerOptions
from sdpo_solve.methods import sdpo
from sdpo_solve.model import names as models
from sdpo_solve.report.runs import find_run_dirs
from sdpo_solve.run.events import FILE_NAME, State, read_state
from sdpo_solve.sanitize import clean
from sdpo_solve.types import Attempt, Example, Policy, SamplingSpec

if TYPE_CHECKING:
    from sdpo_solve.learner.packing import Row
    from sdpo_solve.model.adapted import AdaptedModel

_MAX_ANSWERS = 8
# Teacher prompts that the right answers are read under.
_TOLD = 4


@dataclass(frozen=True, slots=True)
class Asked:
    """`runs`: directories that hold runs; `settings`: one set of learner options a row of the table;
    `references`: sources whose reference programs count as right answers where no run found one."""

    runs: tuple[Path, ...]
    references: tuple[str, ...]
    settings: tuple[Mapping[str, Any], ...]
    group_size: int
    updates: int


@dataclass(frozen=True, slots=True)
class Effect:
    """One setting on one problem. Nats of whole answers, means over answers: `gain` of the right ones,
    `wrong` of the failed ones that were learned from. `drift`: KL(base || policy), nats a token."""

    problem: str
    setting: str
    gain: float
    wrong: float
    drift: float
    notices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lesson:
    """One problem. `told_right`, `told_wrong`: what reading a failure's feedback gives right answers and that
    failed answer, without learning; nats an answer, means."""

    problem: str
    n_right: int
    of_reference: bool
    told_right: float
    told_wrong: float


@dataclass(frozen=True, slots=True)
class Found:
    """The figures, by problem and setting."""

    model: str
    group_size: int
    updates: int
    lessons: tuple[Lesson, ...]
    effects: tuple[Effect, ...]

    def record(self) -> dict[str, Any]:
        return asdict(self)


def settings_of(base: Mapping[str, Any], varied: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """`base` as it is, then with each value of each varied option alone in its place."""
    rows = [dict(base)]
    rows += [{**base, name: value} for name, values in varied.items() for value in values]
    return list({_label(row): row for row in rows}.values())


def _label(setting: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in setting.items()) or "defaults"


@dataclass(frozen=True, slots=True)
class _Material:
    """What one problem gives: failures by group, and right answers as rows behind the plain question."""

    lesson: Lesson
    groups: list[list[Example]]
    right: list[Row]
    failed: list[Row]
    spec: SamplingSpec


def measure(asked: Asked, say: Callable[[str], None]) -> Found:
    """Learn and score.

    Raises ConfigError for runs of different models, for a problem without enough failures or without a right
    answer, and for options that the learner refuses.
    """
    options = [read_options(LearnerOptions, setting, "learner") for setting in asked.settings]
    states = _states(asked.runs)
    model = _model({str(state.header["model"]): state for state in states})
    references = _references(asked.references)
    from sdpo_solve.model.adapted import AdaptedModel

    host = AdaptedModel.load(model.path)
    lessons, effects = [], []
    for problem in dict.fromkeys(str(state.header["problem"]) for state in states):
        own = [state for state in states if state.header["problem"] == problem]
        material = _material(problem, own, references.get(problem), asked, host)
        lessons.append(material.lesson)
        for setting, chosen in zip(asked.settings, options, strict=True):
            say(f"{problem}: {_label(setting)}")
            effects.append(_effect(material, _label(setting), chosen, host))
    return Found(model.identity, asked.group_size, asked.updates, tuple(lessons), tuple(effects))


# -- what the runs give --------------------------------------------------------------------------------------


def _states(paths: Sequence[Path]) -> list[State]:
    found = [read_state(path / FILE_NAME, path.name, path) for path in find_run_dirs(list(paths))]
    named = [state for state in found if state.header and state.history]
    if not named:
        raise ConfigError(f"no run with an attempt under {', '.join(map(str, paths))}")
    return named


def _model(by_name: Mapping[str, State]) -> models.ModelDir:
    if len(by_name) > 1:
        raise ConfigError(f"these runs used different models: {', '.join(sorted(by_name))}; give one model's")
    ((name, state),) = by_name.items()
    then = state.header["config"]["model"]
    if then == "scripted replies":
        raise ConfigError("these runs have scripted replies; there are no weights to teach")
    model = models.resolve(name)
    if model.identity != then:
        raise ConfigError(f"{name} here is {model.identity}, the runs used {then}")
    return model


def _references(names: Sequence[str]) -> dict[str, str]:
    """Reference programs by problem; sources whose expected values need a sandbox have none here."""
    if not names:
        return {}

    def no_sandbox() -> Any:
        raise ConfigError("--references takes problem files, which need no sandbox")

    taken = load.load(tuple(names), Selection(include_bad=True), no_sandbox)
    return {problem.id: problem.reference for problem in taken.problems if problem.reference}


def _material(
    problem: str, states: Sequence[State], reference: str | None, asked: Asked, host: AdaptedModel
) -> _Material:
    from sdpo_solve.learner.packing import Row
    from sdpo_solve.report.explain.score import recorded_example

    wanted = asked.group_size * asked.updates
    source, attempts = max(
        ((state, _plain_attempts(state)) for state in states), key=lambda pair: len(pair[1])
    )
    if len(attempts) < wanted:
        raise ConfigError(
            f"{problem}: {asked.updates} groups of {asked.group_size} want {wanted} attempts of the base at "
            f"the plain question; there are {len(attempts)}"
        )
    examples = [recorded_example(source, a, sdpo.Sdpo, sdpo.Options(), attempts) for a in attempts[:wanted]]
    question = attempts[0].sample.prompt_ids
    found = dict.fromkeys(
        a.sample.token_ids_T
        for state in states
        for a in state.history
        if a.verdict.solved and a.sample.token_ids_T
    )
    answers = list(found)[:_MAX_ANSWERS]
    if not answers:
        if reference is None:
            raise ConfigError(
                f"{problem}: none of these runs solved it; add one that did, or --references with its file"
            )
        answers = [tuple(host.tokenizer(f"```python\n{reference.rstrip()}\n```")["input_ids"])]
    right = [Row(question, answer) for answer in answers]
    taught = [e for e in examples if e.teacher_prompt is not None and e.sample.token_ids_T]
    if not taught:
        raise ConfigError(
            f"{problem}: all of the first {wanted} attempts solved it; there is nothing to learn"
        )
    failed = [Row(question, e.sample.token_ids_T) for e in taught]
    lesson = Lesson(
        problem,
        len(answers),
        not found,
        told_right=_mean([_told(e, right, host) for e in taught[:_TOLD]]),
        told_wrong=_mean(
            [_told(e, [row], host) for e, row in zip(taught[:_TOLD], failed[:_TOLD], strict=True)]
        ),
    )
    spec = SamplingSpec(1, float(source.header["config"]["options"]["temperature"]))
    groups = [examples[i : i + asked.group_size] for i in range(0, wanted, asked.group_size)]
    return _Material(lesson, groups, right, failed, spec)


def _plain_attempts(state: State) -> list[Attempt]:
    """The base model's attempts at the question as it is; multi-turn has other prompts after the first."""
    first = state.history[0].sample.prompt
    return [a for a in state.history if a.sample.policy.version == 0 and a.sample.prompt == first]


def _told(example: Example, rows: Sequence[Row], host: AdaptedModel) -> float:
    """Mean change of an answer's log-prob, nats, by reading the feedback of a failed attempt."""
    from sdpo_solve.learner.packing import Row
    from sdpo_solve.model.chat import encode_chat

    assert example.teacher_prompt is not None
    prompt_ids = tuple(encode_chat(host.tokenizer, example.teacher_prompt))
    told = [Row(prompt_ids, row.completion_ids_T) for row in rows]
    with host.base_active() as model:
        changes = [
            sum(new) - sum(old)
            for new, old in zip(_logprobs(model, told), _logprobs(model, rows), strict=True)
        ]
    return _mean(changes)


# -- one setting ---------------------------------------------------------------------------------------------


def _effect(material: _Material, label: str, options: LearnerOptions, host: AdaptedModel) -> Effect:
    from sdpo_solve.learner import learner as lora

    rows = [*material.right, *material.failed]
    with host.base_active() as model:
        before = list(_logprobs(model, rows))
    learner = lora.build(options, host)
    notices: list[str] = []
    with tempfile.TemporaryDirectory(prefix="sdpo-solve-lesson-") as scratch:
        policy = learner.start("lesson", Path(scratch), 0)
        for group in material.groups:
            update = learner.learn([_as_of(policy, example) for example in group], material.spec)
            policy = update.policy
            notices += update.notices
        with host.policy_active(policy) as model:
            after = list(_logprobs(model, rows))
    learner.close()
    n = len(material.right)
    changes = [sum(new) - sum(old) for new, old in zip(after, before, strict=True)]
    return Effect(
        material.lesson.problem,
        label,
        gain=_mean(changes[:n]),
        wrong=_mean(changes[n:]),
        drift=_drift(before[n:], after[n:]),
        notices=tuple(notices),
    )


def _as_of(policy: Policy, example: Example) -> Example:
    """The same sample as if `policy` had been asked; its log-probs stay those of the model that was."""
    return replace(example, sample=replace(example.sample, policy=policy))


def _logprobs(model: Any, rows: Sequence[Row]) -> Iterator[list[float]]:
    """Log-probs of each row's answer, by token, at temperature 1."""
    import torch

    from sdpo_solve.learner.head import Head, Mixture
    from sdpo_solve.learner.packing import hidden_states

    defaults = LearnerOptions()
    hidden_Nd = hidden_states(model, rows, defaults.microbatch_tokens)
    ids_N = torch.tensor([i for row in rows for i in row.completion_ids_T], device=hidden_Nd.device)
    found_N = Head(model, 1.0).logprobs(Mixture.of(hidden_Nd), ids_N, defaults.chunk_positions).cpu()
    for part in found_N.split([row.n_targets for row in rows]):
        yield part.tolist()


def _drift(before: Sequence[Sequence[float]], after: Sequence[Sequence[float]]) -> float:
    """KL(base || policy) in nats a token on answers of the base: r - 1 - log r, r = policy / base (k3 of
    J. Schulman, Approximating KL divergence, 2020: unbiased and never negative)."""
    log_rs = [b - a for old, new in zip(before, after, strict=True) for a, b in zip(old, new, strict=True)]
    return _mean([math.exp(min(log_r, 20.0)) - 1 - log_r for log_r in log_rs])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


# -- the page ------------------------------------------------------------------------------------------------


def page(found: Found) -> Group:
    """What feedback itself gives, then one row a setting: means over problems."""
    lessons = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    lessons.add_column("problem", overflow="fold")
    lessons.add_column("right answers")
    for column in ("told: right", "wrong", "apart"):
        lessons.add_column(column, justify="right")
    for lesson in found.lessons:
        kind = "its reference" if lesson.of_reference else f"{lesson.n_right} of the runs"
        told = (lesson.told_right, lesson.told_wrong, lesson.told_right - lesson.told_wrong)
        lessons.add_row(clean(lesson.problem), kind, *(f"{nats:+.2f}" for nats in told))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("setting", overflow="fold")
    for column in ("right", "wrong", "apart", "helped", "drift", "halted"):
        table.add_column(column, justify="right")
    for setting in dict.fromkeys(effect.setting for effect in found.effects):
        own = [effect for effect in found.effects if effect.setting == setting]
        helped = sum(effect.gain > effect.wrong for effect in own)
        table.add_row(
            clean(setting),
            f"{_mean([e.gain for e in own]):+.2f}",
            f"{_mean([e.wrong for e in own]):+.2f}",
            f"{_mean([e.gain - e.wrong for e in own]):+.2f}",
            f"{helped}/{len(own)}",
            f"{_mean([e.drift for e in own]):.4f}",
            str(sum(len(e.notices) for e in own)),
        )
    lines = (
        f"{found.updates} x {found.group_size} attempts of the base; every setting starts from the base",
        "right, wrong: change of the log-prob of a right and of a failed answer, nats:",
        "above by reading the feedback of a failure, below by learning from failures",
        "apart: right against wrong, what the odds of a success gain; helped: problems",
        "where that is above 0",
        "drift: KL to the base, nats a token; halted: steps that a rule of health stopped",
    )
    return Group(lessons, Text(), table, Text(), *(Text(line, style="dim") for line in lines))
