"""Runs, batches and screenings whose model is a server's, from the command line: a small real HTTP server."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.chat_server import ChatServer, Reply, says
from tests.helpers.command import RIGHT, WRONG, Place, one_line

KEY = "sk-secret-5f2a"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def at(server: ChatServer) -> tuple[str, ...]:
    return ("--engine", "openai", "--server", server.url, "--model", "tiny")


def nth_is_right(n: int) -> Any:
    """Wrong answers up to the n-th."""
    count = [0]

    def reply(_: dict[str, Any]) -> Reply:
        count[0] += 1
        return says(RIGHT if count[0] >= n else WRONG, n_tokens=11)

    return reply


@pytest.mark.docker
def test_best_of_k_finds_a_solution_and_goes_on_with_a_larger_budget(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key stands in no file; the address may change, the model may not."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    best = ("run", "inc.json", "--method", "best-of-k", "--group-size", "2", "--out", "out")
    with ChatServer(nth_is_right(6)) as server:
        done = place(*best, *at(server), "--attempts", "4")
        assert done.returncode == 1, done.stderr
    with ChatServer(nth_is_right(2)) as other:
        more = place(*best, *at(other), "--attempts", "8", "--json")
        assert more.returncode == 0, more.stderr
        record = json.loads(more.stdout)
        assert (record["solved"], record["model"], record["attempts"]) == (True, "tiny", 6)
        assert record["tokens"] == 6 * 11
        changed = place(*best, *at(other)[:-1], "other", "--attempts", "16")
        assert changed.returncode == 2
        assert "model" in one_line(changed.stderr)
    header = place.events("best-of-k")[0]
    assert header["identity"]["engine"].startswith("openai:tiny at 127.0.0.1")
    texts = [path.read_text() for path in place.path.rglob("*") if path.is_file()]
    assert not any(KEY in text for text in texts)
    assert KEY not in done.stdout + done.stderr


@pytest.mark.docker
def test_multi_turn_sends_the_feedback(place: Place) -> None:
    with ChatServer(nth_is_right(3)) as server:
        done = place("run", "inc.json", "--method", "multi-turn", *at(server), "--out", "out")
    assert done.returncode == 0, done.stderr
    asked = [body["messages"][-1]["content"] for body, _ in server.seen]
    assert [text.count("Wrong Answer") for text in asked] == [0, 1, 2]
    assert asked[0] in asked[1]


@pytest.mark.docker
def test_a_screening_and_a_batch_of_arms_that_do_not_learn(place: Place) -> None:
    with ChatServer(nth_is_right(3)) as server:
        screened = place("screen", "inc.json", *at(server), "--attempts", "8", "--out", "screen", "--json")
        assert screened.returncode == 0, screened.stderr
        assert json.loads(screened.stdout)["problems"][0]["samples"] >= 4
        arms = ("--methods", "best-of-k,multi-turn", "--attempts", "2", "--merge")
        batch = place("batch", "inc.json", *at(server), *arms, "--seeds", "2", "--out", "out")
        assert batch.returncode == 0, batch.stderr
    assert len(list((place.path / "out").glob("inc/*/seed-*/journal.jsonl"))) == 4
    report = place("report", "out")
    assert report.returncode == 0, report.stderr


@pytest.mark.docker
@pytest.mark.parametrize(
    ("reply", "code", "words"),
    [
        (Reply({"error": {"message": "bad key"}}, 401), 3, "OPENAI_API_KEY"),
        (Reply({"error": {"message": "none"}}, 404), 4, "--server wants the address"),
        (Reply({"error": {"message": "boom"}}, 500), 4, "500"),
        (Reply("<html>hello</html>"), 4, "no JSON"),
        (Reply(None), 4, "broke the connection off"),
    ],
)
def test_a_fault_ends_a_run_in_one_line(place: Place, reply: Reply, code: int, words: str) -> None:
    with ChatServer(lambda _: reply) as server:
        done = place("run", "inc.json", "--method", "best-of-k", *at(server), "--out", "out")
    assert done.returncode == code
    assert words in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.docker
def test_a_name_that_the_server_does_not_list_can_be_mended_in_the_same_place(place: Place) -> None:
    """The first command left a run without an attempt."""

    def reply(body: dict[str, Any]) -> Reply:
        return says(RIGHT) if body["model"] == "tiny" else Reply({"error": {"message": "none"}}, 404)

    with ChatServer(reply) as server:
        for command in (
            ("run", "inc.json", "--method"),
            ("batch", "inc.json", "--methods"),
            ("screen", "inc.json"),
        ):
            how = (*command, *(("best-of-k",) if len(command) == 3 else ()), "--attempts", "4")
            how = (*how, "--out", command[0])
            wrong = place(*how, *at(server)[:-1], "typo")
            assert (wrong.returncode, "it lists tiny, big" in wrong.stderr) == (3, True), wrong.stderr
            right = place(*how, *at(server))
            assert right.returncode == 0, right.stderr


@pytest.mark.docker
def test_a_server_that_is_not_there_is_exit_code_3(place: Place) -> None:
    with ChatServer(lambda _: says("x")) as server:
        pass
    done = place("run", "inc.json", "--method", "best-of-k", *at(server), "--out", "out")
    assert done.returncode == 3
    assert "cannot be reached" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model", "tiny"), "sdpo learns, and --engine openai has no weights"),
        (("--method", "best-of-k"), "needs --model NAME"),
        (("--method", "best-of-k", "--model", "tiny"), "needs --server URL"),
        (("--method", "best-of-k", "--model", "tiny", "--thinking"), "--thinking would do nothing"),
        (("--method", "best-of-k", "--model", "tiny", "--server", "localhost:1"), "--server wants http://"),
        (("--method", "best-of-k", "--engine", "hf", "--server", "http://x"), "--server is for --engine"),
        (("--method", "best-of-k", "--model", "tiny", "--threads", "2"), "--threads would do nothing"),
    ],
)
def test_what_cannot_be_is_refused_at_once(place: Place, arguments: tuple[str, ...], words: str) -> None:
    done = place("run", "inc.json", "--engine", "openai", *arguments, "--out", "out")
    assert done.returncode == 2
    assert words in one_line(done.stderr)


def test_a_batch_with_an_arm_that_learns_is_refused_at_once(place: Place) -> None:
    done = place(
        "batch", "inc.json", "--engine", "openai", "--model", "tiny", "--server", "http://127.0.0.1:1"
    )
    assert done.returncode == 2
    assert "sdpo learns" in one_line(done.stderr)
