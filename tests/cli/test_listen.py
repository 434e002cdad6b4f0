"""`listen` writes what the browser extension posts, and refuses whatever else can reach the port."""

import contextlib
import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sdpo_solve.cli.listen import make_server, receive
from sdpo_solve.datasets import problem_json
from sdpo_solve.errors import ProblemError, UserError
from sdpo_solve.types import Limits
from tests.helpers.disks import Disk, fill

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


def test_what_does_not_fit_leaves_no_part_in_the_way(disk: Disk) -> None:
    out = disk("size=64k")
    filler = fill(out, 4096)
    long = body(tests=[{"input": "1\n" * 10_000, "output": "1\n"}])
    with pytest.raises(UserError, match=r"cannot write .*json: No space left on device"):
        receive(long, out)
    assert list(out.iterdir()) == [filler]
    filler.unlink()
    assert "1 sample" in receive(long, out)
    assert [path.name for path in out.iterdir()] == ["G.-Castle-Defense.json"]


@pytest.mark.parametrize("number", ["1e400", "-1e400", "NaN", "1e308", "-5"])
def test_a_limit_that_is_no_number_breaks_nothing(number: str, tmp_path: Path) -> None:
    for name in ("memoryLimit", "timeLimit"):
        sent = body(name=name, **{name: 12345}).replace(b"12345", number.encode())
        with contextlib.suppress(ProblemError):
            receive(sent, tmp_path)


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
        ({"Content-Length": "9" * 5000}, "/", 413),
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


def test_a_connection_that_says_nothing_keeps_no_problem_waiting(server: tuple[int, list[bytes]]) -> None:
    port, taken = server
    with socket.create_connection(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)) as half:
        half.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{")
        assert post(port, timeout_s=5) == 200
        assert taken == [b"{}"]


def post(port: int, timeout_s: float = 20) -> int:
    connection = http.client.HTTPConnection("localhost", port, timeout=timeout_s)
    connection.request("POST", "/", b"{}")
    status = connection.getresponse().status
    connection.close()
    return status


def test_a_connection_that_breaks_off_is_one_line(
    server: tuple[int, list[bytes]], capsys: pytest.CaptureFixture[str]
) -> None:
    port, _ = server
    with socket.create_connection(("127.0.0.1", port)) as broken:
        broken.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
        time.sleep(0.2)
        broken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
    time.sleep(0.2)
    assert post(port) == 200
    said = capsys.readouterr().err
    assert said.startswith("✗ a connection broke off: ConnectionResetError")
    assert said.count("\n") == 1


def test_a_fault_is_answered_and_named_and_the_next_problem_is_taken(
    capsys: pytest.CaptureFixture[str],
) -> None:
    faults: list[BaseException] = [OverflowError("too large"), ValueError("too\nlong")]

    def take(_: bytes) -> None:
        if faults:
            raise faults.pop()

    with make_server(0, take) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        assert [post(made.server_port) for _ in range(3)] == [500, 500, 200]
        made.shutdown()
        thread.join()
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition("report it: ")[2] for line in lines] == [
        "ValueError: too long",
        "OverflowError: too large",
    ]


def test_a_reader_of_the_output_that_is_gone_ends_the_server() -> None:
    def take(_: bytes) -> None:
        raise SystemExit(1)  # as rich does

    with make_server(0, take) as made:
        sender = threading.Thread(target=_post_quietly, args=(made.server_port,))
        sender.start()
        with pytest.raises(SystemExit):
            made.serve_forever(poll_interval=0.01)
        sender.join()


def _post_quietly(port: int) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException):
        post(port)


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
