"""A run is the same run only with what decides its results; a directory that cannot be written is said first."""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from sdpo_solve.config import RunOptions
from sdpo_solve.errors import ConfigError, UserError
from sdpo_solve.run.build import sampling_spec
from sdpo_solve.run.identity import (
    check_config,
    check_grader,
    check_out,
    config_of,
    default_out,
    problem_digest,
    write_config,
)
from sdpo_solve.run.options import Plan, make_plan
from sdpo_solve.types import TestCase
from tests.helpers.parts import PROBLEM

GRADER = {"identity": "docker (default runtime), image sha256:1", "memory_mb": 2560}


def planned(settings: dict[str, dict[str, Any]] | None = None, **options: Any) -> Plan:
    return make_plan(RunOptions(engine="scripted", model="m", settings=settings or {}, **options))


def config(plan: Plan, model: str = "m", grader: dict[str, Any] | None = GRADER) -> dict[str, Any]:
    found = config_of(plan, sampling_spec(plan), PROBLEM, model)
    return found if grader is None else {"grader": grader, **found}


def begun(run_dir: Path, plan: Plan | None = None, **kwargs: Any) -> Path:
    """A run that was begun with this plan."""
    write_config(run_dir, {**config(plan or planned(), **kwargs), "versions": {"torch": "0"}})
    return run_dir


def rewrite(run_dir: Path, part: str, **values: Any) -> None:
    """Change the options of a part in the file: None takes one away."""
    path = run_dir / "config.json"
    stored = json.loads(path.read_text())
    stored["parts"][part] |= values
    stored["parts"][part] = {key: value for key, value in stored["parts"][part].items() if value is not None}
    path.write_text(json.dumps(stored))


def test_versions_the_sandboxs_name_and_how_much_is_graded_at_a_time_decide_nothing(tmp_path: Path) -> None:
    other = planned({"judge": {"boxes": 8}, "sandbox": {"parallel": 1}}, sandbox="docker")
    check_config(begun(tmp_path), config(other), other)


@pytest.mark.parametrize(
    ("plan", "changed", "difference"),
    [
        (planned(), {"grader": {**GRADER, "identity": "bubblewrap"}}, "grader.identity = 'docker"),
        (planned(), {"grader": {**GRADER, "memory_mb": 512}}, "grader.memory_mb = 2560, now it is 512"),
        (planned(temperature=0.5), {}, "options.temperature = 1.0, now it is 0.5"),
        (planned(), {"model": "n"}, "model = 'm', now it is 'n'"),
        (planned({"judge": {"retries": 1}}), {}, r"parts\.judge\.retries = 2, now it is 1"),
    ],
)
def test_what_decides_must_not_change(
    tmp_path: Path, plan: Plan, changed: dict[str, Any], difference: str
) -> None:
    with pytest.raises(ConfigError, match=difference):
        check_config(begun(tmp_path), config(plan, **changed), plan)


def test_a_run_of_before_graders_were_recorded_goes_on(tmp_path: Path) -> None:
    run_dir, other = begun(tmp_path, grader=None), planned(sandbox="docker")
    check_config(run_dir, config(planned()), planned())
    with pytest.raises(ConfigError, match=r"options\.sandbox = 'auto', now it is 'docker'"):
        check_config(run_dir, config(other), other)


def test_who_does_not_know_the_grader_yet_compares_the_rest(tmp_path: Path) -> None:
    other = planned(sandbox="docker")
    check_config(begun(tmp_path), config(other, grader=None), other)
    with pytest.raises(ConfigError, match="model"):
        check_config(tmp_path, config(other, model="n", grader=None), other)
    with pytest.raises(
        ConfigError, match=r"image sha256:1', now .* bring that one back or choose another --out"
    ):
        check_grader(tmp_path, GRADER, {**GRADER, "identity": "docker (default runtime), image sha256:2"})


def test_a_run_of_before_an_option_was_there_had_its_default(tmp_path: Path) -> None:
    rewrite(begun(tmp_path), "judge", retries=None)
    check_config(tmp_path, config(planned()), planned())
    other = planned({"judge": {"retries": 3}})
    with pytest.raises(ConfigError, match=r"parts\.judge\.retries = 2, now it is 3"):
        check_config(tmp_path, config(other), other)


def test_a_run_of_before_answers_were_read_by_a_choice_of_rules_goes_on_with_its_own(tmp_path: Path) -> None:
    path = begun(tmp_path) / "config.json"
    stored = json.loads(path.read_text())
    del stored["options"]["extract"]
    path.write_text(json.dumps(stored))
    same = planned(extract="livecodebench")
    check_config(tmp_path, config(same), same)
    with pytest.raises(ConfigError, match="--extract livecodebench goes on, or choose another --out"):
        check_config(tmp_path, config(planned()), planned())


