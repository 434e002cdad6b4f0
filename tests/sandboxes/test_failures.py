"""When the box breaks and not the program: a clear error that names the cause, never a result; nothing is left."""

import contextlib
import gc
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sdpo_solve.errors import PrerequisiteError, SandboxError
from sdpo_solve.sandboxes import bubblewrap, docker
from sdpo_solve.sandboxes._base import PooledSandbox
from sdpo_solve.sandboxes.images import image_tag
from sdpo_solve.types import BoxInput, ExecutionStatus, Limits, Program
from tests.helpers.docker_engines import Engine, second_engine

LIMITS = Limits(time_s=20.0, memory_mb=128)
SLEEP = Program("import time; time.sleep(30)")
slow = pytest.mark.slow
pytestmark = [
    pytest.mark.docker,
    # docker-py leaves the sockets of failed connections to the collector, which comes when it comes.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """Such sockets go here, once the test's own variables are gone, and not in a later test."""
    yield
    gc.collect()


@pytest.fixture
def boxes() -> Iterator[docker.DockerSandbox]:
    sandbox = docker.DockerSandbox(docker.Options(boxes_ready=1, parallel=1))
    yield sandbox
    sandbox.close()


def own_containers(pid: int) -> list[str]:
    command = ["docker", "ps", "-aq", "--filter", f"label=sdpo-solve.box={pid}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def error_of(sandbox: PooledSandbox, act: Callable[[], object], after_s: float = 1.0) -> str:
    """The message that a run ends with when `act` happens in the middle of it."""
    assert sandbox.wait_ready()
    timer = threading.Timer(after_s, act)
    timer.start()
    try:
        with pytest.raises(SandboxError) as caught:
            sandbox.run(SLEEP, [BoxInput()], LIMITS)
    finally:
        timer.join()
    return str(caught.value)


def still_works(sandbox: PooledSandbox) -> bool:
    (result,) = sandbox.run(Program("print(input())"), [BoxInput("yes")], LIMITS)
    return (result.status, result.stdout) == (ExecutionStatus.OK, "yes\n")


def test_a_container_removed_from_outside(boxes: docker.DockerSandbox) -> None:
    def remove() -> None:
        subprocess.run(["docker", "rm", "-f", *own_containers(os.getpid())], check=True, capture_output=True)

    assert error_of(boxes, remove).startswith("the box was removed from outside")
    assert still_works(boxes)


@slow
def test_a_process_of_the_box_killed_by_the_host(boxes: docker.DockerSandbox) -> None:
    def kill() -> None:
        for name in own_containers(os.getpid()):
            inspect = ["docker", "inspect", "-f", "{{.State.Pid}}", name]
            os.kill(int(subprocess.run(inspect, capture_output=True, check=True).stdout), signal.SIGKILL)

    if os.geteuid() != 0:
        pytest.skip("only root may kill a container's process")
    assert error_of(boxes, kill).startswith("the box ended by itself")
    assert still_works(boxes)


@slow
def test_waiting_boxes_removed_from_outside_are_replaced(boxes: docker.DockerSandbox) -> None:
    assert boxes.wait_ready()
    subprocess.run(["docker", "rm", "-f", *own_containers(os.getpid())], check=True, capture_output=True)
    assert still_works(boxes)


@slow
def test_the_image_deleted_while_in_use() -> None:
    name = f"sdpo-solve-test-deleted:{os.getpid()}"
    dockerfile = f"FROM {image_tag('python')}\nLABEL test={os.getpid()}\n"
    subprocess.run(
        ["docker", "build", "-q", "-t", name, "-"], input=dockerfile.encode(), check=True, capture_output=True
    )
    sandbox = docker.DockerSandbox(docker.Options(image=name, boxes_ready=0, parallel=1))
    try:
        assert still_works(sandbox)
        assert gone(lambda: own_containers(os.getpid()))  # an image in use would only lose its name
        subprocess.run(["docker", "rmi", "-f", name], check=True, capture_output=True)
        with pytest.raises(SandboxError, match=r"a box cannot be started: .*No such image"):
            still_works(sandbox)
    finally:
        sandbox.close()


@slow
def test_no_file_descriptors_left(boxes: docker.DockerSandbox) -> None:
    assert boxes.wait_ready()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_now = max(map(int, os.listdir("/proc/self/fd")))
    assert still_works(boxes)
    assert boxes.wait_ready()
    subprocess.run(["docker", "rm", "-f", *own_containers(os.getpid())], check=True, capture_output=True)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(open_now, 8), most[1]))
    try:
        with pytest.raises(SandboxError, match=r"a box cannot be started: .*Too many open files"):
            still_works(boxes)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, most)
    assert still_works(boxes)


