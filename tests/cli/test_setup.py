"""`setup` makes sandbox and model side by side; where one fails, the other is kept."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sdpo_solve.cli.main import app
from sdpo_solve.errors import ConfigError, PrerequisiteError
from sdpo_solve.sandboxes import install
from tests.helpers.tiny_model import save_tiny_model


def makes(monkeypatch: pytest.MonkeyPatch, error: PrerequisiteError | None) -> list[str]:
    """A sandbox that is made, or fails; gives the languages it was made for."""
    made: list[str] = []

    def ensure(notify: Callable[[str], None], images: dict[str, None]) -> None:
        notify("building")
        if error is not None:
            raise error
        made.extend(images)

    monkeypatch.setattr(install, "ensure_sandbox", ensure)
    return made


def invoke(*words: str) -> Result:
    return CliRunner().invoke(app, ["setup", *words])


def test_a_model_that_cannot_be_fetched_leaves_the_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    made = makes(monkeypatch, None)
    result = invoke("--model", "no-such", "--language", "cpp")
    assert isinstance(result.exception, ConfigError)
    assert "no-such" in str(result.exception)
    assert made == ["python", "cpp"]
    assert "sandbox: building" in result.output
    assert "model: failed: unknown model" in result.output


def test_a_sandbox_that_fails_leaves_the_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    makes(monkeypatch, PrerequisiteError("no engine"))
    result = invoke("--model", str(save_tiny_model(tmp_path / "tiny")))
    assert str(result.exception) == "no engine"
    assert "sandbox: failed: no engine" in result.output
    assert f"model: {tmp_path / 'tiny'}" in result.output
    assert "ready" not in result.output
