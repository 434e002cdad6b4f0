"""Docker engines with faults: a second engine beside the machine's own, and a proxy in front of a socket."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from sdpo_solve.sandboxes.images import image_tag

SOCKET = "/var/run/docker.sock"


@dataclass(frozen=True)
class Engine:
    """A second engine: its process, its address for DOCKER_HOST, and its data."""

    process: subprocess.Popen[bytes]
    host: str
    data: Path


@contextmanager
def second_engine(*options: str) -> Iterator[Engine]:
    """An engine of its own that holds the image for Python; its data lie in memory. Root only."""
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        pytest.skip("needs root and dockerd for an engine of its own")
    folder = Path(tempfile.mkdtemp(prefix="sdpo-solve-engine-"))
    folder.chmod(0o711)  # users of remapped ids pass through
    data = folder / "data"
    data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=900m", "none", str(data)], check=True)
    host = f"unix://{folder}/docker.sock"
    # In a network namespace of its own: an engine without a bridge removes the one that another engine uses.
    command = ["unshare", "--net", "dockerd", "-H", host, "--data-root", str(data), *options]
    command += ["--exec-root", str(folder / "exec"), "--pidfile", str(folder / "pid")]
    command += ["--bridge", "none", "--iptables=false", "--ip6tables=false"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"TMPDIR": str(folder)})
    try:
        deadline = time.monotonic() + 60
        while subprocess.run(["docker", "-H", host, "info"], capture_output=True, check=False).returncode:
            assert time.monotonic() < deadline, (folder / "log").read_text()[-2000:]
            time.sleep(0.3)
        with subprocess.Popen(["docker", "save", image_tag("python")], stdout=subprocess.PIPE) as save:
            load = ["docker", "-H", host, "load"]
            subprocess.run(load, stdin=save.stdout, check=True, capture_output=True)
        yield Engine(process, host, data)
    finally:
        process.terminate()
        process.wait(60)
        subprocess.run(["umount", "-l", str(data)], check=False)
        shutil.rmtree(folder, ignore_errors=True)


Rewrite = Callable[[bytes], bytes | None]
"""What to answer instead of the engine, given the first bytes of a request; None: ask the engine."""


@contextmanager
def proxy(rewrite: Rewrite, folder: Path, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """The address of a proxy in front of the machine's engine: a socket, or TLS on a port of the loopback."""
    listener = socket.create_server(("127.0.0.1", 0)) if tls else socket.socket(socket.AF_UNIX)
    if not tls:
        listener.bind(str(folder / "proxy.sock"))
        listener.listen()
    threading.Thread(target=_accept, args=(listener, rewrite, tls), daemon=True).start()
    try:
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}" if tls else f"unix://{folder}/proxy.sock"
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _accept(listener: socket.socket, rewrite: Rewrite, tls: ssl.SSLContext | None) -> None:
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_serve, args=(client, rewrite, tls), daemon=True).start()


def _serve(client: socket.socket, rewrite: Rewrite, tls: ssl.SSLContext | None) -> None:
    with suppress(OSError), socket.socket(socket.AF_UNIX) as engine:
        client = tls.wrap_socket(client, server_side=True) if tls else client
        with client:
            engine.connect(SOCKET)
            threading.Thread(target=_pump, args=(engine, client), daemon=True).start()
            while data := client.recv(1 << 16):
                answer = rewrite(data)
                if answer is not None:
                    client.sendall(answer)
                else:
                    engine.sendall(data)
            engine.shutdown(socket.SHUT_WR)
            time.sleep(0.1)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError, ValueError):
        while data := source.recv(1 << 16):
            target.sendall(data)


def refusal(message: str, status: str = "400 Bad Request") -> bytes:
    """An engine's answer that refuses a request."""
    return answer({"message": message}, status)


def answer(facts: object, status: str = "200 OK") -> bytes:
    """An engine's answer."""
    body = json.dumps(facts).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@contextmanager
def ssh_server(folder: Path) -> Iterator[str]:
    """The address of this machine behind a server of its own, and `ssh` in `folder`, which knows its key."""
    if os.geteuid() != 0 or shutil.which("sshd", path="/usr/sbin") is None:
        pytest.skip("needs root and openssh-server for a server of its own")
    for key in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)]
        subprocess.run(command, check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    Path("/run/sshd").mkdir(exist_ok=True)  # where the server gives up its rights
    options = ["StrictModes=no", "UsePAM=no", f"AuthorizedKeysFile={folder}/user.pub"]
    settings = [part for option in options for part in ("-o", option)]
    server = ["/usr/sbin/sshd", "-D", "-f", "/dev/null", "-h", str(folder / "host"), "-p", str(port)]
    process = subprocess.Popen(
        [*server, "-o", "ListenAddress=127.0.0.1", *settings], stderr=subprocess.DEVNULL
    )
    known = f"-i {folder}/user -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
    (folder / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} {known} "$@"\n')
    (folder / "ssh").chmod(0o755)
    try:
        deadline = time.monotonic() + 20
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert time.monotonic() < deadline, "the server does not start"
            time.sleep(0.1)
        yield f"ssh://root@127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)
