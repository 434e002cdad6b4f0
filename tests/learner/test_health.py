"""When a policy counts as collapsed and what follows; which attempts teach; what is drawn again."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sdpo_solve.learner.examples import Replay, TokenizedGroup, reward_advantages, tokenize
from sdpo_solve.learner.health import Health, group_vitals, repetition
from sdpo_solve.learner.options import Options
from sdpo_solve.model.adapted import AdaptedModel
from sdpo_solve.types import Example, Finish, Message, Policy, Prompt, Sample
from tests.helpers.tiny_model import save_tiny_model
from tests.helpers.updates import SPEC, group, learner

WELL = {
    "mean_length_tokens": 40.0, "repetition": 0.05, "kl_to_base": 0.02, "entropy_sampled": 0.5, "mean_reward": 0.0,
}  # fmt: skip
TEACHER = Prompt((Message("user", "q\n\nWrong Answer"),))


def health(**options: Any) -> tuple[Health, Options]:
    """After a first group of answers of 40 tokens."""
    found, chosen = Health(), Options(**options)
    assert found.decide(0, WELL, chosen).action == "step"
    return found, chosen


def example(reward: float = 0.0, *, tokens: int = 3, with_teacher: bool = True, version: int = 0) -> Example:
    ids = tuple(range(tokens))
    sample = Sample(Prompt(()), (1, 2), ids, (-0.5,) * tokens, "x", Finish.STOP, Policy("run", version))
    return Example(sample, TEACHER if with_teacher else None, reward)


# -- rules -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vitals", "reason"),
    [
        ({"mean_length_tokens": 161.0}, "answers of 161 tokens, limit 160"),
        ({"repetition": 0.51}, "repetition 0.51, limit 0.5"),
        ({"kl_to_base": 0.6}, "KL to the base 0.6 nats, limit 0.5"),
        ({"entropy_sampled": 0.01}, "entropy 0.01 nats, limit 0.02"),
    ],
    ids=str,
)
def test_each_sign_of_collapse_rolls_back_and_is_said_with_its_limit(
    vitals: dict[str, float], reason: str
) -> None:
    found, options = health()
    decision = found.decide(1, {**WELL, **vitals}, options)
    assert decision.action == "rollback"
    assert decision.notice == f"version 1 collapsed ({reason}); back to version 0"


def test_nothing_is_done_at_the_limits_and_to_the_base_itself() -> None:
    edge = {"mean_length_tokens": 160.0, "repetition": 0.5, "kl_to_base": 0.5, "entropy_sampled": 0.02}
    found, options = health()
    assert found.decide(1, {**WELL, **edge}, options).action == "step"
    assert Health().decide(0, {**WELL, "repetition": 0.9}, options).action == "step"


def test_a_roll_back_goes_to_the_best_version_and_the_newest_of_equals() -> None:
    found, options = health()
    for version, reward in ((1, 0.2), (2, 0.4), (3, 0.4), (4, 0.1)):
        found.decide(version, {**WELL, "mean_reward": reward}, options)
    assert found.decide(5, {**WELL, "repetition": 0.9}, options).version == 3


def test_freezing_lasts() -> None:
    found, options = health(on_collapse="freeze")
    decision = found.decide(1, {**WELL, "repetition": 0.9}, options)
    assert decision.action == "freeze"
    assert decision.notice.endswith("; no more updates")
    assert found.decide(2, WELL, options).action == "rest"
    assert Health(**found.facts()).decide(3, WELL, options).action == "rest", "through a resume"


def test_a_teacher_that_says_nothing_new_ends_learning_before_it_begins() -> None:
    options = Options(min_gap=0.1)
    found = Health()
    assert "0.099 nats a token, learner.min_gap=0.1" in found.check_gap(0.099, options)
    assert Health(**found.facts()).rests, "through a resume"
    assert found.decide(1, WELL, options).action == "rest"
    far = Health()
    assert far.check_gap(0.1, options) == ""
    assert Health(**far.facts()).check_gap(0.01, options) == "", "later the student has learned what it says"
    assert not far.rests
    assert Health().check_gap(0.01, Options(min_gap=0)) == ""


def test_restart_and_ignore() -> None:
    found, options = health(on_collapse="restart")
    assert found.decide(1, {**WELL, "repetition": 0.9}, options).action == "restart"
    found, options = health(on_collapse="ignore")
    decision = found.decide(1, {**WELL, "repetition": 0.9}, options)
    assert decision.action == "step"
    assert "learner.on_collapse" in decision.notice


def test_the_fourth_collapse_freezes() -> None:
    found, options = health()
    actions = [found.decide(n, {**WELL, "repetition": 0.9}, options) for n in range(1, 6)]
    assert [decision.action for decision in actions] == ["rollback"] * 4 + ["rest"]
    assert "the 4th time" in actions[3].notice


@pytest.mark.parametrize(
    ("norm", "said"),
    [(99.0, ""), (101.0, "gradient norm 101, limit 100"), (math.nan, "not finite"), (math.inf, "not finite")],
)
def test_gradients_that_explode_are_skipped(norm: float, said: str) -> None:
    found, options = health()
    notice = found.check_step(norm, 0.0, 0.01, options)
    assert bool(notice) == bool(said)
    assert said in notice


def test_a_sampler_that_is_not_what_is_learned_is_no_teacher() -> None:
    found, options = health()
    assert found.check_step(1.0, 0.009, 0.01, options) == ""
    assert "0.02 nats a token, limit 0.01" in found.check_step(1.0, 0.02, 0.01, options)


def test_idle_groups_are_said_every_third_time_in_a_row() -> None:
    found, _ = health()
    counts = {"n_without_teacher": 4.0}
    said = [found.note_examples(n, counts) for n in (0, 0, 5, 0, 0, 0, 0, 0, 0)]
    assert [bool(text) for text in said] == [False] * 5 + [True, False, False, True]
    assert said[-1] == "nothing could be learned for 6 groups; attempts of the last: 4 without a teacher"


@pytest.mark.parametrize(
    ("group_G", "options", "reason"),
    [
        (lambda: [example(with_teacher=False)] * 4, {}, "4 without a teacher"),
        (lambda: [example(tokens=0)] * 4, {}, "4 empty"),
        (lambda: [example(tokens=7)] * 4, {}, "4 with a teacher's prompt that is too long"),
        (lambda: [example()] * 4, {"grpo_weight": 1.0}, "4 without an advantage in reward"),
        (lambda: [example(1.0)] * 4, {"teacher": "none-negative"}, "4 without an advantage in reward"),
        (
            lambda: [
                example(tokens=0),
                example(tokens=7),
                example(1.0, with_teacher=False),
                example(tokens=0),
            ],
            {},
            "2 empty, 1 without a teacher, 1 with a teacher's prompt that is too long",
        ),
        (lambda: [example(with_teacher=False)] * 3, {"grpo_weight": 0.5}, "3 without a teacher"),
    ],
)
def test_the_reason_of_an_idle_group_is_that_of_its_counts(
    group_G: Callable[[], list[Example]], options: dict[str, Any], reason: str
) -> None:
    found, _ = health()
    idle = tokenized(group_G(), **options)
    assert idle.examples == []
    said = [found.note_examples(0, idle.metrics) for _ in range(3)]
    assert said == ["", "", f"nothing could be learned for 3 groups; attempts of the last: {reason}"]


def test_vitals_of_a_group_by_hand() -> None:
    group_G = [example(1.0, tokens=4), example(tokens=8)]
    vitals = group_vitals(group_G)
    assert vitals["mean_length_tokens"] == 6
    assert vitals["entropy_sampled"] == 0.5
    assert vitals["mean_reward"] == 0.5
    assert vitals["distinct_share"] == 0.5
    assert vitals["truncated_share"] == 0
    assert repetition(range(20)) == 0
    assert repetition([7] * 17) == pytest.approx(0.9)
    assert repetition([7] * 8) == 0


# -- the rules in a run ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> AdaptedModel:
    return AdaptedModel.load(save_tiny_model(tmp_path_factory.mktemp("tiny") / "m"), "cpu", torch.float32)


@pytest.mark.parametrize("rule", ["rollback", "restart"])
def test_a_collapsed_version_is_not_learned_from_and_its_weights_are_left(
    host: AdaptedModel, tmp_path: Path, rule: str
) -> None:
    """KL to the base runs away at once: the weights go back to those before the step, under a new number."""
    found = learner(host, on_collapse=rule, max_base_kl=1e-6, lr=3e-2)
    zero = found.start("run", tmp_path, 0)
    before = {name: t.clone() for name, t in found._active().optimizer.weights.items()}
    first = found.learn(group(host, zero), SPEC)
    assert first.notices == ()
    second = found.learn(group(host, first.policy, seed=1), SPEC)
    assert second.policy.version == 2
    assert "version 1 collapsed (KL to the base" in second.notices[0]
    assert second.n_examples == 0
    assert second.metrics["rolled_back_to"] == 0
    after = found._active().optimizer.weights
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_an_exploding_gradient_leaves_the_weights_alone(host: AdaptedModel, tmp_path: Path) -> None:
    found = learner(host, max_grad_norm=1e-9)
    policy = found.start("run", tmp_path, 0)
    before = {name: t.clone() for name, t in found._active().optimizer.weights.items()}
    update = found.learn(group(host, policy), SPEC)
    assert update.metrics["skipped"] == 1
    assert "update skipped: gradient norm" in update.notices[0]
    assert all(torch.equal(before[n], t) for n, t in found._active().optimizer.weights.items())


def test_a_run_whose_teacher_is_near_keeps_the_base_weights(host: AdaptedModel, tmp_path: Path) -> None:
    found = learner(host, min_gap=1e3)
    policy = found.start("run", tmp_path, 0)
    before = {name: t.clone() for name, t in found._active().optimizer.weights.items()}
    assert not found.rests
    update = found.learn(group(host, policy), SPEC)
    assert found.rests
    assert update.loss > 0
    assert (update.metrics["skipped"], update.metrics["frozen"]) == (0, 0), "no fault of the policy"
    assert "no updates: with the feedback the model says nearly what it says without" in update.notices[-1]
    assert all(torch.equal(before[n], t) for n, t in found._active().optimizer.weights.items())


def test_attempts_without_a_teacher_do_not_count_as_far_from_it(host: AdaptedModel, tmp_path: Path) -> None:
    """With rewards in the loss two of four attempts passed and have no teacher: the gap is the others'."""
    found = learner(host, min_gap=0)
    examples = group(host, found.start("failed", tmp_path, 0))
    alone = found.learn(examples[:2], SPEC)
    mixed = learner(host, min_gap=0, grpo_weight=0.5)
    mixed.start("failed", tmp_path / "mixed", 0)
    passed = [replace(e, teacher_prompt=None, reward=1.0) for e in examples[2:]]
    update = mixed.learn([*examples[:2], *passed], SPEC)
    assert update.n_examples == 4
    assert update.loss == pytest.approx(alone.loss)


