"""The parts of a run: which sandbox `auto` takes, and what is made before its clock starts."""

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sdpo_solve.config import RunOptions
from sdpo_solve.errors import ConfigError, EngineError, JournalError, PrerequisiteError
from sdpo_solve.methods.multi_turn import MultiTurn
from sdpo_solve.model.adapted import AdaptedModel
from sdpo_solve.model.names import ModelDir
from sdpo_solve.run.build import Parts, new_run
from sdpo_solve.run.journal import Journal
from sdpo_solve.run.options import make_plan
from sdpo_solve.sandboxes import bubblewrap, docker
from tests.helpers.attempts import attempt
from tests.helpers.killed_runs import PROBLEM, NoBox
from tests.helpers.tiny_model import save_tiny_model


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


def test_loading_the_weights_is_none_of_a_run_s_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads = []
    load = AdaptedModel.load

    def slow(*given: Any, **named: Any) -> AdaptedModel:
        time.sleep(2)
        loads.append(given)
        return load(*given, **named)

    monkeypatch.setattr(AdaptedModel, "load", slow)
    save_tiny_model(tmp_path / "tiny")
    options = {"model": str(tmp_path / "tiny"), "method": "best-of-k"}
    plan = make_plan(RunOptions.model_validate(options))
    with Parts(plan) as parts:
        vars(parts)["sandbox"] = NoBox()
        run = new_run(parts, plan, PROBLEM, tmp_path / "out")
        assert len(loads) == 1
        assert run.journal.elapsed_s < 1.5
        run.close()


@pytest.mark.parametrize(("engine_tokens", "tokens"), [(99, 99), (None, 2048), (4096, 2048)])
def test_a_method_plans_with_the_shorter_context(
    tmp_path: Path, engine_tokens: int | None, tokens: int
) -> None:
    """vLLM may be started with less than the model's context."""
    plan = make_plan(RunOptions.model_validate({"model": "tiny", "method": "multi-turn"}))
    engine = SimpleNamespace(context_tokens=engine_tokens, identity=lambda: "vllm", close=lambda: None)
    weights = SimpleNamespace(tokenizer=None, context_tokens=2048)
    with Parts(plan) as parts:
        model = ModelDir("tiny", tmp_path, "tiny")
        vars(parts).update(sandbox=NoBox(), engine=engine, weights=weights, model=model)
        run = new_run(parts, plan, PROBLEM, tmp_path / "out")
        assert isinstance(run.method, MultiTurn)
        assert run.method.room.context_tokens == tokens
        run.close()


@pytest.mark.parametrize(("engine", "n"), [("openai", 3), ("scripted", 7)])
def test_tokens_of_a_server_s_model_are_estimated_from_bytes(tmp_path: Path, engine: str, n: int) -> None:
    """Seven bytes; there is no tokenizer here."""
    model = "m" if engine == "openai" else None
    plan = make_plan(RunOptions.model_validate({"engine": engine, "model": model, "method": "multi-turn"}))
    replies = tmp_path if engine == "scripted" else None
    assert Parts(plan, replies=replies).count_tokens()("abcdeé") == n


def test_a_run_that_another_process_writes_loads_no_weights(tmp_path: Path) -> None:
    options = {"model": str(tmp_path / "none"), "method": "best-of-k"}
    plan = make_plan(RunOptions.model_validate(options))
    journal = Journal(tmp_path / "out" / "say" / "best-of-k" / "seed-0", "run")
    with Parts(plan) as parts:
        vars(parts).update(sandbox=NoBox(), model=ModelDir("none", tmp_path / "none", "none"))
        with pytest.raises(JournalError, match="another process is writing"):
            new_run(parts, plan, PROBLEM, tmp_path / "out")
        assert "weights" not in vars(parts)
    journal.close()


def begin(out: Path, *, keep_going: bool, group: bool = False) -> list[str]:
    """Begin a run, or go on with it, with a group where one is wanted; the kinds of its events."""
    plan = make_plan(RunOptions(engine="scripted", method="best-of-k", keep_going=keep_going))
    (out.parent / "replies").write_text("")
    with Parts(plan, replies=out.parent / "replies") as parts:
        vars(parts)["sandbox"] = NoBox()
        run = new_run(parts, plan, PROBLEM, out)
        assert (run.journal.run_dir / "config.json").exists()
        run.journal.start(run.header)
        if group:
            run.journal.append_group([attempt(1, 0)], sample_s=1, grade_s=1)
        else:
            run.journal.fail(EngineError("the server is gone"))
        run.close()
        return [json.loads(line)["event"] for line in run.journal.path.read_text().splitlines()]


def test_a_run_is_what_its_journal_began_with(tmp_path: Path) -> None:
    """The configuration is on disk before the journal begins; without the file the header is compared."""
    begin(tmp_path / "out", keep_going=False, group=True)
    (tmp_path / "out/say/best-of-k/seed-0/config.json").unlink()
    with pytest.raises(ConfigError, match=r"options\.keep_going = False, now it is True"):
        begin(tmp_path / "out", keep_going=True)
    begin(tmp_path / "out", keep_going=False)


def test_a_run_that_came_to_no_group_begins_anew_with_other_options(tmp_path: Path) -> None:
    """And goes on with the same, its failures counted; a policy without a journal's group is not lost."""
    out, run_dir = tmp_path / "out", tmp_path / "out/say/best-of-k/seed-0"
    begin(out, keep_going=False)
    assert begin(out, keep_going=False) == ["run_started", "run_failed", "run_failed"]
    assert begin(out, keep_going=True) == ["run_started", "run_failed"]
    config = json.loads((run_dir / "config.json").read_text())
    header = json.loads((run_dir / "journal.jsonl").read_text().splitlines()[0])
    assert config["options"]["keep_going"] is header["keep_going"] is True
    (run_dir / "policies" / "0001").mkdir(parents=True)
    with pytest.raises(ConfigError, match="keep_going = True, now it is False"):
        begin(out, keep_going=False)


def test_a_run_before_its_first_group_is_its_process_s_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, run_dir = tmp_path / "out", tmp_path / "out/say/best-of-k/seed-0"
    begin(out, keep_going=False)
    before = (run_dir / "journal.jsonl").read_text(), (run_dir / "config.json").read_text()
    journal = Journal(run_dir, "run")
    with pytest.raises(JournalError, match="another process is writing"):
        begin(out, keep_going=True)
    journal.close()
    monkeypatch.setattr(Journal, "_lock", lambda self: False)
    with pytest.raises(JournalError, match="no locks"):
        begin(out, keep_going=True)
    assert before == ((run_dir / "journal.jsonl").read_text(), (run_dir / "config.json").read_text())
