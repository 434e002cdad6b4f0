"""Other people's machines: engines with remapped ids or missing limits, contexts, TLS, boxes in containers.

`.ci/rootless` makes rootless Podman and rootless Docker, and runs the contract of behaviours on each.
"""

import hashlib
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from docker.api import APIClient

import sdpo_solve
from sdpo_solve.errors import PrerequisiteError
from sdpo_solve.protocols import Sandbox
from sdpo_solve.sandboxes import _engine, bubblewrap, docker, install
from sdpo_solve.sandboxes.guest import slots
from sdpo_solve.sandboxes.images import image_tag
from sdpo_solve.types import BoxInput, ExecutionStatus, Limits, Program
from tests.helpers.behaviours import BEHAVIOURS, LANGUAGES, isolation, languages, limits, programs
from tests.helpers.docker_engines import answer, proxy, refusal, second_engine, ssh_server

assert {isolation, languages, limits, programs}  # each put its behaviours on the list

LIMITS = Limits(time_s=5.0, memory_mb=128)
close = APIClient.close
ONE = docker.Options(boxes_ready=1, parallel=1)


def works(sandbox: Sandbox) -> bool:
    (result,) = sandbox.run(Program("print(input())"), [BoxInput("yes")], LIMITS)
    return (result.status, result.stdout) == (ExecutionStatus.OK, "yes\n")


# -- user ids ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("map_", "least", "most"),
    [
        ("0 0 4294967295", 4096, 2**30),
        ("0 100000 65536", 4096, 65536),
        ("0 1000 1\n1 100000 65536", 4096, 65537),
    ],
)
def test_ids_of_tests_are_mapped(
    map_: str, least: int, most: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "map").write_text(map_ + "\n")
    monkeypatch.setattr(slots, "open", lambda _: (tmp_path / "map").open(), raising=False)
    firsts = {slots.first_uid(number) for number in range(0, 2**24, 7919)}
    assert least <= min(firsts) <= max(firsts) + 64 <= most
    assert len(firsts) > 900


def test_a_map_without_ids_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "map").write_text("0 1000 1\n")
    monkeypatch.setattr(slots, "open", lambda _: (tmp_path / "map").open(), raising=False)
    with pytest.raises(OSError, match="maps no user ids"):
        slots.first_uid(0)


@pytest.fixture(scope="module")
def remapped() -> Iterator[docker.DockerSandbox]:
    """Boxes of an engine whose containers have 65,536 ids, as rootless engines do."""
    with (
        second_engine("--userns-remap=default") as engine,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("DOCKER_HOST", engine.host)
        sandbox = docker.DockerSandbox(docker.Options(boxes_ready=2, parallel=2))
        yield sandbox
        sandbox.close()


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in BEHAVIOURS if name not in LANGUAGES])
def test_behaviour_with_remapped_ids(remapped: docker.DockerSandbox, name: str) -> None:
    BEHAVIOURS[name](remapped)


# -- engines that refuse, and where they are -----------------------------------------------------------------


