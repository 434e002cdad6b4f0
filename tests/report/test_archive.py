"""Packed runs: the same figures, none of the texts."""

import zipfile
from pathlib import Path

import pytest

from sdpo_solve.errors import ConfigError
from sdpo_solve.report import files
from sdpo_solve.report.archive import pack, unpacked
from sdpo_solve.report.cohort import load_cohort
from sdpo_solve.report.figures import ReportOptions, make_report
from tests.helpers.journals import Made, make

SECRET = "def secret(): ..."


def runs(out: Path) -> Path:
    for seed, solved_at in enumerate([(3,), (), (7,)]):
        make(
            out,
            Made(seed=seed, solved_at=solved_at, overfits_at=(2,), code=lambda _: SECRET, feedback=SECRET),
        )
    make(out, Made(method="best-of-k", solved_at=(6,), keep_going=True))
    make(out, Made(problem="other", fails_after=4))
    return out


def figures(*sources: Path) -> dict:
    return files.as_json(make_report(load_cohort(sources), ReportOptions(n_replicates=200)))


def test_a_report_says_the_same_of_packed_runs(tmp_path: Path) -> None:
    out = runs(tmp_path / "runs")
    assert pack([out], tmp_path / "runs.zip") == 5
    with unpacked([tmp_path / "runs.zip"]) as dirs:
        assert figures(*dirs) == figures(out)
    assert not dirs[0].exists()


def test_nothing_that_a_model_or_a_program_wrote_is_packed(tmp_path: Path) -> None:
    pack([runs(tmp_path / "runs")], tmp_path / "runs.zip")
    with zipfile.ZipFile(tmp_path / "runs.zip") as file:
        texts = [file.read(name).decode() for name in file.namelist()]
    assert len(texts) == 5
    assert not any("secret" in text or "Add one" in text or "token_ids" in text for text in texts)


def test_the_same_runs_give_the_same_bytes(tmp_path: Path) -> None:
    out = runs(tmp_path / "runs")
    for name in ("a.zip", "b.zip"):
        pack([out], tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_another_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no runs")
    with (
        pytest.raises(ConfigError, match=r"notes\.txt holds no packed runs"),
        unpacked([tmp_path / "notes.txt"]),
    ):
        pass


def test_a_folder_without_runs_packs_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no runs under"):
        pack([tmp_path], tmp_path / "runs.zip")
    assert not (tmp_path / "runs.zip").exists()


def test_a_folder_that_holds_a_packed_file_alone_names_it(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    pack([runs(tmp_path / "runs")], tmp_path / "kept" / "a.zip")
    with pytest.raises(ConfigError, match=r"no runs under .*kept; .*a\.zip"):
        load_cohort([tmp_path / "kept"])
