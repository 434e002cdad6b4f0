"""`bench lesson`: what a few updates on a run's failures do to right answers, for one setting after another.

The question behind every default of the learner, without sampling: does the update make programs that solve
the problem likelier, and how far does it move the model for that? The failures are a run's own attempts of
the base model, in groups as the loop would have had them; right answers are attempts of the given runs that
solved the problem, or its reference. Every setting starts from the base. Samples of the later groups come
from the base instead of the policy of the moment (the importance weights correct for it as far as they go),
so this compares settings and predicts no discovery time. Writes nothing but a scratch directory.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.text import Text

from sdpo_solve.config import read_options
from sdpo_solve.datasets import load
from sdpo_solve.datasets.selection import Selection
from sdpo_solve.errors import ConfigError
from sdpo_solve.learner.options import Options as LearnerOptions
from sdpo_solve.methods import sdpo
from sdpo_solve.model import names as models
from sdpo_solve.report.runs import find_run_dirs
from sdpo_solve.report.table import AlignedTable
from sdpo_solve.run.events import FILE_NAME, State, read_state
from sdpo_solve.types import Attempt, Example, Policy, SamplingSpec

if TYPE_CHECKING:
    from torch import Tensor

    from sdpo_solve.learner.packing import PromptCompletion
    from sdpo_solve.model.adapted import AdaptedModel

_MAX_ANSWERS = 8
# Teacher prompts that the right answers are read under.
_MAX_TEACHERS = 4


@dataclass(frozen=True, slots=True)
class Request:
    """`runs`: directories that hold runs; `settings`: one set of learner options a row of the table;
    `references`: sources whose reference programs count as right answers where no run has one."""

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
class InContext:
    """One problem. `right`, `wrong`: what a failure's feedback in the prompt gives right answers and that
    failed answer, without learning; nats an answer, means."""

    problem: str
    n_right: int
    of_reference: bool
    right: float
    wrong: float


@dataclass(frozen=True, slots=True)
class Figures:
    """By problem, and by problem and setting."""

    model: str
    group_size: int
    updates: int
    in_context: tuple[InContext, ...]
    effects: tuple[Effect, ...]


def settings_of(base: Mapping[str, Any], varied: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """`base` as it is, then with each value of each varied option alone in its place."""
    rows = [dict(base)]
    rows += [{**base, name: value} for name, values in varied.items() for value in values]
    return list({_label(row): row for row in rows}.values())


def _label(setting: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in setting.items()) or "defaults"


@dataclass(frozen=True, slots=True)
class _Material:
    """What one problem gives: failures by group, and right and failed answers behind the plain question."""

    in_context: InContext
    groups: list[list[Example]]
    right: list[PromptCompletion]
    failed: list[PromptCompletion]
    spec: SamplingSpec


def run(request: Request, report: Callable[[str], None]) -> Figures:
    """Learn and score.

    Raises ConfigError for runs of different models, for a problem without enough failures or without a right
    answer, and for options that the learner refuses.
    """
    options = [read_options(LearnerOptions, setting, "learner") for setting in request.settings]
    states = _states(request.runs)
    model = _model(states)
    references = _references(request.references)
    from sdpo_solve.model.adapted import AdaptedModel

    host = AdaptedModel.load(model.path, quantization=model.quantization)
    in_context, effects = [], []
    for problem in dict.fromkeys(state.header.problem for state in states):
        own = [state for state in states if state.header.problem == problem]
        material = _material(problem, own, references.get(problem), request, host)
        in_context.append(material.in_context)
        for setting, chosen in zip(request.settings, options, strict=True):
            report(f"{problem}: {_label(setting)}")
            effects.append(_effect(material, _label(setting), chosen, host))
    return Figures(model.identity, request.group_size, request.updates, tuple(in_context), tuple(effects))


# -- what the runs give --------------------------------------------------------------------------------------


def _states(paths: Sequence[Path]) -> list[State]:
    states = [read_state(path / FILE_NAME, path.name, path) for path in find_run_dirs(list(paths))]
    named = [state for state in states if state.header_event and state.history]
    if not named:
        raise ConfigError(f"no run with an attempt under {', '.join(map(str, paths))}")
    return named


def _model(states: Sequence[State]) -> models.ModelDir:
    """The weights of all these runs, held in memory as they were."""
    used = sorted({str(state.header.model_identity) for state in states})
    if len(used) > 1:
        raise ConfigError(f"these runs used different models: {', '.join(used)}; give one model's")
    header, then = states[0].header, states[0].header.model_identity
    if then == "scripted replies":
        raise ConfigError("these runs have scripted replies; there are no weights to teach")
    name = str(header.model)
    model = models.resolve(name).held_as(header.options.get("quantization"))
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
    problem: str, states: Sequence[State], reference: str | None, request: Request, host: AdaptedModel
) -> _Material:
    from sdpo_solve.learner.packing import PromptCompletion
    from sdpo_solve.report.explain.score import recorded_example

    wanted = request.group_size * request.updates
    candidates = ((state, _plain_attempts(state)) for state in states)
    source, attempts = max(candidates, key=lambda pair: len(pair[1]))
    if len(attempts) < wanted:
        raise ConfigError(
            f"{problem}: {request.updates} groups of {request.group_size} want {wanted} attempts of the base "
            f"at the plain question; there are {len(attempts)}"
        )
    examples = [recorded_example(source, a, sdpo.Sdpo, sdpo.Options(), attempts) for a in attempts[:wanted]]
    failures = [e for e in examples if e.teacher_prompt is not None and e.sample.token_ids_T]
    if not failures:
        raise ConfigError(
            f"{problem}: all of the first {wanted} attempts solved it; there is nothing to learn"
        )
    answers = _right_answers(states)
    of_reference = not answers
    if of_reference and reference is None:
        raise ConfigError(
            f"{problem}: none of these runs solved it; add one that did, or --references with its file"
        )
    if of_reference:
        answers = [tuple(host.tokenizer(f"```python\n{str(reference).rstrip()}\n```")["input_ids"])]
    question = attempts[0].sample.prompt_ids
    right = [PromptCompletion(question, answer) for answer in answers]
    failed = [PromptCompletion(question, e.sample.token_ids_T) for e in failures]
    teachers = failures[:_MAX_TEACHERS]
    in_context = InContext(
        problem,
        len(answers),
        of_reference,
        right=_mean([_by_feedback(e, right, host) for e in teachers]),
        wrong=_mean([_by_feedback(e, [row], host) for e, row in zip(teachers, failed, strict=False)]),
    )
    spec = SamplingSpec(1, float(source.header.options["temperature"]))
    groups = [examples[i : i + request.group_size] for i in range(0, wanted, request.group_size)]
    return _Material(in_context, groups, right, failed, spec)


def _right_answers(states: Sequence[State]) -> list[tuple[int, ...]]:
    """Different answers that solved the problem, in the order of the runs."""
    solved = (a.sample.token_ids_T for state in states for a in state.history if a.verdict.solved)
    return list(dict.fromkeys(filter(None, solved)))[:_MAX_ANSWERS]


def _plain_attempts(state: State) -> list[Attempt]:
    """The base model's attempts at the question as it is; multi-turn has other prompts after the first."""
    first = state.history[0].sample.prompt
    return [a for a in state.history if a.sample.policy.version == 0 and a.sample.prompt == first]


