"""Several threads on one model: each sees its own weights, whoever learns or probes beside it."""

import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

import pytest
import torch
from test_learner import run_updates, same, weights

from sdpo_solve.engines._probe import SwapProbe
from sdpo_solve.engines._scoring import forced_logprobs
from sdpo_solve.learner.host import AdaptedModel
from sdpo_solve.types import Policy
from tests.tiny_model import save_tiny_model

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


HELD_IN_TURN = """
    import sys
    from sdpo_solve.processor import share_freed_memory
    if sys.argv[1] == "shared":
        share_freed_memory()  # as the command does, before anything starts threads

    import threading
    import torch

    def resident_mb():
        return int(open("/proc/self/statm").read().split()[1]) * 4096 >> 20

    def work():
        with turn:
            tensors = [torch.ones(4 << 20) for _ in range(16)]
            del tensors
        all_done.wait()

    turn, all_done = threading.Lock(), threading.Barrier(12)
    threads = [threading.Thread(target=work) for _ in range(12)]
    before = resident_mb()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(resident_mb() - before)
"""


def test_threads_that_take_turns_share_the_memory_that_freed_tensors_leave() -> None:
    """Twelve threads hold 256 MB one after another: malloc keeps it twelve times (3 GB), or far less."""
    kept_mb = {}
    for how in ("apart", "shared"):
        command = [sys.executable, "-c", textwrap.dedent(HELD_IN_TURN), how]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        kept_mb[how] = int(done.stdout)
    assert 200 < kept_mb["shared"] < 0.7 * kept_mb["apart"]
