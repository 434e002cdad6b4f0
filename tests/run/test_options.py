"""No option of a plug-in is stored and never read: methods without a learner, vLLM's start, the sandboxes.

The other half of `test_options_act.py`, which has the parts that run on the tiny model. A plug-in whose options
have no table here or there fails the test, and so does an option without a case.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from sdpo_solve import engines, methods, sandboxes
from sdpo_solve.config import RunOptions
from sdpo_solve.engines import _vllm_process, scripted, vllm
from sdpo_solve.engines._scoring import forced_logprobs
from sdpo_solve.engines._vllm_backend import Options, sampling_arguments
from sdpo_solve.errors import ConfigError, EngineError, PrerequisiteError
from sdpo_solve.methods import MethodParts, best_of_k, multi_turn
from sdpo_solve.methods._room import Room
from sdpo_solve.methods.prompts import Prompter
from sdpo_solve.model import memory
from sdpo_solve.run.options import make_plan, warnings_of
from sdpo_solve.sandboxes import bubblewrap, docker, languages
from sdpo_solve.types import (
    Attempt,
    BoxInput,
    Execution,
    ExecutionStatus,
    Kind,
    Limits,
    Problem,
    Program,
    SamplingSpec,
    TestCase,
)
from tests.helpers.attempts import attempt
from tests.helpers.hosts import PlainHost
from tests.helpers.tiny_model import save_tiny_model

PROBLEM = Problem("add", "Add.", Kind.STDIN, (TestCase("1 2\n", "3\n", True),))


def method_parts(context_tokens: int = 1 << 20) -> MethodParts:
    """A token is a character here, so that windows can be counted by hand."""
    return MethodParts(
        prompter=Prompter(),
        spec=SamplingSpec(max_tokens=10),
        run="run",
        policies_dir=Path(),
        seed=0,
        learner=None,
        count_tokens=len,
        context_tokens=context_tokens,
    )


# -- best-of-k and multi-turn ------------------------------------------------------------------------------


def best(**options: Any) -> int:
    found = best_of_k.BestOfK.build(best_of_k.Options(**options), method_parts())
    return len(found.propose(PROBLEM, [], 64))


def turns(n: int = 3, context_tokens: int = 1 << 20, **options: Any) -> list[str]:
    """What is left of `n` turns of ten characters each, "feedback 1" and so on."""
    found = multi_turn.MultiTurn.build(multi_turn.Options(**options), method_parts(context_tokens))
    return found.window(PROBLEM, history(n))


def history(n: int) -> list[Attempt]:
    return [attempt(index, 0) for index in range(1, n + 1)]


BEST_OF_K = {"group_size": lambda: best(group_size=3)}
MULTI_TURN = {"window_tokens": lambda: turns(window_tokens=24), "attempts": lambda: turns(attempts=True)}


@pytest.mark.parametrize("name", BEST_OF_K)
def test_best_of_k_reads(name: str) -> None:
    assert BEST_OF_K[name]() == 3 != best()


@pytest.mark.parametrize("name", MULTI_TURN)
def test_multi_turn_reads(name: str) -> None:
    assert MULTI_TURN[name]() != turns()


@pytest.mark.parametrize(
    ("window_tokens", "kept"),
    [
        (36, ["feedback 1", "feedback 2", "feedback 3"]),  # three times ten, and two for each blank line
        (35, ["feedback 2", "feedback 3"]),
        (24, ["feedback 2", "feedback 3"]),
        (23, ["feedback 3"]),
        (11, []),
    ],
)
def test_the_window_drops_the_oldest_turns_first(window_tokens: int, kept: list[str]) -> None:
    assert turns(window_tokens=window_tokens) == kept
    found = multi_turn.MultiTurn.build(multi_turn.Options(window_tokens=window_tokens), method_parts())
    (prompt,) = found.propose(PROBLEM, history(3), 5)
    said = prompt.messages[-1].content
    assert [text for text in ("feedback 1", "feedback 2", "feedback 3") if text in said] == kept


def question_tokens() -> int:
    room = Room(context_tokens=1 << 20)
    return (1 << 20) - room.for_feedback(Prompter(), PROBLEM)


def test_a_model_with_less_room_keeps_fewer_turns_than_the_window() -> None:
    """The context holds question, turns and the answer's ten tokens."""
    question = question_tokens()
    assert turns(context_tokens=question + 10 + 24) == ["feedback 2", "feedback 3"]
    assert turns(context_tokens=question + 10 + 23) == ["feedback 3"]
    assert turns(context_tokens=question + 10 + 36) == turns()


def test_however_long_answers_may_be_turns_have_a_quarter_of_what_the_question_leaves() -> None:
    """A turn takes twelve tokens: a quarter of 96 holds two, of 95 one, where answers could fill all of it."""
    parts = replace(method_parts(), spec=SamplingSpec(max_tokens=1 << 20))
    question = question_tokens()
    for room, kept in ((96, 2), (95, 1), (-5, 0)):
        shorter = replace(parts, context_tokens=question + room)
        found = multi_turn.MultiTurn.build(multi_turn.Options(), shorter)
        assert len(found.window(PROBLEM, history(3))) == kept


