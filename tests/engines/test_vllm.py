"""vLLM for real: the probe stops wrong and stale adapters, its processes die with ours, swaps leave memory flat."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sdpo_solve.engines import EngineParts
from sdpo_solve.engines._probe import SwapProbe
from sdpo_solve.engines._reaper import Reaper, family
from sdpo_solve.engines._scoring import forced_logprobs
from sdpo_solve.engines._vllm_backend import Options
from sdpo_solve.engines._vllm_process import llm_arguments, require_honoured
from sdpo_solve.engines.vllm import VllmEngine
from sdpo_solve.errors import ConfigError, EngineError
from sdpo_solve.model.adapted import AdaptedModel
from sdpo_solve.types import Message, Policy, Prompt, SamplingSpec
from tests.helpers.hosts import SMALL_CACHE, PlainHost, save_adapter
from tests.helpers.tiny_model import save_tiny_model

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft's own
ASK = Prompt((Message("user", "ab"),))


def gone(pids: list[int], seconds: float = 20) -> bool:
    """Whether all processes end in time; a zombie counts as ended."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not any(alive(pid) for pid in pids):
            return True
        time.sleep(0.1)
    return False


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


# -- the reaper --------------------------------------------------------------------------------------------


def test_the_reaper_ends_what_was_started_inside_and_nothing_else() -> None:
    reaper = Reaper()
    with reaper.marking():
        inside = subprocess.Popen(["sh", "-c", "sleep 300 & sleep 300"], start_new_session=True)
    outside = subprocess.Popen(["sleep", "300"])
    try:
        until = time.monotonic() + 10
        while len(reaper.pids()) < 3 and time.monotonic() < until:
            time.sleep(0.05)
        pids = reaper.pids()
        assert len(pids) == 3, "the shell and its two sleeps"
        reaper.close()
        reaper.close()
        inside.wait()
        assert gone(pids)
        assert alive(outside.pid)
    finally:
        outside.kill()
        outside.wait()


def test_what_writes_over_its_environment_is_found_and_its_children_too() -> None:
    """As a process does that sets its title."""
    reaper = Reaper()
    with reaper.marking():
        inside = subprocess.Popen(["sh", "-c", "sleep 1; exec env -i sh -c 'sleep 300; true'"])
        until = time.monotonic() + 10
        while b"SDPO" in Path(f"/proc/{inside.pid}/environ").read_bytes() and time.monotonic() < until:
            time.sleep(0.05)
    pids = reaper.pids()
    assert inside.pid in pids
    assert len(pids) == 2, "the shell and its sleep"
    reaper.close()
    inside.wait()
    assert gone(pids)


def test_what_multiprocessing_starts_inside_is_out_of_reach_of_ctrl_c() -> None:
    """A terminal's Ctrl-C goes to a process group; what is started inside stands in another session."""
    spawn = multiprocessing.get_context("spawn")
    reaper = Reaper()
    try:
        with reaper.marking():
            inside = spawn.Process(target=time.sleep, args=(300,))
            inside.start()
            assert inside.pid
            until = time.monotonic() + 20
            while os.getsid(inside.pid) == os.getsid(0) and time.monotonic() < until:
                time.sleep(0.05)  # the shell stands before setsid for a moment
        outside = spawn.Process(target=time.sleep, args=(300,))
        outside.start()
        assert outside.pid
        assert os.getsid(inside.pid) == os.getpgid(inside.pid) == inside.pid
        assert os.getsid(outside.pid) == os.getsid(0)
        outside.kill()
        outside.join()
    finally:
        reaper.close()
    inside.join(20)
    assert inside.exitcode == -signal.SIGKILL


def test_pythons_own_helper_outlives_what_is_guarded() -> None:
    code = """
        from multiprocessing import resource_tracker
        from sdpo_solve.engines._reaper import Reaper
        reaper = Reaper()
        with reaper.marking():
            resource_tracker.ensure_running()
        print(reaper.pids())
        reaper.close()
        print(resource_tracker._resource_tracker._check_alive())
    """
    said = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == ["[]", "True"]


