"""A vLLM server as an engine: faults of the protocol from a small HTTP server; a real one killed under a batch."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sdpo_solve.engines._vllm_backend import Adapter, Options, Request, sampling_arguments
from sdpo_solve.engines._vllm_server import Server
from sdpo_solve.errors import ConfigError, EngineError, PrerequisiteError
from sdpo_solve.model.cpu import cpu_dtype
from sdpo_solve.types import Finish
from tests.helpers.batches import journals, make_problems, start, until
from tests.helpers.chat_server import ChatServer, Reply
from tests.helpers.command import Place
from tests.helpers.tiny_model import save_tiny_model
from tests.helpers.vllm_server import VllmServer

ADAPTER = Adapter("sdpo-1", 1, Path("/runs/policies/0001"))


class FakeVllm:
    """vLLM's routes with log-probs of its own making: -1 a token, divided by the temperature."""

    def __init__(self, *, root: str = "/models/tiny", processed: bool = True) -> None:
        self.root, self.processed = root, processed
        self.adapters: dict[str, str] = {}
        self.refusal: Reply | None = None
        self.choice: dict[str, Any] = {}

    def models(self) -> Reply:
        base = {"id": "served", "root": self.root, "parent": None, "max_model_len": 99}
        loaded = [{"id": name, "root": path, "parent": "served"} for name, path in self.adapters.items()]
        return Reply({"data": [base, *loaded]})

    def __call__(self, body: dict[str, Any]) -> Reply:
        if "lora_path" in body:
            if self.refusal is None:
                self.adapters[body["lora_name"]] = body["lora_path"]
            return self.refusal or Reply("Success: added")
        if "lora_name" in body:
            gone = self.adapters.pop(body["lora_name"], None) is None
            return (
                Reply({"error": {"message": "cannot be found"}}, 404) if gone else Reply("Success: removed")
            )
        if body["model"] not in ("served", *self.adapters):
            return Reply({"error": {"message": f"The model {body['model']} does not exist."}}, 404)
        logprob = -1 / (body["temperature"] if self.processed else 1)
        n = min(body["max_tokens"], 3)
        scored = [None, *({str(i): {"logprob": -i / 8}} for i in body["prompt"][1:])]
        logprobs = {"token_logprobs": [logprob] * n, "top_logprobs": [{"x": logprob}] * n}
        choice = {"token_ids": body["prompt"][:1] * n, "logprobs": logprobs, "finish_reason": "length"}
        prompt = {"prompt_logprobs": scored} if "prompt_logprobs" in body else {}
        return Reply({"choices": [{**choice, **prompt, **self.choice}]})


@contextmanager
def serving(fake: FakeVllm) -> Iterator[ChatServer]:
    with ChatServer(fake, fake.models) as http:
        yield http


@pytest.fixture
def fake() -> FakeVllm:
    return FakeVllm()


def server_at(http: ChatServer, model: str = "tiny", name: str | None = None, **options: Any) -> Server:
    return Server(Path(model), name, Options(server=http.url, **options), rank=16, n_adapters=2)


def requests(adapter: Adapter | None = None) -> list[Request]:
    return [Request((token, 9), 2, 5 + token, adapter) for token in (7, 8)]


def test_ids_go_in_and_ids_and_logprobs_come_out(fake: FakeVllm) -> None:
    told: list[tuple[int, int]] = []
    with serving(fake) as http:
        server = server_at(http)
        server.load(ADAPTER)
        answers = server.generate(
            requests(ADAPTER), sampling_arguments(0.5, {3}, None), lambda *n: told.append(n)
        )
        assert server.score((1, 2, 4), ADAPTER) == [-0.25, -0.5]
        assert server.held() == {"sdpo-1"}
    assert [a.token_ids_T for a in answers] == [(7, 7), (8, 8)]
    assert {a.logprobs_T for a in answers} == {(-2.0, -2.0)}
    assert {a.finish for a in answers} == {Finish.LENGTH}
    assert told == [(2, 1), (4, 2)]
    sent = [body for body, _ in http.seen if body.get("seed") == 12]
    assert sent[0]["model"] == "sdpo-1"
    assert (sent[0]["prompt"], sent[0]["stop_token_ids"]) == ([7, 9], [3])
    whole = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
    assert {name: sent[0][name] for name in whole} == whole, "whatever the model's own configuration says"


def test_adapters_of_ours_leave_the_server_at_the_end(fake: FakeVllm) -> None:
    fake.adapters = {"of-others": "/x"}
    with serving(fake) as http:
        server = server_at(http)
        for n in (1, 2):
            server.load(Adapter(f"sdpo-{n}", n, Path("/runs")))
        server.unload(Adapter("sdpo-1", 1, Path("/runs")))
        server.unload(Adapter("sdpo-1", 1, Path("/runs")))
        server.close()
        server.close()
    assert set(fake.adapters) == {"of-others"}


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (Reply({"detail": "Not Found"}, 404), "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"),
        (Reply({"error": {"message": "No adapter found for /runs"}}, 404), "cannot read /runs/policies/0001"),
        (Reply({"error": {"message": "LoRA rank 64 is greater than 32"}}, 500), "--max-lora-rank 16"),
    ],
)
def test_an_adapter_that_is_refused_has_its_remedy(fake: FakeVllm, refusal: Reply, words: str) -> None:
    fake.refusal = refusal
    with serving(fake) as http, pytest.raises(EngineError) as caught:
        server_at(http).load(ADAPTER)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_logprobs_without_the_temperature_are_refused(fake: FakeVllm) -> None:
    fake.processed = False
    with serving(fake) as http:
        server = server_at(http)
        assert len(server.generate(requests(), sampling_arguments(1.0, {3}, None), None)) == 2
        for _ in range(2):
            with pytest.raises(EngineError, match="--logprobs-mode processed_logprobs"):
                server.generate(requests(), sampling_arguments(0.7, {3}, None), None)


