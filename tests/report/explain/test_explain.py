"""Why the policy changed: the teacher's word against a plain forward pass, and what is said of it."""

import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from sdpo_solve.cli.main import app
from sdpo_solve.errors import ConfigError
from sdpo_solve.learner.learner import LoraLearner, Options
from sdpo_solve.methods import MethodPlugin, sdpo
from sdpo_solve.methods.prompts import Prompter
from sdpo_solve.model import names
from sdpo_solve.model.adapted import AdaptedModel
from sdpo_solve.model.chat import encode_chat
from sdpo_solve.report.explain import html
from sdpo_solve.report.explain import policies as moves
from sdpo_solve.report.explain.records import Alternative, Signal, Token, n_carrying, pieces, sparseness
from sdpo_solve.report.explain.score import score
from sdpo_solve.report.explain.text import notices as explain_notices
from sdpo_solve.report.explain.text import policies_renderable, signal_renderable, tokens_text
from sdpo_solve.report.run_text import diff_text
from sdpo_solve.report.runs import read_run
from sdpo_solve.run.journal import Journal
from sdpo_solve.types import (
    Attempt,
    Case,
    Finish,
    Kind,
    Policy,
    Problem,
    Sample,
    SamplingSpec,
    Status,
    TestCase,
    Verdict,
)
from tests.helpers.browser import Browser
from tests.helpers.journals import Made, make
from tests.helpers.tiny_model import save_tiny_model

PROBLEM = Problem("inc", "Add one.", Kind.FUNCTION, (TestCase([1], 2, True),), entry_point="inc")
SPEC = SamplingSpec(max_tokens=24, temperature=1.3)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


def load(model_dir: Path) -> AdaptedModel:
    return AdaptedModel.load(model_dir, device="cpu", dtype=torch.float32)


@pytest.fixture
def host(model_dir: Path) -> AdaptedModel:
    """Weights that no learner has touched: what the command loads."""
    return load(model_dir)


def logprobs(host: AdaptedModel, policy: Policy, prompt_ids: list[int], ids: list[int]) -> torch.Tensor:
    """By one plain forward pass over prompt and completion, nothing shared with the code under test."""
    with host.policy_active(policy) as model, torch.no_grad():
        logits = model(torch.tensor([[*prompt_ids, *ids]])).logits[0].float() / SPEC.temperature
    return logits[len(prompt_ids) - 1 : -1].log_softmax(-1)[range(len(ids)), ids]


def attempts(host: AdaptedModel, policy: Policy, first: int) -> list[Attempt]:
    """Three failed attempts with tokens drawn at random and the log-probs that the policy gives them."""
    generator = torch.Generator().manual_seed(first)
    prompt = Prompter().student(PROBLEM)
    prompt_ids = encode_chat(host.tokenizer, prompt)
    group = []
    for n in range(3):
        ids = torch.randint(0, 250, (20,), generator=generator).tolist()
        seen = logprobs(host, policy, prompt_ids, ids).tolist()
        text = host.tokenizer.decode(ids)
        sample = Sample(prompt, tuple(prompt_ids), tuple(ids), tuple(seen), text, Finish.STOP, policy)
        verdict = Verdict((Case(0, Status.WRONG_ANSWER, True),))
        group.append(Attempt(first + n, sample, f"x = {first + n}", verdict, f"Wrong Answer\nExpected: {n}"))
    return group


def learned_run(model_dir: Path, out: Path, **options: object) -> Path:
    """A journal with two groups and an update between them, made by the real learner."""
    host = load(model_dir)
    run_dir = out / "inc" / "sdpo" / "seed-0"
    journal = Journal(run_dir, "x")
    said = Options(lr=0.05, lora_rank=4, base_kl_attempts=0, min_gap=0, **options)
    header = {
        "problem": "inc", "method": "sdpo", "seed": 0, "model": "tiny", "language": "python", "n_hidden": 0,
        "config": {
            "options": {"temperature": SPEC.temperature},
            "parts": {"learner": said.model_dump(mode="json"), "sdpo": {"group_size": 3}},
            "model": "tiny at rest",
        },
    }  # fmt: skip
    journal.start(header)
    learner = LoraLearner(host, said)
    method = sdpo.Sdpo(
        Prompter(), SPEC, "x", run_dir / "policies", 0, sdpo.Options(preset="paper", group_size=3), learner
    )
    policy = method.start(PROBLEM, None)
    for first in (1, 4):
        group = attempts(host, policy, first)
        journal.append_group(group, sample_s=1, grade_s=1)
        if first == 1:
            update = method.learn(PROBLEM, journal.history, group)
            journal.append_update(update)
            policy = update.policy
    journal.close()
    learner.close()
    return run_dir


