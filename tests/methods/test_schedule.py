"""The composition of sdpo's groups: sizes, shares, what is learned from and when, and the same after a resume."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sdpo_solve.errors import ConfigError, EngineError
from sdpo_solve.learner.options import Options as LearnerOptions
from sdpo_solve.methods import _schedule, sdpo
from sdpo_solve.methods._room import Room
from sdpo_solve.methods.prompts import Prompter
from sdpo_solve.solve import sample_each, solve
from sdpo_solve.types import (
    Attempt,
    Budget,
    Case,
    Example,
    Finish,
    Message,
    Policy,
    Prompt,
    Sample,
    SamplingSpec,
    Status,
    Update,
    Verdict,
)
from tests.helpers.parts import PROBLEM, SayEngine, answer, make_run

SPEC = SamplingSpec(8)
QUESTION = Prompter().student(PROBLEM)
HINT = Prompter().teacher(PROBLEM, feedback="wrong")


def tried(index: int, passed: int, *, code: str | None = "", prompt: Prompt = QUESTION) -> Attempt:
    """A failed attempt that passed so many of four visible tests; an empty code is one of its own."""
    cases = tuple(Case(n, Status.ACCEPTED if n < passed else Status.WRONG_ANSWER, True) for n in range(4))
    sample = Sample(prompt, (1,), (2,), (-0.1,), "", Finish.STOP, Policy("run", 0))
    return Attempt(
        index, sample, f"program {index}" if code == "" else code, Verdict(cases), f"feedback {index}"
    )


@pytest.mark.parametrize(
    ("first", "wanted"),
    [
        (1, [1, 1, 2, 4, 8, 16, 16]),
        (3, [3, 3, 6, 12, 16, 16]),
        (4, [4, 4, 8, 16, 16]),
        (16, [16, 16, 16]),
        (20, [16, 16, 16]),
        (None, [16, 16, 16]),
    ],
)
def test_groups_double_up_to_the_largest(first: int | None, wanted: list[int]) -> None:
    sizes: list[int] = []
    while sum(sizes) < 48:
        sizes.append(_schedule.group_size(sum(sizes), first, 16))
    assert sizes == wanted


@pytest.mark.parametrize(
    ("share", "size", "n"),
    [(0.5, 1, 1), (0.25, 1, 0), (0.5, 2, 1), (0.9, 2, 1), (0.1, 4, 1), (0.25, 16, 4), (0, 8, 0)],
)
def test_a_share_leaves_one_to_each_side(share: float, size: int, n: int) -> None:
    assert _schedule.split(share, size) == n


def test_the_share_follows_the_progress_of_the_forms_down_to_a_floor() -> None:
    def share(history: list[Attempt], floor: float | None = 0.2, start: float = 0.5) -> float:
        return _schedule.feedback_share(history, start, floor)

    assert share([]) == 0.5
    both = [tried(1, 0), tried(2, 4, prompt=HINT)]
    assert share(both) == pytest.approx((2 / 3) / (2 / 3 + 1 / 3))  # one of one against none of one
    assert share(both, start=0.25) == pytest.approx((1 * 2) / (1 * 2 + 3 * 1))  # odds 1:3 times 2:1
    assert share([tried(1, 2), tried(2, 2, code="program 1", prompt=HINT)]) == pytest.approx(
        0.4
    )  # 1/3 to 1.5/3
    assert share([tried(1, 2), tried(2, 2, code=None, prompt=HINT)]) == pytest.approx(0.4)
    long = [tried(n, 4) for n in range(50)] + [tried(n, 0, prompt=HINT) for n in range(50, 100)]
    assert share(long) == 0.2
    assert share(long, floor=None) == 0.5


class Remember:
    """A learner that makes versions without weights and keeps what each was made from."""

    @property
    def rests(self) -> bool:
        return False

    def __init__(self) -> None:
        self.version, self.learned = 0, list[list[int]]()

    def start(self, run: str, policies_dir: Path, seed: int) -> Policy:
        return Policy(run, 0)

    def resume(self, run: str, policies_dir: Path, seed: int, version: int) -> Policy:
        self.version = version
        return Policy(run, version, policies_dir / f"{version:04}")

    def learn(self, examples: list[Example], spec: SamplingSpec) -> Update:
        assert {example.sample.policy.version for example in examples} == {self.version}
        self.version += 1
        self.learned.append([example.sample.token_ids_T[0] for example in examples])
        policy = Policy("test/inc", self.version, Path(f"policies/{self.version:04}"))
        return Update(policy, 0.5, len(examples), len(examples))

    def keep(self, policy: Policy) -> None: ...


class NumberEngine(SayEngine):
    """Wrong answers whose first token is the number of the sample; the n-th call may fail."""

    def __init__(self, fails_at: int = 0) -> None:
        super().__init__(lambda seed, policy, n: answer(f"wrong {seed}"))
        self.fails_at, self.prompts, self.n_calls = fails_at, list[tuple[Prompt, int]](), 0

    def sample(self, prompts_G: Any, seeds_G: Any, policy: Policy, spec: SamplingSpec) -> list[Sample]:
        self.n_calls += 1
        if self.n_calls == self.fails_at:
            raise EngineError("gone")
        samples = super().sample(prompts_G, seeds_G, policy, spec)
        self.prompts += [(prompt, policy.version) for prompt in prompts_G]
        n = len(self.prompts) - len(samples) + 1
        return [replace(s, token_ids_T=(n + g,), logprobs_T=(-0.1,)) for g, s in enumerate(samples)]


SCHEDULE = {"group_size": 8, "first_group": 1, "feedback_share": 0.5, "feedback_floor": 0.25}


def run_of(folder: Path, engine: SayEngine, learner: Any, budget: int = 32, **options: Any) -> Any:
    run = make_run(folder, engine, budget=Budget(budget))
    given = sdpo.Options(**{"preset": "paper", **options})
    method = sdpo.Sdpo(Prompter(), run.spec, run.journal.run, folder / "policies", 0, given, learner)
    return replace(run, method=method)


def sizes(run: Any) -> list[int]:
    text = (run.journal.run_dir / "journal.jsonl").read_text().splitlines()
    import json

    return [event["size"] for event in map(json.loads, text) if event["event"] == "group"]


def test_the_first_update_learns_from_every_failure_until_then(tmp_path: Path) -> None:
    engine, learner = NumberEngine(), Remember()
    run = run_of(tmp_path, engine, learner, learn_after=10, **SCHEDULE)
    solve(run)
    assert sizes(run) == [1, 1, 2, 4, 8, 8, 8]
    plain = [n for n, (prompt, _) in enumerate(engine.prompts, 1) if prompt == QUESTION]
    assert 2 not in plain, "the second attempt is sampled with feedback already"
    assert learner.learned[0] == [n for n in plain if n <= 16]
    assert learner.learned[1] == [n for n in plain if 16 < n <= 24]
    assert len(learner.learned) == 2  # what the last group would teach nobody uses
    assert [version for _, version in engine.prompts] == [0] * 16 + [1] * 8 + [2] * 8


def test_a_share_stays_on_the_base_model_and_teaches_nothing(tmp_path: Path) -> None:
    engine, learner = NumberEngine(), Remember()
    solve(run_of(tmp_path, engine, learner, group_size=8, base_share=0.25))
    assert [sorted(v for _, v in engine.prompts[n : n + 8]) for n in (0, 8, 16)] == [
        [0] * 8, [0, 0, *[1] * 6], [0, 0, *[2] * 6],
    ]  # fmt: skip
    assert [len(learned) for learned in learner.learned] == [8, 6, 6]


@pytest.mark.parametrize(
    ("size", "share", "base"),
    [(1, 0.25, []), (1, 0.9, []), (2, 0.25, [1]), (4, 0.25, [2]), (4, 0.9, [1, 2, 3]), (8, 0.25, [2, 6]),
     (16, 0.25, [2, 6, 10, 14]), (16, 0.5, [1, 3, 5, 7, 9, 11, 13, 15]), (16, 0, [])],
)  # fmt: skip
def test_the_base_model_gets_its_share_of_both_forms_and_never_the_first_attempt(
    tmp_path: Path, size: int, share: float, base: list[int]
) -> None:
    run = run_of(tmp_path, NumberEngine(), Remember(), base_share=share)
    policies = run.method.policies([], Policy("r", 3), [QUESTION] * size)
    assert [g for g, policy in enumerate(policies) if policy.version == 0] == base


def test_groups_of_two_go_on_learning(tmp_path: Path) -> None:
    """Of a pair the base model has the attempt with feedback; the other is the newest policy's."""
    learner = Remember()
    options = {"group_size": 2, "feedback_share": 0.5, "base_share": 0.25}
    solve(run_of(tmp_path, NumberEngine(), learner, budget=10, **options))
    assert learner.learned == [[1, 2], [3], [5], [7]]