def test_the_gap_is_asked_at_the_first_step_that_has_one(host: AdaptedModel, tmp_path: Path) -> None:
    """Empty answers teach nothing: the version after them has the base's weights, and no gap was seen."""
    found = learner(host, min_gap=1e3)
    policy = found.start("run", tmp_path, 0)
    empty = [replace(e, sample=replace(e.sample, token_ids_T=(), logprobs_T=())) for e in group(host, policy)]
    first = found.learn(empty, SPEC)
    assert (first.n_examples, found.rests) == (0, False)
    found.resume("run", tmp_path, 0, first.policy.version)
    found.learn(group(host, first.policy), SPEC)
    assert found.rests


def test_every_update_records_the_canaries(host: AdaptedModel, tmp_path: Path) -> None:
    found = learner(host)
    update = found.learn(group(host, found.start("run", tmp_path, 0)), SPEC)
    update = found.learn(group(host, update.policy, seed=1), SPEC)
    canaries = {
        "entropy", "mean_length_tokens", "truncated_share", "repetition", "distinct_share", "kl_to_base", "grad_norm",
        "n_without_teacher", "n_teacher_too_long", "n_empty", "skipped", "frozen", "importance_ratio",
    }  # fmt: skip
    assert canaries <= update.metrics.keys()


# -- examples ----------------------------------------------------------------------------------------------