def _by_feedback(example: Example, rows: Sequence[PromptCompletion], host: AdaptedModel) -> float:
    """Mean change of an answer's log-prob, nats, by the feedback of a failed attempt in the prompt."""
    from sdpo_solve.learner.packing import PromptCompletion
    from sdpo_solve.model.chat import encode_chat

    assert example.teacher_prompt is not None
    prompt_ids = tuple(encode_chat(host.tokenizer, example.teacher_prompt))
    with host.base_active():
        before = _logprobs(host, rows)
        after = _logprobs(host, [PromptCompletion(prompt_ids, row.completion_ids_T) for row in rows])
    return _mean(_changes(before, after))


# -- one setting ---------------------------------------------------------------------------------------------


def _effect(material: _Material, label: str, options: LearnerOptions, host: AdaptedModel) -> Effect:
    from sdpo_solve.learner.learner import LoraLearner

    rows = [*material.right, *material.failed]
    with host.base_active():
        before = _logprobs(host, rows)
    # Samples of the base stand for those of the policy of the moment: the two may differ. And what an update
    # would do is the question, also where a run would make none.
    learner = LoraLearner(host, options.model_copy(update={"max_logprob_gap": math.inf, "min_gap": 0.0}))
    notices: list[str] = []
    with tempfile.TemporaryDirectory(prefix="sdpo-solve-lesson-") as scratch:
        policy = learner.start("lesson", Path(scratch), 0)
        for group in material.groups:
            update = learner.learn([_as_of(policy, example) for example in group], material.spec)
            policy = update.policy
            notices += update.notices
        with host.policy_active(policy):
            after = _logprobs(host, rows)
    learner.close()
    n, changes = len(material.right), _changes(before, after)
    return Effect(
        material.in_context.problem,
        label,
        gain=_mean(changes[:n]),
        wrong=_mean(changes[n:]),
        drift=_drift(before[n:], after[n:]),
        notices=tuple(notices),
    )


