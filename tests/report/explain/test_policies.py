"""A run's policies one by one: what each answered, which attempts an update learned from, who had a teacher."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sdpo_solve.errors import ConfigError
from sdpo_solve.methods import sdpo
from sdpo_solve.methods.prompts import Prompter
from sdpo_solve.report.explain import policies as moves
from sdpo_solve.report.explain.score import teacher_prompt
from sdpo_solve.report.explain.text import notices
from sdpo_solve.report.runs import read_run
from sdpo_solve.run.events import read_state
from sdpo_solve.run.journal import Journal
from sdpo_solve.types import (
    Attempt,
    Case,
    Example,
    Finish,
    Kind,
    Policy,
    Problem,
    Sample,
    SamplingSpec,
    Status,
    TestCase,
    Update,
    Verdict,
)
from tests.helpers.journals import Made, make

PROBLEM = Problem("inc", "Add one.", Kind.FUNCTION, (TestCase([1], 2, True),), entry_point="inc")
SPEC = SamplingSpec(max_tokens=24)


@dataclass
class NotingLearner:
    """Takes no step, and notes which samples each update was given."""

    run_dir: Path
    seen: list[list[Sample]] = field(default_factory=list)
    rests = False

    def start(self, run: str, policies_dir: Path, seed: int) -> Policy:
        return Policy(run, 0)

    def learn(self, examples: Sequence[Example], spec: SamplingSpec) -> Update:
        self.seen.append([example.sample for example in examples])
        n = len(self.seen)
        policy = Policy("x", n, self.run_dir / "policies" / f"{n:04}")
        return Update(policy, 0.5 / n, len(examples), 40, notices=(f"note {n}",))


def played_run(out: Path, *, n_groups: int = 4, **options: object) -> tuple[Path, list[list[int]]]:
    """A journal of failures as sdpo samples and learns; gives the attempts of each update as well.

    Groups of 8 with an update after each: the first asks the question alone, then 4 of each read feedback and
    2 are of the base. Every second attempt has a program.
    """
    run_dir = out / "inc" / "sdpo" / "seed-0"
    fixed = {"group_size": 8, "first_group": None, "feedback_floor": None, "learn_after": 8}
    said = sdpo.Options(**{**fixed, **options})
    journal, learner = Journal(run_dir, "x"), NotingLearner(run_dir)
    journal.start(
        {
            "problem": "inc", "method": "sdpo", "seed": 0, "language": "python",
            "config": {"parts": {"sdpo": said.model_dump(mode="json")}},
        }
    )  # fmt: skip
    method = sdpo.Sdpo(Prompter(), SPEC, "x", run_dir / "policies", 0, said, learner)
    policy = method.start(PROBLEM, None)
    for _ in range(n_groups):
        prompts = method.propose(PROBLEM, journal.history, 8)
        policies = method.policies(journal.history, policy, prompts)
        group = []
        for prompt, sampler in zip(prompts, policies, strict=True):
            index = len(journal.history) + len(group) + 1
            sample = Sample(prompt, (1, 2), (index,), (-1.0,), "", Finish.STOP, sampler)
            verdict = Verdict((Case(0, Status.WRONG_ANSWER, True),))
            code = f"x = {sampler.version}" if index % 2 else None
            group.append(Attempt(index, sample, code, verdict, f"Wrong Answer\nGot: {index}"))
        journal.append_group(group, sample_s=1, grade_s=1)
        if update := method.learn(PROBLEM, journal.history, group):
            journal.append_update(update)
            policy = update.policy
    journal.close()
    return run_dir, [[sample.token_ids_T[0] for sample in samples] for samples in learner.seen]


def test_the_typical_program_is_the_one_most_like_the_others() -> None:
    assert moves.typical({1: "zzzz", 2: "return x + 1", 3: "return x + 2", 4: "return x"}) in (2, 3)
    assert moves.typical({}) is None


def test_stages_follow_the_versions_and_their_updates(tmp_path: Path) -> None:
    run = read_run(make(tmp_path, Made(limit=12, code=lambda i: f"version of {(i - 1) // 4}")))
    found = moves.stages(run)
    assert [(s.version, len(s.attempts), s.program, s.n_distinct) for s in found] == [
        (0, 4, "version of 0", 1),
        (1, 4, "version of 1", 1),
        (2, 4, "version of 2", 1),
    ]
    assert [s.update and s.update.loss for s in found] == [None, 0.5, 0.25]
    assert [a.index for a in moves.group_behind(run, 2)] == [5, 6, 7, 8]
    with pytest.raises(ConfigError, match="no update 7; it has updates 1 to 2"):
        moves.group_behind(run, 7)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"learn_after": 20},  # the first update learns from three groups
        {"learn_from_feedback": True},
        {"base_share": 0.5, "feedback_window": 2},
        {"first_group": 2, "learn_after": 3},
        {
            "preset": "paper",
            "feedback_share": 0.0,
            "feedback_floor": None,
            "base_share": 0.0,
            "learn_after": 0,
        },
    ],
)
def test_behind_an_update_are_the_attempts_that_the_learner_was_given(
    tmp_path: Path, options: dict[str, object]
) -> None:
    run_dir, given = played_run(tmp_path, **options)
    run = read_run(run_dir)
    assert given
    assert [[a.index for a in moves.group_behind(run, n)] for n in range(1, len(given) + 1)] == given


def test_an_option_that_this_version_does_not_know_hides_no_group(tmp_path: Path) -> None:
    settings = {"sdpo": {"group_size": 4, "told_attempts": 4}}
    run = read_run(make(tmp_path, Made(limit=12, settings=settings)))
    assert [a.index for a in moves.group_behind(run, 2)] == [5, 6, 7, 8]


def test_a_policy_is_one_stage_also_where_groups_mix_it_with_others(tmp_path: Path) -> None:
    """The base samples two attempts of each later group of eight."""
    run = read_run(played_run(tmp_path)[0])
    found = moves.stages(run)
    assert [(s.version, len(s.attempts)) for s in found] == [(0, 8 + 3 * 2), (1, 6), (2, 6), (3, 6)]
    assert [s.update and s.update.version for s in found] == [None, 1, 2, 3]
    assert notices(run, found) == [f"update {n}: note {n}" for n in (1, 2, 3, 4)]


def test_a_policy_without_a_program_is_called_that(tmp_path: Path) -> None:
    run = read_run(make(tmp_path, Made(no_program_at=(1, 2, 3, 4))))
    found = moves.stages(run)
    titles = [title for title, _ in moves.moves(found, ["+x"])]
    assert titles == ["typical program: policy 0 (no program) to policy 1 (attempt 5)"]
    none = read_run(make(tmp_path / "none", Made(no_program_at=tuple(range(1, 9)))))
    assert list(moves.moves(moves.stages(none), ["no difference"])) == []


# -- who had a teacher --------------------------------------------------------------------------------------


def test_only_an_attempt_that_an_update_would_learn_from_has_a_teacher(tmp_path: Path) -> None:
    """Of attempts 9 to 16 the base sampled two, and the last four read feedback."""
    state = read_state(played_run(tmp_path)[0] / "journal.jsonl", "x", tmp_path)
    by_index = {attempt.index: attempt for attempt in state.history}
    base = next(i for i in range(9, 13) if not by_index[i].sample.policy.version)
    with pytest.raises(
        ConfigError, match=f"attempt {base} had no teacher: it was sampled from policy 0 when"
    ):
        teacher_prompt(state, by_index[base])
    with pytest.raises(ConfigError, match="attempt 16 had no teacher: it read feedback itself"):
        teacher_prompt(state, by_index[16])
    assert teacher_prompt(state, by_index[9])[0] == Prompter().teacher(
        PROBLEM, feedback="Wrong Answer\nGot: 9"
    )


def test_the_teacher_of_an_attempt_that_read_feedback_reads_the_question_and_its_own(tmp_path: Path) -> None:
    run_dir, _ = played_run(tmp_path, learn_from_feedback=True)
    state = read_state(run_dir / "journal.jsonl", "x", tmp_path)
    attempt = state.history[15]
    assert attempt.sample.prompt != Prompter().student(PROBLEM)
    prompt, feedback = teacher_prompt(state, attempt)
    assert prompt == Prompter().teacher(PROBLEM, feedback="Wrong Answer\nGot: 16")
    assert feedback.count("Wrong Answer") == 1