def tokenized(group_G: list[Example], replayed: tuple[Example, ...] = (), **options: Any) -> TokenizedGroup:
    encode = {"encode": lambda prompt: [9] * 5, "context_tokens": 11}
    return tokenize(group_G, replayed, Options(**options), **encode)


def test_rewards_count_against_the_mean_of_the_group() -> None:
    """Equation 3: r - mean r."""
    group_G = [example(1.0), example(), example(), example(0.5)]
    assert reward_advantages(group_G, Options(grpo_weight=0.5)) == [0.625, -0.375, -0.375, 0.125]
    control = Options(teacher="none-negative", negative_advantage=2.0)
    assert reward_advantages(group_G, control) == [0.0, -2.0, -2.0, -2.0]
    assert reward_advantages(group_G, Options(teacher="own-answers")) == [1.0, 1.0, 1.0, 1.0]


def test_who_teaches_and_why_not() -> None:
    group_G = [example(), example(1.0, with_teacher=False), example(tokens=0), example(tokens=7)]
    found = tokenized(group_G)
    assert len(found.examples) == 1
    counts = {"n_empty": 1, "n_without_teacher": 2, "n_teacher_too_long": 1}
    assert found.metrics == counts
    by_reward = tokenized(group_G, grpo_weight=0.5)
    assert [one.teacher is None for one in by_reward.examples] == [False, True, True]
    control = tokenized(group_G, teacher="none-negative")
    assert [one.advantage for one in control.examples] == [-1.0, -1.0]
    assert all(one.teacher is None for one in control.examples)


