"""A run is the same run only with what decides its results; a directory that cannot be written is said first."""

from pathlib import Path

import pytest

from sdpo_solve.errors import ConfigError, UserError
from sdpo_solve.run.identity import check_config, check_grader, check_out, write_config

GRADER = {"identity": "docker (default runtime), image sha256:1", "memory_mb": 2560}
CONFIG = {
    "grader": GRADER,
    "options": {"sandbox": "auto", "temperature": 1.0},
    "parts": {"judge": {"boxes": 2, "retries": 2}},
    "model": "m",
}
NAMED = {"sandbox": "docker", "temperature": 1.0}


def begun(run_dir: Path, **changed: object) -> Path:
    """A run that was begun with these; None takes a key away."""
    told = {**CONFIG, "versions": {"torch": "1"}, **changed}
    write_config(run_dir, {key: value for key, value in told.items() if value is not None})
    return run_dir


def test_versions_the_sandboxs_name_and_how_much_is_graded_at_a_time_decide_nothing(tmp_path: Path) -> None:
    run_dir = begun(tmp_path, versions={"torch": "0"})
    judge = {"boxes": 8, "retries": 2}
    check_config(run_dir, {**CONFIG, "options": NAMED, "parts": {"judge": judge, "sandbox": {"parallel": 1}}})


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"grader": {**GRADER, "identity": "bubblewrap"}}, "grader.identity = 'docker"),
        ({"grader": {**GRADER, "memory_mb": 512}}, "grader.memory_mb = 2560, now it is 512"),
        ({"options": {"sandbox": "auto", "temperature": 0.5}}, "options.temperature = 1.0, now it is 0.5"),
        ({"model": "n"}, "model = 'm', now it is 'n'"),
    ],
)
def test_what_decides_must_not_change(tmp_path: Path, changed: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_config(begun(tmp_path), {**CONFIG, **changed})


def test_a_run_of_before_graders_were_recorded_goes_on(tmp_path: Path) -> None:
    run_dir = begun(tmp_path, grader=None, versions=None)
    check_config(run_dir, CONFIG)
    with pytest.raises(ConfigError, match=r"options\.sandbox = 'auto', now it is 'docker'"):
        check_config(run_dir, {**CONFIG, "options": NAMED})


def test_who_does_not_know_the_grader_yet_compares_the_rest(tmp_path: Path) -> None:
    unknown = {key: value for key, value in CONFIG.items() if key != "grader"}
    check_config(begun(tmp_path), {**unknown, "options": NAMED})
    with pytest.raises(ConfigError, match="model"):
        check_config(tmp_path, {**unknown, "model": "n"})
    with pytest.raises(
        ConfigError, match=r"image sha256:1', now .* bring that one back or choose another --out"
    ):
        check_grader(tmp_path, GRADER, {**GRADER, "identity": "docker (default runtime), image sha256:2"})


def test_a_run_of_before_an_option_was_there_had_its_default(tmp_path: Path) -> None:
    judge = {"boxes": 2, "retries": 2, "newer": 7}
    defaults = {"parts": {"judge": {"boxes": 1, "retries": 1, "newer": 7}}}
    run_dir = begun(tmp_path)
    check_config(run_dir, {**CONFIG, "parts": {"judge": judge}}, defaults)
    with pytest.raises(ConfigError, match=r"parts\.judge\.newer = 7, now it is 8"):
        check_config(run_dir, {**CONFIG, "parts": {"judge": {**judge, "newer": 8}}}, defaults)
    with pytest.raises(ConfigError, match=r"parts\.judge\.retries = 2, now it is 1"):
        check_config(run_dir, {**CONFIG, "parts": {"judge": {**judge, "retries": 1}}}, defaults)


def test_a_directory_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    check_out(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "deep"):
        with pytest.raises(UserError, match=r"file is a file; choose another --out"):
            check_out(out)
    with pytest.raises(UserError, match=r"--out /proc/x cannot be written \(.*\); choose another --out"):
        check_out(Path("/proc/x"))
