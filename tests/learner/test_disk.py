"""A disk that is full or cannot be written loses one step of learning and nothing else."""

import pytest
import torch

from sdpo_solve.errors import LearnerError
from sdpo_solve.model.adapted import AdaptedModel
from tests.helpers.disks import Disk, fill, remount
from tests.helpers.tiny_model import save_tiny_model
from tests.helpers.updates import SPEC, group, learner


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> AdaptedModel:
    path = save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")
    return AdaptedModel.load(path, "cpu", torch.float32)


@pytest.mark.parametrize("leave_bytes", [0, 8 << 10, 100 << 10, 300 << 10])
def test_a_full_disk_loses_the_step_and_nothing_else(
    disk: Disk, host: AdaptedModel, leave_bytes: int
) -> None:
    """The disk fills up before, or in the middle of, one of the files of a version."""
    place = disk("size=8m")
    found = learner(host)
    first = found.learn(group(host, found.start("run", place / "policies", 0)), SPEC).policy
    filler = fill(place, leave_bytes)
    with pytest.raises(LearnerError, match=r"cannot write .*policies/0002: .*No space left on device"):
        found.learn(group(host, first), SPEC)
    assert [path.name for path in (place / "policies").iterdir()] == ["0001"]
    filler.unlink()
    again = learner(host)
    assert again.learn(group(host, again.resume("run", place / "policies", 0, 1)), SPEC).policy.version == 2


def test_a_disk_that_turns_read_only_is_named(disk: Disk, host: AdaptedModel) -> None:
    place = disk("size=8m")
    found = learner(host)
    first = found.learn(group(host, found.start("run", place / "policies", 0)), SPEC).policy
    remount(place, "ro")
    with pytest.raises(LearnerError, match=r"cannot write .*policies/0002: Read-only file system"):
        found.learn(group(host, first), SPEC)
    with pytest.raises(LearnerError, match=r"cannot write .*kept\.json: Read-only file system"):
        found.keep(first)
    (place / "policies" / "0001" / "state.json").read_text()
