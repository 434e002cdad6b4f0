"""Where the Docker engine is, a client of it, and what to do where none answers.

The engine is the one that DOCKER_HOST names, else the Docker command's current context. An engine behind
`ssh://` is reached through a socket that the `ssh` command forwards, with the user's own keys and settings.
Makes no box: `docker.py` does.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sdpo_solve.errors import PrerequisiteError, one_line

if TYPE_CHECKING:
    from docker.api import APIClient
    from docker.errors import DockerException

_SOCKET = "/var/run/docker.sock"
_SYSTEM_PROGRAMS = ("/usr/sbin", "/usr/local/sbin", "/sbin")
_SSH_S = 20
_SSH_OPTIONS = ("BatchMode=yes", "ExitOnForwardFailure=yes", f"ConnectTimeout={_SSH_S // 2}")


def engine_errors() -> tuple[type[Exception], ...]:
    """What a call of the engine may raise; the exceptions of `requests` are OSErrors."""
    from docker.errors import DockerException

    return DockerException, OSError


def explanation(exc: DockerException | OSError) -> str:
    """What an engine says of a call that failed, on one line of at most 300 characters."""
    text = " ".join(str(getattr(exc, "explanation", None) or "").split())
    return text[:300] or one_line(exc)


@contextlib.contextmanager
def calling_engine() -> Iterator[None]:
    """Around calls of an engine that answered `connect`.

    Raises PrerequisiteError for what `engine_errors` holds.
    """
    from docker.errors import DockerException

    try:
        yield
    except DockerException as exc:
        raise PrerequisiteError(
            f"the Docker engine answers with an error: {explanation(exc).replace(';', ',')}; "
            "see that engine's log, or use --sandbox bubblewrap"
        ) from None
    except OSError as exc:
        cause = _root_cause(exc)
        raise PrerequisiteError(f"the Docker engine stopped answering ({cause}); {engine_remedy()}") from None


def is_root() -> bool:
    """Whether this process is root's; false where the system knows no such user."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


def connect() -> APIClient:
    """A client of the engine that the environment names. Raises PrerequisiteError when none answers."""
    import docker

    if sys.platform == "win32":
        raise PrerequisiteError(f"programs run on Linux and macOS only; {engine_remedy()}")
    if not _context_is_there():
        raise PrerequisiteError("the current Docker context is not there; run: docker context ls")
    client = None
    try:
        host = engine_host()
        if host.startswith("ssh://"):
            client = _client_by_ssh(host)
        else:
            _check_socket(host)
            client = docker.from_env(
                timeout=120, max_pool_size=64
            ).api  # follows contexts, as the command does
        # A socket has no proxy, and requests would read the whole environment at every call: from several
        # threads, where one that changes it meanwhile makes that fail with a KeyError.
        client.trust_env = not client.base_url.startswith("http+docker://")
        client.ping()
        return client
    except engine_errors() as exc:
        cause = _root_cause(exc)
    if client is not None:
        client.close()
    raise PrerequisiteError(f"no Docker engine answers ({cause}); {engine_remedy()}")


def _check_socket(host: str) -> None:
    """Raises OSError where nobody listens; docker-py would leave the socket of a failed connection open."""
    if host.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(host.removeprefix("unix://"))


