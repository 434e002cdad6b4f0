"""The parts of a box that can be told without one: whose fault an end is, frames, results, pools."""

import os
import re
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sdpo_solve.config import read_options
from sdpo_solve.errors import ConfigError, PrerequisiteError, SandboxError
from sdpo_solve.sandboxes import _seccomp, docker, install, languages
from sdpo_solve.sandboxes._base import BoxOptions, PooledSandbox
from sdpo_solve.sandboxes._box import (
    COMMAND,
    Box,
    BoxEnd,
    BoxLost,
    Caps,
    Layout,
    Results,
    infrastructure_fault,
    wall_limit_s,
)
from sdpo_solve.sandboxes._pool import Pool, SharedLock
from sdpo_solve.sandboxes.guest.wire import Unpacker, pack
from sdpo_solve.sandboxes.images import image_folder, image_tag, is_reference
from sdpo_solve.sandboxes.languages import Language
from sdpo_solve.types import Execution, ExecutionStatus, Limits

# -- whose fault an end is -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "removed", "memory", "cause"),
    [
        (False, False, False, "the sandbox engine stopped answering (seen)"),
        (False, True, True, "the sandbox engine stopped answering (seen)"),
        (True, True, False, "the box was removed from outside (seen)"),
        (True, True, True, "the box was removed from outside (seen)"),
        (True, False, False, "the box ended by itself (seen)"),
        (True, False, True, None),  # the program ate the memory of its own runner
    ],
)
def test_whose_fault_it_is(answers: bool, removed: bool, memory: bool, cause: str | None) -> None:
    assert infrastructure_fault(BoxEnd(answers, removed, memory, "seen")) == cause


class Stolen(Box):
    """A box whose stream was closed just after its number was read, when it stood for another stream."""

    def __init__(self, silent_fd: int, *, closed_says: int | None) -> None:
        super().__init__()
        self._silent_fd, self._closed_says = silent_fd, closed_says
        self.reads = 0

    def fileno(self) -> int:
        self.reads += 1
        if self.reads <= 2:
            return self._silent_fd
        if self._closed_says is None:
            raise ValueError("I/O operation on closed file")
        return self._closed_says

    def send(self, data: memoryview) -> int:
        raise OSError("closed")

    def receive(self) -> bytes | None:
        raise OSError("closed")

    def errors(self) -> bytes:
        return b""

    def how_it_ended(self, seen: str) -> BoxEnd:
        raise NotImplementedError

    def end(self) -> None:
        raise NotImplementedError


@pytest.mark.parametrize("closed_says", [None, -1])
def test_a_box_that_is_ended_beside_its_conversation_is_lost_soon(closed_says: int | None) -> None:
    """An interrupted run once waited two minutes for a stream whose number another one had taken over."""
    silent, other = os.pipe()
    box = Stolen(silent, closed_says=closed_says)
    failed: list[BaseException] = []

    def listen() -> None:
        try:
            box._next_frame(60)
        except BoxLost as exc:
            failed.append(exc)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    thread.join(20)
    os.close(silent)
    os.close(other)
    assert [str(exc) for exc in failed] == ["its stream was closed"]


@pytest.mark.parametrize("said", [b"", b"12", b"12\nabc"])
def test_a_box_whose_client_was_killed_before_it_spoke_ends_by_itself(said: bytes) -> None:
    """A client killed between the start of a box and its first line once left a box that spun for ever."""
    box = subprocess.run([sys.executable, *COMMAND[1:]], input=said, capture_output=True, timeout=60)
    assert (box.returncode, box.stderr) == (0, b"")


def test_wall_time_is_twice_the_limit_and_a_second() -> None:
    assert wall_limit_s(Limits(time_s=6.0)) == 13.0


# -- frames --------------------------------------------------------------------------------------------------


def test_frames_survive_being_cut_anywhere() -> None:
    data = pack({"a": "ü"}, b"\x00\xff") + pack({}) + pack({"b": [1]}, b"x" * 1000)
    unpacker, found = Unpacker(), []
    for i in range(len(data)):
        unpacker.feed(data[i : i + 1])
        if frame := unpacker.next():
            found.append(frame)
    assert found == [({"a": "ü"}, b"\x00\xff"), ({}, b""), ({"b": [1]}, b"x" * 1000)]
    assert unpacker.next() is None


