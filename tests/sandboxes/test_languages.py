"""Languages of other packages: how they are run on real boxes, and what is said of one that cannot be."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

import pytest

from sdpo_solve.config import read_options
from sdpo_solve.errors import ConfigError, PrerequisiteError
from sdpo_solve.sandboxes import bubblewrap, docker, install, languages
from sdpo_solve.sandboxes._base import BoxOptions, PooledSandbox
from sdpo_solve.sandboxes._box import Box
from sdpo_solve.sandboxes.images import image_folder, image_tag
from sdpo_solve.sandboxes.languages import Language
from sdpo_solve.types import BoxInput, Execution, ExecutionStatus, Limits, Program

SHELL = Language(
    name="plain-shell",
    title="Shell",
    suffixes=(".sh",),
    fence_tags=("sh",),
    probe="echo POSIX shell",
    run=("sh", "solution.sh"),
)
COMPILED = replace(
    SHELL,
    name="compiled-shell",
    compile=("sh", "-c", "sed s/TIMES/2/ solution.sh > made.sh"),
    run=("sh", "/box/build/home/made.sh"),
)
FAILS = replace(SHELL, name="fails", probe="echo 'no; such\nword' >&2; exit 3")
NOWHERE = replace(SHELL, name="nowhere", run=("no-such-tool", "solution.sh"))
ADDED = {language.name: language for language in (SHELL, COMPILED, FAILS, NOWHERE)}
DOUBLE = "ls; read n; echo $((n * TIMES))"
SMALL = {"boxes_ready": 1, "parallel": 2}

SANDBOXES: dict[str, Callable[[str], PooledSandbox]] = {
    "docker": lambda name: docker.DockerSandbox(docker.Options(**SMALL, image=image_tag("python")), name),
    "bubblewrap": lambda name: bubblewrap.BubblewrapSandbox(bubblewrap.Options(**SMALL), name),
    "bubblewrap-namespaces": lambda name: bubblewrap.BubblewrapSandbox(
        bubblewrap.Options(**SMALL, separate="namespace"), name
    ),
}


@pytest.fixture(autouse=True)
def _added(monkeypatch: pytest.MonkeyPatch) -> None:
    get = languages.get
    monkeypatch.setattr(languages, "get", lambda name: ADDED.get(name) or get(name))


@pytest.fixture(params=SANDBOXES)
def make(request: pytest.FixtureRequest) -> Callable[[str], PooledSandbox]:
    """Makes a sandbox for a language; the test is skipped where this machine has no such one for Python."""
    new = SANDBOXES[request.param]
    try:
        new("python").close()
    except PrerequisiteError as exc:
        pytest.skip(str(exc))
    return new


@pytest.mark.docker
@pytest.mark.parametrize("name", ["plain-shell", "compiled-shell"])
def test_a_program_lies_where_its_command_is_run(make: Callable[[str], PooledSandbox], name: str) -> None:
    """An interpreted one in each test's own directory, a compiled one in the compiler's."""
    with closing(make(name)) as sandbox:
        source = DOUBLE if name == "compiled-shell" else f"TIMES=2; {DOUBLE}"
        results = sandbox.run(Program(source, language=name), [BoxInput("4\n"), BoxInput("-1\n")], Limits())
    assert [result.status for result in results] == [ExecutionStatus.OK] * 2, results
    lines = [result.stdout.split() for result in results]
    here = ["solution.sh"] if name == "plain-shell" else []
    assert lines == [[*here, "8"], [*here, "-2"]]


@pytest.mark.docker
@pytest.mark.parametrize(
    ("name", "cause", "command"),
    [
        ("fails", "ended with runtime_error: no, such word", "sh solution.sh"),
        ("nowhere", "no-such-tool", "no-such-tool solution.sh"),
    ],
)
def test_a_first_program_that_fails_is_no_fault_of_the_boxes(
    make: Callable[[str], PooledSandbox], name: str, cause: str, command: str
) -> None:
    with pytest.raises(PrerequisiteError) as caught:
        make(name)
    said, _, remedy = str(caught.value).partition("; ")
    assert f"program in {name} " in said
    assert cause in said
    assert remedy == f"see whether this sandbox can run: {command}"


class Failing(PooledSandbox):
    """A sandbox whose first program leaves this on standard error."""

    def __init__(self, stderr: str) -> None:
        super().__init__(BoxOptions(boxes_ready=0))
        self.stderr = stderr

    def make_box(self, language: Language, memory_mb: int) -> Box:
        raise NotImplementedError

    def run(self, *_: object) -> list[Execution]:  # type: ignore[override]
        return [Execution(ExecutionStatus.RUNTIME_ERROR, stderr=self.stderr)]

    def identity(self) -> str:
        return "failing"

    def remedy(self, cause: str) -> str:
        return "allow namespaces"

    is_own_fault = bubblewrap.BubblewrapSandbox.is_own_fault


@pytest.mark.parametrize(
    ("stderr", "remedy"),
    [
        ("bwrap: Can't mount proc on /newroot/proc: Operation not permitted", "allow namespaces"),
        ("ImportError: bwrap: no such module", "see whether this sandbox can run: python3"),
    ],
)
def test_a_test_that_bubblewrap_cannot_start_is_the_fault_of_the_box(stderr: str, remedy: str) -> None:
    with pytest.raises(PrerequisiteError, match=f"; {remedy}$"):
        Failing(stderr).open()


@pytest.mark.docker
def test_docker_has_no_image_of_such_a_language_and_is_passed_over() -> None:
    """`auto` goes on after a PrerequisiteError."""
    for options in (docker.Options(**SMALL), docker.Options(**SMALL, image="full")):
        with pytest.raises(
            PrerequisiteError, match=r"no sandbox image for 'plain-shell.*sandbox\.image=NAME"
        ):
            docker.DockerSandbox(options, "plain-shell")


def test_setup_makes_no_image_of_a_language_that_has_none() -> None:
    with pytest.raises(PrerequisiteError, match="no sandbox image for 'plain-shell'"):
        install.ensure_images(lambda _: None, ["plain-shell"])
    with pytest.raises(ConfigError, match="unknown language 'rust'"):
        install.ensure_images(lambda _: None, ["python", "rust-full"])
    with pytest.raises(PrerequisiteError, match="no sandbox image for 'rust'"):
        image_folder("rust")


def test_the_language_is_no_option_of_a_sandbox() -> None:
    """It is that of the programs; stored options hold it at the value that it had by default."""
    for kind in (docker.Options, bubblewrap.Options):
        assert read_options(kind, {"language": "python"}, "sandbox") == kind()
        assert "language" not in kind.complete({"language": "python"})
        with pytest.raises(ConfigError, match="sandbox has no option 'language'"):
            read_options(kind, {"language": "cpp"}, "sandbox")
