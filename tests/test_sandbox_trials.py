"""The honest programs are solved, the hostile ones are not, and neither leaves anything on the host."""

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from sdpo_solve import trials
from sdpo_solve.errors import PrerequisiteError
from sdpo_solve.judge import Judge
from sdpo_solve.sandboxes import bubblewrap, docker
from sdpo_solve.sandboxes._pooled import PooledSandbox

pytestmark = pytest.mark.slow

TRIALS = trials.load()
OPTIONS = {"boxes_ready": 2, "parallel": 2}
BACKENDS: dict[str, Callable[[], PooledSandbox]] = {
    "docker": lambda: docker.build(docker.Options(**OPTIONS)),
    "bubblewrap": lambda: bubblewrap.build(bubblewrap.Options(**OPTIONS)),
    "bubblewrap-namespaces": lambda: bubblewrap.build(bubblewrap.Options(**OPTIONS, separate="namespace")),
}


@dataclass(frozen=True)
class Ran:
    """All trials on one backend, and what the host looked like before and after."""

    results: dict[str, trials.TrialResult]
    before: set[str]
    after: set[str]


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.docker) for name in BACKENDS])
def ran(request: pytest.FixtureRequest) -> Ran:
    before = host()
    try:
        sandbox = BACKENDS[request.param]()
    except PrerequisiteError as exc:
        pytest.skip(str(exc))
    try:
        results = trials.run(Judge(sandbox), TRIALS, at_a_time=2)
    finally:
        sandbox.close()
    return Ran({result.trial.name: result for result in results}, before, host())


def host() -> set[str]:
    """What trials try to leave: processes, files in shared places; and the containers of this process."""
    listing = subprocess.run(
        ["docker", "ps", "-aq", "--filter", f"label=sdpo-solve.box={os.getpid()}"],
        capture_output=True,
        text=True,
        check=False,
    )
    return trials.traces() | {f"container {name}" for name in listing.stdout.split()}


@pytest.mark.parametrize(
    "trial", TRIALS, ids=lambda trial: f"{'honest' if trial.honest else 'hostile'}-{trial.name}"
)
def test_trial(ran: Ran, trial: trials.Trial) -> None:
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