def test_replay_draws_distinct_earlier_attempts_that_had_a_teacher_and_survives_a_resume() -> None:
    memory = Replay()
    assert memory.draw(4, torch.Generator().manual_seed(0)) == []
    memory.add([example(tokens=n, with_teacher=n != 4, version=1) for n in range(1, 7)])
    assert len(memory.examples) == 5
    drawn = memory.draw(3, torch.Generator().manual_seed(0))
    assert len({len(e.sample.token_ids_T) for e in drawn}) == 3
    assert len(memory.draw(9, torch.Generator().manual_seed(0))) == 5
    again = Replay.from_facts(memory.facts())
    for old, new in zip(memory.examples, again.examples, strict=True):
        assert old.sample.token_ids_T == new.sample.token_ids_T
        assert old.sample.logprobs_T == new.sample.logprobs_T
        assert (old.teacher_prompt, old.reward, old.sample.policy.key) == (
            new.teacher_prompt, new.reward, new.sample.policy.key,
        )  # fmt: skip
    found = tokenized([example()], tuple(drawn))
    assert found.metrics["n_replayed"] == 3
    assert len(found.examples) == 4


def test_replay_forgets_the_oldest() -> None:
    memory = Replay()
    for n in range(1, 301):
        memory.add([example(tokens=n % 50 + 1, version=n)])
    assert [e.sample.policy.version for e in memory.examples] == list(range(45, 301))


def test_replayed_attempts_are_weighed_by_how_likely_they_still_are(
    host: AdaptedModel, tmp_path: Path
) -> None:
    """They were drawn from older weights: the importance weights leave 1, and are cut at the clip."""
    found = learner(host, replay=4, lr=3e-2)
    policy = found.start("run", tmp_path, 0)
    ratios = []
    for step in range(3):
        update = found.learn(group(host, policy, seed=step), SPEC)
        policy = update.policy
        ratios.append((update.metrics["importance_ratio"], update.metrics.get("n_replayed", 0)))
    assert ratios[0] == (pytest.approx(1, abs=1e-3), 0)
    assert all(n == 4 and abs(ratio - 1) > 1e-3 and ratio < 2 for ratio, n in ratios[1:])