def test_programs_are_kept_on_request_before_their_feedback() -> None:
    assert turns(1, attempts=True) == ["```python\nprogram 1\n```\n\nfeedback 1"]


# -- vLLM --------------------------------------------------------------------------------------------------


def start_arguments(**options: Any) -> object:
    return _vllm_process.llm_arguments(Path("/model"), Options(**options), 0.4)


def share(model_dir: Path, **options: Any) -> float:
    return _vllm_process._share(model_dir, Options(**options), learner=True, n_adapters=1)


def cache_variable(**options: Any) -> str:
    with _vllm_process._environment(Options(**options)):
        return os.environ["VLLM_CPU_KVCACHE_SPACE"]


START = {
    "batch_rows": 7, "tensor_parallel": 2, "max_model_len": 512, "quantization": "fp8", "eager": True,
    "max_lora_rank": 64, "sleep": True,
}  # fmt: skip
# `tests/engines/test_vllm_server.py` and `test_openai.py` have cases for these.
SERVER = {"server", "key_variable", "timeout_s", "batch_rows"}
VLLM = {*START, *SERVER, "memory_share", "cpu_cache_gb", "probe_tolerance", "stop"}


@pytest.mark.parametrize("name", START)
def test_vllm_is_started_with(name: str) -> None:
    assert start_arguments(**{name: START[name]}) != start_arguments()


def test_a_text_that_ends_an_answer_reaches_vllms_sampling() -> None:
    assert sampling_arguments(1.0, {3, 1}, None)["stop"] is None
    assert sampling_arguments(1.0, {3, 1}, "e")["stop"] == "e"
    assert sampling_arguments(1.0, {3, 1}, None)["stop_token_ids"] == [1, 3]