def test_the_reaper_acts_when_we_are_killed() -> None:
    code = """
        import subprocess, time
        from sdpo_solve.engines._reaper import Reaper
        reaper = Reaper()
        with reaper.marking():
            subprocess.Popen(["sleep", "300"], start_new_session=True)
        print(reaper._mark, flush=True)
        time.sleep(300)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        mark = parent.stdout.readline().strip()
        pids = list(family(mark, {}))
        assert len(pids) == 1
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert gone(pids)


# -- the probe -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> PlainHost:
    return PlainHost(save_tiny_model(tmp_path_factory.mktemp("tiny")))


def readings(host: PlainHost, probe: SwapProbe) -> list[float]:
    return list(forced_logprobs(host.model, probe.ids[:1], probe.ids[1:], 1.0))


def test_the_probe_lets_equal_weights_pass_and_tells_others(host: PlainHost) -> None:
    probe = SwapProbe(host.tokenizer, 0.03)
    right = readings(host, probe)
    probe.check("run@1", right, host.model)
    with pytest.raises(EngineError, match=r"does not hold the weights of policy run@2.*0\.100 nats"):
        probe.check("run@2", [x - 0.1 for x in right], host.model)
    with pytest.raises(EngineError, match="does not hold"):
        probe.check("run@3", [float("nan")] * len(right), host.model)


def test_the_probe_finds_a_stale_adapter_within_the_tolerance(host: PlainHost) -> None:
    """The learner moves by less than the tolerance on average; the engine repeats itself to the bit."""
    probe = SwapProbe(host.tokenizer, 10.0)
    before = readings(host, probe)
    probe.check("run@1", before, host.model)
    head = host.model.lm_head.weight
    original = head.clone()
    try:
        head.mul_(0.9)
        with pytest.raises(EngineError, match="still samples from the policy before run@2"):
            probe.check("run@2", before, host.model)
    finally:
        head.copy_(original)


# -- options, as far as they go without vLLM ------------------------------------------------------------------


def arguments(share: float | None = 0.4, **options: Any) -> dict[str, Any]:
    return llm_arguments(Path("/model"), Options(**options), share)


def test_a_gpu_is_compiled_for_and_shared_a_cpu_is_not() -> None:
    gpu, cpu = arguments(), arguments(share=None)
    assert (gpu["enforce_eager"], gpu["gpu_memory_utilization"]) == (False, 0.4)
    assert cpu["enforce_eager"] is True
    assert "gpu_memory_utilization" not in cpu
    assert arguments(eager=True)["enforce_eager"] is True
    assert arguments(share=None, eager=False)["enforce_eager"] is False


def test_nothing_but_temperature_shapes_the_distribution() -> None:
    assert arguments()["generation_config"] == "vllm", (
        "the model's own top-p, top-k and penalties are left out"
    )
    assert arguments()["logprobs_mode"] == "processed_logprobs"


@pytest.mark.parametrize("options", [{"sleep": True}, {"tensor_parallel": 2}, {"memory_share": 0.5}])
def test_what_a_cpu_cannot_honour_is_an_error(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"engine.{next(iter(options))} is about GPU memory"):
        require_honoured(Options(**options), on_cpu=True)
    require_honoured(Options(**options), on_cpu=False)


def test_what_a_gpu_cannot_honour_is_an_error() -> None:
    with pytest.raises(ConfigError, match="is for a CPU"):
        require_honoured(Options(cpu_cache_gb=2), on_cpu=False)
    require_honoured(Options(), on_cpu=False)


# -- vLLM itself ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Started:
    """A real vLLM on a tiny model, the learner's weights, and two adapters' policies."""

    engine: Any
    host: AdaptedModel
    first: Policy
    second: Policy


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    folder = tmp_path_factory.mktemp("vllm")
    model_dir = save_tiny_model(folder / "model", hidden=256)
    host = AdaptedModel.load(model_dir)
    dirs = [save_adapter(model_dir, folder / str(n), seed=n) for n in range(2)]
    first, second = (Policy("run", n + 1, adapter_dir) for n, adapter_dir in enumerate(dirs))
    options = Options(batch_rows=4, probe_tolerance=0.1, **SMALL_CACHE)
    engine = VllmEngine.build(options, EngineParts(lambda: host, lambda: model_dir, None, 0, None))
    yield Started(engine, host, first, second)
    engine.close()
    assert gone(engine.backend.reaper.pids(), 1)


@pytest.mark.vllm
@pytest.mark.filterwarnings("ignore")
def test_a_wrong_adapter_stops_the_run(started: Started) -> None:
    """vLLM is given another adapter than the learner's under the same policy."""
    with started.host.policy_active(started.first):  # the learner files `first`'s weights under this key
        pass
    swapped = Policy(started.first.run, started.first.version, started.second.adapter_dir)
    with pytest.raises(EngineError, match="does not hold the whole adapter"):
        started.engine.sample([ASK], [0], swapped, SamplingSpec(4))