def test_attempts_with_feedback_teach_on_request(tmp_path: Path) -> None:
    learner = Remember()
    options = {"group_size": 8, "feedback_share": 0.5, "learn_from_feedback": True}
    solve(run_of(tmp_path, NumberEngine(), learner, budget=24, **options))
    assert [len(learned) for learned in learner.learned] == [8, 8]


def test_every_second_attempt_with_feedback_reads_the_newest_texts_together(tmp_path: Path) -> None:
    run = run_of(tmp_path, NumberEngine(), Remember(), group_size=8, feedback_share=0.5, feedback_window=2)
    failures = [tried(n, 0, code=f"program {n}") for n in (1, 2, 3)]

    def asked(history: list[Attempt]) -> list[Prompt]:
        return [prompt for prompt in run.method.propose(PROBLEM, history, 8) if prompt != QUESTION]

    one, two, three = (Prompter().teacher(PROBLEM, feedback=f"feedback {n}") for n in (1, 2, 3))
    both = Prompter().multi_turn(PROBLEM, ["feedback 2", "feedback 3"])
    assert asked(failures) == [three, both, two, both]
    assert asked(failures[:1]) == [one] * 4


def test_feedback_that_leaves_no_room_for_an_answer_is_passed_over(tmp_path: Path) -> None:
    run = run_of(tmp_path, NumberEngine(), Remember(), group_size=4, feedback_share=0.5)
    alone = len(Prompter().multi_turn(PROBLEM, [""]).messages[0].content) + 16  # one character is one token
    failures = [replace(tried(n, 0, code=f"program {n}"), feedback=n * "x") for n in (10, 15, 40)]

    def proposed(context_tokens: int) -> list[Prompt]:
        method = replace(run.method, room=Room(len, context_tokens, max_tokens=30))
        return list(method.propose(PROBLEM, failures, 4))

    def teacher(n: int) -> Prompt:
        return Prompter().teacher(PROBLEM, feedback=n * "x")

    assert proposed(alone + 45) == [QUESTION, QUESTION, teacher(15), teacher(10)]
    assert proposed(alone + 44) == [QUESTION, QUESTION, teacher(10), teacher(10)]
    assert proposed(alone + 39) == [QUESTION] * 4


