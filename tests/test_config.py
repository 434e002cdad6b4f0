"""Options: unknown and malformed ones are refused in one line that names the known ones."""

from functools import partial

import pytest

from sdpo_solve.config import RunOptions, as_flag, parse_settings, read_options
from sdpo_solve.engines import hf
from sdpo_solve.errors import ConfigError
from sdpo_solve.grading import judge
from sdpo_solve.learner import options as learner_options
from sdpo_solve.sandboxes import docker


def test_settings_are_read_by_part() -> None:
    assert parse_settings(["learner.lr=5e-5", "learner.rank=8", "sdpo.teacher=both", "learner.x=none"]) == {
        "learner": {"lr": "5e-5", "rank": "8", "x": None},
        "sdpo": {"teacher": "both"},
    }


def test_a_text_that_is_set_keeps_its_spaces_and_numbers_need_none() -> None:
    """As a text that ends answers, a fence without its newlines would end them at the opening one."""
    settings = parse_settings(["engine.stop=\n```\n", " learner.lr = 5e-5", "learner.ema_rate= None "])
    assert settings == {"engine": {"stop": "\n```\n"}, "learner": {"lr": " 5e-5", "ema_rate": None}}
    assert read_options(hf.Options, settings["engine"], "engine").stop == "\n```\n"
    assert read_options(learner_options.Options, settings["learner"], "learner").lr == 5e-5


@pytest.mark.parametrize("text", ["lr=1", "learner.lr", "learner.=1", ".lr=1", ""])
def test_malformed_settings_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"PART\.OPTION=VALUE"):
        parse_settings([text])


def test_a_setting_given_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="twice"):
        parse_settings(["a.b=1", "a.b=2"])


def test_an_unknown_option_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError, match=r"'atempts'; did you mean attempts\?"):
        read_options(RunOptions, {"atempts": 3}, "run")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"attempts": 0}, "--attempts must be at least 1 (got 0)"),
        ({"seed": 2**31}, "--seed must be less than 2147483648 (got 2147483648)"),
        ({"temperature": float("nan")}, "--temperature must be a number (got nan)"),
        ({"temperature": float("inf")}, "--temperature must be a finite number (got inf)"),
        ({"wall_seconds": "inf"}, "--wall-seconds must be a finite number (got inf)"),
        ({"temperature": 11}, "--temperature must be at most 10 (got 11)"),
        ({"attempts": "x"}, "--attempts must be a whole number (got 'x')"),
        ({"wall_seconds": "x"}, "--wall-seconds must be a number (got 'x')"),
        ({"feedback_mode": "some"}, "--feedback-mode must be 'public', 'paper' or 'all' (got 'some')"),
        ({"thinking": 3}, "--thinking must be true or false (got 3)"),
        ({"settings": 3}, "--set must be a table (got 3)"),
        ({"system": "a\udcff"}, "--system must be text in UTF-8 (got 'a\\udcff')"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line_by_the_name_of_its_flag(given: dict, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_options(RunOptions, given, "run", partial(as_flag, RunOptions))
    assert str(caught.value) == said


@pytest.mark.parametrize("part", ["sandbox", "learner"])
@pytest.mark.parametrize("value", [float("inf"), "inf", "-Infinity", "1e999"])
def test_no_number_of_a_part_is_endless(part: str, value: object) -> None:
    """`sandbox.output_mb=inf` once ended a run with a traceback."""
    cls, name = {"sandbox": (docker.Options, "output_mb"), "learner": (learner_options.Options, "lr")}[part]
    with pytest.raises(ConfigError, match=rf"^{part}\.{name} must be a finite number \(got "):
        read_options(cls, {name: value}, part)


@pytest.mark.parametrize("name", ["memory_mb", "scratch_mb", "n_processes"])
def test_a_limit_of_a_box_is_a_number_that_engines_and_kernels_can_read(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^sandbox\.{name} must be at most \d+ \(got 9+\)$"):
        read_options(docker.Options, {name: "9" * 20}, "sandbox")


def test_an_option_of_a_part_goes_by_the_part() -> None:
    with pytest.raises(ConfigError, match=r"^judge\.boxes must be at least 1 \(got 0\)$"):
        read_options(judge.Options, {"boxes": 0}, "judge")
