"""Rows of files: their places, what is broken among them, and what a whole file costs in memory."""

import base64
import gzip
import json
import pickle
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sdpo_solve.datasets import load
from sdpo_solve.datasets._rows import read_rows
from sdpo_solve.datasets.selection import Selection
from sdpo_solve.errors import ProblemError, RunError
from tests.helpers.rows import MBPP, never, row, stdin_test

OBJECTS = [{"n": 1, "text": 'ä ] } , "'}, {"n": 2, "text": "x" * 3_000_000}, {"n": 3, "text": "日本"}]


def as_lines(rows: list[Any]) -> bytes:
    return "\n\n".join(json.dumps(each, ensure_ascii=False) for each in rows).encode()


def as_list(rows: list[Any]) -> bytes:
    return json.dumps(rows, ensure_ascii=False, indent=1).encode()


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize(("name", "form"), [("r.jsonl", as_lines), ("r.json", as_list)])
def test_rows_are_found_and_found_again(
    name: str, form: Callable[[Any], bytes], mark: bytes, tmp_path: Path
) -> None:
    plain, packed = tmp_path / name, tmp_path / f"{name}.gz"
    plain.write_bytes(mark + form(OBJECTS))
    packed.write_bytes(gzip.compress(mark + form(OBJECTS)))
    for path in (plain, packed):
        rows = list(read_rows(path))
        assert [each.data for each in rows] == OBJECTS
        assert [each.again().data["n"] for each in reversed(rows)] == [3, 2, 1]


def test_one_json_value_is_one_row(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text(json.dumps(OBJECTS[1]))
    assert [(each.data, each.place) for each in read_rows(path)] == [(OBJECTS[1], f"{path}: row 1")]
    path.write_text(" [ ] ")
    assert list(read_rows(path)) == []


@pytest.mark.parametrize("held_bytes", [0, 1 << 30])
def test_rows_of_a_parquet_table_in_any_order(
    held_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdpo_solve.datasets._row_files._HELD_BYTES", held_bytes)
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(OBJECTS), path, row_group_size=2)
    rows = list(read_rows(path))
    assert [rows[n].again().data for n in (2, 0, 1, 1, 2)] == [OBJECTS[n] for n in (2, 0, 1, 1, 2)]


BROKEN = [b"{torn", b"[1]", b'"text"', b"\xff\xfe", b"{}", b'{"a": ' + b"[" * 100_000]


@pytest.mark.parametrize("bad", BROKEN)
@pytest.mark.parametrize("good", [row(), MBPP])
def test_a_broken_row_is_left_out_counted_and_named(good: dict[str, Any], bad: bytes, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(bad + b"\n" + json.dumps(good).encode() + b"\n")
    scheme = "mbpp" if good is MBPP else "lcb"
    for selection in (Selection(), Selection(ids=())):
        taken = load.load([f"{scheme}:{path}"], selection, never)
        assert (len(taken.problems), taken.broken) == (1, ("rows.jsonl: line 1",))
        assert taken.left_out["rows.jsonl: line 1"].startswith("broken: ")
    path.write_bytes(bad)
    with pytest.raises(ProblemError, match="line 1"):
        load.load([f"{scheme}:{path}"], Selection(), never)


def test_a_torn_list_of_rows_loses_its_last_one(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([row(), row(question_id="second")])[:-30])
    taken = load.load([str(path)], Selection(), never)
    assert (taken.problems.ids, taken.broken) == (("abc001_a",), ("rows.json: row 2",))


def test_only_broken_rows_are_no_problems(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("{torn\n{torn\n")
    with pytest.raises(ProblemError, match=r"no problem in it can be read; the first: .*line 1"):
        load.load([f"lcb:{path}"], Selection(difficulty=("hard",)), never)


@pytest.mark.parametrize("name", ["rows.jsonl", "own.json"])
def test_a_file_that_changes_after_it_was_listed_is_no_other_problem(name: str, tmp_path: Path) -> None:
    own = {"id": "p", "statement": "?", "kind": "stdin", "tests": [stdin_test("1", "2")]}
    own["tests"] = [{"input": "1", "expected": "2", "visible": True}]
    path = tmp_path / name
    path.write_text(json.dumps(row() if name == "rows.jsonl" else own))
    problems = load.load([str(path)], Selection(), never).problems
    assert problems[0].tests[0].expected[0] in "23"
    path.write_text(path.read_text() + "\n")
    with pytest.raises(RunError, match="changed"):
        problems[0]
    path.unlink()
    with pytest.raises(RunError, match=r"no such file|cannot be read"):
        problems[0]


def test_a_problem_is_shared_while_somebody_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row()))
    problems = load.load([str(path)], Selection(), never).problems
    held = problems.named("abc001_a")
    assert problems[0] is held
    lent = pickle.loads(pickle.dumps(problems))
    assert lent.ids == ()
    lent.lend(held)
    assert lent.named("abc001_a") is held


# -- memory ------------------------------------------------------------------------------------------------

N_ROWS, MB = 12, 10**6
PAIRS = [(f"{n}" * 500_000, f"{n} " * 250_000) for n in range(3)]  # 3 MB of tests a row


def pickled(pairs: list[tuple[str, str]]) -> str:
    data = pickle.dumps(json.dumps([stdin_test(given, expected) for given, expected in pairs]))
    return base64.b64encode(zlib.compress(data, 1)).decode()


def lcb_file(folder: Path) -> Path:
    rows = (row(question_id=f"q{n}", private_test_cases=pickled(PAIRS)) for n in range(N_ROWS))
    return written(folder / "lcb.jsonl", "\n".join(map(json.dumps, rows)))


def apps_file(folder: Path) -> Path:
    tests = json.dumps({"inputs": [a for a, _ in PAIRS], "outputs": [b for _, b in PAIRS]})
    rows = ({"problem_id": n, "question": "?", "input_output": tests} for n in range(N_ROWS))
    return written(folder / "apps.jsonl", "\n".join(map(json.dumps, rows)))


def contests_file(folder: Path) -> Path:
    tests = {"input": [a for a, _ in PAIRS], "output": [b for _, b in PAIRS]}
    rows = [
        {"name": f"c{n}", "description": "?", "public_tests": tests, "private_tests": {}}
        for n in range(N_ROWS)
    ]
    return written(folder / "contests.json", json.dumps(rows))


def problem_folder(folder: Path) -> Path:
    tests = [{"input": a, "expected": b, "visible": False} for a, b in PAIRS]
    for n in range(N_ROWS):
        written(
            folder / f"p{n}.json",
            json.dumps({"id": f"p{n}", "kind": "stdin", "statement": "?", "tests": tests}),
        )
    return folder


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize("make", [lcb_file, apps_file, contests_file, problem_folder])
def test_many_large_problems_cost_the_memory_of_one(make: Callable[[Path], Path], tmp_path: Path) -> None:
    """36 MB of tests: 3 MB are held at a time, and decoding one takes a few times that."""
    source = str(make(tmp_path))
    load.load([source], Selection(first=1), never)  # modules are imported before
    tracemalloc.start()
    try:
        problems = load.load([source], Selection(), never).problems
        for name in problems.ids:
            assert sum(len(test.input) for test in problems.named(name).tests) >= 1.5 * MB
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(problems) == N_ROWS
    assert peak < 18 * MB
