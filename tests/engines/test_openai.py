"""`openai`: what is sent, what is read, and each fault of a server in one line, from a real HTTP server."""

import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from sdpo_solve.engines import EngineParts
from sdpo_solve.engines._http import Client
from sdpo_solve.engines.openai import UNKNOWN, OpenAIEngine, Options
from sdpo_solve.errors import ConfigError, EngineError, PrerequisiteError, SdpoSolveError
from sdpo_solve.types import Finish, Message, Policy, Prompt, Sample, SamplingSpec
from tests.helpers.chat_server import ChatServer, Reply, says
from tests.helpers.vllm_server import free_port

KEY = "sk-secret-5f2a"
BASE = Policy("run", 0)


def ask(text: str = "ab") -> Prompt:
    return Prompt((Message("system", "Be brief."), Message("user", text)))


def engine_at(url: str, model: str = "tiny", progress: Any = None, **options: Any) -> OpenAIEngine:
    def no_model() -> Any:
        raise AssertionError("no model is loaded")

    parts = EngineParts(None, no_model, None, 0, progress, model_name=model)
    return OpenAIEngine.build(Options(server=url, **options), parts)


def sample(engine: OpenAIEngine, prompts: list[Prompt], seeds: list[int] | None = None) -> list[Sample]:
    return engine.sample(prompts, seeds or list(range(len(prompts))), BASE, SamplingSpec(30, 0.7))


