"""Tests of this room that need Docker's engine are skipped where none answers; the contract sees to that itself."""

from functools import cache

import pytest

from sdpo_solve.sandboxes import install


@cache
def _lacks() -> str:
    check = install.check_image()
    return "" if check.ok else f"{check.detail}; {check.remedy}"


@pytest.fixture(autouse=True, scope="module")
def _engine(request: pytest.FixtureRequest) -> None:
    """Before the fixtures of a module that start containers."""
    marks = [mark.name for mark in getattr(request.module, "pytestmark", ())]
    if "docker" in marks and _lacks():
        pytest.skip(_lacks())


@pytest.fixture(autouse=True)
def _engine_of_test(request: pytest.FixtureRequest) -> None:
    docker = request.node.get_closest_marker("docker") is not None
    if docker and "backend" not in request.fixturenames and _lacks():
        pytest.skip(_lacks())
