"""One attempt under its teacher: the log-probs that the update saw, from the weights on disk.

Builds the teacher's prompt with the method's own code from what the journal recorded, and runs learner passes
without gradients. Needs the model of the run; changes nothing on disk.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sdpo_solve import methods
from sdpo_solve.config import Options, read_options
from sdpo_solve.errors import ConfigError
from sdpo_solve.learner import teacher as teachers
from sdpo_solve.learner.checkpoint import TEACHER_FILE
from sdpo_solve.learner.examples import TokenizedExample
from sdpo_solve.learner.head import Head, Mixture
from sdpo_solve.learner.options import Options as LearnerOptions
from sdpo_solve.learner.packing import PackedPasses, PromptCompletion
from sdpo_solve.learner.passes_choice import choose, passes_of
from sdpo_solve.methods import MethodParts, MethodPlugin
from sdpo_solve.methods.prompts import Prompter, is_question_alone
from sdpo_solve.model.adapted import AdaptedModel, read_tensors
from sdpo_solve.model.chat import encode_chat
from sdpo_solve.report.explain.records import Alternative, Signal, Token, pieces
from sdpo_solve.run.events import FILE_NAME, State, read_state
from sdpo_solve.types import Attempt, Example, Kind, Policy, Problem, Prompt, SamplingSpec

_N_ALTERNATIVES = 3
_CHUNK = 64


@dataclass(frozen=True, slots=True)
class RecordedQuestion(Prompter):
    """Asks the question as the journal recorded it, so that no problem file is needed."""

    recorded: str = ""

    def question(self, problem: Problem) -> str:
        return self.recorded


def score(run_dir: Path, index: int, host: AdaptedModel) -> Signal:
    """Attempt `index` of the run under the teacher that it had.

    Raises ConfigError where the attempt had no teacher, or where weights that it needs are pruned.
    """
    state = read_state(run_dir / FILE_NAME, run_dir.name, run_dir)
    attempt = next((a for a in state.history if a.index == index), None)
    if attempt is None:
        raise ConfigError(f"{run_dir} has no attempt {index}; it has {len(state.history)}")
    prompt, feedback = teacher_prompt(state, attempt)
    header = state.header
    options = read_options(LearnerOptions, header.parts.get("learner", {}), "learner")
    temperature = float(header.options["temperature"])
    sample = attempt.sample
    if not sample.token_ids_T:
        raise ConfigError(f"attempt {index} has no tokens")
    student = PromptCompletion(sample.prompt_ids, sample.token_ids_T)
    teacher = PromptCompletion(tuple(encode_chat(host.tokenizer, prompt)), sample.token_ids_T)
    example = TokenizedExample(student, teacher, sample.logprobs_T)
    passes = passes_of(host, options)
    head = passes.head(temperature)
    teacher_T = _teacher(host, options, example, sample.policy, passes)
    student_T = _student(host, student, sample.policy, passes)
    return Signal(
        attempt=index,
        version=sample.policy.version,
        teacher=options.teacher,
        feedback=feedback,
        tokens=_tokens(host, head, attempt, teacher_T, student_T),
        recorded=student_T is None,
        drift_nats=_drift(head, attempt, student_T),
    )


def teacher_prompt(state: State, attempt: Attempt) -> tuple[Prompt, str]:
    """The prompt that the teacher of this attempt read, and what it held besides the question.

    Raises ConfigError for a method that does not learn, and for an attempt that had no teacher.
    """
    name = state.header.method
    method = methods.REGISTRY.find(name)
    if method is None or not method.learns:
        raise ConfigError(f"{name} has no teacher; explain --attempt is for runs of methods that learn")
    if method.example is MethodPlugin.example:
        raise ConfigError(f"{name} does not say what its teacher reads: its class lacks `example`")
    options = read_options(method.options_type, state.header.parts.get(name, {}), name)
    if why := _why_not_learned(state, attempt, options):
        raise ConfigError(f"attempt {attempt.index} had no teacher: {why}")
    learned_with = _history_of(state, attempt.sample.policy.version)
    prompt = recorded_example(state, attempt, method, options, learned_with).teacher_prompt
    if prompt is None:
        why = "it solved the problem" if attempt.verdict.solved else "there was no feedback for it"
        raise ConfigError(f"attempt {attempt.index} had no teacher: {why}")
    return prompt, prompt.messages[-1].content.removeprefix(_question(state, attempt)).strip()


def _why_not_learned(state: State, attempt: Attempt, options: Options) -> str:
    """Why no update would learn from this attempt, whatever it answered; empty where one would."""
    if not is_question_alone(attempt.sample.prompt) and not getattr(options, "learn_from_feedback", True):
        return "it read feedback itself, and updates learned from answers to the question alone"
    version = attempt.sample.policy.version
    if all(known.index != attempt.index for known in _history_of(state, version)):
        return f"it was sampled from policy {version} when there was a newer one, from which updates learned"
    return ""


def _history_of(state: State, version: int) -> list[Attempt]:
    """The attempts before those of a newer version: what the update on this version knew at most."""
    return list(itertools.takewhile(lambda a: a.sample.policy.version <= version, state.history))


def _question(state: State, attempt: Attempt) -> str:
    """The question alone, from the run's first such prompt; this attempt may have read feedback besides."""
    prompts = (a.sample.prompt for a in state.history)
    alone = next((prompt for prompt in prompts if is_question_alone(prompt)), attempt.sample.prompt)
    return alone.messages[-1].content