def _as_of(policy: Policy, example: Example) -> Example:
    """The same sample as one of `policy`; its log-probs stay those of the model that sampled it."""
    return replace(example, sample=replace(example.sample, policy=policy))


def _logprobs(host: AdaptedModel, rows: Sequence[PromptCompletion]) -> list[Tensor]:
    """Log-probs of each row's answer, by token [T], at temperature 1."""
    from sdpo_solve.learner.passes_choice import passes_of

    logprobs_N = passes_of(host, LearnerOptions()).logprobs(rows, 1.0)
    return list(logprobs_N.cpu().double().split([row.n_targets for row in rows]))


def _changes(before: Sequence[Tensor], after: Sequence[Tensor]) -> list[float]:
    """Of each whole answer's log-prob, nats."""
    return [float((new_T - old_T).sum()) for old_T, new_T in zip(before, after, strict=True)]


def _drift(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """KL(base || policy) in nats a token on answers of the base: r - 1 - log r, r = policy / base (k3 of
    J. Schulman, Approximating KL divergence, 2020: unbiased and never negative)."""
    import torch

    log_r_N = torch.cat(list(after)) - torch.cat(list(before))
    return float((log_r_N.clamp(max=20.0).exp() - 1 - log_r_N).mean())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


# -- the page ------------------------------------------------------------------------------------------------


def as_record(figures: Figures) -> dict[str, Any]:
    """The object that `--json` prints."""
    return asdict(figures)


def page(figures: Figures) -> Group:
    """What feedback in the prompt gives, then one row a setting: means over problems."""
    titles = ("problem", "right answers", "in context: right", "wrong", "apart")
    in_context = AlignedTable(titles, names=("right answers",))
    for row in figures.in_context:
        kind = "its reference" if row.of_reference else f"{row.n_right} of the runs"
        nats = (row.right, row.wrong, row.right - row.wrong)
        in_context.add([row.problem, kind, *(f"{x:+.2f}" for x in nats)])
    table = AlignedTable(["setting", "right", "wrong", "apart", "helped", "drift", "halted"])
    for setting in dict.fromkeys(effect.setting for effect in figures.effects):
        own = [effect for effect in figures.effects if effect.setting == setting]
        gain, wrong, drift = (_mean([getattr(e, name) for e in own]) for name in ("gain", "wrong", "drift"))
        cells = (f"{x:+.2f}" for x in (gain, wrong, gain - wrong))
        helped = f"{sum(e.gain > e.wrong for e in own)}/{len(own)}"
        table.add([setting, *cells, helped, f"{drift:.4f}", str(sum(len(e.notices) for e in own))])
    lines = (
        f"{figures.updates} x {figures.group_size} attempts of the base; every setting starts from the base",
        "right, wrong: change of the log-prob of a right and of a failed answer, nats:",
        "above by the feedback of a failure in the prompt, below by learning from failures",
        "apart: right against wrong, what the odds of a success gain; helped: problems",
        "where that is above 0",
        "drift: KL to the base, nats a token; halted: steps that a rule of health stopped",
    )
    return Group(in_context, Text(), table, Text(), *(Text(line, style="dim") for line in lines))
