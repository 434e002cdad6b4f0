"""LiveCodeBench rows: tests decoded without executing anything, preamble, entry point, faults with their place."""

import base64
import hashlib
import http.server
import json
import pickle
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from sdpo_solve.datasets import livecodebench, selection
from sdpo_solve.datasets._lcb_hub import files_of
from sdpo_solve.datasets.selection import Selected, Selection
from sdpo_solve.errors import ConfigError, PrerequisiteError, ProblemError
from sdpo_solve.types import Checker, Kind
from tests.helpers.rows import FUNCTIONAL, call_test, never, packed, row


def load_file(path: Path) -> list[Any]:
    return [candidate.make() for candidate in livecodebench.PLUGIN.candidates(str(path), never)]


def select(source: str, wanted: Selection | None = None) -> Selected:
    return selection.select(livecodebench.PLUGIN.candidates(source, never), wanted or Selection(), source)


def fetched(source: str, endpoint: str, cache_dir: Path) -> list[str]:
    return [row.data["question_id"] for row in livecodebench.rows(source, endpoint, cache_dir)]


def load(tmp_path: Path, *rows: object) -> list[Any]:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(data) for data in rows) + "\n")
    return load_file(path)


def test_a_stdin_row(tmp_path: Path) -> None:
    (problem,) = load(tmp_path, row())
    assert (problem.id, problem.kind, problem.statement) == ("abc001_a", Kind.STDIN, "Add.")
    assert [(t.input, t.expected, t.visible) for t in problem.tests] == [
        ("1 2\n", "3\n", True),
        ("5 5", "10", False),
        ("0 0", "0", False),
    ]
    assert problem.checker == Checker("livecodebench")
    assert problem.limits.time_s == 6.0
    assert problem.starter_code is problem.entry_point is None
    assert problem.meta["difficulty"] == "easy"


def test_a_functional_row_has_one_argument_a_line(tmp_path: Path) -> None:
    (problem,) = load(tmp_path, row(**FUNCTIONAL))
    assert (problem.kind, problem.entry_point) == (Kind.FUNCTION, "Solution.pick")
    assert [(t.input, t.expected, t.visible) for t in problem.tests] == [
        ([3, [1, 2]], 2, True),
        (["x", None], [1.5, True], False),
    ]
    assert problem.starter_code.endswith("-> int:")


def test_the_preamble_offers_what_livecodebench_offers() -> None:
    space: dict[str, Any] = {}
    # sys.setrecursionlimit is left out of this process: it would stay.
    exec(livecodebench.PREAMBLE.replace("sys.setrecursionlimit", "deepest = int"), space)
    assert space["deepest"] == 50_000
    for name in ["List", "Counter", "heappush", "bisect_left", "gcd", "cache", "accumulate", "inf", "deque"]:
        assert name in space
    assert space["pow"] is pow  # not math's, not operator's
    assert space["open"] is open
    assert space["math"].sqrt(4) == 2


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_the_one_text_of_a_pickle_is_read_in_every_protocol(protocol: int) -> None:
    for text in ["", "[1]", "é\n\\u0041𝄞", "x" * 70_000]:
        assert livecodebench.pickled_text(pickle.dumps(text, protocol)) == text