def test_prompts_go_out_as_messages_and_answers_come_back_in_order() -> None:
    """The first answer takes longest."""

    def reply(body: dict[str, Any]) -> Reply:
        text = body["messages"][-1]["content"]
        one = says(f"answer to {text}", n_tokens=len(text), finish="length" if text == "cc" else "stop")
        one.delay_s = 0.2 if text == "a" else 0
        return one

    told: list[tuple[int, int]] = []
    with ChatServer(reply) as server:
        engine = engine_at(server.url, progress=lambda *counts: told.append(counts))
        samples = sample(engine, [ask("a"), ask("bbb"), ask("cc")], [5, 6, 2**62 + 7])
    assert [s.text for s in samples] == ["answer to a", "answer to bbb", "answer to cc"]
    assert [s.finish for s in samples] == [Finish.STOP, Finish.STOP, Finish.LENGTH]
    assert [s.token_ids_T for s in samples] == [(UNKNOWN,), (UNKNOWN,) * 3, (UNKNOWN,) * 2]
    assert all(len(s.logprobs_T) == len(s.token_ids_T) for s in samples)
    assert told[-1] == (6, 3)
    assert told == sorted(told)
    sent = {body["messages"][1]["content"]: body for body, _ in server.seen}
    assert sent["a"]["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (sent["a"]["model"], sent["a"]["max_tokens"], sent["a"]["temperature"]) == ("tiny", 30, 0.7)
    assert (sent["a"]["seed"], sent["cc"]["seed"]) == (5, 7)
    assert all("Authorization" not in headers for _, headers in server.seen)


def test_the_key_goes_into_the_header_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    with ChatServer(lambda _: says("x")) as server:
        sample(engine_at(server.url, key_variable="MY_KEY"), [ask()])
    ((body, headers),) = server.seen
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert KEY not in str(body)


def test_no_more_at_once_than_wanted() -> None:
    def slow(_: Any) -> Reply:
        return Reply(says("x").body, delay_s=0.05)

    with ChatServer(slow) as server:
        sample(engine_at(server.url, batch_rows=3), [ask()] * 9)
    assert server.most_at_once == 3


def test_an_answer_without_text_is_an_empty_one() -> None:
    with ChatServer(lambda _: says(None, n_tokens=0)) as server:
        (got,) = sample(engine_at(server.url), [ask()])
    assert (got.text, got.token_ids_T) == ("", ())


HTML = Reply("<html><b>Sign in</b></html>")


@pytest.mark.parametrize(
    ("reply", "error", "words"),
    [
        (Reply({"error": {"message": f"bad key {KEY}"}}, 401), PrerequisiteError, ("MY_KEY", "401", "***")),
        (Reply({"error": "forbidden"}, 403), EngineError, ("403", "forbidden")),
        (
            Reply({"error": {"message": "none"}}, 404),
            EngineError,
            ("none", "--server wants the address below"),
        ),
        (Reply({"error": {"message": "context is 8192 tokens"}}, 400), EngineError, ("400", "8192")),
        (Reply({"detail": [{"loc": ["body"]}]}, 422), EngineError, ("422", "loc")),
        (Reply({"error": {"message": "boom"}}, 500), EngineError, ("500", "boom")),
        (Reply("<html>Bad Gateway\x1b[31m</html>", 502), EngineError, ("502", "Bad Gateway")),
        (Reply("", 302, {"location": "https://login"}), EngineError, ("302", "https://login")),
        (
            Reply({"error": {"message": "pay", "code": "insufficient_quota"}}, 429),
            EngineError,
            ("429", "insufficient_quota"),
        ),
        (
            Reply({"error": {"message": "pay " * 60, "code": "insufficient_quota"}}, 429),
            EngineError,
            ("429", "pay pay"),
        ),
        (Reply({"error": {"message": "upstream gone", "code": 502}}), EngineError, ("upstream gone (502)",)),
        (Reply({"choices": [{"error": {"message": f"gone {KEY}"}}]}), EngineError, ("gone ***",)),
        (says("half", finish="error"), EngineError, ("broke an answer off",)),
        (HTML, EngineError, ("no JSON", "text/html", "/v1")),
        (Reply("[1, 2]"), EngineError, ("no JSON",)),
        (Reply(None), EngineError, ("broke the connection off",)),
        (Reply({"choices": []}, declared=10_000), EngineError, ("broke the connection off",)),
        (Reply({}, delay_s=3), EngineError, ("within 2 s", "engine.timeout_s")),
        (Reply({"choices": []}), EngineError, ("choices",)),
        (Reply({"choices": [{"message": {"content": "x"}}]}), EngineError, ("usage",)),
        (Reply({"choices": "no", "usage": 3}), EngineError, ("choices",)),
    ],
)
def test_a_fault_is_one_line(
    monkeypatch: pytest.MonkeyPatch, reply: Reply, error: type[SdpoSolveError], words: tuple[str, ...]
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    with ChatServer(lambda _: reply) as server:
        engine = engine_at(server.url, key_variable="MY_KEY", timeout_s=2)
        with pytest.raises(error) as caught:
            sample(engine, [ask()] * 3)
    said = str(caught.value)
    assert type(caught.value) is error or isinstance(caught.value, error)
    assert all(word in said for word in (server.url, *words)), said
    assert len(said.splitlines()) == 1
    assert "\x1b" not in said
    assert KEY not in said


FORBIDDEN = Reply({"error": {"message": "it was flagged"}}, 403)


def test_a_403_is_about_the_key_at_the_start_and_where_none_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one, a prompt was refused: a moderated text, a model, a region."""
    monkeypatch.delenv("MY_KEY", raising=False)
    with ChatServer(lambda _: FORBIDDEN) as server:
        with pytest.raises(PrerequisiteError, match="MY_KEY is not set"):
            sample(engine_at(server.url, key_variable="MY_KEY"), [ask()])
        monkeypatch.setenv("MY_KEY", KEY)
        with pytest.raises(EngineError, match=r"403: it was flagged$"):
            sample(engine_at(server.url, key_variable="MY_KEY"), [ask()])
    with (
        ChatServer(lambda _: says("x"), models=lambda: FORBIDDEN) as server,
        pytest.raises(PrerequisiteError, match="MY_KEY is refused"),
    ):
        engine_at(server.url, key_variable="MY_KEY")


@pytest.mark.parametrize(
    ("model", "lists", "answers_before", "error", "words"),
    [
        ("none", True, False, PrerequisiteError, "with --model (it lists tiny, big)"),
        ("none", True, True, PrerequisiteError, "with --model (it lists tiny, big)"),
        ("tiny", True, True, EngineError, "answered 404: no endpoints"),
        ("tiny", False, True, EngineError, "answered 404: no endpoints"),
        ("tiny", False, False, PrerequisiteError, "--server wants the address below which /chat/completions"),
    ],
)
def test_a_404_is_of_the_model_of_the_address_or_of_one_prompt(
    model: str, lists: bool, answers_before: bool, error: type[SdpoSolveError], words: str
) -> None:
    none = Reply({"error": {"message": "no endpoints"}}, 404)
    models = Reply({"data": [{"id": "tiny"}, {"id": "big"}]}) if lists else Reply("not here", 404)

    def reply(body: dict[str, Any]) -> Reply:
        return says("x") if body["messages"][-1]["content"] == "first" else none

    with ChatServer(reply, models=lambda: models) as server:
        engine = engine_at(server.url, model)
        if answers_before:
            sample(engine, [ask("first")])
        with pytest.raises(error) as caught:
            sample(engine, [ask("second")])
    said = str(caught.value)
    assert said.endswith(words) or f"; {words}" in said or f"model of the server {words}" in said, said


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("https://new.example/v1/models", "https://new.example/v1;"),
        ("/api/v1/models", "/api/v1;"),
        ("https://new.example/\x1b[31mv1", "https://new.example/"),
    ],
)
def test_a_redirect_is_told_at_the_start(location: str, target: str) -> None:
    moved = Reply("", 308, {"location": location})
    with ChatServer(lambda _: says("x"), models=lambda: moved) as server:
        with pytest.raises(PrerequisiteError, match=r"redirects \(308\) to .* give that address") as caught:
            engine_at(server.url)
        assert (target if "://" in target else server.url + target) in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_a_server_that_loads_is_asked_again_every_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer to a prompt is waited for in ever longer pauses."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("sdpo_solve.engines._http.asyncio.sleep", sleep)
    loading = Reply({"error": "Loading model"}, 503)
    with (
        ChatServer(lambda _: says("x"), models=lambda: loading) as server,
        pytest.raises(PrerequisiteError, match="is busy for 600 s"),
    ):
        engine_at(server.url)
    assert (max(pauses), pauses[:4]) == (5.0, [1, 2, 4, 5])


@pytest.mark.parametrize("key", ["sk-one\nsk-two", "sk-one…", "sk-\x1bone"])
def test_a_key_that_no_header_can_hold_is_refused_by_the_name_of_its_variable(
    monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("MY_KEY", key)
    with pytest.raises(PrerequisiteError, match=r"^MY_KEY holds no key") as caught:
        engine_at("http://h", key_variable="MY_KEY")
    assert "sk-" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("HTTPS_PROXY", "socks5://127.0.0.1:9", "pip install socksio"),
        ("HTTPS_PROXY", "gopher://127.0.0.1:9", "HTTPS_PROXY"),
        ("HTTPS_PROXY", "http://127.0.0.1:port", "HTTPS_PROXY"),
        ("SSL_CERT_FILE", "/none.pem", "SSL_CERT_FILE is /none.pem, which is not there"),
        ("SSL_CERT_FILE", __file__, "SSL_CERT_FILE"),
    ],
)
def test_an_environment_that_allows_no_connection_is_a_prerequisite(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: str
) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)  # type: ignore[arg-type]  # as where it is not installed
    monkeypatch.setenv(variable, value)
    with pytest.raises(PrerequisiteError) as caught:
        engine_at("https://127.0.0.1:9")
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_an_answer_that_the_context_cuts_has_not_ended() -> None:
    """Mistral's word for it."""
    with ChatServer(lambda _: says("half", finish="model_length")) as server:
        (got,) = sample(engine_at(server.url), [ask()])
    assert got.finish is Finish.LENGTH


def test_a_key_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with (
        ChatServer(lambda _: says("x"), models=lambda: Reply({"error": "who are you"}, 401)) as server,
        pytest.raises(PrerequisiteError, match="OPENAI_API_KEY is not set"),
    ):
        engine_at(server.url)


def test_a_server_that_is_not_there_is_missing_at_the_start_and_gone_later() -> None:
    with pytest.raises(PrerequisiteError, match="cannot be reached"):
        engine_at(f"http://127.0.0.1:{free_port()}")
    with ChatServer(lambda _: says("x")) as server:
        engine = engine_at(server.url)
    for call in (engine.probe, lambda: sample(engine, [ask()])):
        with pytest.raises(EngineError, match="cannot be reached"):
            call()


def busy(n: int, status: int = 429, wait: str = "0.02") -> Callable[[Any], Reply]:
    """So many refusals, then answers."""
    left = [n]

    def reply(_: Any) -> Reply:
        left[0] -= 1
        refusal = Reply({"error": {"message": "slow down"}}, status, {"retry-after": wait})
        return refusal if left[0] >= 0 else says("x")

    return reply


@pytest.mark.parametrize(("status", "wait"), [(429, "0.02"), (503, "0.02"), (429, "Wed, 21 Oct 2026")])
def test_a_busy_server_is_waited_for(status: int, wait: str) -> None:
    with ChatServer(busy(3, status, wait)) as server:
        engine = OpenAIEngine(Client(server.url, "NO_KEY", 5, 4, pause_s=0.01), "tiny")
        assert [s.text for s in sample(engine, [ask()] * 2)] == ["x", "x"]
    assert len(server.seen) == 5


@pytest.mark.parametrize("wait", ["0.02", "0", "-1", "nan"])
def test_waiting_for_a_busy_server_has_a_limit(wait: str) -> None:
    with ChatServer(busy(10_000, wait=wait)) as server:
        engine = OpenAIEngine(Client(server.url, "NO_KEY", 5, 4, busy_s=0.1, pause_s=0.01), "tiny")
        with pytest.raises(EngineError, match=r"is busy for .*429: slow down.*engine\.batch_rows"):
            sample(engine, [ask()])
    assert 2 < len(server.seen) < 20


def test_the_newer_name_of_the_limit_is_taken_where_the_older_is_refused() -> None:
    words = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."

    def reply(body: dict[str, Any]) -> Reply:
        return Reply({"error": {"message": words}}, 400) if "max_tokens" in body else says("x")

    with ChatServer(reply) as server:
        engine = engine_at(server.url, batch_rows=1)
        for _ in range(2):
            assert len(sample(engine, [ask(), ask("c")])) == 2
    assert [body.get("max_completion_tokens") for body, _ in server.seen] == [None, 30, 30, 30, 30]


def test_a_server_without_a_list_of_models_will_do() -> None:
    with ChatServer(lambda _: says("x"), models=lambda: Reply("not here", 404)) as server:
        assert len(sample(engine_at(server.url), [ask()])) == 1


def test_an_interrupt_gives_up_what_is_under_way() -> None:
    ended, answered = threading.Event(), []

    def reply(body: dict[str, Any]) -> Reply:
        if body["messages"][-1]["content"] != "first":
            ended.wait(60)
            answered.append(ended.is_set())
        return says("x")

    def stop(n_tokens: int, n_done: int) -> None:
        raise KeyboardInterrupt

    with ChatServer(reply) as server:
        engine = engine_at(server.url, progress=stop)
        with pytest.raises(KeyboardInterrupt):
            sample(engine, [ask("first"), ask("second")])
        assert answered == [], "it does not wait for the second"
        ended.set()


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "ftp://host/v1",
        "http://",
        "http://host:port",
        "http://me:pass-5f2a@host/v1",
        "http://h?k=1",
    ],
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="--server wants http://") as caught:
        engine_at(url)
    assert "pass-5f2a" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "want"),
    [
        ("http://h:8000", "http://h:8000/v1"),
        ("http://h:8000/", "http://h:8000/v1"),
        ("https://h/api/v2/", "https://h/api/v2"),
        ("https://h/api/v2/chat/completions", "https://h/api/v2"),
        ("http://h:8000/v1/completions/", "http://h:8000/v1"),
        ("http://h:8000/chat/completions", "http://h:8000/v1"),
    ],
)
def test_an_address_without_a_path_is_completed(given: str, want: str) -> None:
    assert Client(given, "NO_KEY", 1, 1).url == want