def recorded_example(
    state: State, attempt: Attempt, method: type[MethodPlugin], options: Options, history: Sequence[Attempt]
) -> Example:
    """What the method makes of a recorded attempt, with the question and language of the journal."""
    header, turns = state.header, attempt.sample.prompt.messages
    system = next((turn.content for turn in turns if turn.role == "system"), None)
    question = _question(state, attempt)
    prompter = RecordedQuestion(system, attempt.sample.prompt.thinking, header.language, recorded=question)
    parts = MethodParts(prompter, SamplingSpec(max_tokens=1), "", Path(), header.seed or 0, None, len, 0)
    problem = Problem(header.problem, question, Kind.FUNCTION, ())
    return method.build(options, parts).example(problem, attempt, history)


# -- passes --------------------------------------------------------------------------------------------------


def _teacher(
    host: AdaptedModel,
    options: LearnerOptions,
    example: TokenizedExample,
    policy: Policy,
    passes: PackedPasses,
) -> Mixture:
    """The teacher at T positions; at version 0 every teacher is the initial model."""
    if options.is_without_feedback:
        raise ConfigError(f"this run had no teacher (learner.teacher={options.teacher})")
    if policy.version == 0 or policy.adapter_dir is None:
        options = options.model_copy(update={"teacher": "frozen"})
    if options.teacher != "frozen":
        if not _on_disk(policy):
            raise ConfigError(
                f"the teacher of version {policy.version} is pruned from {policy.adapter_dir}; choose an "
                "attempt of another version, or of version 0"
            )
        with host.policy_active(policy):
            pass  # the slot `policy` now holds it
        if options.keeps_average and policy.adapter_dir is not None:
            average = read_tensors(policy.adapter_dir / TEACHER_FILE)
            host.put(
                "teacher", policy.key, teachers.average_shape(options, choose(host, options).shape), average
            )
    return teachers.teacher_mixture(host, options, [example], policy.key, passes)


def _student(
    host: AdaptedModel, row: PromptCompletion, policy: Policy, passes: PackedPasses
) -> Mixture | None:
    """The policy that sampled, at T positions; None where its weights are pruned."""
    if policy.adapter_dir is not None and policy.version > 0 and not _on_disk(policy):
        return None
    base = Policy(policy.run, policy.version)
    with host.policy_active(base if policy.version == 0 else policy):
        return Mixture.of(passes.hidden_states([row]))


def _on_disk(policy: Policy) -> bool:
    return policy.adapter_dir is not None and policy.adapter_dir.is_dir()


def _tokens(
    host: AdaptedModel, head: Head, attempt: Attempt, teacher_T: Mixture, student_T: Mixture | None
) -> tuple[Token, ...]:
    """Chunks of positions at a time, so that whole rows of the vocabulary never pile up."""
    sample = attempt.sample
    texts = pieces(host.tokenizer.decode, sample.token_ids_T)
    tokens = []
    for start in range(0, len(sample.token_ids_T), _CHUNK):
        span = slice(start, start + _CHUNK)
        teacher_NV = head.all_logprobs(teacher_T[span])
        student_NV = None if student_T is None else head.all_logprobs(student_T[span])
        best = teacher_NV.topk(min(_N_ALTERNATIVES, teacher_NV.shape[1]), dim=1)
        for n in range(len(teacher_NV)):
            t = start + n
            token_id = sample.token_ids_T[t]
            student = sample.logprobs_T[t] if student_NV is None else float(student_NV[n, token_id])
            alternatives = tuple(
                Alternative(
                    _one(host.tokenizer, other),
                    float(teacher_NV[n, other].exp()),
                    None if student_NV is None else float(student_NV[n, other].exp()),
                )
                for other in best.indices[n].tolist()
            )
            ratio = float(teacher_NV[n, token_id]) - student
            tokens.append(Token(t, texts[t], ratio, alternatives))
    return tuple(tokens)


def _drift(head: Head, attempt: Attempt, student_T: Mixture | None) -> float:
    """Mean |difference| between the student's log-probs now and as recorded; 0 where not computed."""
    if student_T is None:
        return 0.0
    sample = attempt.sample
    ids_T = torch.tensor(sample.token_ids_T, device=student_T.hidden_Nd[0].device)
    now_T = head.logprobs(student_T, ids_T, _CHUNK).cpu()
    return float((now_T - torch.tensor(sample.logprobs_T)).abs().mean())


def _one(tokenizer: Any, token_id: int) -> str:
    return str(tokenizer.decode([token_id]))
