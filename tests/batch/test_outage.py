"""Docker's engine goes away under a batch and comes back: the batch waits, and no run fails."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.helpers.batches import COMMAND, make_problems, until

pytestmark = [pytest.mark.docker, pytest.mark.slow]

WAIT_S = 240
ENGINE = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")


class Wire:
    """A socket that leads to Docker's engine until it is cut."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ends: list[socket.socket] = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        for end in [self.listener, *self.ends]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self.path.unlink()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            far.connect(ENGINE)
            self.ends += [near, far]
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


def test_a_batch_waits_for_an_engine_that_is_gone(tmp_path: Path) -> None:
    if not Path(ENGINE).exists():
        pytest.skip("the engine is not behind a socket of this machine")
    make_problems(tmp_path / "problems", 2)
    reply = json.dumps({"text": "```python\nprint('wrong')\n```"}) + "\n"
    (tmp_path / "replies").write_text(reply * 24)
    wire = Wire(tmp_path / "engine.sock")
    said = tmp_path / "said"
    given = ["batch", "problems", "--engine", "scripted", "--replies", "replies", "--sandbox", "docker"]
    given += ["--methods", "best-of-k", "--attempts", "24", "--group-size", "3", "--no-measure"]
    with said.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *given, "--out", "runs"],
            cwd=tmp_path,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/engine.sock"},
        )
    journals = [tmp_path / f"runs/say-{n}/best-of-k/seed-0/journal.jsonl" for n in (0, 1)]
    until(process, lambda: any(path.exists() and '"group"' in path.read_text() for path in journals))
    wire.cut()
    until(process, lambda: "the batch waits for it" in said.read_text())
    wire = Wire(tmp_path / "engine.sock")
    try:
        assert process.wait(WAIT_S) == 0, said.read_text()
    finally:
        wire.cut()
    assert "the sandbox is back, the batch goes on" in said.read_text()
    for path in journals:
        events = [json.loads(line)["event"] for line in path.read_text().splitlines()]
        assert events.count("attempt") == 24
        assert "run_failed" not in events