@pytest.mark.parametrize("fails_at", range(2, 10))
def test_a_run_that_broke_off_goes_on_with_the_same_groups(tmp_path: Path, fails_at: int) -> None:
    options = {**SCHEDULE, "learn_after": 6, "base_share": 0.25}
    whole = run_of(tmp_path / "whole", NumberEngine(), Remember(), **options)
    solve(whole)
    torn = run_of(tmp_path / "torn", NumberEngine(fails_at), Remember(), **options)
    with pytest.raises(EngineError):
        solve(torn)
    torn.journal.close()
    again = run_of(tmp_path / "torn", NumberEngine(), Remember(), **options)
    solve(again)
    for name in ("history", "unlearned_group"):
        assert [
            (a.index, a.sample.prompt, a.sample.policy.version) for a in getattr(again.journal, name)
        ] == [(a.index, a.sample.prompt, a.sample.policy.version) for a in getattr(whole.journal, name)]
    assert sizes(again) == sizes(whole)


def test_samples_of_several_policies_come_in_the_order_of_their_prompts() -> None:
    engine = NumberEngine()
    base, newest = Policy("r", 0), Policy("r", 3)
    samples = sample_each(engine, [QUESTION, HINT, QUESTION], [1, 2, 3], [newest, base, newest], SPEC)
    assert [(s.prompt, s.policy) for s in samples] == [(QUESTION, newest), (HINT, base), (QUESTION, newest)]
    assert engine.n_calls == 2


def test_an_engine_that_can_mix_is_called_once() -> None:
    class Mixing(NumberEngine):
        def sample_mixed(self, prompts_G: Any, seeds_G: Any, policies_G: Any, spec: SamplingSpec) -> Any:
            assert policies_G == [newest, base]
            return super().sample(prompts_G, seeds_G, newest, spec)

    engine, base, newest = Mixing(), Policy("r", 0), Policy("r", 3)
    sample_each(engine, [QUESTION, HINT], [1, 2], [newest, base], SPEC)
    assert engine.n_calls == 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"feedback_floor": 0.2}, "feedback_floor would do nothing"),
        ({"learn_from_feedback": True}, "without sdpo.feedback_share"),
        ({"feedback_window": 4}, "feedback_window would do nothing"),
    ],
)
def test_settings_that_could_not_act_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        sdpo.Sdpo.check(sdpo.Options(preset="paper", **options), LearnerOptions(), stops_at_first=True)
    sdpo.Sdpo.check(sdpo.Options(**options), LearnerOptions(), stops_at_first=True)


def test_what_an_earlier_version_sampled_from_its_wording_of_the_question_is_learned_from(
    tmp_path: Path,
) -> None:
    learner = Remember()
    older = Prompt((Message("user", "Add one, in the words of an earlier version."),))
    group = [tried(1, 0, prompt=older), tried(2, 0, prompt=HINT)]
    sdpo.Sdpo(Prompter(), SamplingSpec(8), "run", tmp_path, 0, sdpo.Options(learn_after=0), learner).learn(
        PROBLEM, group, group
    )
    assert [len(learned) for learned in learner.learned] == [1]


def test_a_learner_that_rests_is_asked_no_more(tmp_path: Path) -> None:
    class RestsAfterOne(Remember):
        @property
        def rests(self) -> bool:
            return self.version > 0

    learner, engine = RestsAfterOne(), NumberEngine()
    solve(run_of(tmp_path, engine, learner, group_size=8))
    assert len(learner.learned) == 1
    assert [version for _, version in engine.prompts] == [0] * 8 + [1] * 24