def test_the_share_asked_for_wins_over_the_estimate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a card of 80 GB, which this machine need not have; and where none can be sized."""
    model_dir = save_tiny_model(tmp_path)
    for gpu_mb in (80_000, None):
        monkeypatch.setattr(memory, "gpu_memory_mb", lambda gpu_mb=gpu_mb: gpu_mb)
        assert share(model_dir) != 0.3
        assert share(model_dir, memory_share=0.3) == 0.3


def test_the_cache_of_a_cpu_is_a_variable_that_vllm_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    assert (cache_variable(), cache_variable(cpu_cache_gb=5)) == ("2", "5")


def test_the_tolerance_is_the_probes(tmp_path: Path) -> None:
    """The engine as it is built, vLLM itself aside: 0.05 nats are too much by default, and not for 0.1."""
    model_dir = save_tiny_model(tmp_path)
    host = PlainHost(model_dir)

    def check(**options: Any) -> None:
        no_backend: Any = None
        engine = vllm.VllmEngine(model_dir, Options(**options), no_backend, lambda: host)
        ids = engine._probe.ids
        readings = forced_logprobs(host.model, ids[:1], ids[1:], 1.0)
        engine._probe.check("run@1", [x - 0.05 for x in readings], host.model)

    with pytest.raises(EngineError, match=r"0\.050 nats on average, more than 0\.03"):
        check()
    check(probe_tolerance=0.1)


# -- sandboxes ---------------------------------------------------------------------------------------------

LIMITS = Limits(time_s=5.0, memory_mb=128)
SMALL = {"boxes_ready": 0, "parallel": 2}
MODULES = {"docker": docker, "bubblewrap": bubblewrap}


@dataclass(frozen=True)
class Seen:
    """A change of one option, and a program whose results are other ones under it."""

    change: Mapping[str, Any]
    code: str
    inputs: int = 1


WHERE = "import os, time; time.sleep(0.5); print(os.getcwd())"
WRITE = "open('file', 'wb').write(bytes(3_000_000)); print('written')"
THREADS = "import threading\nfor _ in range(4): threading.Thread(target=threading.Event().wait, daemon=True, args=(1,)).start()\nprint('started')"
BOX: dict[str, Seen] = {
    "parallel": Seen({"parallel": 1}, WHERE, 2),
    "memory_mb": Seen({"memory_mb": 256}, WHERE, 2),  # one test of 128 MiB beside the runner, not two
    "scratch_mb": Seen({"scratch_mb": 1}, WRITE),
    "output_mb": Seen({"output_mb": 0.5}, "print('x' * 1_000_000)"),
    "total_output_mb": Seen({"total_output_mb": 1}, "print('x' * 600_000)", 3),
    "n_processes": Seen({"n_processes": 2}, THREADS),
}
POOL = {"boxes_ready"}
OWN = {"docker": {"image", "runtime"}, "bubblewrap": {"separate"}}


def results(name: str, seen: Seen, **options: Any) -> list[tuple[ExecutionStatus, str]]:
    module = MODULES[name]
    sandbox = module.PLUGIN(module.Options(**{**SMALL, **options}))
    try:
        found: Sequence[Execution] = sandbox.run(Program(seen.code), [BoxInput()] * seen.inputs, LIMITS)
        return sorted((result.status, result.stdout[:40]) for result in found)
    finally:
        sandbox.close()


@pytest.fixture(params=MODULES)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.docker
@pytest.mark.parametrize("option", BOX)
def test_a_box_reads(option: str, backend: str) -> None:
    seen = BOX[option]
    usual, changed = results(backend, seen), results(backend, seen, **seen.change)
    assert all(status is ExecutionStatus.OK for status, _ in usual)
    assert changed != usual


@pytest.mark.docker
def test_boxes_wait_in_the_number_and_the_language_asked_for(backend: str) -> None:
    module = MODULES[backend]
    for language, n in (("python", 0), ("python", 2), ("cpp", 1)):
        try:
            sandbox = module.PLUGIN(module.Options(boxes_ready=n, parallel=1), language)
        except PrerequisiteError as exc:
            pytest.skip(str(exc))
        try:
            assert sandbox.wait_ready()
            assert {key[0]: len(pool._ready) for key, pool in sandbox._pools.items()} == {language: n}
        finally:
            sandbox.close()


@pytest.mark.docker
def test_docker_takes_the_image_and_the_runtime_it_is_told() -> None:
    with pytest.raises(PrerequisiteError, match="no-such-image"):
        docker.DockerSandbox(docker.Options(**SMALL, image="no-such-image:1"))
    sandbox = docker.DockerSandbox(docker.Options(**SMALL))
    try:
        layout = sandbox.layout(languages.get("python"))
        usual = sandbox._host_config(layout, 256, frozenset())
        sandbox.options = docker.Options(**SMALL, runtime="runsc")
        chosen = sandbox._host_config(layout, 256, frozenset())
    finally:
        sandbox.close()
    assert (chosen["Runtime"], usual.get("Runtime")) == ("runsc", None)


@pytest.mark.docker
def test_bubblewrap_separates_tests_as_it_is_told() -> None:
    def identity(**options: Any) -> str:
        sandbox = bubblewrap.BubblewrapSandbox(bubblewrap.Options(**SMALL, **options))
        sandbox.close()
        return sandbox.identity()

    assert "namespaces" in identity(separate="namespace")
    if os.geteuid() == 0:
        assert "user ids" in identity(separate="uid")
        assert identity() == identity(separate="uid")


# -- options that cannot act ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"group_size": 8, "attempts": 8}, "nothing is learned"),
        ({"attempts": 32}, "after 32 failures, and 32 attempts are spent"),
        ({"attempts": 33}, None),
        ({"group_size": 7, "attempts": 36}, "after 36 failures"),  # 4, 4 and four times 7
        ({"group_size": 7, "attempts": 37}, None),
        ({"attempts": 16, "settings": {"sdpo": {"learn_after": 4}}}, None),
        ({"attempts": 16, "settings": {"sdpo": {"preset": "paper"}}}, "after 16 failures"),
        ({"method": "best-of-k", "group_size": 8, "attempts": 8}, None),
        ({"engine": "scripted"}, "learns nothing here"),
        ({"engine": "scripted", "model": "tiny"}, None),
        ({"tokens": 100, "max_tokens": 100}, "--tokens 100"),
    ],
)
def test_an_option_that_cannot_act_is_warned_of(given: dict[str, Any], words: str | None) -> None:
    warnings = warnings_of(make_plan(RunOptions(**given)))
    assert [words in warning for warning in warnings] == ([True] if words else [])


# -- the guard ---------------------------------------------------------------------------------------------

# `test_options_act.py` has guards of its own for these.
ON_A_MODEL = {("methods", "sdpo"), ("engines", "hf")}
TABLES: dict[tuple[str, str], set[str]] = {
    ("methods", "best-of-k"): set(BEST_OF_K),
    ("methods", "multi-turn"): set(MULTI_TURN),
    ("engines", "vllm"): VLLM,
    ("engines", "openai"): SERVER,
    ("engines", "scripted"): set(),
    ("sandboxes", "docker"): {*BOX, *POOL, *OWN["docker"]},
    ("sandboxes", "bubblewrap"): {*BOX, *POOL, *OWN["bubblewrap"]},
}


@pytest.mark.parametrize("room", [methods, engines, sandboxes], ids=lambda room: room.__name__)
def test_every_option_of_every_plug_in_has_a_case(room: Any) -> None:
    folder = room.__name__.split(".")[-1]
    for name in room.REGISTRY.names():
        if (folder, name) in ON_A_MODEL:
            continue
        assert TABLES.get((folder, name)) == set(room.REGISTRY.load(name).options_type.model_fields), name


def test_the_scripted_engine_refuses_every_option() -> None:
    assert scripted.Options.model_fields == {}
    with pytest.raises(ConfigError, match="known: none"):
        read_nothing()


def read_nothing() -> None:
    from sdpo_solve.config import read_options

    read_options(scripted.Options, {"stop": "e"}, "engine")
