"""The fastest precision; threads follow what other processes leave: fewer beside a busy one, all again afterwards."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from sdpo_solve.errors import EngineError
from sdpo_solve.model import cpu
from sdpo_solve.model.cpu import cpu_dtype, memory_errors, threads_by_load


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize(
    ("others", "threads"), [(0.0, 4), (0.3, 4), (0.67, 3), (1.0, 3), (2.2, 2), (3.9, 1), (9.0, 1), (-0.1, 4)]
)
def test_threads_by_what_others_leave(monkeypatch: pytest.MonkeyPatch, others: float, threads: int) -> None:
    """`others`: cores that other processes keep busy, of four."""
    times = cpu._Times(100.0, 4, 50.0)
    monkeypatch.setattr(cpu._Times, "now", lambda: times)
    monkeypatch.setattr(cpu.time, "monotonic", lambda: times.at_s)
    with threads_by_load() as look:
        times = replace(times, at_s=101.0, others_s=50 + others)
        look()
        assert torch.get_num_threads() == threads
        times = replace(times, at_s=102.0)
        look()
        assert torch.get_num_threads() == 4  # they are idle again
        times = replace(times, at_s=102.1, others_s=times.others_s + 4)
        look()
        assert torch.get_num_threads() == 4  # too short to tell
        times = replace(times, at_s=103.0)
        look()
    assert torch.get_num_threads() == 4


def test_this_process_is_no_other() -> None:
    """A busy second of our own is not counted; what others do can only add."""
    before, ends = cpu._Times.now(), cpu.time.process_time() + 1
    while cpu.time.process_time() < ends:
        pass
    now = cpu._Times.now()
    assert now.others_s - before.others_s < (now.at_s - before.at_s) * now.n_cores - 0.8
    assert now.n_cores >= 1


@pytest.mark.parametrize(
    ("can", "fastest"),
    [
        ({}, "float32"),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": False, "amx_bf16": False}, "float32"),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": False}, "float32"),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}, "bfloat16"),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": True, "amx_bf16": False}, "bfloat16"),
        ({"avx512_bf16": True}, "bfloat16"),
    ],
)
def test_the_precision_is_the_one_that_the_processor_multiplies_faster(
    can: dict[str, Any], fastest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: can)
    assert cpu_dtype() == fastest


@pytest.mark.parametrize(("n_bytes", "taken"), [(24, "float32"), (26, "bfloat16")])
def test_a_model_that_would_fill_half_of_the_memory_takes_the_smaller_precision(
    n_bytes: int, taken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 100 bytes; the weights are stored with half the bytes of float32."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=100))
    (tmp_path / "model.safetensors").write_bytes(bytes(n_bytes))
    for can, dtype in (({"cpu_name": "Intel Xeon", "avx512_bf16": True}, taken), ({}, "float32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda can=can: can)
        assert cpu_dtype(tmp_path) == dtype


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), EngineError),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), EngineError),
        (MemoryError("Cannot allocate memory (os error 12)"), EngineError),
        (RuntimeError("shapes differ"), RuntimeError),
        (ValueError("no number"), ValueError),
    ],
    ids=lambda x: str(x)[:12],
)
def test_a_lack_of_memory_is_an_error_of_ours_and_nothing_else_is(
    raised: Exception, seen: type[Exception]
) -> None:
    with pytest.raises(seen) as caught, memory_errors(EngineError, "too large"):
        raise raised
    assert (str(caught.value) == "too large") == (seen is EngineError)