def expected(host: AdaptedModel, attempt: Attempt, teacher: Policy, student: Policy) -> list[float]:
    prompt = Prompter().teacher(PROBLEM, feedback=attempt.feedback)
    ids = list(attempt.sample.token_ids_T)
    with_feedback = logprobs(host, teacher, encode_chat(host.tokenizer, prompt), ids)
    return (with_feedback - logprobs(host, student, list(attempt.sample.prompt_ids), ids)).tolist()


# -- the teacher's word --------------------------------------------------------------------------------------


def test_log_ratios_are_those_of_two_plain_forward_passes(
    model_dir: Path, host: AdaptedModel, tmp_path: Path
) -> None:
    run_dir = learned_run(model_dir, tmp_path)
    found = score(run_dir, 2, host)
    base = Policy("x", 0)
    attempt = attempts(host, base, 1)[1]
    assert [t.log_ratio for t in found.tokens] == pytest.approx(expected(host, attempt, base, base), abs=1e-4)
    assert found.feedback.endswith("Correctly solve the original question.")
    assert "Wrong Answer\nExpected: 1" in found.feedback
    assert not found.recorded
    assert found.drift_nats < 1e-4


@pytest.mark.parametrize(
    ("options", "teacher_version"),
    [({}, 0), ({"teacher": "live"}, 1), ({"teacher": "ema", "ema_rate": 1.0}, 1)],
)
def test_after_an_update_student_and_teacher_are_the_versions_that_met(
    model_dir: Path, host: AdaptedModel, tmp_path: Path, options: dict, teacher_version: int
) -> None:
    """Frozen: the base scores policy 1. Live: policy 1 itself. An average of rate 1 is the newest weights."""
    run_dir = learned_run(model_dir, tmp_path, **options)
    new = Policy("seed-0", 1, run_dir / "policies" / "0001")
    policies = {0: Policy("x", 0), 1: new}
    attempt = attempts(host, new, 4)[0]
    found = score(run_dir, 4, host)
    wanted = expected(host, attempt, policies[teacher_version], new)
    assert [t.log_ratio for t in found.tokens] == pytest.approx(wanted, abs=2e-3)
    frozen = expected(host, attempt, policies[0], new)
    assert (max(abs(a - b) for a, b in zip(wanted, frozen, strict=True)) > 0.05) == bool(teacher_version)


def test_alternatives_are_the_teachers_likeliest_tokens(
    model_dir: Path, host: AdaptedModel, tmp_path: Path
) -> None:
    for token in score(learned_run(model_dir, tmp_path), 1, host).tokens:
        chances = [other.teacher for other in token.alternatives]
        assert chances == sorted(chances, reverse=True)
        assert 0 < sum(chances) <= 1
        assert all(0 < other.student < 1 for other in token.alternatives)


def test_pruned_weights_fall_back_to_the_recorded_log_probs(
    model_dir: Path, host: AdaptedModel, tmp_path: Path
) -> None:
    run_dir = learned_run(model_dir, tmp_path)
    whole = [token.log_ratio for token in score(run_dir, 5, host).tokens]
    shutil.rmtree(run_dir / "policies")
    pruned = score(run_dir, 5, host)
    assert pruned.recorded
    assert [token.log_ratio for token in pruned.tokens] == pytest.approx(whole, abs=1e-3)
    assert pruned.tokens[0].alternatives[0].student is None


def test_a_teacher_whose_weights_are_pruned_is_an_error_that_says_so(
    model_dir: Path, host: AdaptedModel, tmp_path: Path
) -> None:
    run_dir = learned_run(model_dir, tmp_path, teacher="live")
    shutil.rmtree(run_dir / "policies")
    with pytest.raises(ConfigError, match="teacher of version 1 is pruned"):
        score(run_dir, 5, host)
    assert score(run_dir, 1, host).tokens  # version 0 needs no weights but the base