def listen_to_the_probe(engine: Any, calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    engine._forget()  # as after its start
    check = engine._probe.check
    monkeypatch.setattr(engine._probe, "check", lambda *args: (calls.append("probe"), check(*args)))


@pytest.mark.vllm
@pytest.mark.filterwarnings("ignore")
def test_every_swap_is_followed_by_the_probe(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    """The base too: at first, and when a batch goes on to its next problem; what has not changed is not
    asked again. The probe's own token is nobody's progress."""
    engine, calls = started.engine, []
    listen_to_the_probe(engine, calls, monkeypatch)
    monkeypatch.setattr(engine, "_progress", lambda n_tokens, n_done: calls.append("sample"))
    adapted = Policy("swapper", 1, started.first.adapter_dir)
    next_problem = Policy("next", 0)
    for policy in (Policy("swapper", 0), next_problem, adapted, adapted, next_problem, next_problem):
        engine.sample([ASK], [0], policy, SamplingSpec(2))
        calls.append("|")
    once, again = "probe sample |", "sample |"
    assert " ".join(calls) == " ".join([once, again, once, again, once, again])


@pytest.mark.vllm
@pytest.mark.filterwarnings("ignore")
def test_another_base_than_the_learners_stops_the_run(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before any update, and again after the next call: what failed its proof is not taken as proven."""
    engine, host = started.engine, started.host
    engine._forget()
    norm = host.model.model.norm.weight  # before the head, so that all logits shrink
    original = norm.clone()
    try:
        norm.mul_(0.3)
        for _ in range(2):
            with pytest.raises(EngineError, match="does not hold the weights of policy other@0"):
                engine.sample([ASK], [0], Policy("other", 0), SamplingSpec(4))
    finally:
        norm.copy_(original)
    assert len(engine.sample([ASK], [0], Policy("other", 0), SamplingSpec(2))) == 1


@pytest.mark.vllm
@pytest.mark.filterwarnings("ignore")
def test_every_sleep_is_followed_by_the_probe(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real vLLM, but for the two calls that only a GPU has: also the base is looked at again."""
    engine, calls = started.engine, []
    process = engine.backend
    monkeypatch.setattr(process, "_options", process._options.model_copy(update={"sleep": True}))
    monkeypatch.setattr(process.llm, "sleep", lambda level: calls.append("sleep"))
    monkeypatch.setattr(process.llm, "wake_up", lambda: calls.append("wake"))
    listen_to_the_probe(engine, calls, monkeypatch)
    adapted = Policy("sleeper", 1, started.first.adapter_dir)
    for policy in (Policy("sleeper", 0), Policy("sleeper", 0), adapted, adapted):
        assert len(engine.sample([ASK], [0], policy, SamplingSpec(2))) == 1
        calls.append("|")
    assert " ".join(calls) == "probe sleep | wake probe sleep | wake probe sleep | wake probe sleep |"
    process._asleep = False  # it never slept


@pytest.mark.vllm
@pytest.mark.filterwarnings("ignore")
def test_its_processes_die_with_ours(tmp_path: Path) -> None:
    """SIGKILL of the parent in the middle of its life."""
    model_dir = save_tiny_model(tmp_path / "model", hidden=256)
    code = f"""
        import time
        from pathlib import Path
        from sdpo_solve.engines import EngineParts
        from sdpo_solve.engines.vllm import Options, VllmEngine
        if __name__ == "__main__":
            parts = EngineParts(None, lambda: Path({str(model_dir)!r}), None, 0, None)
            engine = VllmEngine.build(Options(batch_rows=4, **{SMALL_CACHE}), parts)
            print("PIDS", *engine.backend.reaper.pids(), flush=True)
            time.sleep(300)
    """
    script = tmp_path / "parent.py"
    script.write_text(textwrap.dedent(code))
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = next([int(x) for x in line.split()[1:]] for line in parent.stdout if line.startswith("PIDS"))
        groups = {os.getpgid(pid) for pid in pids}
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert pids, "vLLM has its engine in a process of its own"
    assert os.getpgid(0) not in groups, "Ctrl-C is for the parent"
    assert gone(pids)


@pytest.mark.vllm
@pytest.mark.filterwarnings("ignore")
def test_two_hundred_swaps_leave_memory_flat(started: Started) -> None:
    """Resident memory of ours and of vLLM's processes together, from the 20th swap to the 200th."""
    engine, sizes_mb = started.engine, {}
    dirs = (started.first.adapter_dir, started.second.adapter_dir)
    for n in range(1, 201):
        engine.sample([ASK], [n], Policy("swaps", n, dirs[n % 2]), SamplingSpec(2))
        if n in (20, 110, 200):
            sizes_mb[n] = sum(map(resident_mb, (os.getpid(), *engine.backend.reaper.pids())))
    print("resident MB after swaps:", sizes_mb)
    assert sizes_mb[200] - sizes_mb[20] < 60


def resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
