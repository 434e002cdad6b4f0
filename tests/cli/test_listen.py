"""`listen` writes what the browser extension posts, and refuses whatever else can reach the port."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sdpo_solve.cli.listen import make_server, receive
from sdpo_solve.datasets import problem_json
from sdpo_solve.errors import ProblemError
from sdpo_solve.types import Limits

SENT: dict[str, Any] = {
    "name": "G. Castle Defense",
    "group": "Codeforces - Educational Round 40",
    "url": "https://codeforces.com/problemset/problem/954/G",
    "interactive": False,
    "memoryLimit": 256,
    "timeLimit": 1500,
    "tests": [{"input": "5 0 6\n", "output": "5\n"}, {"input": "4 2 0\n", "output": "6\n"}],
    "input": {"type": "stdin"},
    "output": {"type": "stdout"},
    "languages": {"java": {"mainClass": "Main", "taskClass": "GCastleDefense"}},
    "batch": {"id": "1", "size": 1},
}


def body(**changes: Any) -> bytes:
    return json.dumps({**SENT, **changes}).encode()


def test_a_problem_is_a_file_with_samples_limits_and_a_place_for_the_statement(tmp_path: Path) -> None:
    line = receive(body(), tmp_path)
    path = tmp_path / "G.-Castle-Defense.json"
    assert line.startswith(f"{path}: 2 samples")
    assert line.endswith(f"sdpo-solve run {path}")
    problem = problem_json.load(path)
    assert (problem.limits, [test.visible for test in problem.tests]) == (Limits(1.5, 256), [True, True])
    assert problem.statement.startswith("TODO")
    assert problem.meta["url"] == SENT["url"]
    path.write_text("mine")
    assert "there already" in receive(body(), tmp_path)
    assert path.read_text() == "mine"


def test_the_problems_of_a_contest_go_into_a_folder_of_it(tmp_path: Path) -> None:
    for name in ("A", "B"):
        receive(body(name=name, batch={"id": "7", "size": 2}), tmp_path)
    assert {path.name for path in (tmp_path / "Codeforces---Educational-Round-40").iterdir()} == {
        "A.json",
        "B.json",
    }


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/abs", "..", "a\0b", "~root", ".hidden", "x" * 5000, "\x1b[2J"]
)
def test_no_name_leads_out_of_the_folder(name: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for changes in ({"name": name}, {"group": name, "batch": {"id": "1", "size": 2}}):
        with contextlib.suppress(ProblemError):  # no letter is left of it
            receive(body(**changes), out)
    assert all(
        path.is_relative_to(out) and not path.name.startswith(".") for path in tmp_path.rglob("*.json")
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"interactive": True}, "interactive"), ({"output": {"type": "file", "fileName": "/etc/x"}}, "a file")],
)
def test_what_cannot_be_judged_is_left_out_by_name(
    changes: dict[str, Any], says: str, tmp_path: Path
) -> None:
    line = receive(body(**changes), tmp_path)
    assert SENT["name"] in line
    assert says in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "data",
    [
        b"{", b"[]", b"7", b"\xff", b"{}", body(name=7), body(name=""), body(name="//", url=""), body(tests="x"),
        body(tests=[{}]), body(tests=[]), body(tests=[{"input": 1, "output": "2"}]), body(timeLimit="soon"), body(input="stdin"),
    ],
)  # fmt: skip
def test_what_is_no_problem_is_refused(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(ProblemError):
        receive(data, tmp_path)
    assert not list(tmp_path.iterdir())


# -- over the wire -----------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[tuple[int, list[bytes]]]:
    """A port, and the bodies that came through."""
    taken: list[bytes] = []
    with make_server(0, taken.append) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made.server_port, taken
        made.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("headers", "path", "status"),
    [
        ({}, "/", 200),
        ({"Origin": "chrome-extension://cjnmckjndlpiamhfimnnjmnckgghkjbl"}, "/", 200),
        ({"Origin": "moz-extension://0f5d"}, "/", 200),
        ({"Origin": "https://evil.example"}, "/", 403),
        ({"Origin": "null"}, "/", 403),
        ({"Host": "evil.example"}, "/", 403),
        ({"Host": "evil.example:27121"}, "/", 403),
        ({"Host": "localhost.evil.example:1"}, "/", 403),
        ({}, "/../x", 404),
        ({"Content-Length": "99999999999"}, "/", 413),
        ({"Content-Length": "-5"}, "/", 411),
        ({"Content-Length": "²"}, "/", 411),
    ],
)
def test_only_the_extension_on_this_machine_gets_through(
    headers: dict[str, str], path: str, status: int, server: tuple[int, list[bytes]]
) -> None:
    port, taken = server
    connection = http.client.HTTPConnection("localhost", port, timeout=10)
    connection.putrequest("POST", path, skip_host="Host" in headers)
    for name, value in {"Content-Length": "2", **headers}.items():
        connection.putheader(name, value.encode())
    connection.endheaders(b"{}")
    assert connection.getresponse().status == status
    assert taken == [b"{}"] * (status == 200)
    connection.close()


def test_the_command_takes_a_post_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "from sdpo_solve.cli.main import main; main()",
        "listen",
        "--port",
        "0",
        "--out",
        str(tmp_path),
    ]
    with make_server(0, lambda _: None) as free:
        command[5] = str(free.server_port)
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    ) as process:
        assert process.stdout is not None
        assert "listening" in process.stdout.readline()
        connection = http.client.HTTPConnection("localhost", int(command[5]), timeout=10)
        connection.request("POST", "/", body(name="A\x1b[31m"), {"Content-Type": "application/json"})
        assert connection.getresponse().status == 200
        connection.close()
        line = process.stdout.readline()
        assert "2 samples" in line
        assert "\x1b" not in line
        connection.request("POST", "/", b"nonsense", {"Content-Type": "application/json"})
        assert connection.getresponse().status == 400
        connection.close()
        assert "not JSON" in process.stdout.readline(), "the extension shows no answer"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, "the way that it says it ends"
    assert "Traceback" not in errors
    assert len(list(tmp_path.glob("*.json"))) == 1