# -- results in order ----------------------------------------------------------------------------------------

CAPS = Caps(parallel=2, output_mb=1, total_output_mb=1, scratch_mb=1, n_processes=8)


def head(index: int, *, again: bool = False, status: str = "ok", n: int = 0) -> dict[str, object]:
    common = {"cpu_s": 0.1, "wall_s": 0.1, "peak_mb": 1.0, "exit_code": 0, "n_values": 0}
    return {"result": index, "status": status, "again": again, "lengths": [n, 0, 0], **common}


def test_results_are_believed_in_input_order_and_stop_there() -> None:
    asked: list[int] = []
    results = Results(4, CAPS, lambda index, _: asked.append(index) or index == 1)  # type: ignore[func-returns-value]
    results.add(head(2), b"")
    assert asked == []
    results.add(head(0), b"")
    results.add(head(1), b"")
    assert asked == [0, 1]
    assert results.stopped
    assert [result.status for result in results.all()] == [ExecutionStatus.OK] * 2 + [
        ExecutionStatus.NOT_RUN
    ] * 2


def test_a_doubtful_result_holds_the_later_ones_back_until_it_is_repeated() -> None:
    asked: list[int] = []
    results = Results(2, CAPS, lambda index, _: bool(asked.append(index)))  # type: ignore[func-returns-value]
    results.add(head(0, again=True, status="time_limit"), b"")
    results.add(head(1), b"")
    assert asked == []
    assert results.start_repeats() == [0]
    results.add(head(0), b"")
    assert asked == [0, 1]
    assert [result.status for result in results.all()] == [ExecutionStatus.OK] * 2


def test_output_of_all_tests_together_is_capped() -> None:
    results = Results(3, CAPS, None)
    for index in range(3):
        results.add(head(index, n=600_000), b"x" * 600_000)
    statuses = [result.status for result in results.all()]
    assert statuses == [ExecutionStatus.OK, ExecutionStatus.OUTPUT_LIMIT, ExecutionStatus.OUTPUT_LIMIT]
    assert [len(result.stdout) for result in results.all()] == [600_000, 65_536, 65_536]


def test_a_program_that_loses_its_runner_fails_the_test_that_was_next() -> None:
    results = Results(3, CAPS, None)
    results.add(head(0), b"")
    statuses = [result.status for result in results.after_crash()]
    assert statuses == [ExecutionStatus.OK, ExecutionStatus.RUNTIME_ERROR, ExecutionStatus.NOT_RUN]


# -- pools and the gate --------------------------------------------------------------------------------------


class FakeBox:
    at_rest = False

    def __init__(self) -> None:
        self.ended = 0
        self.living = True

    def alive(self) -> bool:
        return self.living

    def end(self) -> None:
        self.ended += 1


def test_a_pool_starts_ahead_hands_out_once_and_ends_all() -> None:
    made: list[FakeBox] = []

    def start() -> FakeBox:
        made.append(FakeBox())
        return made[-1]

    pool = Pool(start, 3)
    assert pool.wait_ready(5)
    with pool.box() as first, pool.box() as second:
        assert first is not second
    assert pool.wait_ready(5)
    assert (first.ended, second.ended) == (1, 1)
    pool.close()
    pool.close()
    assert len(made) >= 5
    assert all(box.ended for box in made)
    with pytest.raises(SandboxError, match="closed"), pool.box():
        pass


AT_EXIT = """
import atexit, os
from sdpo_solve.sandboxes._pool import Pool
class Box:
    at_rest = False
    def alive(self): return True
    def end(self): os.write(1, b"ended\\n")  # one write: threads end them side by side
pool = Pool(Box, 12)
assert pool.wait_ready(20)
atexit.register(pool.close)
"""


def test_a_pool_is_closed_when_the_interpreter_exits() -> None:
    """An executor takes no work by then, and boxes once stayed."""
    done = subprocess.run([sys.executable, "-c", AT_EXIT], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr, done.stdout.split()) == (0, "", ["ended"] * 12)