class Evil:
    """Runs a command when unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('executed')",))


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(Evil()),
        pickle.dumps(OrderedDict()),
        pickle.dumps(["[]"]),
        pickle.dumps(b"[]"),
        pickle.dumps(7),
        pickle.dumps(("[]", Evil())),
        pickle.dumps("[]")[:-1] + pickle.dumps("[]"),
        b"cos\nsystem\n(S'true'\ntR.",
        b"S'[]'\n.",
        b"\x80\x04.",
        b"",
        b"garbage",
        pickle.dumps("x" * 100)[:50],
    ],
)
def test_a_pickle_that_holds_anything_else_is_refused(data: bytes, tmp_path: Path) -> None:
    text = base64.b64encode(zlib.compress(data)).decode()
    with pytest.raises(ProblemError, match=r"rows\.jsonl: line 1: private_test_cases cannot be decoded"):
        load(tmp_path, row(private_test_cases=text))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"private_test_cases": "%%%"}, "private_test_cases cannot be decoded"),
        (
            {"private_test_cases": base64.b64encode(b"no zlib").decode()},
            "private_test_cases cannot be decoded",
        ),
        ({"private_test_cases": packed([])[:12]}, "private_test_cases cannot be decoded"),
        ({"private_test_cases": packed({})}, "private_test_cases is not a list"),
        ({"private_test_cases": packed([{"input": "1"}])}, r"private_test_cases\[0\] is not a test"),
        ({"public_test_cases": "[", "private_test_cases": "[]"}, "public_test_cases is not JSON"),
        ({"public_test_cases": "[]", "private_test_cases": "[]"}, "no tests"),
        ({"public_test_cases": json.dumps([call_test("1", "2")])}, "functional, stdin"),
        ({**FUNCTIONAL, "metadata": "{}"}, "metadata names no function"),
        (
            {**FUNCTIONAL, "public_test_cases": json.dumps([call_test("1\noops", "2")])},
            "input line 2 is not JSON",
        ),
        ({**FUNCTIONAL, "public_test_cases": json.dumps([call_test("1", "oops")])}, "output is not JSON"),
        ({"question_content": "\ud800"}, "question_content holds a lone surrogate"),
        ({"question_id": "//"}, "the id"),
        ({"platform": 3}, "platform is not a text"),
    ],
)
def test_a_bad_row_names_its_line_and_field(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ProblemError, match=rf"rows\.jsonl: line 2: .*{message}") as caught:
        load(tmp_path, row(), row(**changes))
    assert "\n" not in str(caught.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ProblemError, match="No such file"):
        load_file(tmp_path / "none.jsonl")
    with pytest.raises(ProblemError, match="line 1: question_title is missing"):
        load(tmp_path, {"id": "a problem file"})
    with pytest.raises(ProblemError, match="line 1: not a JSON object"):
        load(tmp_path, [1])


def test_a_json_file_holds_one_row_over_several_lines_or_a_list(tmp_path: Path) -> None:
    path = tmp_path / "row.json"
    path.write_text(json.dumps(row(), indent=1))
    assert [p.id for p in load_file(path)] == ["abc001_a"]
    path.write_text(json.dumps([row(), row(question_id="b")], indent=1))
    assert [p.id for p in load_file(path)] == ["abc001_a", "b"]


def test_ids_become_directory_names(tmp_path: Path) -> None:
    assert [p.id for p in load(tmp_path, row(question_id="a/../b c"))] == ["a-..-b-c"]


# -- selections and releases --------------------------------------------------------------------------


def lines(*rows: dict[str, Any]) -> bytes:
    return "".join(json.dumps(data) + "\n" for data in rows).encode()


def test_a_selection_decodes_only_what_it_takes(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    spoilt = row(question_id="abc2", private_test_cases="%%%", difficulty="hard")
    path.write_bytes(lines(row(), row(question_id="abc337_e"), spoilt))
    selected = select(str(path), Selection(difficulty=("easy",)))
    assert [problem.id for problem in selected.problems] == ["abc001_a"]
    assert selected.left_out == {"abc337_e": "interactive"}
    with pytest.raises(ProblemError, match="line 3: private_test_cases"):
        select(str(path), Selection(ids=("abc2",)))


def test_rows_are_known_bad_by_title_too_and_graded_when_alone(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    bad = row(question_id="3194", question_title="find-words-containing-character")
    path.write_bytes(lines(row(), bad))
    assert list(select(str(path)).left_out) == ["3194"]
    path.write_bytes(lines(bad))
    assert [problem.id for problem in select(str(path)).problems] == ["3194"]


def test_a_row_whose_statement_grants_an_error_gets_that_tolerance(tmp_path: Path) -> None:
    (problem,) = load(tmp_path, row(**FUNCTIONAL, question_id="3763"))
    assert problem.checker == Checker("livecodebench", 1e-5)


def test_a_date_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines(row(contest_date="soon")))
    with pytest.raises(ProblemError, match="line 1: contest_date 'soon'"):
        select(str(path))


def test_parquet_holds_the_same_problems(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="the optional package pyarrow is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [row(), row(**FUNCTIONAL, question_id="f")]
    table = pyarrow.Table.from_pylist([{**data, "extra": 1} for data in rows])
    parquet.write_table(table, tmp_path / "rows.parquet")
    expected = load(tmp_path, *rows)
    assert load_file(tmp_path / "rows.parquet") == expected
    assert list(select(str(tmp_path / "rows.parquet")).problems) == expected
    (tmp_path / "torn.parquet").write_bytes((tmp_path / "rows.parquet").read_bytes()[:-20])
    with pytest.raises(ProblemError, match="not a whole parquet file"):
        load_file(tmp_path / "torn.parquet")
    with pytest.raises(ProblemError, match="cannot be read"):
        load_file(tmp_path / "none.parquet")


@pytest.mark.parametrize(
    ("release", "names"),
    [
        ("v1", ["test.jsonl"]),
        ("v6", ["test6.jsonl"]),
        ("v4_v6", ["test4.jsonl", "test5.jsonl", "test6.jsonl"]),
        ("release_v2", ["test.jsonl", "test2.jsonl"]),
        ("release_latest", ["test.jsonl", *(f"test{n}.jsonl" for n in range(2, 7))]),
    ],
)
def test_releases_are_named_as_the_data_set_names_them(release: str, names: list[str]) -> None:
    assert files_of(release) == names


@pytest.mark.parametrize("release", ["v0", "v7", "v5_v4", "release_v1_v2", "release_v9"])
def test_unknown_releases_are_refused(release: str) -> None:
    with pytest.raises(ConfigError, match="known: v1 to v6"):
        select(release)


class Hub(http.server.BaseHTTPRequestHandler):
    """The two answers of a hub that a download needs; counts the bodies it sends."""

    bodies: ClassVar[list[str]] = []
    files: ClassVar[dict[str, bytes]] = {}

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        prefix = "/datasets/livecodebench/code_generation_lite/resolve/main/"
        body = self.files.get(self.path.removeprefix(prefix)) if self.path.startswith(prefix) else None
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.bodies.append(self.path.rsplit("/", 1)[1])
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    """The address of a hub on this machine that holds parts 4 and 6."""
    Hub.bodies = []
    Hub.files = {"test4.jsonl": lines(row(question_id="four")), "test6.jsonl": lines(row(question_id="six"))}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_release_is_fetched_once_and_kept(hub: str, tmp_path: Path) -> None:
    for _ in range(2):
        assert fetched("v6", hub, tmp_path) == ["six"]
    assert Hub.bodies == ["test6.jsonl"]


def test_a_kept_release_needs_no_network(hub: str, tmp_path: Path) -> None:
    fetched("v6", hub, tmp_path)
    assert fetched("v6", "http://127.0.0.1:1", tmp_path) == ["six"]


def test_a_file_that_the_hub_does_not_hold(hub: str, tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match=r"cannot fetch test5\.jsonl .*lcb:FILE\.jsonl"):
        fetched("v4_v6", hub, tmp_path)
