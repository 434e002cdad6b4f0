"""What setup makes where nothing is there: an engine started, a base image without a registry.

The programs that it calls are stand-ins on PATH, in a mount namespace where no engine answers; the code that
calls them, its waiting and its cleaning up are the real ones, and so is the engine that takes the images.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdpo_solve.errors import PrerequisiteError
from sdpo_solve.sandboxes import images
from sdpo_solve.sandboxes import install as setup

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def program(folder: Path, name: str, *lines: str) -> None:
    """A shell program, which first writes down how it was called."""
    folder.mkdir(exist_ok=True)
    text = "\n".join(["#!/bin/sh", f'echo "{name} $*" >> {folder}/called', *lines, ""])
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def called(folder: Path) -> list[str]:
    return (folder / "called").read_text().splitlines()


# -- the engine ----------------------------------------------------------------------------------------------

# Answers as an engine does that was asked whether it is there.
ENGINE = """
import http.server, os, socketserver
class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        said = b'{"ApiVersion": "1.41", "Version": "9.8.7"}' if self.path.endswith("/version") else b"OK"
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)
    def address_string(self): return "here"
    def log_message(self, *_): pass
socketserver.UnixStreamServer("/var/run/docker.sock", Answers).serve_forever()
"""
# /run and the log's folder are empty and vanish with the namespaces, as every process does.
ALONE = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-ec"]
EMPTY = "mount -t tmpfs none /run; mount -t tmpfs none /var/log; "
ENSURE = """
from sdpo_solve.sandboxes import install as setup
from sdpo_solve.errors import PrerequisiteError
try:
    setup.ensure_docker_engine(print)
except PrerequisiteError as exc:
    print("error:", exc)
"""


def ensure_engine(programs: Path, before: str = "") -> list[str]:
    """What `ensure_docker_engine` says on a machine that has only these programs, and what they need."""
    (programs / "ensure.py").write_text(ENSURE)
    environment = {key: value for key, value in os.environ.items() if key != "DOCKER_HOST"}
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("unshare is not installed")
    done = subprocess.run(
        [unshare, *ALONE, f"{EMPTY}{before}exec {sys.executable} {programs}/ensure.py"],
        env={**environment, "PATH": f"{programs}:{tools(programs.parent, 'cp', 'mkdir', 'mount')}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if "Operation not permitted" in done.stderr:
        pytest.skip("namespaces may not be made here")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def tools(folder: Path, *names: str) -> Path:
    """A folder for PATH with the shell and these programs of the machine."""
    place = folder / "tools"
    place.mkdir()
    for name in ("sh", *names):
        (place / name).symlink_to(shutil.which(name) or name)
    return place


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    folder = tmp_path / "programs"
    folder.mkdir()
    (folder / "engine.py").write_text(ENGINE)
    program(folder, "apt-get", "exit 1")
    return folder


def starts(folder: Path) -> str:
    return f"exec {sys.executable} {folder}/engine.py"


@root
def test_an_engine_that_is_installed_is_started_in_the_background(programs: Path) -> None:
    program(programs, "dockerd", starts(programs))
    assert ensure_engine(programs) == [
        "Starting the Docker engine in the background: dockerd (log in /var/log/sdpo-solve-dockerd.log)",
        "The Docker engine answers (version 9.8.7).",
    ]
    assert called(programs) == ["dockerd "]


@root
def test_an_engine_that_is_missing_is_installed_and_started(programs: Path) -> None:
    program(programs, "later", starts(programs))
    install = f"if [ $1 = install ]; then cp {programs}/later {programs}/dockerd; fi"
    program(programs, "apt-get", install)
    assert ensure_engine(programs)[::2] == [
        "Installing the Docker engine: apt-get install docker.io iptables",
        "The Docker engine answers (version 9.8.7).",
    ]
    assert called(programs) == [
        "apt-get update",
        "apt-get install -y --no-install-recommends docker.io iptables",
        "later ",
    ]


@root
def test_systemd_starts_the_engine_where_it_runs(programs: Path) -> None:
    program(programs, "dockerd", "exit 1")
    program(programs, "systemctl", f"{sys.executable} {programs}/engine.py </dev/null >/dev/null 2>&1 &")
    assert ensure_engine(programs, "mkdir -p /run/systemd/system; ") == [
        "Starting the Docker engine: systemctl start docker",
        "The Docker engine answers (version 9.8.7).",
    ]
    assert called(programs) == ["systemctl start docker"]


@root
def test_an_engine_that_ends_at_once_is_not_waited_for(programs: Path) -> None:
    program(programs, "dockerd", "echo no such thing >&2; exit 1")
    assert ensure_engine(programs)[1:] == [
        "error: the Docker engine does not start (no such thing); see /var/log/sdpo-solve-dockerd.log"
    ]


@root
def test_a_package_that_cannot_be_installed_is_quoted(programs: Path) -> None:
    program(programs, "apt-get", "echo no network >&2; exit 100")
    assert ensure_engine(programs)[1:] == ["error: `apt-get update` failed with exit code 100: no network"]


# -- a base without a registry -------------------------------------------------------------------------------

BASE = "localhost/sdpo-solve-tiny-base:debian-trixie"


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A language whose image needs no program, and whose base no registry has; gives the folder for programs."""
    folder = tmp_path / "sandbox_images" / "tiny"
    folder.mkdir(parents=True)
    (folder / "Dockerfile").write_text(
        "ARG BASE=nowhere.invalid/base:1\nFROM ${BASE}\nCOPY debian-packages /built\n"
    )
    (folder / "debian-packages").write_text("python3\ng++\n")
    monkeypatch.setattr(images, "_PACKAGE", tmp_path / "package")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    yield programs
    client = setup.connect()
    for name in (images.image_tag("tiny"), BASE):
        if setup.image_exists(client, name):
            client.remove_image(name, force=True)
    client.close()