@pytest.mark.docker
@pytest.mark.parametrize(
    ("name", "sign", "message"),
    [
        ("nano_cpus", b'"NanoCpus": 1', "NanoCPUs can not be set, as your kernel does not support CPU CFS"),
        ("nr_inodes", b"nr_inodes", "container create: unknown mount option nr_inodes=1024"),  # Podman 4
    ],
)
def test_a_limit_that_the_engine_refuses_is_left_out_and_named(
    name: str, sign: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(request: bytes) -> bytes | None:
        return refusal(message) if b"/containers/create" in request and sign in request else None

    with proxy(refuse, tmp_path) as host:
        monkeypatch.setenv("DOCKER_HOST", host)
        sandbox = docker.DockerSandbox(docker.Options(boxes_ready=2, parallel=1))  # two threads meet it
        try:
            assert works(sandbox)
            assert sandbox.identity().endswith(f", without {name}")
        finally:
            sandbox.close()


@pytest.mark.docker
@pytest.mark.parametrize(
    ("path", "facts"),
    [
        (b"/info", {"MemoryLimit": False, "PidsLimit": False}),  # rootless Docker
        (b"/json", {"HostConfig": {"Memory": 0, "PidsLimit": 0, "NanoCpus": 1}}),  # rootless Podman
    ],
)
def test_a_limit_that_the_engine_leaves_out_in_silence_is_named(
    path: bytes, facts: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tell(request: bytes) -> bytes | None:
        first = request.split(b"\r\n")[0]
        return answer(facts) if path + b" " in first and b"/images/" not in first else None

    with proxy(tell, tmp_path) as host:
        monkeypatch.setenv("DOCKER_HOST", host)
        sandbox = docker.DockerSandbox(ONE)
        try:
            assert works(sandbox)
            assert sandbox.identity().endswith(", without mem_limit, memswap_limit, pids_limit")
        finally:
            sandbox.close()


@pytest.mark.docker
def test_a_runtime_that_the_engine_does_not_take_is_no_sandbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(request: bytes) -> bytes | None:
        first = request.split(b"\r\n")[0]
        return (
            answer({"HostConfig": {"Runtime": "oci"}})
            if b"/containers/" in first and b"/json " in first
            else None
        )

    with proxy(other, tmp_path) as host:
        monkeypatch.setenv("DOCKER_HOST", host)
        with pytest.raises(PrerequisiteError, match=r"runtime oci, not runc.*containers\.conf"):
            docker.DockerSandbox(docker.Options(boxes_ready=1, parallel=1, runtime="runc"))


@pytest.mark.docker
def test_an_engine_that_makes_no_box_is_no_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(request: bytes) -> bytes | None:
        return refusal("no more today") if b"/containers/create" in request else None

    with proxy(refuse, tmp_path) as host:
        monkeypatch.setenv("DOCKER_HOST", host)
        with pytest.raises(PrerequisiteError, match=r"no more today.*--sandbox bubblewrap"):
            docker.DockerSandbox(ONE)
        check = install.check_docker()
        assert (check.ok, "no more today" in check.detail) == (False, True)
        assert check.remedy


@pytest.mark.docker
@pytest.mark.parametrize(
    ("path", "options"), [(b"/images/", ONE), (b"/info ", ONE.model_copy(update={"runtime": "runc"}))]
)
@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (refusal("no; room\nleft", "500 Internal Server Error"), "answers with an error: no, room left; see"),
        (refusal("", "503 Service Unavailable"), "answers with an error: 503 "),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n<b>x", "stopped answering (Expecting value"),
    ],
)
def test_an_engine_that_answers_with_an_error_is_no_sandbox(
    path: bytes,
    options: docker.Options,
    reply: bytes,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(request: bytes) -> bytes | None:
        return reply if path in request.split(b"\r\n")[0] else None

    closed: list[object] = []
    monkeypatch.setattr(APIClient, "close", lambda self: closed.append(self) or close(self))
    with proxy(fail, tmp_path) as host:
        monkeypatch.setenv("DOCKER_HOST", host)
        with pytest.raises(PrerequisiteError) as caught:
            docker.DockerSandbox(options)
        assert str(caught.value).startswith(f"the Docker engine {said}")
        assert ("\n" in str(caught.value), len(closed)) == (False, 1)
        if path == b"/images/":  # `auto` goes on, doctor says it
            for check in (install.check_image(), install.check_docker()):
                assert (check.ok, check.detail.startswith("the Docker engine ")) == (False, True)
                assert check.remedy


@pytest.mark.docker
@pytest.mark.parametrize("path", [b"/info ", b"/json "])
def test_a_first_box_that_cannot_be_looked_at_is_ended(
    path: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, removed = [], []

    def fail(request: bytes) -> bytes | None:
        first = request.split(b"\r\n")[0]
        made.append(b"/containers/create" in first)
        removed.append(b"DELETE" in first)
        fails = path in first and b"/images/" not in first
        return refusal("not now", "500 Internal Server Error") if fails else None

    with proxy(fail, tmp_path) as host:
        monkeypatch.setenv("DOCKER_HOST", host)
        with pytest.raises(PrerequisiteError, match=r"a box cannot be started: .*not now"):
            docker.DockerSandbox(ONE)
    assert sum(made) == sum(removed) > 0


def make_context(config: Path, name: str, host: str) -> None:
    """What `docker context create` and `docker context use` write."""
    folder = config / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()
    folder.mkdir(parents=True)
    endpoint = {"Host": host, "SkipTLSVerify": False}
    meta = {"Name": name, "Metadata": {}, "Endpoints": {"docker": endpoint}}
    (folder / "meta.json").write_text(json.dumps(meta))
    (config / "config.json").write_text(json.dumps({"currentContext": name}))


@pytest.mark.docker
def test_the_current_context_names_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[bytes] = []
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with proxy(lambda request: requests.append(request), tmp_path) as host:  # type: ignore[func-returns-value]
        make_context(tmp_path, "elsewhere", host)
        assert _engine.engine_is_elsewhere()
        _engine.connect().close()
    assert requests


@pytest.mark.parametrize("by_variable", [True, False])
def test_a_context_that_is_not_there_is_no_other_engine(
    by_variable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    if by_variable:
        monkeypatch.setenv("DOCKER_CONTEXT", "elsewhere")
    else:
        (tmp_path / "config.json").write_text('{"currentContext": "elsewhere"}')
    with pytest.raises(PrerequisiteError, match="docker context ls"):
        _engine.connect()


def test_an_absent_engine_of_a_context_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    make_context(tmp_path, "elsewhere", "unix:///nowhere/docker.sock")
    with pytest.raises(
        PrerequisiteError, match=r"context is unix:///nowhere/docker.sock.*context use default"
    ):
        install.ensure_docker_engine(lambda _: None)


@pytest.mark.parametrize(
    ("commands", "place", "remedy"),
    [
        (["dockerd"], "", "systemctl start docker"),
        (["dockerd"], "docker.sock", "export DOCKER_HOST=unix://{own}/docker.sock"),
        (["podman"], "podman/podman.sock", "export DOCKER_HOST=unix://{own}/podman/podman.sock"),
        (["podman"], "", "systemctl --user start podman.socket && export DOCKER_HOST=unix://{own}/podman/podman.sock"),
        ([], "", "sdpo-solve setup (as root, on Debian or Ubuntu)"),
    ],
)  # fmt: skip
def test_a_user_is_told_of_the_engine_that_is_here(
    commands: list[str], place: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(_engine, "is_root", lambda: False)
    monkeypatch.setattr(_engine, "_SOCKET", "/nowhere/docker.sock")
    monkeypatch.setattr(_engine, "engine_host", lambda: "unix:///nowhere/docker.sock")
    monkeypatch.setattr(_engine.shutil, "which", lambda name, path="": name if name in commands else None)
    if place:
        (tmp_path / place).parent.mkdir(exist_ok=True)
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(tmp_path / place))
    with pytest.raises(PrerequisiteError) as caught:
        _engine.connect()
    assert remedy.format(own=tmp_path) in str(caught.value)


@pytest.mark.docker
def test_an_engine_behind_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=here"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "ca.pem").write_bytes((tmp_path / "cert.pem").read_bytes())
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with proxy(lambda _: None, tmp_path, tls) as host:
        monkeypatch.setenv("DOCKER_HOST", host)
        for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # which `requests` would take instead of ca.pem
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
        monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
        sandbox = docker.DockerSandbox(ONE)
        try:
            assert works(sandbox)
            (result,) = sandbox.run(Program("print(input())"), [BoxInput("x" * 1_000_000)], LIMITS)
            assert len(result.stdout) == 1_000_001
        finally:
            sandbox.close()


@pytest.mark.docker
def test_an_engine_by_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ssh_server(tmp_path) as host:
        monkeypatch.setenv("DOCKER_HOST", host)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        sandbox = docker.DockerSandbox(ONE)
        try:
            assert works(sandbox)
        finally:
            sandbox.close()
        monkeypatch.setenv("DOCKER_HOST", f"{host}/nowhere/docker.sock")
        with pytest.raises(PrerequisiteError, match=r"/nowhere/docker\.sock: start that engine"):
            _engine.connect()
    assert not list(Path(tempfile.gettempdir()).glob("sdpo-solve-ssh-*"))


@pytest.mark.parametrize("with_ssh", [True, False])
def test_an_absent_engine_by_ssh_is_one_true_line(
    with_ssh: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if with_ssh and shutil.which("ssh") is None:
        pytest.skip("the command ssh is not installed")
    if not with_ssh:
        monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", "ssh://nobody@127.0.0.1:9")
    with pytest.raises(PrerequisiteError) as caught:
        docker.DockerSandbox(ONE)
    assert "ssh://nobody@127.0.0.1:9" in str(caught.value)
    assert ("Connection refused" if with_ssh else "ssh is not installed") in str(caught.value)
    assert "\n" not in str(caught.value)


# -- bubblewrap ----------------------------------------------------------------------------------------------

EPERM = "bwrap: setting up uid map: Permission denied"


@pytest.mark.parametrize(
    ("settings", "container", "remedy"),
    [
        ({"kernel.unprivileged_userns_clone": "0"}, False, "sysctl kernel.unprivileged_userns_clone=1"),
        ({"user.max_user_namespaces": "0"}, False, "sysctl user.max_user_namespaces=15000"),
        ({"kernel.apparmor_restrict_unprivileged_userns": "1"}, False, "AppArmor"),
        ({}, True, "--security-opt seccomp=unconfined"),
        ({}, False, "--sandbox docker"),
    ],
)
def test_what_forbids_namespaces_is_named(
    settings: dict[str, str], container: bool, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bubblewrap.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(bubblewrap, "_sysctl", lambda name: settings.get(name, ""))
    monkeypatch.setattr(bubblewrap, "_in_container", lambda: container)
    sandbox = object.__new__(bubblewrap.BubblewrapSandbox)
    assert remedy in sandbox.remedy(EPERM)


@pytest.mark.parametrize("room", ["sandboxes", "batch"])
def test_a_manifest_lets_bubblewrap_make_namespaces(room: str) -> None:
    text = (Path(sdpo_solve.__file__).parent / room / "README.md").read_text()
    (manifest,) = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    spec = manifest["spec"]
    cluster = spec.get("rayClusterSpec")
    pods = [spec] if cluster is None else [cluster["headGroupSpec"]["template"]["spec"]]
    pods += [] if cluster is None else [group["template"]["spec"] for group in cluster["workerGroupSpecs"]]
    for pod in pods:
        assert pod["hostUsers"] is False
        for container in pod["containers"]:
            allowed = container["securityContext"]
            assert allowed["seccompProfile"] == allowed["appArmorProfile"] == {"type": "Unconfined"}
            assert allowed["procMount"] == "Unmasked"


INSIDE = """
from sdpo_solve.sandboxes import install
check = install.check_bubblewrap()
print(check.ok, check.detail, check.remedy, sep="\\n")
"""


@pytest.mark.docker
@pytest.mark.parametrize("follows", [False, True])
def test_bubblewrap_in_a_container(follows: bool) -> None:
    """In a default container it cannot work and says what to start it with; started so, it works."""
    root, prefix = Path(sdpo_solve.__file__).parents[1], Path(sys.base_prefix)
    places = {Path("/usr"), prefix, Path(sys.prefix), root}
    command = ["docker", "run", "--rm", "--network=none", "-w", "/tmp", "-e", f"PYTHONPATH={root}"]
    command += ["-e", "PYTHONDONTWRITEBYTECODE=1"]
    for place in places:
        command += ["-v", f"{place}:{place}:ro"]
    if follows:
        command += ["--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined"]
    done = subprocess.run(
        [*command, image_tag("python"), sys.executable, "-c", INSIDE],
        capture_output=True,
        text=True,
        check=True,
    )
    ok, detail, remedy = done.stdout.split("\n")[:3]
    if follows:
        assert (ok, detail.startswith("bubblewrap (namespaces)")) == ("True", True), detail
    else:
        assert (ok, "bwrap: " in detail) == ("False", True)
        assert "--security-opt seccomp=unconfined" in remedy
        assert "systempaths=unconfined" in remedy
