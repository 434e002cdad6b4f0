"""Packed runs: the same figures, none of the texts."""

import zipfile
from pathlib import Path

import pytest

from sdpo_solve.errors import ConfigError, JournalError
from sdpo_solve.report import files
from sdpo_solve.report.archive import pack, unpacked
from sdpo_solve.report.cohort import load_cohort
from sdpo_solve.report.figures import ReportOptions, make_report
from sdpo_solve.run.events import read_state
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
    with unpacked([tmp_path / "runs.zip"]) as opened:
        assert figures(*opened.dirs) == figures(out)
    assert not opened.dirs[0].exists()


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


def test_packed_runs_packed_again_give_the_same_bytes(tmp_path: Path) -> None:
    pack([runs(tmp_path / "runs")], tmp_path / "a.zip")
    with unpacked([tmp_path / "a.zip"]) as opened:
        pack([opened.dirs[0] / "runs"], tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_an_attempt_without_its_fields_is_named_by_its_line(tmp_path: Path) -> None:
    path = make(tmp_path, Made(limit=4)) / "journal.jsonl"
    path.write_text(path.read_text() + '{"event": "attempt", "index": 5, "cases": []}\n')
    n = len(path.read_text().splitlines())
    with pytest.raises(
        JournalError, match=rf"line {n}: not an event of this version \(KeyError: 'token_ids'"
    ):
        pack([tmp_path], tmp_path / "runs.zip")


def test_a_packed_run_is_not_taken_up_again(tmp_path: Path) -> None:
    pack([runs(tmp_path / "runs")], tmp_path / "runs.zip")
    with unpacked([tmp_path / "runs.zip"]) as opened:
        run_dir = opened.dirs[0] / "runs" / "inc" / "sdpo" / "seed-0"
        with pytest.raises(JournalError, match=r"line 2: the run was packed without its texts"):
            read_state(run_dir / "journal.jsonl", "inc", run_dir)


def test_another_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no runs")
    with (
        pytest.raises(ConfigError, match=r"notes\.txt holds no packed runs"),
        unpacked([tmp_path / "notes.txt"]),
    ):
        pass


def damaged(content: bytes, damage: str) -> bytes:
    """A zip file of one deflated member with this damage; offsets after PKWARE's APPNOTE, section 4.3."""
    changed = bytearray(content)
    entry = content.index(b"PK\1\2")  # the central directory: flags at 8, method at 10
    if damage == "flipped bytes":
        name, extra = (int.from_bytes(content[at : at + 2], "little") for at in (26, 28))
        changed[30 + name + extra] = 0xFF
    elif damage == "a torn end":
        del changed[-30:]
    else:
        at, value = {"a password": (8, 1), "an unknown compression": (10, 99)}[damage]
        changed[entry + at] = changed[at - 2] = value  # the member's own header has them 2 bytes earlier
    return bytes(changed)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("flipped bytes", "Error -3 while decompressing data"),
        ("a torn end", "File is not a zip file"),
        ("a password", "is encrypted, password required"),
        ("an unknown compression", "That compression method is not supported"),
    ],
)
def test_a_packed_file_that_cannot_be_read_is_refused_in_one_line(
    tmp_path: Path, damage: str, said: str
) -> None:
    make(tmp_path / "runs", Made())
    path = tmp_path / "runs.zip"
    pack([tmp_path / "runs"], path)
    path.write_bytes(damaged(path.read_bytes(), damage))
    with pytest.raises(ConfigError) as caught, unpacked([path]):
        pass
    assert str(caught.value).startswith(f"{path} holds no packed runs that can be read (")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_packed_file_goes_by_its_own_name_among_many(tmp_path: Path) -> None:
    sources = [tmp_path / f"{letter}.zip" for letter in "abcdefghijkl"]
    for path in sources:
        zipfile.ZipFile(path, "w").close()
    with unpacked([*sources, tmp_path]) as opened:
        assert all(folder.is_dir() for folder in opened.dirs)
        for source, folder in zip([*sources, tmp_path], opened.dirs, strict=True):
            assert opened.named(f"{folder}/inc and more") == f"{source}/inc and more"


def test_a_folder_without_runs_packs_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no runs under"):
        pack([tmp_path], tmp_path / "runs.zip")
    assert not (tmp_path / "runs.zip").exists()


def test_a_folder_that_holds_a_packed_file_alone_names_it(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    pack([runs(tmp_path / "runs")], tmp_path / "kept" / "a.zip")
    with pytest.raises(ConfigError, match=r"no runs under .*kept; .*a\.zip"):
        load_cohort([tmp_path / "kept"])
