"""No option is stored and never read: each one, changed, changes what comes out.

Every field of the options of learner, method, feedback, judge and in-process engine has a case here; one
without a case fails the test. Runs are real ones on the tiny model.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from sdpo_solve.config import ExtractionRule
from sdpo_solve.engines import hf
from sdpo_solve.errors import ConfigError, SandboxError
from sdpo_solve.grading import feedback, judge
from sdpo_solve.learner.head import Head
from sdpo_solve.learner.learner import LoraLearner
from sdpo_solve.learner.options import PRESETS
from sdpo_solve.learner.options import Options as LearnerOptions
from sdpo_solve.methods import sdpo
from sdpo_solve.methods.prompts import Prompter
from sdpo_solve.model.adapted import AdaptedModel
from sdpo_solve.model.chat import encode_chat
from sdpo_solve.types import (
    Case,
    Example,
    Extracted,
    Finish,
    Kind,
    Message,
    Policy,
    Problem,
    Prompt,
    Sample,
    SamplingSpec,
    Status,
    TestCase,
    Verdict,
)
from tests.helpers.attempts import FAILED, SOLVED, method
from tests.helpers.boxes import Box, echo, prints, stdin_problem
from tests.helpers.hosts import BASE, PlainHost
from tests.helpers.tiny_model import save_tiny_model

SPEC = SamplingSpec(max_tokens=32)
QUESTION = Prompt((Message("user", "Reverse a list."),))


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


# -- learner -----------------------------------------------------------------------------------------------


@dataclass
class Trace:
    """All that three updates leave behind: weights, what was said and measured, how the work was cut."""

    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    notices: list[tuple[str, ...]] = field(default_factory=list)
    metrics: list[dict[str, float]] = field(default_factory=list)
    work: list[int] = field(default_factory=list)
    """Chunks of the head, and calls of the first layer: passes, and recomputations in the backward."""

    def differs(self, other: "Trace", where: str) -> bool:
        if where != "weights":
            return getattr(self, where) != getattr(other, where)
        if self.weights.keys() != other.weights.keys():
            return True
        return any(
            t.shape != other.weights[name].shape or not torch.equal(t, other.weights[name])
            for name, t in self.weights.items()
        )


def examples(host: AdaptedModel, policy: Policy, step: int) -> list[Example]:
    """Four attempts of random tokens, said to have been likelier or less than they are; one succeeded."""
    generator = torch.Generator().manual_seed(step)
    prompt_ids = tuple(encode_chat(host.tokenizer, QUESTION))
    made = []
    for g in range(4):
        ids = torch.randint(0, 200, (16 + 3 * g + 2 * step,), generator=generator).tolist()
        ids[8:16] = ids[:8]  # one 8-gram twice, in answers that grow from step to step
        logprobs = tuple((-8 * torch.rand(len(ids), generator=generator)).tolist())
        sample = Sample(QUESTION, prompt_ids, tuple(ids), logprobs, f"{step} {g}", Finish.STOP, policy)
        teacher = Prompt((Message("user", f"Reverse a list.\n\nWrong Answer {g % 2}"),))
        made.append(Example(sample, None if g == 3 else teacher, 1.0 if g == 3 else 0.0))
    return made


@pytest.fixture(scope="module")
def trace(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Trace]]:
    host = AdaptedModel.load(model_dir, "cpu", torch.float32)
    backward, counts = Head.backward, [0, 0]

    def counted(*args: Any) -> Any:
        counts[0] += 1
        return backward(*args)

    def count(*_: Any) -> None:
        counts[1] += 1

    Head.backward = counted  # type: ignore[method-assign]
    hook = host.model.get_decoder().layers[0].mlp.register_forward_pre_hook(count)

    @cache
    def run(given: tuple[tuple[str, Any], ...]) -> Trace:
        found = LoraLearner(host, LearnerOptions(**dict(given)))
        policy = found.start("run", tmp_path_factory.mktemp("policies"), 0)
        seen, counts[:] = Trace(), [0, 0]
        for step in range(3):
            update = found.learn(examples(host, policy, step), SPEC)
            policy = update.policy
            seen.notices.append(update.notices)
            seen.metrics.append({k: v for k, v in update.metrics.items() if k != "wall_s"})
        seen.work = list(counts)
        seen.weights = {name: t.clone() for name, t in found._active().optimizer.weights.items()}
        found.close()
        return seen

    yield lambda **options: run(tuple(sorted((k, v) for k, v in options.items() if v is not None)))
    hook.remove()
    Head.backward = backward  # type: ignore[method-assign]


CALM = {"on_collapse": "ignore", "min_gap": 0, "max_base_kl": 1e9, "max_logprob_gap": 1e9, "lr": 1e-3}
# Option -> (where the change is seen, the changed options, and what both runs have besides CALM).
LEARNER: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "preset": ("weights", {"preset": "paper"}, {}),
    "lr": ("weights", {"lr": 2e-3}, {}),
    "weight_decay": ("weights", {"weight_decay": 0.5}, {}),
    "grad_clip": ("weights", {"grad_clip": 1e-3}, {}),
    "lora_rank": ("weights", {"lora_rank": 4}, {}),
    "lora_alpha": ("weights", {"lora_alpha": 8.0}, {}),
    "lora_targets": ("weights", {"lora_targets": "attention"}, {}),
    "alpha": ("weights", {"alpha": 0.0}, {}),
    "top_k": ("weights", {"top_k": 3}, {}),
    "tail": ("weights", {"tail": False}, {}),
    "granularity": ("weights", {"granularity": "token"}, {}),
    "advantage_clip": ("weights", {"advantage_clip": 0.01}, {}),
    "is_clip": ("weights", {"is_clip": 1.1}, {}),
    "teacher": ("weights", {"teacher": "live"}, {}),
    "ema_rate": ("weights", {"ema_rate": 0.9}, {"teacher": "ema"}),
    "ema_rank": ("metrics", {"ema_rank": 1}, {"teacher": "ema", "ema_rate": 0.5}),
    "trust_rate": ("weights", {"trust_rate": 0.9}, {"teacher": "trust-region"}),
    "min_gap": ("weights", {"min_gap": 1e3}, {}),
    "teacher_mix": ("weights", {"teacher_mix": 0.5}, {}),
    "negative_advantage": ("metrics", {"negative_advantage": 3.0}, {"teacher": "none-negative"}),
    "grpo_weight": ("weights", {"grpo_weight": 0.5}, {}),
    "replay": ("weights", {"replay": 2}, {}),
    "on_collapse": ("weights", {"on_collapse": "freeze"}, {"max_base_kl": 1e-9}),
    "max_grad_norm": ("notices", {"max_grad_norm": 1e-6}, {}),
    "max_logprob_gap": ("notices", {"max_logprob_gap": 1e-3}, {}),
    "min_lora_share": ("refused", {"min_lora_share": 1.0}, {}),
    "max_base_kl": ("notices", {"max_base_kl": 1e-9}, {}),
    "max_length_ratio": ("notices", {"max_length_ratio": 1.0001}, {}),
    "max_repetition": ("notices", {"max_repetition": 1e-9}, {}),
    "min_entropy": ("notices", {"min_entropy": 50.0}, {}),
    "chunk_positions": ("work", {"chunk_positions": 7}, {}),
    "microbatch_tokens": ("work", {"microbatch_tokens": 20}, {}),
    "checkpoint_tokens": ("work", {"checkpoint_tokens": 0}, {}),
    "base_kl_attempts": ("metrics", {"base_kl_attempts": 0}, {"max_base_kl": None}),  # None: left out
}


def test_every_option_of_the_learner_has_a_case() -> None:
    assert set(LEARNER) == set(LearnerOptions.model_fields)


@pytest.mark.parametrize("name", LEARNER)
def test_the_learner_reads(name: str, trace: Callable[..., Trace]) -> None:
    where, change, both = LEARNER[name]
    if name == "preset":  # it stands for options: the ones it names, and nothing else
        paper = LearnerOptions(preset="paper")
        assert {k: getattr(paper, k) for k in PRESETS["paper"]} == PRESETS["paper"]
        assert paper != LearnerOptions()
        return
    if where == "refused":
        with pytest.raises(ConfigError, match=name):
            trace(**CALM, **change)
        return
    base = trace(**{**CALM, **both})
    assert base.metrics[0].get("grad_norm", 1) > 0
    assert trace(**{**CALM, **both, **change}).differs(base, where)


@pytest.mark.parametrize(
    "beside", [{"teacher": "frozen"}, {"granularity": "token"}, {"alpha": 0.5}, {"top_k": None}], ids=str
)
def test_options_beside_the_preset_win_and_take_theirs_along(beside: dict[str, Any]) -> None:
    """What belongs to an option that the user replaced is not held against them."""
    found = LearnerOptions(preset="paper", **beside)
    assert {name: getattr(found, name) for name in beside} == beside


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"ema_rate": 0.1}, "it belongs to teacher=ema"),
        ({"ema_rank": 8}, "it belongs to teacher=ema"),
        ({"trust_rate": 0.1}, "it belongs to teacher=trust-region"),
        ({"negative_advantage": 1.0}, "it belongs to teacher=none-negative"),
        ({"teacher": "none-negative", "grpo_weight": 0.5}, "an advantage of its own"),
        ({"teacher": "none-negative", "top_k": 5}, "no teacher acts"),
        ({"grpo_weight": 1.0, "alpha": 0.5}, "no teacher acts"),
        ({"base_kl_attempts": 0, "max_base_kl": 1.0}, "measures none"),
        ({"granularity": "token", "top_k": 5}, "keeps one token a position"),
        ({"granularity": "sequence", "alpha": 0.5}, "which are those of alpha=1"),
        ({"top_k": None, "tail": False}, "it belongs to granularity=logit with a top_k"),
        ({"alpha": 0.0, "advantage_clip": 1.0}, "advantages are those of the reverse KL"),
        ({"is_clip": None, "replay": 2}, "replayed attempts need the importance clip"),
        ({"teacher": "live", "teacher_mix": 0.5, "grpo_weight": 1.0}, "no teacher acts"),
    ],
    ids=str,
)
def test_an_option_that_would_do_nothing_is_refused_with_the_reason(
    given: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValidationError, match=reason):
        LearnerOptions(**given)


@pytest.mark.parametrize("name", LEARNER)
def test_the_complete_options_that_a_run_stores_can_be_read_again(name: str) -> None:
    """Defaults that nothing reads are among them: `alpha=0` leaves advantage_clip at 5, unread."""
    _, change, both = LEARNER[name]
    chosen = LearnerOptions(**{k: v for k, v in {**both, **change}.items() if v is not None})
    assert LearnerOptions(**chosen.model_dump(mode="json")) == chosen


def test_options_of_memory_change_no_weights(trace: Callable[..., Trace]) -> None:
    """How the work is cut decides time and memory; the step is the same to float rounding."""
    base = trace(**CALM)
    for name in ("chunk_positions", "microbatch_tokens", "checkpoint_tokens"):
        other = trace(**CALM, **LEARNER[name][1])
        for step in (0, 1, 2):
            assert other.metrics[step]["grad_norm"] == pytest.approx(
                base.metrics[step]["grad_norm"], rel=1e-3
            )


# -- method ------------------------------------------------------------------------------------------------

SDPO: dict[str, tuple[dict[str, Any], Callable[[sdpo.Sdpo], object]]] = {
    "preset": ({"preset": "default"}, lambda m: len(m.propose(PROBLEM, [], 64))),
    "group_size": ({"group_size": 3}, lambda m: len(m.propose(PROBLEM, [], 64))),
    "teacher": ({"teacher": "shuffled"}, lambda m: m.example(PROBLEM, FAILED, [FAILED])),
    "first_group": ({"first_group": 2}, lambda m: len(m.propose(PROBLEM, [], 64))),
    "feedback_share": ({"feedback_share": 0.5}, lambda m: m.propose(PROBLEM, [FAILED], 64)),
    "feedback_floor": (
        {"feedback_share": 0.9, "feedback_floor": 0.5},
        lambda m: replace(m, options=m.options.model_copy(update={"feedback_share": 0.9})).propose(
            PROBLEM, [FAILED], 64
        ),
    ),
    "feedback_window": (
        {"feedback_window": 2},
        lambda m: replace(m, options=m.options.model_copy(update={"feedback_share": 0.5})).propose(
            PROBLEM, [FAILED, replace(FAILED, feedback="other")], 64
        ),
    ),
    "learn_after": ({"learn_after": 2}, lambda m: Learned.by(m)),
    "base_share": (
        {"base_share": 0.5},
        lambda m: m.policies([], Policy("run", 1), [Prompt(())] * 4),
    ),
    "learn_from_feedback": (
        {"learn_from_feedback": True},
        lambda m: Learned.by(m),
    ),
    "attempt_in_prompt": ({"attempt_in_prompt": True}, lambda m: m.example(PROBLEM, FAILED, [FAILED])),
}
PROBLEM = Problem("add", "Add.", Kind.STDIN, (TestCase("1 2\n", "3\n", True),))


class Learned:
    """A learner that keeps what it learns from."""

    rests = False

    def __init__(self) -> None:
        self.examples: list[Example] = []

    def learn(self, examples: Sequence[Example], spec: SamplingSpec) -> None:
        self.examples = list(examples)

    @classmethod
    def by(cls, m: sdpo.Sdpo) -> int:
        """How many examples `m` learns from in a group of one plain attempt and one with feedback."""
        learner, question = cls(), Prompter().student(PROBLEM)
        hint = Prompter().teacher(PROBLEM, feedback="wrong")
        plain, other = (replace(FAILED, sample=replace(FAILED.sample, prompt=p)) for p in (question, hint))
        m = replace(m, learner=learner, options=m.options.model_copy(update={"feedback_share": 0.5}))
        m.learn(PROBLEM, [plain], [plain])
        before = len(learner.examples)
        m.learn(PROBLEM, [plain, other], [plain, other])
        return 10 * before + len(learner.examples)


def test_every_option_of_sdpo_has_a_case() -> None:
    assert set(SDPO) == set(sdpo.Options.model_fields)


@pytest.mark.parametrize("name", SDPO)
def test_sdpo_reads(name: str) -> None:
    change, look = SDPO[name]
    assert look(method(**change)) != look(method())


def test_each_teacher_tells_something_else() -> None:
    told = {
        name: method(teacher=name).example(PROBLEM, FAILED, [FAILED, SOLVED]).teacher_prompt
        for name in ("feedback", "solution", "shuffled")
    }
    told["both, before a success"] = method(teacher="both").example(PROBLEM, FAILED, [FAILED]).teacher_prompt
    assert told["both, before a success"] == told.pop("feedback")
    assert len(set(told.values())) == 3


# -- feedback ----------------------------------------------------------------------------------------------

FEEDBACK = {
    "failing_tests": {"failing_tests": 1},
    "field_chars": {"field_chars": 40},
    "total_chars": {"total_chars": 200},
    "name_line": {"name_line": False},
}


def test_every_option_of_feedback_has_a_case() -> None:
    assert set(FEEDBACK) == set(feedback.Options.model_fields)


@pytest.mark.parametrize("name", FEEDBACK)
def test_feedback_reads(name: str) -> None:
    problem = Problem("p", "s", Kind.STDIN, tuple(TestCase("9 " * 90, "1", True) for _ in range(2)))
    trace = 'Traceback:\n  File "solution.py", line 1, in <module>\nValueError: no'
    cases = tuple(Case(n, Status.RUNTIME_ERROR, True, error=trace) for n in range(2))

    def text(**options: Any) -> str:
        return feedback.render(problem, Extracted("int('x')"), Verdict(cases), feedback.Options(**options))

    assert text(**FEEDBACK[name]) != text()


# -- judge -------------------------------------------------------------------------------------------------


def most_together(boxes: int) -> int:
    """How many of four programs were in the box at the same time at most."""
    now, most, lock = 0, 0, threading.Lock()
    full = threading.Event()

    def meet(program: Any, given: Any) -> Any:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
            if now == boxes:
                full.set()
        full.wait(5)
        with lock:
            now -= 1
        return prints(given.stdin)

    codes = ["1", "2", "3", "4"]
    judge.Judge(Box(meet), judge.Options(boxes=boxes)).grade(stdin_problem(("a", "a", True)), codes)
    return most


def tries_until_graded(retries: int) -> int:
    """Runs of a box that breaks once; 0 where the judge gives up."""
    calls = 0

    def breaks_once(program: Any, given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise SandboxError("the box broke")
        return echo(program, given)

    try:
        judge.Judge(Box(breaks_once), judge.Options(retries=retries)).grade(
            stdin_problem(("a", "a", True)), ["1"]
        )
    except SandboxError:
        return 0
    return calls


def extracted(rule: ExtractionRule) -> str | None:
    """The program of an answer that ends with a block of output."""
    text = "```python\nprint(3)\n```\n```\n3\n```"
    sample = Sample(QUESTION, (), (), (), text, Finish.STOP, BASE)
    return judge.Judge(Box(echo), rule=rule).extract(stdin_problem(), sample).code


JUDGE: dict[str, Callable[[], bool]] = {
    "boxes": lambda: most_together(1) == 1 and most_together(2) == 2,
    "retries": lambda: tries_until_graded(0) == 0 and tries_until_graded(1) == 2,
}


def test_every_option_of_the_judge_has_a_case() -> None:
    assert set(JUDGE) == set(judge.Options.model_fields)


@pytest.mark.parametrize("name", JUDGE)
def test_the_judge_reads(name: str) -> None:
    assert JUDGE[name]()


def test_the_rule_of_extraction_acts() -> None:
    assert (extracted("program"), extracted("livecodebench")) == ("print(3)", "3")


# -- engine ------------------------------------------------------------------------------------------------

HF = {"batch_rows": {"batch_rows": 2}, "stop": {"stop": "e"}}


def test_every_option_of_the_engine_has_a_case() -> None:
    assert set(HF) == set(hf.Options.model_fields)


@pytest.mark.parametrize("name", HF)
def test_the_engine_reads(name: str, model_dir: Path) -> None:
    host = PlainHost(model_dir)
    rows: list[int] = []
    host.model.get_output_embeddings().register_forward_pre_hook(
        lambda _, inputs: rows.append(inputs[0].shape[0])
    )

    def run(**options: Any) -> tuple[int, list[str]]:
        rows.clear()
        engine = hf.HfEngine(host, hf.Options(**options))
        samples = engine.sample([QUESTION] * 4, range(4), BASE, SamplingSpec(max_tokens=40))
        return max(rows), [sample.text for sample in samples]

    assert run(**HF[name]) != run()
