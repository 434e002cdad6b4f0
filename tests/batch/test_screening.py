"""Screening without a model or a box: where samples go, that none is drawn twice, and what a stop leaves."""

import errno
import fcntl
import io
import json
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from sdpo_solve.batch import screening
from sdpo_solve.batch.difficulty import Rule, Screened
from sdpo_solve.batch.screening import ScreenSpec, _Pipeline
from sdpo_solve.batch.screening_file import held, read_screening
from sdpo_solve.batch.spec import make_screen_spec, make_spec
from sdpo_solve.cli.live_screening import ScreenView
from sdpo_solve.config import RunOptions
from sdpo_solve.datasets.selection import Candidate, Problems, Selected
from sdpo_solve.errors import (
    ConfigError,
    EngineError,
    PrerequisiteError,
    ProblemError,
    PromptError,
    SandboxError,
)
from sdpo_solve.grading import feedback
from sdpo_solve.methods.prompts import Prompter
from sdpo_solve.run.options import Plan
from sdpo_solve.types import ExecutionStatus, Finish, Sample
from tests.helpers.batches import make_problems
from tests.helpers.parts import PROBLEM, ReadGrader, answer

RULE = Rule(group=16, most=400)


class Engine:
    """Solves problem `p<n>` at the rate of its place in `rates`; with feedback in the prompt at `taught`."""

    def __init__(self, rates: list[float], taught: float = 0.0) -> None:
        self.rates, self.taught = rates, taught
        self.calls: list[list[tuple[str, int]]] = []
        self.ends_at: int | None = None
        self.breaks_at: int | None = None
        self.breaks_with: Exception = EngineError("out of memory")

    def sample(self, prompts_G, seeds_G, policy, spec):
        if len(self.calls) == self.breaks_at:
            raise self.breaks_with
        if len(self.calls) == self.ends_at:
            time.sleep(0.1)  # what was sampled before is judged by now
            raise KeyboardInterrupt
        self.calls.append([])
        samples = []
        for prompt, seed in zip(prompts_G, seeds_G, strict=True):
            said = prompt.messages[-1].content
            number = int(re.search(r"Problem (\d+)\.", said)[1])
            is_taught = "unsuccessful" in said
            self.calls[-1].append((f"p{number}{'/taught' * is_taught}", seed))
            rate = self.taught if is_taught else self.rates[number]
            text = answer("right" if (seed % 10007) / 10007 < rate else "wrong")
            samples.append(Sample(prompt, (1,), (2, 3), (0.0, 0.0), text, Finish.STOP, policy))
        return samples

    def probe(self) -> None:
        return


class Grader(ReadGrader):
    """Does something before the gradings whose numbers `does` has, all gradings in one order."""

    def __init__(self, does: Mapping[int, Callable[[], None]]) -> None:
        self._does, self._n, self._turn = does, 0, threading.Lock()

    def grade(self, problem, codes_G, **how):
        with self._turn:
            number, self._n = self._n, self._n + 1
        self._does.get(number, lambda: None)()
        return super().grade(problem, codes_G, **how)