def test_attempts_without_a_teacher_are_refused(
    host: AdaptedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {
        "options": {"temperature": 1.0}, "parts": {"sdpo": {"group_size": 4}, "learner": {}}, "model": "tiny at rest",
    }  # fmt: skip
    run_dir = make(tmp_path, Made(solved_at=(6,), header={"config": config}))
    with pytest.raises(ConfigError, match="attempt 6 had no teacher: it solved the problem"):
        score(run_dir, 6, host)
    with pytest.raises(ConfigError, match="no attempt 99; it has 8"):
        score(run_dir, 99, host)
    other = make(tmp_path, Made(method="best-of-k", header={"config": config}))
    with pytest.raises(ConfigError, match="best-of-k has no teacher"):
        score(other, 1, host)
    monkeypatch.setattr(sdpo.Sdpo, "example", MethodPlugin.example)  # as a method that makes them in `learn`
    with pytest.raises(ConfigError, match=r"sdpo does not say what its teacher reads: .*`example`"):
        score(run_dir, 1, host)


# -- what is said of it --------------------------------------------------------------------------------------


def test_sparseness_counts_the_fewest_tokens_that_carry_the_share() -> None:
    assert n_carrying([0, -8, 0, 1, 1]) == 1  # 8 of 10 is 80 %
    assert n_carrying([1, 1, 1, 1, 1]) == 4
    assert n_carrying([0, 0]) == 0


def test_characters_of_several_tokens_come_with_the_last() -> None:
    """é is two bytes, so two tokens of a byte tokenizer."""
    data = "aéb".encode()
    assert pieces(lambda ids: bytes(data[i] for i in ids).decode("utf-8", "replace"), [0, 1, 2, 3]) == [
        "a",
        "",
        "é",
        "b",
    ]


def signal(*tokens: Token) -> Signal:
    return Signal(3, 1, "frozen", "Wrong Answer", tokens, recorded=False, drift_nats=0.0)


def token(text: str, ratio: float) -> Token:
    return Token(0, text, ratio, (Alternative("b", 0.5, 0.1),))


def test_without_colour_strong_tokens_are_marked_and_nothing_else() -> None:
    tokens = [token("def", 0.2), token(" f", -2.0), token("(x)", 1.5)]
    assert tokens_text(tokens, colour=False).plain == "def{- f-}{+(x)+}"
    coloured = tokens_text(tokens, colour=True)
    assert coloured.plain == "def f(x)"
    assert len({str(span.style) for span in coloured.spans}) == 3


def test_the_sentence_on_sparseness() -> None:
    found = signal(*[token("a", 0.0)] * 8, token("b", -3.0), token("c", 1.0))
    assert sparseness(found) == (
        "2 of 10 tokens carry 80 % of the signal; 1 differs by more than 1 nat; mean log(teacher/student) "
        "-0.200 nats a token"
    )


def test_hostile_tokens_reach_neither_terminal_nor_page_raw(tmp_path: Path) -> None:
    evil = "\x1b]0;owned\x07[bold]x[/bold]<script>alert(1)</script>\u202e"
    found = Signal(1, 0, "frozen", evil, (Token(0, evil, -4.0, (Alternative(evil, 0.5, None),)),), False, 0.0)
    console = Console(file=io.StringIO(), width=80, highlight=False)
    console.print(signal_renderable(found, colour=False))
    text = console.file.getvalue()
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert max(map(len, text.splitlines())) <= 80
    run = read_run(make(tmp_path, Made(code=lambda i: evil)))
    stages = moves.stages(run)
    html.write_page(run, stages, [evil], [found], tmp_path / "e.html")
    written = (tmp_path / "e.html").read_text()
    assert "<script" not in written.replace("script-src", "")
    assert "\x1b" not in written


@pytest.mark.chromium
@pytest.mark.parametrize(("width", "dark"), [(1000, False), (1000, True), (360, False)])
def test_a_real_browser_shows_the_page_and_runs_none_of_it(tmp_path: Path, width: int, dark: bool) -> None:
    evil = (
        "</span></pre><script>document.title='owned'</script><img src=http://203.0.113.1/ onerror=alert(1)>"
    )
    words = [Token(n, f" word{n}", n / 2 - 2.5, (Alternative(evil, 0.5, 0.1),)) for n in range(10)]
    found = Signal(1, 0, "frozen", evil, (Token(10, evil, -4.0, ()), *words), False, 0.0)
    run = read_run(make(tmp_path, Made(code=lambda i: evil)))
    path = tmp_path / "e.html"
    html.write_page(run, moves.stages(run), [evil], [found], path)
    with Browser() as browser:
        browser.open(path, width=width, dark=dark)
        browser.run("for (const d of document.querySelectorAll('details')) d.open = true")
        assert browser.run("document.title") == "sdpo-solve explain"
        assert browser.requests() == [path.resolve().as_uri()]
        assert browser.complaints() == []
        assert browser.run("document.querySelectorAll('img, iframe, a, script').length") == 0
        assert browser.run("document.documentElement.scrollWidth") <= width
        grounds = "new Set(Array.from(document.querySelectorAll('pre.tokens span')).map((e) => getComputedStyle(e).backgroundColor)).size"
        assert browser.run(grounds) >= 6  # shades of both signs, and none


# -- the run -------------------------------------------------------------------------------------------------


def test_page_and_terminal_tell_a_roll_back_and_explain_the_strip(tmp_path: Path) -> None:
    notice = "version 1 collapsed (repetition 0.9, limit 0.5); back to version 0"
    run = read_run(make(tmp_path, Made(limit=12, notices=(notice,), metrics={"rolled_back_to": 0.0})))
    found = moves.stages(run)
    console = Console(file=io.StringIO(), width=80, highlight=False)
    console.print(policies_renderable(run, found, []))
    html.write_page(run, found, [], [], tmp_path / "e.html")
    for text in (" ".join(console.file.getvalue().split()), (tmp_path / "e.html").read_text()):
        assert f"update 1: {notice}" in text
        assert f"update 2: {notice}" in text
        assert "▁ none, ▇ nearly all, ✓ solved" in text
    assert explain_notices(run, found[:2]) == [f"update 1: {notice}"]


def test_the_story_shows_strip_figures_and_differences(tmp_path: Path) -> None:
    run = read_run(
        make(tmp_path, Made(solved_at=(7,), overfits_at=(2,), code=lambda i: f"x = {(i - 1) // 4}"))
    )
    found = moves.stages(run)
    console = Console(file=io.StringIO(), width=80, highlight=False)
    console.print(policies_renderable(run, found, [diff_text(found[0].program, found[1].program)]))
    lines = [line.split() for line in console.file.getvalue().splitlines()]
    assert ["policy", "0", "▁▄▁▁"] in lines
    assert ["policy", "1", "▁▁✓▁"] in lines
    assert ["-x", "=", "0"] in lines
    assert ["+x", "=", "1"] in lines


# -- the command ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [[], ["--update", "1", "--html", "e.html"], ["--attempt", "2"], ["--no-model"]]
)
def test_the_command_explains_a_run_with_its_own_model(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    run_dir = learned_run(model_dir, tmp_path / "runs" / "first")
    path = run_dir / "journal.jsonl"
    identity = names.resolve(str(model_dir)).identity
    text = path.read_text().replace('"model": "tiny at rest"', f'"model": {json.dumps(identity)}')
    path.write_text(text.replace('"model": "tiny"', f'"model": {json.dumps(str(model_dir))}'))
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["explain", "runs/first/inc/sdpo", *options])
    assert result.exit_code == 0, result.output
    assert ("under the frozen teacher" in result.output) == (options != ["--no-model"])
    assert ("tests passed, attempt by attempt" in result.output) == ("--attempt" not in options)
    if "--html" in options:
        assert "Where the teacher disagrees most" in (tmp_path / "e.html").read_text()


def test_another_model_under_the_same_name_is_refused(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = learned_run(model_dir, tmp_path)
    path = run_dir / "journal.jsonl"
    path.write_text(path.read_text().replace('"model": "tiny"', f'"model": {json.dumps(str(model_dir))}'))
    result = CliRunner().invoke(app, ["explain", str(run_dir), "--attempt", "1"])
    assert isinstance(result.exception, ConfigError)
    assert "the run used tiny at rest" in str(result.exception)
