"""The honest programs are solved, the hostile ones are not, and neither leaves anything on the host.

Those of QUICK run with every check; the others, most of which take their whole time limit, are `slow`.
"""

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from sdpo_solve.errors import PrerequisiteError
from sdpo_solve.grading import selfcheck
from sdpo_solve.grading.judge import Judge
from sdpo_solve.sandboxes import bubblewrap, docker
from sdpo_solve.sandboxes._base import PooledSandbox

TRIALS = selfcheck.load()
# The most telling of each kind that end at once. That limits end what runs into them, the contract's tests say.
QUICK = {
    "hostile": (
        "docker_socket", "double_fork", "endless_stdout", "exit_zero", "fills_tmp", "forges_frames",
        "kills_everyone", "lies_about_equality", "memory_in_one_gulp", "patches_the_runner", "search_memory",
        "traces",
    ),
    "honest": (
        "for_line_in_stdin", "leaves_marks_in_files", "module_level_global", "output_kept_until_exit",
        "returns_dict_of_numpy_integers", "writes_to_dev_stdout",
    ),
}  # fmt: skip
OPTIONS = {"boxes_ready": 2, "parallel": 2}
BACKENDS: dict[str, Callable[[], PooledSandbox]] = {
    "docker": lambda: docker.DockerSandbox(docker.Options(**OPTIONS)),
    "bubblewrap": lambda: bubblewrap.BubblewrapSandbox(bubblewrap.Options(**OPTIONS)),
    "bubblewrap-namespaces": lambda: bubblewrap.BubblewrapSandbox(
        bubblewrap.Options(**OPTIONS, separate="namespace")
    ),
}


@dataclass(frozen=True)
class Ran:
    """All trials on one backend, and what the host looked like before and after."""

    results: dict[str, selfcheck.TrialResult]
    before: set[str]
    after: set[str]


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.docker) for name in BACKENDS])
def ran(request: pytest.FixtureRequest) -> Ran:
    """Of the trials those that are asked for: the marks, and what is named on the command line, decide."""
    before = host()
    try:
        sandbox = BACKENDS[request.param]()
    except PrerequisiteError as exc:
        pytest.skip(str(exc))
    try:
        results = selfcheck.run(Judge(sandbox), wanted(request), at_a_time=2)
    finally:
        sandbox.close()
    return Ran({result.trial.name: result for result in results}, before, host())


def wanted(request: pytest.FixtureRequest) -> list[selfcheck.Trial]:
    calls = (getattr(item, "callspec", None) for item in request.session.items if item.path == request.path)
    names = {call.params["trial"].name for call in calls if call is not None and "trial" in call.params}
    return [trial for trial in TRIALS if trial.name in names]


def kind(trial: selfcheck.Trial) -> str:
    return "honest" if trial.honest else "hostile"


def host() -> set[str]:
    """What trials try to leave: processes, files in shared places; and the containers of this process."""
    listing = subprocess.run(
        ["docker", "ps", "-aq", "--filter", f"label=sdpo-solve.box={os.getpid()}"],
        capture_output=True,
        text=True,
        check=False,
    )
    return selfcheck.traces() | {f"container {name}" for name in listing.stdout.split()}


@pytest.mark.parametrize(
    "trial",
    [
        pytest.param(
            trial,
            id=f"{kind(trial)}-{trial.name}",
            marks=[] if trial.name in QUICK[kind(trial)] else [pytest.mark.slow],
        )
        for trial in TRIALS
    ],
)
def test_trial(ran: Ran, trial: selfcheck.Trial) -> None:
    result = ran.results[trial.name]
    assert result.verdict.solved == trial.honest, result.failure
    assert result.ok, "an honest program right after it was not solved"


def test_the_host_is_as_before(ran: Ran) -> None:
    assert ran.after == ran.before


def test_every_kind_says_what_it_does() -> None:
    for trial in TRIALS:
        assert trial.about.endswith("."), trial.name
    assert sum(trial.honest for trial in TRIALS) >= 30
    assert sum(not trial.honest for trial in TRIALS) >= 60
    for which, names in QUICK.items():
        assert set(names) <= {trial.name for trial in TRIALS if kind(trial) == which}
