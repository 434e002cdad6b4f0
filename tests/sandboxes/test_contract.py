"""One list of behaviours (see `behaviours`), run against every sandbox. A known gap stands in GAPS with its reason."""

import shutil
from collections.abc import Callable, Iterator

import pytest

from sdpo_solve.errors import PrerequisiteError
from sdpo_solve.protocols import Sandbox
from sdpo_solve.sandboxes import bubblewrap, docker, install
from sdpo_solve.sandboxes import languages as _languages
from tests.helpers.behaviours import BEHAVIOURS, LANGUAGES, isolation, languages, limits, programs

OPTIONS = {"boxes_ready": 2, "parallel": 2}

BACKENDS: dict[str, Callable[[], Sandbox]] = {
    "docker": lambda: docker.DockerSandbox(docker.Options(**OPTIONS)),
    "docker-runsc": lambda: docker.DockerSandbox(docker.Options(**OPTIONS, runtime="runsc")),
    "bubblewrap": lambda: bubblewrap.BubblewrapSandbox(bubblewrap.Options(**OPTIONS)),
    "bubblewrap-namespaces": lambda: bubblewrap.BubblewrapSandbox(
        bubblewrap.Options(**OPTIONS, separate="namespace")
    ),
}

assert {isolation, languages, limits, programs}  # each put its behaviours on the list

GAPS: dict[tuple[str, str], str] = {
    ("docker-runsc", "no_right_is_left"): "gVisor's /proc has no line CapAmb, nor one for NoNewPrivs",
    ("docker-runsc", "no_test_sees_another"): (
        "gVisor (seen with 20221219) opens /proc/PID/fd and environ to other user ids: tests of one attempt, "
        "and the runner, are not kept apart there"
    ),
}


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.docker) for name in BACKENDS])
def backend(request: pytest.FixtureRequest) -> Iterator[tuple[str, Sandbox]]:
    try:
        sandbox = BACKENDS[request.param]()
    except PrerequisiteError as exc:
        pytest.skip(str(exc))
    yield request.param, sandbox
    sandbox.close()


def lacks(which: str, language: str) -> str:
    """What is missing on this machine for a language in a sandbox; empty where nothing is."""
    if which.startswith("docker"):
        check = install.check_image(language)
        return "" if check.ok else f"{check.detail}; {check.remedy}"
    compiler = (_languages.get(language).compile or ("",))[0]
    return (
        "" if shutil.which(compiler) else f"{compiler} is not installed; run: sudo apt-get install {compiler}"
    )


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_behaviour(backend: tuple[str, Sandbox], name: str) -> None:
    which, sandbox = backend
    if (which, name) in GAPS:
        pytest.xfail(GAPS[which, name])
    if name in LANGUAGES and (reason := lacks(which, LANGUAGES[name])):
        pytest.skip(reason)
    BEHAVIOURS[name](sandbox)