def there(name: str) -> bool:
    client = setup.connect()
    try:
        return setup.image_exists(client, name)
    finally:
        client.close()


def nothing_is_left(programs: Path) -> bool:
    images_left = [name for name in (BASE, images.image_tag("tiny")) if there(name)]
    return not images_left and not list((programs.parent / "temporary").iterdir())


PACK = (  # the archive is the last argument but one
    "while [ $# -gt 2 ]; do shift; done",
    "mkdir -p $TMPDIR/root/etc; echo hello > $TMPDIR/root/etc/motd; tar -C $TMPDIR/root -cf $1 .",
)


@root
@pytest.mark.docker
def test_where_no_registry_answers_a_base_is_made_and_the_image_on_it(tiny: Path) -> None:
    program(tiny, "mmdebstrap", *PACK)
    said: list[str] = []
    name = setup.ensure_image("tiny", said.append)
    mirror = setup._debian_archive()
    assert said == [
        "No registry answers for the base image; making a Debian base with mmdebstrap.",
        f"Running mmdebstrap trixie from {mirror} (half a minute).",
        f"Building the sandbox image {name} on {BASE}.",
        f"Built {name}.",
    ]
    (line,) = called(tiny)
    assert "--variant=essential --include=python3,g++ trixie " in line
    assert line.endswith(f" {mirror}")
    listing = subprocess.run(["docker", "save", name], capture_output=True, check=True).stdout
    assert b"hello\n" in listing
    assert not list((tiny.parent / "temporary").iterdir())

    said.clear()
    assert setup.ensure_image("tiny", said.append) == name
    assert said == [f"The sandbox image {name} is there."]
    subprocess.run(["docker", "rmi", name], capture_output=True, check=True)
    setup.ensure_image("tiny", said.append)
    assert len(called(tiny)) == 1  # the base was there


@root
@pytest.mark.docker
def test_a_base_that_fails_is_quoted_and_leaves_nothing(tiny: Path) -> None:
    program(tiny, "mmdebstrap", *PACK, "echo E: no mirror >&2; exit 1")
    with pytest.raises(PrerequisiteError, match=r"`mmdebstrap .*` failed with exit code 1: E: no mirror"):
        setup.ensure_image("tiny", lambda _: None)
    assert nothing_is_left(tiny)


@root
@pytest.mark.docker
@pytest.mark.parametrize("last", ["head -c 700 /dev/urandom > $1", "rm $1", "kill -9 $$"])
def test_a_base_that_is_no_archive_leaves_nothing(tiny: Path, last: str) -> None:
    program(tiny, "mmdebstrap", *PACK, last)
    with pytest.raises(PrerequisiteError, match=r"image .*cannot be made|failed with exit code -9"):
        setup.ensure_image("tiny", lambda _: None)
    assert nothing_is_left(tiny)


@root
@pytest.mark.docker
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # of the killed child, not waited for
def test_an_interrupted_setup_leaves_nothing(tiny: Path) -> None:
    program(tiny, "mmdebstrap", *PACK, "kill -INT $PPID", "exec sleep 60")
    with pytest.raises(KeyboardInterrupt):
        setup.ensure_image("tiny", lambda _: None)
    assert nothing_is_left(tiny)


@pytest.mark.docker
def test_a_base_needs_root(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(
        PrerequisiteError, match="making a base image needs root: run sdpo-solve setup as root"
    ):
        setup.ensure_image("tiny", lambda _: None)


@root
@pytest.mark.docker
def test_mmdebstrap_is_installed_where_it_is_missing(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tiny, "later", *PACK)
    program(tiny, "apt-get", f"if [ $1 = install ]; then cp {tiny}/later {tiny}/mmdebstrap; fi")
    monkeypatch.setenv("PATH", f"{tiny}:{tools(tiny.parent, 'cp', 'mkdir', 'tar')}")
    said: list[str] = []
    setup.ensure_image("tiny", said.append)
    assert said[1] == "Installing mmdebstrap: apt-get install mmdebstrap debian-archive-keyring"
    assert there(BASE)
