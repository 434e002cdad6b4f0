"""The probe at its real size: a real vLLM, the 0.5B, one real update at 5e-5; what is served is damaged on its way."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from sdpo_solve.engines import EngineParts
from sdpo_solve.engines._vllm_backend import Options
from sdpo_solve.engines.vllm import VllmEngine
from sdpo_solve.errors import EngineError
from sdpo_solve.learner.learner import build
from sdpo_solve.learner.options import Options as LearnerOptions
from sdpo_solve.model import names
from sdpo_solve.model.adapted import AdaptedModel
from sdpo_solve.types import Example, Message, Policy, Prompt, SamplingSpec
from tests.helpers.damages import DAMAGES

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]
QUESTION = "Write a Python function `f(words, n)` that returns the words longer than n."
ASK = Prompt((Message("user", QUESTION),))
TOLD = Prompt((Message("user", f"{QUESTION}\n\nWrong Answer: words is a text, split it first.\n\nAgain."),))
SHORT = SamplingSpec(24)


@dataclass(frozen=True)
class Updated:
    """An engine, and the policies after one update and after two."""

    engine: VllmEngine
    first: Policy
    second: Policy


@pytest.fixture(scope="module")
def updated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Updated]:
    folder = tmp_path_factory.mktemp("damage")
    model_dir = names.resolve("qwen2.5-coder-0.5b").path
    host = AdaptedModel.load(model_dir)
    parts = EngineParts(lambda: host, lambda: model_dir, None, 0, None)
    engine = VllmEngine.build(Options(batch_rows=4, max_model_len=1024), parts)
    learner = build(LearnerOptions(lr=5e-5, on_collapse="ignore", min_gap=0), host)
    chain = [learner.start("run", folder / "policies", seed=0)]
    for _ in range(2):
        samples = engine.sample([ASK] * 4, [1, 2, 3, 4], chain[-1], SHORT)
        chain.append(learner.learn([Example(s, TOLD, 0.0) for s in samples], SHORT).policy)
        learner.keep(chain[-1])
    yield Updated(engine, chain[1], chain[2])
    engine.close()


def serve(updated: Updated, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], Path]) -> None:
    """vLLM is given `damage(directory)` in place of each directory, and forgets what it held."""
    updated.engine._forget()
    load = updated.engine.backend.load
    damaged = lambda adapter: load(replace(adapter, directory=damage(adapter.directory)))  # noqa: E731
    monkeypatch.setattr(updated.engine.backend, "load", damaged)


def test_the_true_adapter_of_one_update_is_accepted(updated: Updated) -> None:
    updated.engine._forget()
    assert len(updated.engine.sample([ASK], [0], updated.first, SHORT)) == 1


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_projection_is_stopped(
    updated: Updated,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    damage: Callable[[dict[str, Any]], None],
) -> None:
    def damaged(directory: Path) -> Path:
        copy = copytree(directory, tmp_path / directory.name)
        tensors = load_file(copy / "adapter_model.safetensors")
        damage(tensors)
        save_file(tensors, copy / "adapter_model.safetensors", {"format": "pt"})
        return copy

    serve(updated, monkeypatch, damaged)
    with pytest.raises(EngineError, match="does not hold the whole adapter of policy run@1") as caught:
        updated.engine.sample([ASK], [0], updated.first, SHORT)
    print(damage.__name__, caught.value)


def test_an_older_adapter_is_stopped(
    updated: Updated, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also where its product is enlarged as the newer one's should be."""
    older = updated.first.adapter_dir
    assert older is not None

    def enlarged(directory: Path) -> Path:
        copy = copytree(older, tmp_path / directory.name)
        tensors = load_file(copy / "adapter_model.safetensors")
        newer = load_file(directory / "adapter_model.safetensors")
        for name in [name for name in tensors if "lora_B" in name]:
            tensors[name] *= float(newer[name].norm() / tensors[name].norm())
        save_file(tensors, copy / "adapter_model.safetensors", {"format": "pt"})
        return copy

    for damage in (lambda _: older, enlarged):
        serve(updated, monkeypatch, damage)
        with pytest.raises(EngineError, match="does not hold the whole adapter of policy run@2"):
            updated.engine.sample([ASK], [0], updated.second, SHORT)
        monkeypatch.undo()
