"""What is handed to LiveCodeBench's own evaluator."""

import json
from pathlib import Path

import pytest

from sdpo_solve.datasets.livecodebench import FIELDS
from sdpo_solve.errors import ConfigError
from sdpo_solve.report.archive import pack, unpacked
from sdpo_solve.report.export import render
from sdpo_solve.solve import solve
from sdpo_solve.types import Budget
from tests.helpers.journals import Made, make
from tests.helpers.parts import SayEngine, answer, make_run


def finished(out: Path, method: str, seed: int, right_at: int | None) -> None:
    engine = SayEngine(lambda s, p, n: answer("right" if n + 1 == right_at else f"wrong {n + 1}"))
    run = make_run(out / "inc" / method / f"seed-{seed}", engine, size=2, budget=Budget(4))
    solve(run)
    run.journal.close()
    path = run.journal.path
    path.write_text(
        path.read_text().replace('"method": "count", "seed": 0', f'"method": "{method}", "seed": {seed}')
    )


def entries(*args, **kwargs) -> list[dict]:
    defaults = {"method": None, "all_attempts": False, "rows": None, "say": print}
    return json.loads(render(args, "livecodebench", **{**defaults, **kwargs}))


def test_a_run_hands_in_its_first_solution_else_its_last_program(tmp_path: Path) -> None:
    finished(tmp_path, "sdpo", 0, right_at=3)
    finished(tmp_path, "sdpo", 1, right_at=None)
    assert entries(tmp_path) == [{"question_id": "inc", "code_list": ["right", "wrong 4"]}]


def test_all_attempts_are_handed_in_where_asked(tmp_path: Path) -> None:
    finished(tmp_path, "sdpo", 0, right_at=3)
    (entry,) = entries(tmp_path, all_attempts=True)
    assert entry["code_list"] == ["wrong 1", "wrong 2", "right", "wrong 4"]


def test_arms_do_not_mix(tmp_path: Path) -> None:
    finished(tmp_path, "sdpo", 0, right_at=1)
    finished(tmp_path, "best-of-k", 0, right_at=None)
    with pytest.raises(ConfigError, match="choose one with --method"):
        entries(tmp_path)
    assert entries(tmp_path, method="best-of-k")[0]["code_list"] == ["wrong 4"]


def test_what_a_report_keeps_apart_is_not_handed_in_together(tmp_path: Path) -> None:
    make(tmp_path / "a", Made(settings={"learner": {"lr": 1e-4}}))
    make(tmp_path / "b", Made(seed=1, settings={"learner": {"lr": 1e-5}}))
    make(tmp_path / "c", Made(seed=2, header={"feedback_mode": "all"}))
    with pytest.raises(
        ConfigError, match=r"learner\.lr=0\.0001.* and .*learner\.lr=1e-05.*export them apart"
    ):
        entries(tmp_path / "a", tmp_path / "b")
    with pytest.raises(
        ConfigError, match=r"feedback mode is 'public' in .* and 'all' in .*; export them apart"
    ):
        entries(tmp_path / "a", tmp_path / "c")
    assert [entry["question_id"] for entry in entries(tmp_path / "b")] == ["inc"]


def test_runs_with_nothing_to_hand_in_are_left_out_and_counted(tmp_path: Path) -> None:
    make(tmp_path, Made(solved_at=(2,), code="right {}".format))
    lines: list[str] = []
    entries(tmp_path, say=lines.append)
    assert lines == []
    make(tmp_path, Made("dec", fails_after=4))
    path = make(tmp_path, Made("add")) / "journal.jsonl"
    path.write_text(path.read_text().splitlines()[0] + "\n")  # the header alone
    assert entries(tmp_path, say=lines.append) == [{"question_id": "inc", "code_list": ["right 2"]}]
    assert lines == ["left out, failed or without an attempt: 2 runs"]
    with pytest.raises(ConfigError, match=r"no run in .*; left out, failed or without an attempt: 1 run$"):
        entries(tmp_path / "dec")


def test_questions_without_a_run_get_an_empty_program(tmp_path: Path) -> None:
    finished(tmp_path / "runs", "sdpo", 0, right_at=1)
    row = dict.fromkeys(FIELDS, "")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({**row, "question_id": name}) + "\n" for name in ("zed", "inc")))
    got = entries(tmp_path / "runs", rows=rows)
    assert got == [{"question_id": "inc", "code_list": ["right"]}, {"question_id": "zed", "code_list": [""]}]
    rows.write_text(json.dumps({**row, "question_id": "zed"}) + "\n")
    with pytest.raises(ConfigError, match="inc was run"):
        entries(tmp_path / "runs", rows=rows)


def test_packed_runs_have_no_program_to_hand_in(tmp_path: Path) -> None:
    finished(tmp_path / "runs", "sdpo", 0, right_at=3)
    finished(tmp_path / "runs", "best-of-k", 0, right_at=None)
    pack([tmp_path / "runs" / "inc" / "sdpo"], tmp_path / "runs.zip")
    with unpacked([tmp_path / "runs.zip"]) as opened:
        for all_attempts in (False, True):
            with pytest.raises(ConfigError, match=r"packed without their programs, such as .*seed-0;"):
                entries(*opened.dirs, tmp_path / "runs", method="sdpo", all_attempts=all_attempts)
        # Of the arms that are not asked for nothing is needed.
        (entry,) = entries(*opened.dirs, tmp_path / "runs", method="best-of-k")
    assert entry["code_list"] == ["wrong 4"]


def test_nothing_to_hand_in_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run"):
        entries(tmp_path)
    with pytest.raises(ConfigError, match="unknown format"):
        render([tmp_path], "csv", method=None, all_attempts=False, rows=None, say=print)
