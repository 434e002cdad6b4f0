"""Every limit ends what breaks it, is measured, and leaves what keeps it alone."""

from sdpo_solve.protocols import Sandbox
from sdpo_solve.types import BoxInput, ExecutionStatus, Limits, Program
from tests.helpers.behaviours import LIMITS, behaviour, one


@behaviour
def processor_time_is_limited(sandbox: Sandbox) -> None:
    result = one(sandbox, "while True: pass")
    assert result.status is ExecutionStatus.TIME_LIMIT
    assert 1.0 < result.cpu_s < 2.0


@behaviour
def processor_time_is_measured(sandbox: Sandbox) -> None:
    code = "import time\nwhile time.process_time() < 0.3: pass"
    assert 0.29 < one(sandbox, code).cpu_s < 0.5


@behaviour
def processor_time_of_children_counts(sandbox: Sandbox) -> None:
    code = "import os\nfor _ in range(3): os.fork()\nwhile True: pass"
    assert one(sandbox, code).status is ExecutionStatus.TIME_LIMIT


@behaviour
def sleeping_is_ended_by_the_wall_clock(sandbox: Sandbox) -> None:
    result = one(sandbox, "import time; time.sleep(100)", limits=Limits(0.5, 128))
    assert result.status is ExecutionStatus.TIME_LIMIT
    assert result.cpu_s < 0.5
    assert 2.0 <= result.wall_s < 5.0  # twice the limit and a second


@behaviour
def memory_is_limited(sandbox: Sandbox) -> None:
    for code in (
        "x = bytearray(10**9)\nfor i in range(0, 10**9, 4096): x[i] = 1",
        "x = [0]\nwhile True: x += x",
    ):
        result = one(sandbox, code)
        assert result.status is ExecutionStatus.MEMORY_LIMIT, code
        assert result.peak_mb > 128


@behaviour
def memory_within_the_limit_is_fine(sandbox: Sandbox) -> None:
    result = one(sandbox, "x = b'x' * (80 << 20); print(len(x))")
    assert result.status is ExecutionStatus.OK
    assert 80 < result.peak_mb < 128


@behaviour
def memory_of_a_short_peak_is_measured(sandbox: Sandbox) -> None:
    """Too short for a look at it: in the program itself, and in a child that it waited for."""
    child = "import os\nif os.fork(): os.wait()\nelse:\n    x = b'x' * (60 << 20)\n    os._exit(0)"
    for code, least_mb in (("x = b'x' * (80 << 20); del x", 80), (child, 60)):
        for result in sandbox.run(Program(code), [BoxInput()] * 6, LIMITS):
            assert result.status is ExecutionStatus.OK
            assert least_mb < result.peak_mb < 128


@behaviour
def a_program_has_no_file_open_but_its_own(sandbox: Sandbox) -> None:
    code = "import os\nopen('mine', 'w').close()\nfor fd in range(3, 256):\n    try: print(fd, os.readlink(f'/proc/self/fd/{fd}'))\n    except OSError: pass"
    assert one(sandbox, code).stdout == ""


@behaviour
def output_is_capped(sandbox: Sandbox) -> None:
    result = one(sandbox, "while True: print('x' * 1000)")
    assert result.status is ExecutionStatus.OUTPUT_LIMIT
    assert 0 < len(result.stdout) <= 1 << 16


@behaviour
def an_expected_length_makes_room_for_the_output(sandbox: Sandbox) -> None:
    program, given = Program("print('x' * 6_000_000)"), BoxInput(output_bytes=6_000_001)
    results = sandbox.run(program, [BoxInput(), *[given] * 14], Limits(3, 128))
    assert results[0].status is ExecutionStatus.OUTPUT_LIMIT
    assert {(result.status, len(result.stdout)) for result in results[1:]} == {
        (ExecutionStatus.OK, 6_000_001)
    }


@behaviour
def a_program_may_ask_for_more_stack(sandbox: Sandbox) -> None:
    code = """import resource, sys
resource.setrlimit(resource.RLIMIT_STACK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
sys.setrecursionlimit(10**6)
def f(n): return n and 1 + f(n - 1)
print(f(50_000))
"""
    assert one(sandbox, code, limits=Limits(3, 256)).stdout == "50000\n"


@behaviour
def memory_that_is_only_reserved_is_not_counted(sandbox: Sandbox) -> None:
    assert one(sandbox, "import mmap\nprint(len(mmap.mmap(-1, 8 << 30)))").stdout == "8589934592\n"


@behaviour
def the_end_of_a_long_error_is_kept(sandbox: Sandbox) -> None:
    result = one(sandbox, "import sys\nsys.stderr.write('x' * 10**6)\nraise ValueError('the end')")
    assert result.status is ExecutionStatus.RUNTIME_ERROR
    assert len(result.stderr) <= 1 << 16
    assert result.stderr.endswith("ValueError: the end\n")


@behaviour
def processes_are_limited(sandbox: Sandbox) -> None:
    code = """import os, time
n = 0
try:
    while True:
        if os.fork() == 0:
            time.sleep(5)
            os._exit(0)
        n += 1
except OSError:
    print(n)
"""
    assert 1 < int(one(sandbox, code, limits=Limits(2, 512)).stdout) <= 32


@behaviour
def files_are_limited(sandbox: Sandbox) -> None:
    code = """import os
n = 0
try:
    while True:
        with open(str(n), "wb") as file:
            file.write(bytes(1 << 20))
        n += 1
except OSError:
    print(n)
"""
    assert 10 <= int(one(sandbox, code).stdout) <= 16


@behaviour
def parallel_tests_do_not_share_a_limit(sandbox: Sandbox) -> None:
    code = "x = b'x' * (90 << 20); print(len(x))"
    results = sandbox.run(Program(code), [BoxInput()] * 4, LIMITS)
    assert [result.status for result in results] == [ExecutionStatus.OK] * 4


@behaviour
def a_greedy_test_does_not_fail_its_neighbour(sandbox: Sandbox) -> None:
    code = """import os, time
if input() == "greedy":
    x = []
    while True: x.append(bytearray(b"x" * (64 << 20)))
time.sleep(0.3)
print("fine")
"""
    greedy, modest = sandbox.run(Program(code), [BoxInput("greedy"), BoxInput("modest")], LIMITS)
    assert greedy.status is ExecutionStatus.MEMORY_LIMIT
    assert (modest.status, modest.stdout) == (ExecutionStatus.OK, "fine\n")
