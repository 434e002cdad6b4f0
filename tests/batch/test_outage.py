"""A sandbox or a server that goes away under a batch: it waits, with a limit, and no run fails."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sdpo_solve.batch.outage import Outage, RetryingEngine
from sdpo_solve.batch.stop import Stopped, StopSignal
from sdpo_solve.errors import EngineError, PrerequisiteError, SandboxError
from sdpo_solve.protocols import MixingEngine
from sdpo_solve.run.clock import Clock
from sdpo_solve.types import Message, Policy, Prompt, SamplingSpec
from tests.helpers.batches import COMMAND, make_problems, until
from tests.helpers.parts import ReadGrader, SayEngine, answer
from tests.helpers.small_runs import SmallRuns, reply

WAIT_S = 240
ENGINE = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")


class Breaking(ReadGrader):
    """The sandbox goes away under the third group and comes back `away_s` later."""

    def __init__(self, away_s: float = 0.1) -> None:
        self.n, self.bench, self.away_s = 0, None, away_s

    def grade(self, problem, codes_G, *, thorough=False, on_verdict=None):
        self.n += 1
        if self.n == 3:
            self.bench.sandbox_is_well.clear()
            threading.Timer(self.away_s, self.bench.sandbox_is_well.set).start()
        if not self.bench.sandbox_is_well.is_set():
            raise SandboxError("the container is gone")
        return super().grade(problem, codes_G)


def test_a_sandbox_that_is_gone_pauses_the_batch_and_fails_nothing(tmp_path: Path) -> None:
    grader = Breaking()
    bench = SmallRuns(tmp_path, lambda *_: answer("wrong"), grader=grader)
    grader.bench = bench
    summaries = bench.perform()
    assert {s.status for s in summaries} == {"finished"}
    assert len(bench.notices) == 2
    assert "the batch waits" in bench.notices[0]
    assert "goes on" in bench.notices[1]


def test_a_box_that_breaks_while_the_sandbox_is_well_fails_its_run(tmp_path: Path) -> None:
    class Bad(ReadGrader):
        def grade(self, problem, codes_G, *, thorough=False, on_verdict=None):
            raise SandboxError("the box broke")

    bench = SmallRuns(tmp_path, reply, grader=Bad(), tries=1)
    assert {(s.status, s.error) for s in bench.perform()} == {("failed", "the box broke")}
    assert bench.notices == []


def test_waiting_for_a_sandbox_ends_with_the_batch(tmp_path: Path) -> None:
    stop = StopSignal()
    threading.Timer(0.05, stop.set).start()
    with pytest.raises(Stopped):
        gone_after_it_worked(stop, pause_s=5).wait(0)


class GoneEngine(SayEngine):
    """Its server is gone under some calls, and back after two probes."""

    def __init__(self, gone_at: set[int], *, comes_back: bool = True) -> None:
        super().__init__(lambda *_: "x")
        self.n = self.n_probes = 0
        self.gone_at, self.comes_back, self.is_gone = gone_at, comes_back, False

    def sample(self, prompts_G, seeds_G, policy, spec):
        self.n += 1
        self.is_gone |= self.n in self.gone_at
        if self.is_gone:
            raise EngineError("connection refused")
        return super().sample(prompts_G, seeds_G, policy, spec)

    def probe(self) -> None:
        self.n_probes += 1
        if self.is_gone and not (self.comes_back and self.n_probes % 3 == 0):
            raise EngineError("connection refused")
        self.is_gone = False


class MixedGoneEngine(GoneEngine):
    def sample_mixed(self, prompts_G, seeds_G, policies_G, spec):
        return self.sample(prompts_G, seeds_G, policies_G[0], spec)


@pytest.mark.parametrize("kind", [GoneEngine, MixedGoneEngine])
def test_a_server_that_is_gone_is_waited_for(kind: type[GoneEngine]) -> None:
    engine, notices = kind({2, 4}), []
    outage = Outage("engine", StopSignal(), engine.probe, notices.append, pause_s=0.01)
    retrying = RetryingEngine.of(engine, outage)
    assert isinstance(retrying, MixingEngine) == (kind is MixedGoneEngine)
    prompt, policy = Prompt((Message("user", "x"),)), Policy("run", 0)
    for _ in range(3):
        assert len(retrying.sample([prompt], [0], policy, SamplingSpec(3))) == 1
    if isinstance(retrying, MixingEngine):
        assert len(retrying.sample_mixed([prompt], [0], [policy], SamplingSpec(3))) == 1
    assert len(notices) == 4
    assert "the engine is gone" in notices[0]


def test_a_runs_clock_stands_still_while_a_part_is_gone() -> None:
    """Gone for three probes with 0.2 s in between: 0.4 s pass, and none of them count."""
    engine, clock = GoneEngine({1}), Clock()
    outage = Outage("engine", StopSignal(), engine.probe, lambda _: None, pause_s=0.2)
    RetryingEngine.of(engine, outage, clock).sample([], [], Policy("run", 0), SamplingSpec(3))
    assert (engine.n_probes, clock.elapsed_s) == (3, pytest.approx(0, abs=0.1))


def test_the_seconds_of_a_batchs_runs_hold_no_outage(tmp_path: Path) -> None:
    """Small runs of a moment each, and a sandbox that is away for 2 s under all of them."""
    grader = Breaking(away_s=2)
    bench = SmallRuns(tmp_path, lambda *_: answer("wrong"), grader=grader)
    grader.bench = bench
    assert [end.wall_s < 1 for end in bench.perform()] == [True] * 6
    assert len(bench.notices) == 2


def test_a_call_that_fails_at_a_server_that_is_there_fails_its_run() -> None:
    class Refusing(GoneEngine):
        def sample(self, prompts_G, seeds_G, policy, spec):
            raise EngineError("400: too long")

    engine = Refusing(set())
    retrying = RetryingEngine.of(engine, Outage("engine", StopSignal(), engine.probe, pytest.fail))
    with pytest.raises(EngineError, match="too long"):
        retrying.sample([], [], Policy("run", 0), SamplingSpec(3))


def test_a_server_that_stays_away_ends_the_batch() -> None:
    engine = GoneEngine({2}, comes_back=False)
    outage = Outage("engine", StopSignal(), engine.probe, lambda _: None, pause_s=0.01, max_wait_s=0.05)
    retrying = RetryingEngine.of(engine, outage)
    retrying.sample([], [], Policy("run", 0), SamplingSpec(3))
    with pytest.raises(PrerequisiteError, match="the engine is gone since"):
        retrying.sample([], [], Policy("run", 0), SamplingSpec(3))


def gone_after_it_worked(stop: StopSignal, notices: list[str] | None = None, **limits: float) -> Outage:
    def gone() -> None:
        raise SandboxError("no engine answers")

    outage = Outage("sandbox", stop, gone, (notices if notices is not None else []).append, **limits)
    outage.has_worked = True
    return outage


def test_a_sandbox_that_stays_away_ends_the_batch_and_it_is_said_since_when() -> None:
    notices: list[str] = []
    with pytest.raises(PrerequisiteError, match=r"gone since \d\d:\d\d:\d\d: no engine answers; repeat"):
        gone_after_it_worked(StopSignal(), notices, pause_s=0.01, max_wait_s=0.05).wait(0)
    assert re.search(r"gone since \d\d:\d\d:\d\d, the batch waits for it \(at most 0 minutes", notices[0])


def test_a_batch_does_not_wait_for_a_sandbox_that_never_worked(tmp_path: Path) -> None:
    class Bad(ReadGrader):
        def grade(self, problem, codes_G, *, thorough=False, on_verdict=None):
            raise SandboxError("Invalid argument")

    bench = SmallRuns(tmp_path, reply, grader=Bad())
    bench.sandbox_is_well.clear()
    with pytest.raises(PrerequisiteError, match="does not work: no engine answers; 'sdpo-solve doctor'"):
        bench.perform()
    assert bench.notices == []


# -- Docker's own engine --------------------------------------------------------------------------------------


class Wire:
    """A socket that leads to Docker's engine until it is cut."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ends: list[socket.socket] = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        for end in [self.listener, *self.ends]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self.path.unlink()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            far.connect(ENGINE)
            self.ends += [near, far]
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


