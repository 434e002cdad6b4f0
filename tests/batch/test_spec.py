"""The plan of a batch: options of file and flags, the problems kept, the list of runs."""

import datetime
from dataclasses import replace
from pathlib import Path

import pytest

from sdpo_solve.batch.spec import RunKey, list_runs, make_screen_spec, make_spec, read_toml
from sdpo_solve.cli.batch import BatchCommand
from sdpo_solve.errors import ConfigError
from sdpo_solve.run.options import make_plan
from tests.helpers.parts import PROBLEM
from tests.helpers.readmes import ROOT, blocks

OLD = replace(PROBLEM, id="old", meta={"difficulty": "easy", "contest_date": "2025-01-04T00:00:00"})
NEW = replace(PROBLEM, id="new", meta={"difficulty": "hard", "contest_date": "2025-03-01T00:00:00"})


def spec(**flags):
    return make_spec({}, {"sources": "problems", **flags})


FILE = {
    "sources": "problems", "methods": ["sdpo", "multi-turn"], "group_size": 8, "settings": {"learner": {"lr": 1e-4}}
}  # fmt: skip


def test_a_flag_may_run_one_method_of_a_file_that_says_more() -> None:
    got = make_spec(FILE, {"methods": "multi-turn"})
    assert got.run.group_size is None
    assert got.run.settings == {}
    assert make_spec(FILE, {"methods": "sdpo"}).run.settings == FILE["settings"]
    both = {"learner": {"lr": 1e-4}, "sdpo": {"feedback_share": 0.3}}
    for methods in (["sdpo", "multi-turn"], "sdpo, multi-turn", ["tells", "multi-turn"]):
        told = {**FILE, "methods": methods, "settings": both, "arms": {"tells": {}}}
        assert make_spec(told, {"methods": "multi-turn"}).run.settings == {}
        assert make_spec(told, {"methods": "sdpo"}).run.settings == both
        by_flag = {"methods": "multi-turn", "settings": {"sdpo": {"feedback_share": 0.4}}}
        assert "sdpo" in make_spec(told, by_flag).run.settings  # and refused with the run's other options
    with pytest.raises(ConfigError, match=r"^b\.toml: methods must be a list \(got 3\)"):
        make_spec({**FILE, "methods": 3}, {"methods": "sdpo"}, "b.toml")


@pytest.mark.parametrize("flags", [{"group_size": 4}, {"settings": {"learner": {"lr": 1e-3}}}])
def test_what_a_flag_says_for_a_method_that_is_not_run_is_refused(flags: dict) -> None:
    with pytest.raises(ConfigError, match="none of these methods"):
        make_spec(FILE, {"methods": "multi-turn", **flags})


