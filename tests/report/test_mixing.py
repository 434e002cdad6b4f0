"""Which runs may stand in one report: those that answer the same question, however quickly they did."""

from pathlib import Path

import pytest

from sdpo_solve.engines import hf, vllm
from sdpo_solve.errors import ConfigError, EngineError
from sdpo_solve.grading import judge
from sdpo_solve.report.cohort import load_cohort
from sdpo_solve.report.consistency import MixedRuns, consistent_sets
from sdpo_solve.report.runs import read_runs
from sdpo_solve.run.journal import Journal
from tests.helpers.journals import Made, header, make
from tests.helpers.reports import report_of, text_of


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"feedback_mode": "all"}, "feedback mode is 'public'"),
        ({"identity": {"grader": "bubblewrap"}}, "grader is 'docker image 1'"),
        ({"config": {"model": "another"}}, "model is 'tiny at rest'"),
        ({"language": "cpp"}, "language"),
    ],
)
def test_runs_that_must_not_be_mixed_are_refused(tmp_path: Path, change: dict, what: str) -> None:
    make(tmp_path, Made(seed=0))
    make(tmp_path, Made(seed=1, header=change))
    with pytest.raises(ConfigError, match=f"must not be mixed: {what}.*report them apart"):
        load_cohort([tmp_path])


def test_the_rule_that_found_the_programs_is_named_and_not_mixed(tmp_path: Path) -> None:
    for seed, rule in enumerate(("program", "livecodebench")):
        made = Made(seed=seed)
        config = header(made)["config"]
        config = {**config, "options": {**config["options"], "extract": rule}}
        make(tmp_path / rule, Made(seed=seed, header={"config": config}))
        assert f"extract {rule}" in text_of(report_of(tmp_path / rule), 160)
    with pytest.raises(ConfigError, match="must not be mixed: extraction rule"):
        load_cohort([tmp_path])


def test_each_set_of_runs_that_may_be_mixed_is_reported_by_its_number(tmp_path: Path) -> None:
    for seed in range(3):
        make(tmp_path / "a", Made(seed=seed))
    make(tmp_path / "b", Made(header={"feedback_mode": "all"}))
    with pytest.raises(MixedRuns) as caught:
        load_cohort([tmp_path])
    first, second = caught.value.commands("report here").splitlines()
    assert first.split("#")[0].strip() == "report here --set 1"
    assert "3 runs" in first
    assert "1 runs" in second
    assert "'all'" in second
    assert [len(load_cohort([tmp_path], n).runs) for n in (1, 2)] == [3, 1]
    with pytest.raises(ConfigError, match="there are 2 sets"):
        load_cohort([tmp_path], 3)


def test_a_run_without_an_attempt_opens_no_set(tmp_path: Path) -> None:
    """It is counted among the failed ones where it agrees with the others."""
    for name, change in (("a", {"config": {"model": "typo"}}), ("c", {})):
        made = Made(method="best-of-k", header=change)
        journal = Journal(tmp_path / name / "x/best-of-k/seed-0", "run")
        journal.start({**header(made), "problem": "x"})
        journal.fail(EngineError("404"))
        journal.close()
    assert [len(one.runs) for one in consistent_sets(read_runs([tmp_path / "a"]).runs)] == [1]
    make(tmp_path / "b", Made(method="best-of-k"))
    cohort = load_cohort([tmp_path])
    assert [run.run_dir.parts[-4] for run in cohort.runs] == ["b"]
    assert [run.run_dir.parts[-4] for runs in cohort.failed.values() for run in runs] == ["c"]


ENGINE = {"batch_rows": 16, "stop": None}


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({**ENGINE, "stop": "\n\n"}, "engine.stop is"),
        ({"batch_rows": 64, "stop": None, "quantization": "fp8"}, "engine.quantization is"),
        ({**ENGINE, "max_model_len": 512}, "engine.max_model_len is"),
        ({**ENGINE, "of_a_later_version": 1}, "engine.of_a_later_version is"),
    ],
)
def test_engine_options_that_change_answers_are_refused(tmp_path: Path, options: dict, what: str) -> None:
    make(tmp_path, Made(settings={"engine": ENGINE}))
    make(tmp_path, Made(method="best-of-k", settings={"engine": options}))
    with pytest.raises(ConfigError, match=f"must not be mixed: {what}.*report them apart"):
        load_cohort([tmp_path])


