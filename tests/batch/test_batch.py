"""A batch of a real (tiny) model and a real sandbox, killed and interrupted: nothing is lost or mixed."""

import signal
import time
from pathlib import Path

import pytest

from sdpo_solve.batch.batch import prepare
from sdpo_solve.batch.spec import make_spec
from sdpo_solve.errors import ConfigError
from tests.helpers.batches import journals, make_problems, start, until

pytestmark = [pytest.mark.docker, pytest.mark.slow]

FLAGS = ("--attempts", "8", "--in-flight", "2")
WAIT_S = 240


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the problems and `whole`, a batch that nothing disturbed."""
    root = tmp_path_factory.mktemp("batches")
    make_problems(root / "problems", 2)
    assert start(root, *FLAGS, "--out", "whole").wait(WAIT_S) == 0, (root / "said").read_text()
    assert len(journals(root / "whole")) == 6
    return root


def n_groups(out: Path) -> int:
    return sum(path.read_text().count('"event": "group"') for path in out.glob("*/*/*/journal.jsonl"))


def disturb(folder: Path, groups: int, *signals: int) -> int:
    """Start the batch, send signals once so many groups are on disk; returns its exit code."""
    process = start(folder, *FLAGS, "--out", "disturbed")
    until(process, lambda: n_groups(folder / "disturbed") >= groups)
    for number in signals:
        process.send_signal(number)
        time.sleep(0.05)
    return process.wait(WAIT_S)


def test_a_batch_disturbed_in_every_way_ends_with_the_journals_of_an_undisturbed_one(folder: Path) -> None:
    assert disturb(folder, 2, signal.SIGKILL) == -signal.SIGKILL
    assert disturb(folder, 6, signal.SIGINT) == 130
    assert (folder / "said").read_text().count("the same command goes on") == 1
    assert disturb(folder, 11, signal.SIGTERM) == 143
    assert start(folder, *FLAGS, "--out", "disturbed").wait(WAIT_S) == 0
    assert journals(folder / "disturbed") == journals(folder / "whole")


def test_other_options_do_not_mix_with_runs_on_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    flags = {"sources": "problems", "model": "tiny", "max_tokens": 32, "group_size": 4, "attempts": 8}
    flags["settings"] = {"sdpo": {"preset": "paper"}, "learner": {"min_gap": 0.0}}
    prepare(make_spec({}, flags), folder / "whole")
    with pytest.raises(ConfigError, match=r"options.temperature = 1.0, now it is 0.7"):
        prepare(make_spec({}, {**flags, "temperature": 0.7}), folder / "whole")


SLOW_LOAD = """
import time
from sdpo_solve.model.adapted import AdaptedModel
AdaptedModel.load = classmethod(lambda cls, *given, **named: (print("loading", flush=True), time.sleep(60)))
from sdpo_solve.cli.main import main
main()
"""


@pytest.mark.parametrize("flags", [("--measure", "--dry-run"), ()], ids=["measuring", "running"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_weights_are_loaded_ends_the_batch_at_once(
    folder: Path, number: int, code: int, flags: tuple[str, ...]
) -> None:
    process = start(
        folder, *FLAGS, *flags, "--out", "never", code=SLOW_LOAD, log=f"load-{number}-{len(flags)}"
    )
    log = folder / f"load-{number}-{len(flags)}"
    until(process, lambda: "loading" in log.read_text(), WAIT_S)
    process.send_signal(number)
    sent_s = time.monotonic()
    assert process.wait(WAIT_S) == code
    assert time.monotonic() - sent_s < 5  # two on a quiet machine
    assert ("the same command goes on" in log.read_text()) == ("--dry-run" not in flags)
    assert not list(folder.glob(".sdpo-solve-measure-*"))