def raises(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def n_kept(out: Path) -> int:
    return sum(item.base.n for item in read_screening(out).problems.values())


def screen(
    out: Path, engine: Engine, grader: Grader | None = None, sandbox: object = None, **asked
) -> dict[str, Screened]:
    """Screen one problem for each rate of the engine, on from what `out` holds."""
    made = [
        replace(PROBLEM, id=f"p{n}", statement=f"Problem {n}. Add one.") for n in range(len(engine.rates))
    ]
    problems = Problems(Candidate(lambda problem=problem: problem, problem.id) for problem in made)
    spec = make_spec({}, {"sources": "problems", "methods": "best-of-k", "engine": "hf"})
    options = {"rule": RULE, "round_size": 32, "total": None, "teacher": False, "seed": 0, **asked}
    view = ScreenView(Console(quiet=True), options["rule"])
    known = read_screening(out).problems
    before = {name: known.get(name, Screened(name)) for name in problems.ids}
    view.on_start(before, Selected(problems, {}))
    shop = SimpleNamespace(
        engine_for=lambda n_attempts: engine,
        judge=lambda: grader or ReadGrader(),
        sandbox=sandbox,
        prompter=lambda options: Prompter(),
        plan=Plan(RunOptions(engine="scripted", max_tokens=8), {"feedback": feedback.Options()}),
    )
    return _Pipeline(ScreenSpec(spec, out, **options), shop, problems, before, view).run()


RATES = [0.0, 0.005, 0.05, 0.3, 0.6, 0.9, 1.0, 0.3, 0.6, 0.9]


def test_easy_problems_cost_a_look_and_hard_ones_get_the_rest(tmp_path: Path) -> None:
    found = screen(tmp_path, Engine(RATES))
    assert found["p0"].mark == "hard, very hard undecided"
    assert {found[f"p{n}"].mark for n in range(3, 10)} == {"not hard"}
    assert max(found[f"p{n}"].base.n for n in range(3, 10)) <= 16
    assert found["p0"].base.n >= 277
    assert found == read_screening(tmp_path).problems


def test_problems_share_the_engines_calls(tmp_path: Path) -> None:
    engine = Engine(RATES)
    screen(tmp_path, engine)
    assert max(len(call) for call in engine.calls) <= 32
    assert len({name for name, _ in engine.calls[0]}) == 8  # 32 samples, 4 of each problem


def test_a_screening_that_was_interrupted_goes_on_and_draws_no_sample_twice(tmp_path: Path) -> None:
    first, second = Engine(RATES), Engine(RATES)
    first.ends_at = 3
    with pytest.raises(KeyboardInterrupt):
        screen(tmp_path, first)
    n_stopped = sum(item.base.n for item in read_screening(tmp_path).problems.values())
    assert n_stopped == sum(len(call) for call in first.calls)  # what was sampled was counted
    found = screen(tmp_path, second)
    drawn = Counter(item for call in first.calls + second.calls for item in call)
    assert set(drawn.values()) == {1}
    assert sum(item.base.n for item in found.values()) == len(drawn)


@pytest.mark.parametrize("error", [EngineError, PrerequisiteError, PromptError, RuntimeError])
def test_a_broken_engine_loses_no_look_that_was_graded(tmp_path: Path, error: type[Exception]) -> None:
    engine = Engine([0.5] * 24)
    engine.breaks_at, engine.breaks_with = 2, error("it is gone")
    with pytest.raises(error, match="it is gone"):
        screen(tmp_path, engine)
    assert n_kept(tmp_path) == sum(len(call) for call in engine.calls) == 64


@pytest.mark.parametrize("number", [0, 8, 9, 15])
def test_a_broken_box_loses_no_look_but_its_own(tmp_path: Path, number: int) -> None:
    """The first looks take 4 samples each, eight of them fill a round."""
    engine = Engine([0.5] * 24)
    box = SimpleNamespace(run=lambda *program: [SimpleNamespace(status=ExecutionStatus.OK)])
    with pytest.raises(SandboxError, match="the box broke"):
        screen(tmp_path, engine, Grader({number: raises(SandboxError("the box broke"))}), box)
    assert n_kept(tmp_path) == sum(len(call) for call in engine.calls) - 4


def test_a_checker_that_crashes_leaves_its_problem_out_and_ends_nothing(tmp_path: Path) -> None:
    found = screen(tmp_path, Engine([0.5] * 3), Grader({0: raises(ProblemError("its checker failed"))}))
    assert sorted(bool(item.base.n) for item in found.values()) == [False, True, True]


def test_a_look_whose_grading_waits_for_a_sandbox_holds_up_no_end(tmp_path: Path) -> None:
    engine = Engine([0.5] * 24)
    engine.breaks_at = 2
    gone = SandboxError("no daemon")
    started_s = time.monotonic()
    with pytest.raises(EngineError):
        screen(tmp_path, engine, Grader({12: raises(gone)}), SimpleNamespace(run=lambda *_: raises(gone)()))
    assert time.monotonic() - started_s < 5
    assert n_kept(tmp_path) == 4 * 15


def test_ctrl_c_while_looks_are_graded_keeps_those_that_are(tmp_path: Path) -> None:
    def interrupt() -> None:
        time.sleep(0.2)  # the other looks of two rounds are graded by now
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        time.sleep(2)

    first, second = Engine([0.5] * 24), Engine([0.5] * 24)
    with pytest.raises(KeyboardInterrupt):
        screen(tmp_path, first, Grader({3: interrupt}))
    n_stopped = n_kept(tmp_path)
    assert n_stopped == sum(len(call) for call in first.calls) - 4
    found = screen(tmp_path, second)
    assert sum(item.base.n for item in found.values()) == n_stopped + sum(len(call) for call in second.calls)


# -- one process at a time -----------------------------------------------------------------------------------


@pytest.fixture
def scripted(tmp_path: Path) -> ScreenSpec:
    """One problem and answers from a file, for whole screenings."""
    make_problems(tmp_path / "problems", 1)
    (tmp_path / "replies.jsonl").write_text((json.dumps({"text": "no program"}) + "\n") * 4)
    options = {"sources": str(tmp_path / "problems"), "engine": "scripted", "sandbox": "bubblewrap"}
    spec = make_screen_spec({}, {**options, "replies": str(tmp_path / "replies.jsonl")}, "screen")
    return ScreenSpec(spec, tmp_path / "marks", Rule(4, 4), 4, None, False, 0)


def view() -> ScreenView:
    return ScreenView(Console(file=io.StringIO(), width=200), RULE)


def test_a_second_screening_of_one_directory_is_refused(scripted: ScreenSpec) -> None:
    refused = f"^another process is writing {scripted.out}; wait for it or choose another --out$"
    with held(scripted.out) as is_locked:
        assert is_locked
        with pytest.raises(ConfigError, match=refused):
            screening.run(scripted, view())
    assert screening.run(scripted, view()).problems["say-0"].base.n == 4
    assert read_screening(scripted.out).problems["say-0"].base.n == 4


def test_a_screening_without_a_sample_begins_anew_with_other_options(scripted: ScreenSpec) -> None:
    def with_system(text: str, **more: str) -> ScreenSpec:
        run = scripted.spec.run.model_copy(update={"system": text, **more})
        return replace(scripted, spec=replace(scripted.spec, run=run))

    replies = scripted.spec.batch.replies
    assert replies is not None
    kept = replies.read_text()
    replies.write_text("")
    for _ in range(2):
        with pytest.raises(EngineError):
            screening.run(with_system("A"), view())
    replies.write_text(kept)
    assert screening.run(with_system("B"), view()).problems["say-0"].base.n == 4
    assert read_screening(scripted.out).config["system"] == "B"
    assert (scripted.out / "screening.jsonl").read_text().count('"screening"') == 2
    with pytest.raises(ConfigError, match="screened with system = 'B', now it is 'A'"):
        screening.run(with_system("A"), view())
    with pytest.raises(ConfigError, match="screened with extract = 'program', now it is 'livecodebench'"):
        screening.run(with_system("B", extract="livecodebench"), view())


def test_a_screening_holds_its_directory_to_its_end(
    scripted: ScreenSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def run(pipeline: _Pipeline) -> dict[str, Screened]:
        with pytest.raises(ConfigError, match="another process"), held(scripted.out):
            pass
        seen.append(pipeline)
        raise KeyboardInterrupt

    monkeypatch.setattr(_Pipeline, "run", run)
    with pytest.raises(KeyboardInterrupt):
        screening.run(scripted, view())
    assert seen
    with held(scripted.out):
        pass


def test_a_file_system_without_locks_is_named_and_the_screening_goes_on(
    scripted: ScreenSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda file, how: raises(OSError(errno.ENOLCK, "no locks"))())
    seen = view()
    assert screening.run(scripted, seen).problems["say-0"].base.n == 4
    assert f"no locks: see to it that no second process screens into {scripted.out}" in seen.notice


def test_nothing_is_left_of_a_screening_that_cannot_begin(scripted: ScreenSpec) -> None:
    spec = make_screen_spec(
        {}, {"sources": scripted.spec.batch.sources, "model": "qwen2.5-coder-9b"}, "screen"
    )
    with pytest.raises((ConfigError, PrerequisiteError)):
        screening.run(replace(scripted, spec=spec), view())
    assert not scripted.out.exists()


def test_no_more_than_the_total_is_spent(tmp_path: Path) -> None:
    engine = Engine(RATES)
    screen(tmp_path, engine, total=50)
    assert sum(len(call) for call in engine.calls) == 50


def test_the_teacher_answers_once_for_each_failure_of_a_problem_that_may_be_hard(tmp_path: Path) -> None:
    engine = Engine([0.0, 1.0, 0.02], taught=0.5)
    found = screen(tmp_path, engine, teacher=True, rule=Rule(group=16, most=64))
    assert found["p0"].teacher.n == found["p0"].base.n
    assert 0.3 < found["p0"].teacher.rate < 0.7
    assert found["p1"].teacher.n == 0
    drawn = Counter(item for call in engine.calls for item in call)
    assert set(drawn.values()) == {1}


def test_a_changed_problem_is_not_added_up_with_what_it_was(tmp_path: Path) -> None:
    screen(tmp_path, Engine([0.5]), total=4)
    path = tmp_path / "screening.jsonl"
    path.write_text(path.read_text() + path.read_text().replace('"digest": "', '"digest": "x'))
    with pytest.raises(Exception, match=r"line 2"):
        read_screening(tmp_path)