def test_options_that_only_change_speed_or_memory_are_mixed(tmp_path: Path) -> None:
    vllm = {
        "batch_rows": 64, "stop": None, "quantization": None, "max_model_len": None, "memory_share": 0.4,
        "cpu_cache_gb": 4, "tensor_parallel": 2, "eager": True, "max_lora_rank": 16, "sleep": True,
        "probe_tolerance": 0.1,
    }  # fmt: skip
    make(tmp_path, Made(settings={"engine": ENGINE, "judge": {"boxes": 2}, "sandbox": {"parallel": 2}}))
    make(tmp_path, Made(seed=1, settings={"engine": vllm, "judge": {"boxes": 8}, "sandbox": {"parallel": 4}}))
    make(tmp_path, Made(seed=2, settings={}))  # an old journal
    assert list(load_cohort([tmp_path]).arms) == ["sdpo"]


def test_every_engine_option_is_known_to_change_answers_or_not() -> None:
    """A new option is refused where it differs until someone says here that it changes no answer."""
    changing = {"stop", "quantization", "max_model_len"}
    for engine in (hf, vllm):
        assert set(engine.Options.model_fields) - engine.Options.free() <= changing
    assert set(judge.Options.model_fields) <= judge.Options.free()


def test_limits_of_the_sandbox_are_not_mixed(tmp_path: Path) -> None:
    make(tmp_path, Made(settings={"sandbox": {"output_mb": 4.0, "parallel": 2}}))
    make(tmp_path, Made(seed=1, settings={"sandbox": {"parallel": 4}}))  # older than the option
    assert len(load_cohort([tmp_path]).runs) == 2
    make(tmp_path, Made(seed=2, settings={"sandbox": {"output_mb": 1.0}}))
    with pytest.raises(ConfigError, match=r"must not be mixed: sandbox\.output_mb is 4\.0"):
        load_cohort([tmp_path])


def test_the_same_problem_with_other_content_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "a", Made())
    other = Made(method="best-of-k")
    config = {**header(other)["config"], "problem": {"id": "inc", "digest": "changed"}}
    make(tmp_path / "b", Made(method="best-of-k", header={"config": config}))
    with pytest.raises(ConfigError, match="content of problem inc"):
        load_cohort([tmp_path])


@pytest.mark.parametrize("mode", ["public", "paper"])
def test_seeds_hold_the_same_content_unless_they_draw_what_is_quoted(tmp_path: Path, mode: str) -> None:
    for seed in range(2):
        config = {**header(Made())["config"], "problem": {"id": "inc", "digest": f"content {seed}"}}
        make(tmp_path, Made(seed=seed, header={"feedback_mode": mode, "config": config}))
    if mode == "paper":
        assert len(load_cohort([tmp_path]).runs) == 2
    else:
        with pytest.raises(ConfigError, match="content of problem inc is 'content 0'"):
            load_cohort([tmp_path])


def test_the_same_seed_twice_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "a", Made())
    make(tmp_path / "b", Made())
    with pytest.raises(ConfigError, match="sdpo on inc with seed 0 is there twice"):
        load_cohort([tmp_path])


def test_a_damaged_journal_is_named_and_the_rest_reported(tmp_path: Path) -> None:
    make(tmp_path, Made(solved_at=(1,)))
    bad = make(tmp_path, Made(seed=1)) / "journal.jsonl"
    bad.write_text("not json\n" + bad.read_text())
    found = report_of(tmp_path)
    assert found.arms[0].n_runs == 1
    assert any("1 journal damaged" in notice and "line 1" in notice for notice in found.notices)


def test_a_directory_without_runs_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no runs under"):
        load_cohort([tmp_path])