def _client_by_ssh(host: str) -> APIClient:
    """A client through a socket that `ssh` forwards until it is closed. Raises what `engine_errors` holds."""
    from docker.api import APIClient

    if shutil.which("ssh") is None:
        raise ConnectionError("the command ssh is not installed")
    where = urlsplit(host)
    user = f"{where.username}@" if where.username else ""
    port = ("-p", str(where.port)) if where.port else ()
    options = [part for option in _SSH_OPTIONS for part in ("-o", option)]
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="sdpo-solve-ssh-"))
        near, far = f"{folder}/docker.sock", where.path.rstrip("/") or _SOCKET
        # `cat` ends with our end of its input, and the forwarding with it, however this process ends.
        command = ["ssh", "-T", *options, *port, "-L", f"{near}:{far}", f"{user}{where.hostname}", "cat"]
        pipe, null = subprocess.PIPE, subprocess.DEVNULL
        ssh = stack.enter_context(subprocess.Popen(command, stdin=pipe, stdout=null, stderr=pipe))
        stack.callback(ssh.kill)
        deadline = time.monotonic() + _SSH_S
        while not os.path.exists(near):
            if ssh.poll() is not None or time.monotonic() > deadline:
                ssh.kill()
                lines = ssh.communicate()[1].decode("utf-8", "replace").strip().splitlines()
                raise ConnectionError(lines[-1] if lines else f"ssh does not reach {where.hostname}")
            time.sleep(0.05)
        client = APIClient(base_url=f"unix://{near}", timeout=120, max_pool_size=64)
        stack.callback(client.close)
        client.close = stack.pop_all().close
        return client


def engine_host() -> str:
    """Where the engine is: from DOCKER_HOST, else from the Docker command's current context."""
    from docker.context import ContextAPI

    host = os.environ.get("DOCKER_HOST")
    with contextlib.suppress(Exception):  # docker-py raises that one for a file it cannot read
        host = host or ContextAPI.kwargs_from_context().get("base_url")
    return host or f"unix://{_SOCKET}"


def _context_is_there() -> bool:
    """Whether the context that the Docker command would use exists; docker-py would take another engine."""
    from docker.context import ContextAPI

    if os.environ.get("DOCKER_HOST"):
        return True
    with contextlib.suppress(Exception):  # docker-py raises that one for a file it cannot read
        return ContextAPI.get_context(os.environ.get("DOCKER_CONTEXT")) is not None
    return True


def engine_is_elsewhere() -> bool:
    """Whether environment or context name another engine than this machine's usual one."""
    return engine_host() != f"unix://{_SOCKET}"


def engine_remedy() -> str:
    """What to do where no engine answers."""
    if sys.platform == "win32":
        return "use it inside WSL 2: https://learn.microsoft.com/windows/wsl/install"
    if os.environ.get("DOCKER_HOST"):
        return f"DOCKER_HOST is {engine_host()}: start that engine, or unset it"
    if engine_is_elsewhere():
        return f"the Docker context is {engine_host()}: start that engine, or: docker context use default"
    own = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    for place in (f"{own}/docker.sock", f"{own}/podman/podman.sock"):
        if Path(place).is_socket():
            return f"a rootless engine is here; run: export DOCKER_HOST=unix://{place}"
    if not is_root() and Path(_SOCKET).exists() and not os.access(_SOCKET, os.W_OK):
        return "let this user reach it: sudo usermod -aG docker $USER, then log in again"
    if _dockerd() is None:
        if shutil.which("podman") and not is_root():
            place = f"unix://{own}/podman/podman.sock"
            return f"Podman is here, run: systemctl --user start podman.socket && export DOCKER_HOST={place}"
        if sys.platform == "darwin":
            return "start Docker Desktop, or install it: https://docs.docker.com/desktop"
        return (
            "run: sdpo-solve setup (as root, on Debian or Ubuntu); "
            "elsewhere: https://docs.docker.com/engine/install"
        )
    return "start it: sudo systemctl start docker (without systemd, as root: sdpo-solve setup)"


def _dockerd() -> str | None:
    """The daemon's program, also where it is not on the path of a user without root's rights."""
    path = os.environ.get("PATH", os.defpath)
    return shutil.which("dockerd", path=os.pathsep.join((path, *_SYSTEM_PROGRAMS)))


def _root_cause(exc: BaseException) -> str:
    """What the operating system reports, below all that libraries wrapped around it; else their message."""
    from requests.exceptions import RequestException

    text = one_line(exc)
    below: BaseException | None = exc
    while below is not None:
        if isinstance(below, OSError) and not isinstance(below, RequestException):
            text = below.strerror or one_line(below)
        below = below.__cause__ or below.__context__
    return text.replace(";", ",")