def test_flags_win_over_the_file_and_what_neither_says_is_the_default(tmp_path: Path) -> None:
    path = tmp_path / "batch.toml"
    path.write_text(
        'sources = ["a.json", "b"]\nseeds = 3\nattempts = 128\nfrom = 2025-02-01\nmax-tokens = 256\n'
        "[settings.learner]\nlr = 1e-4\nrank = 8\n"
    )
    flags = {"attempts": 64, "seeds": None, "settings": {"learner": {"lr": "5e-5"}}}
    got = make_spec(read_toml(path), flags)
    assert got.batch.sources == ("a.json", "b")
    assert (got.batch.seeds, got.run.attempts, got.run.max_tokens) == (3, 64, 256)
    assert got.batch.from_date == datetime.date(2025, 2, 1)
    assert got.run.settings == {"learner": {"lr": "5e-5", "rank": 8}}
    assert got.run.temperature == 1.0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"attemps": 3}, "has no option 'attemps'"),
        ({"method": "sdpo"}, "it is called 'methods'"),
        ({"seed": 1}, "it is called 'seeds'"),
        ({"seeds": 0}, "batch: seeds must be at least 1"),
        ({"methods": "sdpo,sdpo"}, "names sdpo twice"),
        ({"methods": "multi-turn", "group_size": 8}, "none of these methods samples groups"),
        ({"methods": "best-of-k", "settings": {"learner": {"lr": 1}}}, "none of these methods learns"),
        ({"methods": "sdpo", "arms": {"x": {}}}, "arms.x is described and not run"),
        ({"methods": "x", "arms": {"x": {"lr": 1}}}, "arms.x.lr"),
        ({"workers": 2}, "--executor ray"),
        ({"merge": True, "engine": "scripted", "replies": "r"}, "--merge"),
        ({"settings": {"learner": 3}}, "settings must be tables"),
    ],
)
def test_what_cannot_be_meant_is_refused(given: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make_spec({"sources": "problems", **given}, {})


def test_a_mistake_goes_by_the_flag_or_by_its_place_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_text(
        'sources = "p"\nfrom = "May"\nmethods = ["best-of-k", "x"]\n[settings.lerner]\nlr = 1\n'
        "[arms.x]\nmethod = 'best-of-k'\nsettings.judge.boxes = 0\n"
    )
    given = read_toml(tmp_path / "b.toml")
    with pytest.raises(ConfigError, match=r"^b\.toml: from must be a date such as 2025-02-01 \(got 'May'\)"):
        make_spec(given, {}, "b.toml")
    with pytest.raises(ConfigError, match=r"^--from must be a date"):
        make_spec(given, {"from_date": "June"}, "b.toml")
    got = make_spec(given, {"from_date": "2025-02-01"}, "b.toml")
    with pytest.raises(ConfigError, match=r"^b\.toml: \[settings\.lerner\]: there is no part 'lerner'"):
        make_plan(got.options_for(RunKey(0, "inc", "best-of-k")), places=got.places_for("best-of-k"))
    got = make_spec({**given, "settings": {}}, {"from_date": "2025-02-01"}, "b.toml")
    with pytest.raises(ConfigError, match=r"^b\.toml: \[arms\.x\.settings\.judge\] boxes must be at least 1"):
        make_plan(got.options_for(RunKey(0, "inc", "x")), places=got.places_for("x"))
    flags = {"from_date": "2025-02-01", "settings": {"judge": {"boxes": 0}}}
    got = make_spec({**given, "settings": {}}, flags, "b.toml")
    with pytest.raises(ConfigError, match=r"^--set judge\.boxes must be at least 1 \(got 0\)"):
        make_plan(got.options_for(RunKey(0, "inc", "best-of-k")), places=got.places_for("best-of-k"))


def test_a_batch_without_a_source_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one source"):
        make_spec({}, {"sources": None})


def test_a_broken_file_names_the_place(tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_text("seeds = \n")
    with pytest.raises(ConfigError, match=r"b\.toml: .*line 1"):
        read_toml(tmp_path / "b.toml")


def test_each_run_gets_only_the_options_of_its_own_method() -> None:
    settings = {"learner": {"lr": 1}, "sdpo": {"teacher": "both"}, "judge": {"boxes": 3}}
    got = spec(methods="sdpo,multi-turn", group_size=8, settings=settings)
    sdpo = got.options_for(RunKey(2, "inc", "sdpo"))
    turns = got.options_for(RunKey(0, "inc", "multi-turn"))
    assert (sdpo.method, sdpo.seed, sdpo.group_size) == ("sdpo", 2, 8)
    assert set(sdpo.settings) == {"learner", "sdpo", "judge"}
    assert turns.group_size is None
    assert set(turns.settings) == {"judge"}


def test_an_arm_is_a_method_under_a_name_with_settings_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "batch.toml"
    path.write_text(
        'sources = "problems"\nmethods = ["sdpo", "sdpo-paper", "best-of-k"]\n'
        "[settings.learner]\nlr = 1e-4\nlora_rank = 8\n"
        "[arms.sdpo-paper.settings.learner]\npreset = 'paper'\nlr = 2e-4\n"
    )
    got = make_spec(read_toml(path), {})
    plain, paper, base = (got.options_for(RunKey(1, "inc", arm)) for arm in got.batch.methods)
    assert plain.settings == {"learner": {"lr": 1e-4, "lora_rank": 8}}
    assert (paper.method, paper.arm_name) == ("sdpo", "sdpo-paper")
    assert paper.settings == {"learner": {"preset": "paper", "lr": 2e-4, "lora_rank": 8}}
    assert (base.arm_name, dict(base.settings)) == ("best-of-k", {})
    assert make_spec(read_toml(path), {"methods": "sdpo-paper"}).batch.methods == ("sdpo-paper",)
    assert RunKey(1, "inc", "sdpo-paper").name == "inc/sdpo-paper/seed-1"


def test_filters_are_options_of_the_batch() -> None:
    got = spec(ids="a,b", platform="atcoder", from_date="2025-02-01", first="3", include_bad=True).batch
    assert (got.ids, got.platform, got.first, got.include_bad) == (("a", "b"), ("atcoder",), 3, True)
    assert got.from_date == datetime.date(2025, 2, 1)


SCRIPTED = {"engine": "scripted", "replies": "r"}


def test_replies_instead_of_a_models_leave_out_what_a_file_says_to_the_model(tmp_path: Path) -> None:
    """As methods that flags leave out of a file take their settings along; what a flag says is refused."""
    path = tmp_path / "batch.toml"
    text = (
        'sources = "problems"\nmethods = ["sdpo", "sdpo-fast"]\nmax-tokens = 99\n'
        "settings.learner = {lr = 1}\nsettings.sdpo = {teacher = 'shuffled', feedback_share = 0.3}\n"
        "[arms.sdpo-fast]\nsettings.learner = {lr = 2}\n"
    )
    path.write_text(text)
    got = make_spec(read_toml(path), SCRIPTED)
    for arm in got.batch.methods:
        options = got.options_for(RunKey(0, "inc", arm))
        assert (options.max_tokens, options.settings) == (None, {"sdpo": {"feedback_share": 0.3}})
        make_plan(options)
    for said, flags in (
        ("max-tokens", {"max_tokens": 9}),
        ("learner.lr", {"settings": {"learner": {"lr": 3}}}),
    ):
        with pytest.raises(ConfigError, match=f"{said} would do nothing"):
            make_plan(make_spec(read_toml(path), {**SCRIPTED, **flags}).options_for(RunKey(0, "inc", "sdpo")))
    path.write_text(f'engine = "scripted"\nreplies = "r"\n{text}')
    with pytest.raises(ConfigError, match="lr would do nothing"):
        make_plan(make_spec(read_toml(path), {}).options_for(RunKey(0, "inc", "sdpo")))
    with_model = make_spec(read_toml(path), {"model": "tiny"})
    assert make_plan(with_model.options_for(RunKey(0, "inc", "sdpo-fast"))).parts["learner"].lr == 2


def test_a_flag_that_stands_for_a_setting_is_one_in_a_file_too(tmp_path: Path) -> None:
    path = tmp_path / "b.toml"
    path.write_text('sources = "p"\nserver = "http://h"\nruntime = "runsc"\nsettings.engine.timeout_s = 5\n')
    want = {"engine": {"timeout_s": 5, "server": "http://h"}, "sandbox": {"runtime": "runsc"}}
    assert make_spec(read_toml(path, BatchCommand), {}).run.settings == want
    for text, words in (
        ("max-tokens = 5\nmax_tokens = 6\n", "gives max-tokens twice"),
        ('from = "2025-02-01"\nfrom_date = "2025-02-02"\n', "gives from twice"),
        ('server = "http://h"\nsettings.engine.server = "http://i"\n', r"gives engine\.server twice"),
        ("measure = true\n", "measure is an option of the command line alone"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=words):
            read_toml(path, BatchCommand)


def test_an_engine_of_the_flags_leaves_out_what_a_file_says_to_another(tmp_path: Path) -> None:
    """What a flag says stays, and is refused; so is a setting that no engine has."""
    path = tmp_path / "b.toml"
    path.write_text(
        'sources = "p"\nmethods = "best-of-k"\nengine = "vllm"\nmodel = "m"\nthreads = 2\nthinking = true\n'
        "max-tokens = 9\n[settings.engine]\nbatch_rows = 4\nquantization = 'fp8'\n"
    )
    openai = {"engine": "openai"}
    key = RunKey(0, "inc", "best-of-k")
    plan = make_plan(make_spec(read_toml(path), openai).options_for(key))
    assert (plan.run.threads, plan.run.thinking, plan.run.max_tokens) == (None, False, 9)
    assert plan.run.settings == {"engine": {"batch_rows": 4}}
    scripted = make_spec(read_toml(path), {**SCRIPTED, "model": None}).options_for(key)
    assert scripted.model == "m"  # replies of a model that is named, whose tokens are counted
    with pytest.raises(ConfigError, match="--threads would do nothing with --engine openai"):
        make_plan(make_spec(read_toml(path), {**openai, "threads": 2}).options_for(key))
    path.write_text(path.read_text().replace("quantization", "quantisation"))
    with pytest.raises(ConfigError, match="has no option 'quantisation'"):
        make_plan(make_spec(read_toml(path), openai).options_for(key))
    path.write_text('sources = "p"\nengine = "scripted"\nreplies = "r"\nserver = "http://h"\n')
    given = make_spec(read_toml(path, BatchCommand), {}, "b.toml")
    with pytest.raises(ConfigError, match=r"\[settings\.engine\] server is for --engine openai or vllm"):
        make_plan(given.options_for(key), places=given.places_for("best-of-k"))
    assert make_spec(read_toml(path, BatchCommand), {"engine": "hf"}).batch.replies is None


def test_whole_seeds_come_first() -> None:
    runs = list_runs(spec(methods="sdpo,best-of-k", seeds=2), ["old", "new"])
    assert [run.name for run in runs][:4] == [
        "old/sdpo/seed-0",
        "old/best-of-k/seed-0",
        "new/sdpo/seed-0",
        "new/best-of-k/seed-0",
    ]
    assert len(runs) == len(set(runs)) == 8
    assert {run.seed for run in runs[4:]} == {1}
    more = list_runs(spec(methods="sdpo", seeds=2, first_seed=2), ["old"])
    assert [run.name for run in more] == ["old/sdpo/seed-2", "old/sdpo/seed-3"]


def test_every_file_of_options_in_a_readme_is_one(tmp_path: Path) -> None:
    root, path = Path(__file__).parents[2], tmp_path / "batch.toml"
    for readme in (root / "README.md", *(root / "sdpo_solve").rglob("README.md")):
        for block in readme.read_text().split("```toml\n")[1:]:
            path.write_text(block.split("```")[0])
            got = make_spec(read_toml(path), {})
            for arm in got.batch.methods:
                make_plan(got.options_for(RunKey(0, "inc", arm)))


def test_a_screening_takes_problems_and_sampling_from_a_batchs_file_and_leaves_the_rest(
    tmp_path: Path,
) -> None:
    path = tmp_path / "batch.toml"
    path.write_text(
        'sources = "problems"\nmethods = ["sdpo", "x"]\nonly = "hard"\nscreening = "marks"\nout = "runs"\n'
        'attempts = 9\ngroup-size = 3\nmax-tokens = 77\nlanguage = "cpp"\nfrom = 2025-02-01\n'
        "[settings.learner]\nlr = 1\n[settings.judge]\nboxes = 3\n[arms.x]\nmethod = 'sdpo'\n"
    )
    got = make_screen_spec(read_toml(path), {"thinking": True, "max_tokens": 78, "settings": {}}, "b.toml")
    assert (got.batch.methods, got.batch.arms, got.batch.only, got.batch.out) == (
        ("best-of-k",),
        {},
        None,
        None,
    )
    assert (got.batch.screening, got.batch.from_date) == (Path("marks"), datetime.date(2025, 2, 1))
    assert (got.run.max_tokens, got.run.language, got.run.thinking) == (78, "cpp", True)
    assert got.run.settings == {"judge": {"boxes": 3}}
    assert make_screen_spec(read_toml(path), {"out": Path("there")}).batch.screening == Path("there")
    assert make_screen_spec({}, {"sources": ["p"]}).batch.screening == Path("runs/screen")
    with pytest.raises(ConfigError, match=r"b\.toml has no option 'attemps'"):
        make_screen_spec({**read_toml(path), "attemps": 3}, {}, "b.toml")


def test_the_experiments_file_can_be_run_in_stages() -> None:
    path = Path(__file__).parents[2] / "problems" / "discovery" / "batch.toml"
    whole = make_spec(read_toml(path), {"sources": "mbpp:rows.jsonl"})
    for arm in whole.batch.methods:
        make_plan(whole.options_for(RunKey(0, "inc", arm)))  # raises for an option that is wrong
    assert make_spec(read_toml(path), {"sources": "x", "methods": "sdpo,best-of-k"}).run.attempts == 128


def test_the_file_of_the_readme_is_read(tmp_path: Path) -> None:
    (file,) = blocks((ROOT / "sdpo_solve/batch/README.md").read_text("utf-8"), "toml")
    (tmp_path / "batch.toml").write_text(file)
    slow = make_spec(read_toml(tmp_path / "batch.toml"), {}).options_for(RunKey(0, "p", "sdpo-slow"))
    assert (slow.method, slow.settings["learner"]) == ("sdpo", {"lr": 1e-5})


def test_every_mistake_of_a_file_is_named_at_once_as_a_file_spells_it() -> None:
    with pytest.raises(ConfigError) as caught:
        make_spec({"sources": ["p"], "atempts": 3, "grup_size": 4, "seeds": "two", "tries": 0}, {}, "b.toml")
    assert "known: sandbox, settings," in str(caught.value)
    for part in (
        "'atempts'; did you mean attempts",
        "did you mean group-size",
        "seeds must be",
        "tries must",
    ):
        assert part in str(caught.value)
