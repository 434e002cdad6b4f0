"""Screening without a model or a box: where samples go, that none is drawn twice, and what a stop leaves."""

import re
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from sdpo_solve.batch.difficulty import Rule, Screened
from sdpo_solve.batch.screening import ScreenSpec, _Pipeline
from sdpo_solve.batch.screening_file import read_screening
from sdpo_solve.batch.spec import make_spec
from sdpo_solve.cli.live_screening import ScreenView
from sdpo_solve.config import RunOptions
from sdpo_solve.datasets.selection import Candidate, Problems, Selected
from sdpo_solve.errors import EngineError
from sdpo_solve.grading import feedback
from sdpo_solve.methods.prompts import Prompter
from sdpo_solve.run.options import Plan
from sdpo_solve.types import Finish, Sample
from tests.helpers.parts import PROBLEM, ReadGrader, answer

RULE = Rule(group=16, most=400)


class Engine:
    """Solves problem `p<n>` at the rate of its place in `rates`; with feedback in the prompt at `taught`."""

    def __init__(self, rates: list[float], taught: float = 0.0) -> None:
        self.rates, self.taught = rates, taught
        self.calls: list[list[tuple[str, int]]] = []
        self.ends_at: int | None = None
        self.breaks_at: int | None = None

    def sample(self, prompts_G, seeds_G, policy, spec):
        if len(self.calls) == self.breaks_at:
            raise EngineError("out of memory")
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


def screen(out: Path, engine: Engine, **asked) -> dict[str, Screened]:
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
        judge=ReadGrader,
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


def test_a_broken_engine_loses_no_look_that_was_graded(tmp_path: Path) -> None:
    engine = Engine(RATES)
    engine.breaks_at = 3
    with pytest.raises(EngineError):
        screen(tmp_path, engine)
    kept = read_screening(tmp_path).problems
    assert sum(item.base.n for item in kept.values()) == sum(len(call) for call in engine.calls)


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