@pytest.mark.parametrize(
    ("root", "model", "name"),
    [("/models/tiny", "tiny", None), ("org/tiny", "5f2a", "other/tiny"), ("x", "served", None)],
)
def test_the_models_name_is_compared(fake: FakeVllm, root: str, model: str, name: str | None) -> None:
    fake.root = root
    with serving(fake) as http:
        assert server_at(http, model, name).context_tokens == 99
        with pytest.raises(PrerequisiteError, match=rf"serves {root}, and the learner has large"):
            server_at(http, "large")


def test_another_model_after_a_restart_is_an_error(fake: FakeVllm) -> None:
    with serving(fake) as http:
        server = server_at(http)
        fake.root = "/models/v2/tiny"
        with pytest.raises(EngineError, match="/models/v2/tiny now"):
            server.held()


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"token_ids": None}, "token_ids"),
        ({"logprobs": None}, "logprobs"),
        ({"token_ids": [1]}, "log-probs of 1"),
    ],
)
def test_a_server_that_does_not_tell_what_was_sampled_is_refused(
    fake: FakeVllm, choice: dict[str, Any], words: str
) -> None:
    fake.choice = choice
    with serving(fake) as http, pytest.raises(EngineError, match=words):
        server_at(http).generate(requests(), sampling_arguments(1.0, {3}, None), None)


@pytest.mark.parametrize(
    "option", [{"eager": True}, {"cpu_cache_gb": 3}, {"max_model_len": 100}, {"sleep": True}]
)
def test_options_that_start_a_vllm_are_refused(fake: FakeVllm, option: dict[str, Any]) -> None:
    with serving(fake) as http, pytest.raises(ConfigError, match=f"engine.{next(iter(option))}"):
        server_at(http, **option)


def test_the_key_of_the_server(fake: FakeVllm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "a")
    monkeypatch.setenv("MY_KEY", "b")
    with serving(fake) as http:
        server_at(http).score((1, 2), None)
        server_at(http, key_variable="MY_KEY", timeout_s=3.0).score((1, 2), None)
    assert [headers["Authorization"] for _, headers in http.seen] == ["Bearer a", "Bearer b"]


# -- a real one ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    """A vLLM on a tiny model called `tiny`, in the learner's number format."""
    folder = tmp_path_factory.mktemp("real")
    model_dir = save_tiny_model(folder / "tiny", hidden=256)
    server = VllmServer(model_dir, folder / "server.log", cpu_dtype(), "--served-model-name", "tiny").start()
    yield server
    server.kill()


@pytest.mark.vllm
@pytest.mark.docker
@pytest.mark.filterwarnings("ignore")
def test_its_chat_completions_serve_what_does_not_learn(real: VllmServer, tmp_path: Path) -> None:
    place = Place(tmp_path)
    at = ("--engine", "openai", "--server", real.url, "--model", "tiny", "--max-tokens", "12")
    for method, more in (("best-of-k", ("--group-size", "2")), ("multi-turn", ())):
        done = place("run", "inc.json", *at, "--method", method, "--attempts", "3", *more, "--out", "out")
        assert done.returncode == 1, done.stderr
        events = place.events(method)
        attempts = [event for event in events if event["event"] == "attempt"]
        assert len(attempts) == 3
        assert all(0 < len(event["token_ids"]) <= 12 for event in attempts)
        assert len({event["text"] for event in attempts}) == 3, "each has a seed of its own"
    screened = place("screen", "inc.json", *at, "--attempts", "4", "--out", "screen", "--json")
    assert screened.returncode == 0, screened.stderr
    assert json.loads(screened.stdout)["problems"][0]["samples"] == 4


def has_event(out: Path, holds: Callable[[dict[str, Any]], bool]) -> bool:
    lines = [line for path in out.glob("*/*/*/journal.jsonl") for line in path.read_text().splitlines()]
    return any(holds(json.loads(line)) for line in lines if line.endswith("}"))


@pytest.mark.vllm
@pytest.mark.docker
@pytest.mark.filterwarnings("ignore")
def test_a_batch_outlives_its_server(real: VllmServer, tmp_path: Path) -> None:
    """Killed after an update and started again: no run fails, and adapters are loaded anew."""
    (tmp_path / "tiny").symlink_to(real.model_dir)
    make_problems(tmp_path / "problems", 2)
    settings = ("--set", "engine.probe_tolerance=0.1", "--set", "learner.on_collapse=ignore")
    batch = start(
        *(tmp_path, "--methods", "sdpo", "--attempts", "24", "--merge", "--tries", "1", "--out", "out"),
        *("--engine", "vllm", "--server", real.url, *settings),
    )
    said = tmp_path / "said"
    try:
        until(batch, lambda: has_event(tmp_path / "out", lambda event: event["event"] == "update"))
        real.kill()
        until(batch, lambda: "the engine is gone" in said.read_text())
        real.start()
        assert batch.wait(400) == 0, said.read_text()
    finally:
        batch.kill()
        batch.wait()
    assert "the engine is back" in said.read_text()
    runs = journals(tmp_path / "out")
    assert len(runs) == 2
    for events in runs.values():
        kinds = [event["event"] for event in events]
        assert "run_failed" not in kinds
        assert kinds[-1] == "run_finished"
        assert {event["policy"]["version"] for event in events if event["event"] == "attempt"} == set(
            range(6)
        )