def test_what_cannot_be_sampled_is_refused() -> None:
    with ChatServer(lambda _: says("x")) as server:
        engine = engine_at(server.url)
        with pytest.raises(EngineError, match="prompt is empty"):
            sample(engine, [Prompt((Message("user", " \n"),))])
        with pytest.raises(EngineError, match="no adapter"):
            engine.sample([ask()], [0], Policy("run", 1, server), SamplingSpec(3))  # type: ignore[arg-type]
    assert server.seen == []


def test_neither_torch_nor_a_tokenizer_is_loaded() -> None:
    code = """
        import sys
        from sdpo_solve.engines import EngineParts
        from sdpo_solve.engines.openai import Options, OpenAIEngine
        from sdpo_solve.types import Message, Policy, Prompt, SamplingSpec
        parts = EngineParts(None, None, None, 0, None, model_name="tiny")
        engine = OpenAIEngine.build(Options(server=sys.argv[1]), parts)
        engine.sample([Prompt((Message("user", "x"),))], [0], Policy("run", 0), SamplingSpec(3))
        print({"torch", "transformers"} & set(sys.modules))
    """
    lines = "\n".join(line.strip() for line in code.splitlines())
    with ChatServer(lambda _: says("x")) as server:
        done = subprocess.run(
            [sys.executable, "-c", lines, server.url], capture_output=True, text=True, check=True
        )
    assert done.stdout == "set()\n"
