"""Several threads on one model: each sees its own weights, whoever learns or probes beside it."""

import ctypes
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

import pytest
import torch

from sdpo_solve.engines._probe import SwapProbe
from sdpo_solve.engines._scoring import forced_logprobs
from sdpo_solve.model.adapted import AdaptedModel
from sdpo_solve.types import Policy
from tests.helpers.tiny_model import save_tiny_model
from tests.helpers.updates import run_updates, same, weights

_N_UPDATES = 6


@pytest.fixture
def host(tmp_path: Path) -> AdaptedModel:
    return AdaptedModel.load(save_tiny_model(tmp_path / "model"), "cpu", torch.float32)


def beside(work: Callable[[], object], other: Callable[[], None]) -> None:
    """Do `work` in a thread, and `other` in this one until it has ended; raises what either raised."""
    raised: SimpleQueue[BaseException] = SimpleQueue()

    def carried() -> None:
        try:
            work()
        except BaseException as exc:  # noqa: BLE001 -- raised below, in the test's own thread
            raised.put(exc)

    thread = threading.Thread(target=carried)
    thread.start()
    try:
        while thread.is_alive():
            other()
    finally:
        thread.join()
    if not raised.empty():
        raise raised.get()


def test_a_probe_beside_an_update_reads_its_own_policy_and_leaves_the_gradient_alone(
    host: AdaptedModel, tmp_path: Path
) -> None:
    """As in a batch on vLLM: one run's swap is probed with the learner's model while another run learns."""
    _, chain = run_updates(host, tmp_path / "probed", 1)
    policy = chain[-1]
    probe = SwapProbe(host.tokenizer, 1e-4)
    with host.policy_active(policy) as model:
        right = forced_logprobs(model, probe.ids[:1], probe.ids[1:], 1.0)
    run_updates(host, tmp_path / "alone", _N_UPDATES)
    n_probes = 0

    def look() -> None:
        nonlocal n_probes
        with host.policy_active(policy) as model:
            probe.check(policy.key, right, model)
        n_probes += 1

    beside(lambda: run_updates(host, tmp_path / "beside", _N_UPDATES), look)
    assert n_probes > 1
    assert same(weights(tmp_path / "beside", _N_UPDATES), weights(tmp_path / "alone", _N_UPDATES))


def test_a_run_that_ends_leaves_the_update_of_another_alone(host: AdaptedModel, tmp_path: Path) -> None:
    """`close` empties the slots; not those of an update that is under way."""
    ended, _ = run_updates(host, tmp_path / "ended", 1)
    beside(lambda: run_updates(host, tmp_path / "beside", _N_UPDATES), ended.close)


def test_the_turn_is_held_for_as_long_as_a_policy_is_on(host: AdaptedModel) -> None:
    taken = []
    with host.policy_active(Policy("run", 0)):
        thread = threading.Thread(target=lambda: taken.append(host.turn.acquire(blocking=False)))
        thread.start()
        thread.join()
    assert taken == [False]


ARENAS = """
    import ctypes
    import sys
    from pathlib import Path
    from sdpo_solve.model.cpu import share_freed_memory

    if sys.argv[1] == "shared":
        share_freed_memory()  # as the command does, before anything starts threads

    import threading
    import torch

    def work():
        torch.ones(4 << 20)
        all_done.wait()

    all_done = threading.Barrier(12)
    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    c = ctypes.CDLL(None)
    c.fopen.restype, c.fopen.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_char_p]
    c.malloc_info.argtypes, c.fclose.argtypes = [ctypes.c_int, ctypes.c_void_p], [ctypes.c_void_p]
    file = c.fopen(sys.argv[2].encode(), b"w")
    c.malloc_info(0, file)
    c.fclose(file)
    print(Path(sys.argv[2]).read_text().count("<heap nr="))
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="the C library is not glibc")
def test_threads_that_take_turns_share_the_memory_that_freed_tensors_leave(tmp_path: Path) -> None:
    """Twelve threads at the same time: malloc gives each an arena of its own, or all of them one."""
    n_arenas = {}
    for how in ("apart", "shared"):
        command = [sys.executable, "-c", textwrap.dedent(ARENAS), how, str(tmp_path / how)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        n_arenas[how] = int(done.stdout)
    assert n_arenas["apart"] >= 8
    assert n_arenas["shared"] == 1
