"""The parts of a run: which sandbox `auto` takes."""

from typing import Any

import pytest

from sdpo_solve.config import RunOptions
from sdpo_solve.errors import PrerequisiteError
from sdpo_solve.run.build import Parts
from sdpo_solve.run.options import make_plan
from sdpo_solve.sandboxes import bubblewrap, docker


def parts(name: str) -> Parts:
    return Parts(make_plan(RunOptions.model_validate({"sandbox": name}), grading_only=True))


def starts(monkeypatch: pytest.MonkeyPatch, **works: bool) -> None:
    """In place of each sandbox its name, or what is missing."""
    for name, module in (("docker", docker), ("bubblewrap", bubblewrap)):

        def build(options: Any, language: str, name: str = name) -> Any:
            if not works[name]:
                raise PrerequisiteError(f"{name} makes no box: Invalid argument")
            return name

        monkeypatch.setattr(module.PLUGIN, "build", build)


def test_auto_goes_on_where_the_first_sandbox_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    starts(monkeypatch, docker=True, bubblewrap=True)
    assert parts("auto").sandbox == "docker"
    starts(monkeypatch, docker=False, bubblewrap=True)
    assert parts("auto").sandbox == "bubblewrap"
    with pytest.raises(PrerequisiteError, match="docker makes no box"):
        _ = parts("docker").sandbox
    starts(monkeypatch, docker=False, bubblewrap=False)
    with pytest.raises(PrerequisiteError, match=r"docker makes no box.*bubblewrap makes no box"):
        _ = parts("auto").sandbox