def test_a_missing_image_says_what_to_run() -> None:
    """`setup` would make another image than the one that was named."""
    said = "the sandbox image nosuch:1 is missing; run: docker pull nosuch:1, or leave sandbox.image out"
    with pytest.raises(PrerequisiteError, match=f"^{said}$"):
        docker.DockerSandbox(docker.Options(image="nosuch:1"))


def test_an_absent_engine_says_what_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    with pytest.raises(PrerequisiteError) as caught:
        docker.DockerSandbox(docker.Options())
    assert str(caught.value) == (
        "no Docker engine answers (No such file or directory); "
        "DOCKER_HOST is unix:///nonexistent/docker.sock: start that engine, or unset it"
    )


def test_an_environment_that_changes_meanwhile_fails_no_call(
    boxes: docker.DockerSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `os.environ` does where another thread takes a variable out while proxies are looked for in it."""

    def changed() -> dict[str, str]:
        raise KeyError("PYTEST_CURRENT_TEST")

    monkeypatch.setattr("requests.utils.getproxies", changed)
    assert still_works(boxes)
    assert still_works(boxes)


def test_a_runtime_that_the_engine_does_not_know_is_named_with_those_it_knows() -> None:
    with pytest.raises(PrerequisiteError, match=r"the Docker engine has no runtime 'nope' \(known: .*runc"):
        docker.DockerSandbox(docker.Options(runtime="nope"))


# -- the end of this process, gentle or not ------------------------------------------------------------------

CLIENT = """
import sys
from sdpo_solve.sandboxes import docker, bubblewrap
from sdpo_solve.types import *
module = {"docker": docker, "bubblewrap": bubblewrap}[sys.argv[1]]
sandbox = module.PLUGIN(module.Options(boxes_ready=2, parallel=1))
sandbox.wait_ready()
print("ready", flush=True)
if sys.argv[2] == "run":
    sandbox.run(Program("import time; time.sleep(60)"), [BoxInput()], Limits(60, 128))
"""


def gone(seen: Callable[[], object], within_s: float = 15.0) -> bool:
    deadline = time.monotonic() + within_s
    while seen():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def runs(pid: int) -> bool:
    """Whether a process is there; a zombie has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(pid: int) -> set[int]:
    """Every process below `pid`."""
    found, parents = set(), {pid}
    table = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            table[int(name)] = int(Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    while parents:
        parents = {child for child, parent in table.items() if parent in parents}
        found |= parents
    return found


@pytest.mark.parametrize("how", [pytest.param("exit", marks=slow), "run"])
@pytest.mark.parametrize("which", ["docker", "bubblewrap"])
def test_no_box_outlives_its_client(which: str, how: str) -> None:
    """`exit`: it ends without closing the sandbox. `run`: it is killed with SIGKILL in the middle of a test."""
    if which == "bubblewrap" and shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    with subprocess.Popen([sys.executable, "-c", CLIENT, which, how], stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"ready\n"
        below = children(client.pid)
        if how == "run":
            time.sleep(1)
            below = children(client.pid)
            client.kill()
        client.wait(30)
    assert gone(lambda: own_containers(client.pid))
    assert gone(lambda: [pid for pid in below if Path(f"/proc/{pid}").exists()])


OPENING = """
import os, signal
from sdpo_solve.sandboxes import docker
signal.signal(signal.SIGTERM, lambda *_: exit(143))
try:
    docker.DockerSandbox(docker.Options(boxes_ready=4, parallel=1))
except (KeyboardInterrupt, SystemExit):
    os._exit(9)  # as the command ends: without exit handlers
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_the_first_boxes_are_made_leaves_none(number: int) -> None:
    """Boxes that were made and not started once stayed for good: an engine removes those that end."""
    with subprocess.Popen([sys.executable, "-c", OPENING]) as client:
        while not own_containers(client.pid):
            assert client.poll() is None
            time.sleep(0.02)
        client.send_signal(number)
        assert client.wait(60) == 9
    assert gone(lambda: own_containers(client.pid))


def test_boxes_that_were_never_started_are_removed_when_they_are_old(monkeypatch: pytest.MonkeyPatch) -> None:
    label = f"sdpo-solve.test-never-started-{os.getpid()}"  # boxes of other processes stay out of this

    def make(*command: str) -> str:
        run = ["docker", *command, image_tag("python"), "sleep", "60"]
        return subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip()

    def left() -> set[str]:
        listed = subprocess.run(["docker", "ps", "-aq", "--no-trunc"], capture_output=True, text=True)
        return {never, other, running} & {*listed.stdout.split()}

    never, other = make("create", "--label", f"{label}=1"), make("create")
    running = make("run", "-d", "--label", f"{label}=1")
    monkeypatch.setattr(docker, "_LABEL", label)
    try:
        docker.DockerSandbox(docker.Options(boxes_ready=0)).close()
        assert left() == {never, other, running}  # another process may be about to start it
        monkeypatch.setattr(docker, "_NEVER_STARTED_S", -60)
        docker.DockerSandbox(docker.Options(boxes_ready=0)).close()
        assert left() == {other, running}
    finally:
        subprocess.run(["docker", "rm", "-f", never, other, running], capture_output=True, check=False)


# -- bubblewrap ----------------------------------------------------------------------------------------------


def test_a_bubblewrap_box_killed_from_outside() -> None:
    try:
        sandbox = bubblewrap.BubblewrapSandbox(bubblewrap.Options(boxes_ready=1, parallel=1))
    except PrerequisiteError as exc:
        pytest.skip(str(exc))

    def kill() -> None:
        monitors = [
            pid for pid in children(os.getpid()) if Path(f"/proc/{pid}/comm").read_text() == "bwrap\n"
        ]
        for runner in {pid for monitor in monitors for pid in children(monitor)}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(runner, signal.SIGKILL)
        # The box that stood ready was killed too, and is known to be dead once its monitor has ended.
        until = time.monotonic() + 20
        while any(map(runs, monitors)) and time.monotonic() < until:
            time.sleep(0.01)

    try:
        assert error_of(sandbox, kill).startswith("the box was removed from outside")
        assert still_works(sandbox)
    finally:
        sandbox.close()


def test_missing_bubblewrap_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(
        PrerequisiteError, match="bubblewrap is not installed; run: sudo apt-get install bubblewrap"
    ):
        bubblewrap.BubblewrapSandbox(bubblewrap.Options())


# -- an engine of its own, to stop and to fill ---------------------------------------------------------------


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """A second Docker engine whose data lie in a small file system in memory; root only."""
    with second_engine() as engine, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", engine.host)
        yield engine


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 20))


@slow
def test_a_full_disk(engine: Engine) -> None:
    sandbox = docker.DockerSandbox(docker.Options(boxes_ready=0, parallel=1))
    try:
        assert still_works(sandbox)
        filler = engine.data / "filler"
        with pytest.raises(OSError, match="No space left"):
            fill(filler)
        with pytest.raises(SandboxError, match=r"a box cannot be started: .*no space left on device"):
            still_works(sandbox)
        filler.unlink()
        assert still_works(sandbox)
    finally:
        sandbox.close()


@slow
def test_the_engine_stopped_in_mid_run(engine: Engine) -> None:
    sandbox = docker.DockerSandbox(docker.Options(boxes_ready=1, parallel=1))
    try:
        message = error_of(sandbox, engine.process.terminate)
        assert message.startswith(
            ("the sandbox engine stopped answering", "the box was removed from outside")
        )
        engine.process.wait(60)
        with pytest.raises(SandboxError, match="a box cannot be started"):
            still_works(sandbox)
    finally:
        sandbox.close()
    with pytest.raises(PrerequisiteError, match="no Docker engine answers"):
        docker.DockerSandbox(docker.Options())