@pytest.mark.parametrize("damage", ["[]", "null", "{", '{"options": []}', '{"parts": {"judge": 4}}'])
def test_a_damaged_configuration_is_one_line_with_what_to_do(tmp_path: Path, damage: str) -> None:
    (begun(tmp_path) / "config.json").write_text(damage)
    with pytest.raises(ConfigError, match=r"config\.json: it is damaged; remove it \(.*\) or") as caught:
        check_config(tmp_path, config(planned()), planned())
    assert "\n" not in str(caught.value)


def test_where_the_configuration_is_gone_the_journals_is_compared(tmp_path: Path) -> None:
    header = {"problem": "inc", "config": config(planned())}
    check_config(tmp_path, config(planned()), planned(), header)
    other = planned(temperature=0.5)
    with pytest.raises(ConfigError, match=r"options\.temperature = 1\.0, now it is 0\.5"):
        check_config(tmp_path, config(other), other, header)
    check_config(tmp_path, config(other), other, {})


def test_a_budget_may_grow_and_not_shrink(tmp_path: Path) -> None:
    small, large = planned(attempts=4, tokens=100), planned(attempts=8)
    begun(tmp_path, small)
    check_config(tmp_path, config(large), large)
    write_config(tmp_path, config(large))
    assert json.loads((tmp_path / "config.json").read_text())["options"]["attempts"] == 8
    with pytest.raises(ConfigError, match=r"options\.attempts = 8, now it is 4"):
        check_config(tmp_path, config(small), small)


def test_the_default_directory_depends_on_the_options_and_not_on_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_out(RunOptions(), "hf", ["lcb:v6"]) == default_out(
        RunOptions(attempts=8, method="best-of-k"), "hf", ["lcb:v6"]
    )
    assert default_out(RunOptions(), "hf", ["lcb:v6"]) != default_out(
        RunOptions(temperature=0.5), "hf", ["lcb:v6"]
    )
    found = default_out(RunOptions(model="Qwen/Qwen3-8B"), "hf", ["problems/a.json", "b"])
    assert found.name.startswith("a-and-1-more-Qwen3-8B-")
    (tmp_path / "runs" / "hf-ddf683").mkdir(parents=True)
    assert default_out(RunOptions(), "hf", ["lcb:v6"]) == Path(
        "runs/hf-ddf683"
    )  # as an earlier version named it


def test_a_run_that_knew_no_schedule_had_the_papers(tmp_path: Path) -> None:
    paper = planned({"sdpo": {"preset": "paper"}, "learner": {"min_gap": 0.0}})
    unknown = ("preset", "first_group", "feedback_share", "feedback_floor", "learn_after", "base_share")
    rewrite(begun(tmp_path, paper), "sdpo", told_attempts=0, **dict.fromkeys(unknown))
    rewrite(tmp_path, "learner", min_gap=None)
    check_config(tmp_path, config(paper), paper)
    other = planned({"learner": {"min_gap": 0.0}})
    with pytest.raises(ConfigError, match=r"parts\.sdpo\.\w+ = "):
        check_config(tmp_path, config(other), other)
    rewrite(tmp_path, "sdpo", told_attempts=2)
    with pytest.raises(ConfigError, match=r"parts\.sdpo\.told_attempts = 2"):
        check_config(tmp_path, config(paper), paper)


@pytest.mark.parametrize(("growth", "first_group"), [("doubling", 1), ("constant", None)])
def test_the_growth_of_an_earlier_version_is_a_first_group(
    tmp_path: Path, growth: str, first_group: int | None
) -> None:
    same, other = (planned({"sdpo": {"first_group": first}}) for first in (first_group, 2))
    rewrite(begun(tmp_path, same), "sdpo", first_group=None, growth=growth)
    check_config(tmp_path, config(same), same)
    with pytest.raises(ConfigError, match=r"parts\.sdpo\.first_group"):
        check_config(tmp_path, config(other), other)


def test_a_directory_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    check_out(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "deep"):
        with pytest.raises(UserError, match=r"file is a file; choose another --out"):
            check_out(out)
    with pytest.raises(UserError, match=r"--out /proc/x cannot be written \(.*\); choose another --out"):
        check_out(Path("/proc/x"))


@pytest.mark.parametrize("n_tests", [0, 1, 3])
def test_the_digest_of_a_problem_is_that_of_its_whole_text(n_tests: int) -> None:
    """Journals and screenings of earlier versions hold it."""
    tests = tuple(TestCase([n, (1, "é")], {"a": n}, n == 1) for n in range(n_tests))
    problem = replace(PROBLEM, tests=tests)
    content = asdict(problem)
    del content["meta"]
    for name in ("ignore_case", "program", "language"):
        del content["checker"][name]
    whole = hashlib.sha256(repr(sorted(content.items())).encode()).hexdigest()[:16]
    assert problem_digest(problem) == whole
