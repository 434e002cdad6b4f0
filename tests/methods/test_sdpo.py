"""What sdpo tells its teacher about each attempt, and what is refused before a run."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sdpo_solve.config import RunOptions, parse_settings
from sdpo_solve.errors import ConfigError
from sdpo_solve.methods._shuffled import _FILE, foreign_feedback
from sdpo_solve.methods.prompts import Prompter
from sdpo_solve.run.options import make_plan
from sdpo_solve.types import (
    Example,
    SamplingSpec,
)
from tests.helpers.attempts import FAILED, SOLVED, attempt, method
from tests.helpers.parts import PROBLEM

PROBLEMS = Path(__file__).parents[2] / "problems"


def told(example: Example) -> str:
    """What the teacher's prompt holds besides the question."""
    assert example.teacher_prompt is not None
    return example.teacher_prompt.messages[-1].content.removeprefix(Prompter().question(PROBLEM)).strip()


def test_feedback_is_told_to_failed_attempts_only() -> None:
    history = [FAILED, SOLVED]
    assert "feedback 1" in told(method().example(PROBLEM, FAILED, history))
    assert "program" not in told(method().example(PROBLEM, FAILED, history)).split("feedback 1")[0]
    assert method().example(PROBLEM, SOLVED, history).teacher_prompt is None


def test_a_solution_replaces_feedback_and_is_never_shown_to_itself() -> None:
    both = method(teacher="both")
    assert "feedback 1" in told(both.example(PROBLEM, FAILED, [FAILED]))
    shown = told(both.example(PROBLEM, FAILED, [FAILED, SOLVED]))
    assert "Correct solution:" in shown
    assert "program 3" in shown
    assert "feedback" not in shown
    assert both.example(PROBLEM, SOLVED, [FAILED, SOLVED]).teacher_prompt is None
    later = attempt(4, 3, hidden=True)
    assert "program 3" in told(both.example(PROBLEM, later, [FAILED, SOLVED, later]))
    assert method(teacher="solution").example(PROBLEM, FAILED, [FAILED]).teacher_prompt is None


def test_the_attempt_is_pasted_on_request_only() -> None:
    assert "program 1" not in told(method().example(PROBLEM, FAILED, [FAILED]))
    assert "program 1" in told(method(attempt_in_prompt=True).example(PROBLEM, FAILED, [FAILED]))


# -- reading feedback -----------------------------------------------------------------------------------------


def test_attempts_with_feedback_read_the_newest_once_something_has_failed() -> None:
    some = method(group_size=4, feedback_share=0.75)
    question = Prompter().student(PROBLEM)
    assert some.propose(PROBLEM, [], 16) == [question] * 4
    history = [attempt(1, 0), attempt(2, 1), SOLVED]
    own, *asked = some.propose(PROBLEM, history, 16)
    assert own == question
    assert [prompt.messages[-1].content.count("feedback 2") for prompt in asked] == [1, 0, 1]
    assert "feedback 1" in asked[1].messages[-1].content
    assert len(some.propose(PROBLEM, history, 2)) == 2, "the budget leaves two: one of each"
    assert method().propose(PROBLEM, history, 3) == [question] * 3


def test_attempts_with_feedback_are_no_lessons() -> None:
    class Remember:
        rests = False

        def learn(self, examples: list[Example], spec: SamplingSpec) -> None:
            self.indices = [example.sample.token_ids_T[0] for example in examples]

    remember = Remember()
    some = replace(method(group_size=4, feedback_share=0.5), learner=remember)
    prompts = some.propose(PROBLEM, [FAILED], 16)
    group = [
        replace(
            attempt(n, 0), sample=replace(FAILED.sample, prompt=prompt, token_ids_T=(n,), logprobs_T=(-0.1,))
        )
        for n, prompt in enumerate(prompts, start=2)
    ]
    some.learn(PROBLEM, [FAILED, *group], group)
    assert remember.indices == [2, 3]


# -- the control -------------------------------------------------------------------------------------------


def test_shuffled_tells_of_one_other_problem_for_the_whole_run() -> None:
    control = method(teacher="shuffled")
    history = [attempt(n, 0) for n in range(1, 33)]
    heard = {told(control.example(PROBLEM, a, history)) for a in history}
    assert not any("feedback 1" in text for text in heard)
    assert 2 <= len(heard) <= 7, "several texts, all of one problem"
    again = {told(method(teacher="shuffled").example(PROBLEM, a, history)) for a in history}
    assert again == heard
    assert control.example(PROBLEM, SOLVED, [*history, SOLVED]).teacher_prompt is None
    others = {foreign_feedback(PROBLEM.id, seed, 1) for seed in range(20)}
    assert len(others) > 4, "the seed decides which problem that is"


def test_a_problem_never_hears_its_own_recorded_feedback() -> None:
    recorded = json.loads(_FILE.read_text())
    assert set(recorded) <= {path.stem for path in PROBLEMS.glob("*.json")}
    for name, texts in recorded.items():
        assert len(texts) >= 3, name
        assert not {foreign_feedback(name, seed, seed) for seed in range(60)} & set(texts)


# -- refusals before anything is loaded --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ("sdpo.teacher=solution", "needs a success to show, and the run stops at the first one"),
        ("sdpo.teacher=both", "add --keep-going"),
        ("learner.grpo_weight=0.5", "all are 0 until the success that ends the run"),
        ("learner.teacher=none-negative sdpo.teacher=shuffled", "sdpo.teacher would do nothing"),
        ("learner.teacher=none-negative sdpo.attempt_in_prompt=true", "attempt_in_prompt would do nothing"),
        ("sdpo.reward=visible-share", "sdpo has no option 'reward'"),
        ("sdpo.feedback_attempts=4", "sdpo has no option 'feedback_attempts'"),
        ("engine.top_p=0.9", "importance weights and distillation wrong"),
        ("engine.top_k=50", "importance weights and distillation wrong"),
    ],
)
def test_what_could_never_act_is_refused_with_the_reason(settings: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        make_plan(RunOptions(settings=parse_settings(settings.split())))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"settings": {"learner": {"lr": 1e-3}}}, "--set learner.lr"),
        ({"settings": {"sdpo": {"teacher": "shuffled"}}}, "--set sdpo.teacher"),
        ({"temperature": 0.5}, "--temperature"),
        ({"max_tokens": 7}, "--max-tokens"),
        ({"thinking": True}, "--thinking"),
        ({"temperature": 0.5, "method": "best-of-k"}, "--temperature"),
    ],
    ids=str,
)
def test_scripted_replies_without_a_model_refuse_what_only_a_model_reads(given: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=f"{said} would do nothing: .*name one with --model"):
        make_plan(RunOptions(engine="scripted", **given))
    make_plan(RunOptions(engine="scripted", model="tiny", **given))
    make_plan(
        RunOptions(engine="scripted", settings={"sdpo": {"feedback_share": 0.25}, "judge": {"boxes": 2}})
    )


@pytest.mark.parametrize(
    ("settings", "keep_going"),
    [
        ("sdpo.teacher=both", True),
        ("learner.grpo_weight=1", True),
        ("sdpo.reward=solved", False),
        ("sdpo.teacher=shuffled", False),
        ("learner.teacher=none-negative", False),
    ],
)
def test_what_can_act_is_allowed(settings: str, keep_going: bool) -> None:
    make_plan(RunOptions(keep_going=keep_going, settings=parse_settings(settings.split())))