@pytest.mark.docker
@pytest.mark.slow
def test_a_batch_waits_for_an_engine_that_is_gone(tmp_path: Path) -> None:
    if not Path(ENGINE).exists():
        pytest.skip("the engine is not behind a socket of this machine")
    make_problems(tmp_path / "problems", 2)
    reply = json.dumps({"text": "```python\nprint('wrong')\n```"}) + "\n"
    (tmp_path / "replies").write_text(reply * 24)
    wire = Wire(tmp_path / "engine.sock")
    said = tmp_path / "said"
    given = ["batch", "problems", "--engine", "scripted", "--replies", "replies", "--sandbox", "docker"]
    given += ["--methods", "best-of-k", "--attempts", "24", "--group-size", "3"]
    with said.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *given, "--out", "runs"],
            cwd=tmp_path,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/engine.sock"},
        )
    journals = [tmp_path / f"runs/say-{n}/best-of-k/seed-0/journal.jsonl" for n in (0, 1)]
    until(process, lambda: any(path.exists() and '"group"' in path.read_text() for path in journals))
    wire.cut()
    until(process, lambda: "the batch waits for it" in said.read_text())
    wire = Wire(tmp_path / "engine.sock")
    try:
        assert process.wait(WAIT_S) == 0, said.read_text()
    finally:
        wire.cut()
    assert re.search(r"the sandbox is back after \d+ s, the batch goes on", said.read_text())
    for path in journals:
        events = [json.loads(line)["event"] for line in path.read_text().splitlines()]
        assert events.count("attempt") == 24
        assert "run_failed" not in events