@pytest.mark.parametrize("n_given", [0, 3])
def test_where_no_thread_is_given_boxes_are_ended_all_the_same(
    n_given: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[FakeBox] = []
    pool = Pool(lambda: made.append(FakeBox()) or made[-1], 12)  # type: ignore[func-returns-value]
    assert pool.wait_ready(5)
    start, numbers = threading.Thread.start, iter(range(99))

    def refuse(thread: threading.Thread) -> None:
        if next(numbers) >= n_given:
            raise RuntimeError("can't create new thread at interpreter shutdown")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    pool.close()
    assert [box.ended for box in made] == [1] * 12


def test_a_box_that_cannot_be_ended_keeps_no_other_from_its_end() -> None:
    made: list[FakeBox] = []
    pool = Pool(lambda: made.append(FakeBox()) or made[-1], 12)  # type: ignore[func-returns-value]
    assert pool.wait_ready(5)
    for box in made[:3]:
        box.end = lambda: 1 / 0  # type: ignore[assignment,method-assign,return-value]
    pool.close()
    assert [box.ended for box in made] == [0] * 3 + [1] * 9


def test_a_box_that_died_while_waiting_is_not_handed_out() -> None:
    pool = Pool(FakeBox, 1)
    assert pool.wait_ready(5)
    pool._ready[0].living = False
    with pool.box() as box:
        assert box.living
    pool.close()


def test_a_box_that_cannot_be_ended_costs_no_worker() -> None:
    class Stubborn(FakeBox):
        def end(self) -> None:
            super().end()
            raise KeyError("a variable that went")

    pool = Pool(Stubborn, 2)
    for _ in range(20):
        with pool.box():
            pass
    assert pool.wait_ready(5)
    assert all(thread.is_alive() for thread in pool._threads)
    for box in pool._ready:
        box.end = lambda: None  # type: ignore[method-assign]
    pool.close()


@pytest.mark.parametrize(
    ("fault", "raised"),
    [
        (SandboxError("no space left"), SandboxError),
        (PrerequisiteError("no space left"), PrerequisiteError),
        (OSError("no space left"), SandboxError),  # a worker that died of it would leave callers waiting
    ],
)
def test_a_pool_that_cannot_start_says_why_and_tries_again_when_asked(
    fault: Exception, raised: type[Exception]
) -> None:
    faults = iter([fault, fault])

    def start() -> FakeBox:
        fault = next(faults, None)
        if fault is not None:
            raise fault
        return FakeBox()

    pool = Pool(start, 0)
    for _ in range(2):
        with pytest.raises(raised, match="no space left"), pool.box():
            pass
    with pool.box() as box:
        assert box.living
    pool.close()


class StartedBox(FakeBox):
    def __init__(self, fault: BaseException | None) -> None:
        super().__init__()
        self.fault, self.starts = fault, 0

    def start(self, layout: Layout) -> None:
        self.starts += 1
        if self.fault is not None:
            raise self.fault

    def last_error(self) -> str:
        return " (its last words)"


class FakeSandbox(PooledSandbox):
    """One whose first program ends with `fault`."""

    def __init__(self, fault: BaseException | None = None, of_start: BaseException | None = None) -> None:
        super().__init__(BoxOptions(boxes_ready=3))
        self.fault, self.of_start, self.made = fault, of_start, list[StartedBox]()

    def make_box(self, language: Language, memory_mb: int) -> Box:
        self.made.append(StartedBox(self.of_start))
        return self.made[-1]  # type: ignore[return-value]

    def run(self, *_: object) -> list[Execution]:  # type: ignore[override]
        assert self.wait_ready(5)
        assert self.fault is not None
        raise self.fault

    def remedy(self, cause: str) -> str:
        return "mend it"

    def identity(self) -> str:
        return "fake"


@pytest.mark.parametrize(
    "fault", [KeyboardInterrupt(), SystemExit(143), PrerequisiteError("no image"), KeyError("a fault")]
)
def test_a_sandbox_that_is_not_opened_to_its_end_leaves_no_box(fault: BaseException) -> None:
    """Ctrl-C while the first boxes were made once left containers for good."""
    sandbox = FakeSandbox(fault)
    with pytest.raises(type(fault)):
        sandbox.open()
    assert len(sandbox.made) == 3
    assert all(box.ended for box in sandbox.made)
    with pytest.raises(SandboxError, match="the sandbox is closed"):
        sandbox._new_box(languages.get("python"), 512)  # as a worker does that was still making one
    assert (sandbox.made[-1].starts, sandbox.made[-1].ended) == (0, 1)
    with pytest.raises(SandboxError, match="the sandbox is closed"):
        sandbox._pool(languages.get("cpp"), 512)


def test_a_sandbox_that_could_not_be_opened_may_be_opened_again() -> None:
    sandbox = FakeSandbox(SandboxError("no; room"))
    for _ in range(2):
        with pytest.raises(PrerequisiteError, match=r"^no, room; mend it$"):
            sandbox.open()
    assert len(sandbox.made) == 6
    assert all(box.ended for box in sandbox.made)


@pytest.mark.parametrize(
    ("fault", "raised", "said"),
    [
        (BoxLost("its stream ended"), SandboxError, "cannot be started: its stream ended (its last words)"),
        (KeyError("a fault"), KeyError, "a fault"),
    ],
)
def test_a_box_whose_start_fails_is_ended(fault: Exception, raised: type[Exception], said: str) -> None:
    sandbox = FakeSandbox(of_start=fault)
    with pytest.raises(raised, match=re.escape(said)):
        sandbox._new_box(languages.get("python"), 512)
    assert [box.ended for box in sandbox.made] == [1]


def test_the_gate_lets_one_be_alone() -> None:
    gate, log = SharedLock(), []
    inside = threading.Event()

    def other() -> None:
        with gate.shared():
            inside.set()
            time.sleep(0.05)
            log.append("other")

    thread = threading.Thread(target=other)
    with gate.shared():
        thread.start()
        assert inside.wait(5)
        with gate.exclusive():
            log.append("alone")
    thread.join()
    assert log == ["other", "alone"]


# -- system calls, languages, images -------------------------------------------------------------------------


@pytest.mark.parametrize(("machine", "socket", "clone"), [("x86_64", 41, 56), ("aarch64", 198, 220)])
def test_the_filter_is_well_formed(machine: str, socket: int, clone: int) -> None:
    program = _seccomp.seccomp_filter(machine)
    ops = [struct.unpack_from("=HBBI", program, 8 * i) for i in range(len(program) // 8)]
    assert ops[-1] == (0x06, 0, 0, 0x7FFF0000)  # the default is to allow
    assert (0x15, 0, 1, socket) in ops
    assert (0x15, 0, 3, clone) in ops
    for place, (code, yes, no, _) in enumerate(ops):
        assert place + 1 + max(yes, no) < len(ops) or code == 0x06  # every jump lands inside
    assert len({*_seccomp.refused(machine).values()}) == len(_seccomp.refused(machine))


def test_every_language_has_its_folder_and_file() -> None:
    assert languages.names() == ["cpp", "python"]
    for name in languages.names():
        language = languages.get(name)
        assert language.name == name
        assert languages.of_file(Path(language.source)) is language
        assert (image_folder(name) / "debian-packages").is_file()


def test_an_unknown_language_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown language .rust. \(known: cpp, python\)"):
        languages.get("rust")
    assert languages.of_file(Path("Solution.java")) is None


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("full", True),
        ("python:3.13", True),
        ("localhost:5000/a/b__c.d-e:V1", True),
        ("Registry.example/python", True),
        ("[::1]:5000/python", True),
        ("sha256:" + "0" * 64, True),
        ("python@sha256:" + "0" * 64, True),
        ("Foo Bar", False),
        ("Python", False),
        ("a//b", False),
        ("python:", False),
        ("python:" + "x" * 129, False),
        ("python@sha256:12", False),
        ("../../info", False),
        ("python?x", False),
        ("python\n", False),
        ("", False),
    ],
)
def test_what_is_the_name_of_an_image(name: str, right: bool) -> None:
    assert is_reference(name) == right
    if not right:
        with pytest.raises(ConfigError, match=r"^sandbox\.image must be the name of an image, such as "):
            read_options(docker.Options, {"image": name}, "sandbox")


def test_a_tag_follows_the_content_of_the_folder() -> None:
    assert image_tag("python") == image_tag("python")
    assert image_tag("python").partition(":")[2] != image_tag("cpp").partition(":")[2]
    assert install._default_base("python").startswith("python:3.")
