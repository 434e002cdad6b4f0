"""One list of behaviours, run against every sandbox. A known gap stands in GAPS with its reason.

A behaviour is a function that takes a started sandbox. What a program is judged to be is not in here (see the
trials and the judge): a sandbox only says what came out.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from sdpo_solve import values
from sdpo_solve.errors import ConfigError, PrerequisiteError
from sdpo_solve.protocols import Sandbox
from sdpo_solve.sandboxes import bubblewrap, docker
from sdpo_solve.types import BoxInput, Call, Limits, Program, RunResult, RunStatus

LIMITS = Limits(time_s=1.0, memory_mb=128)
OPTIONS = {"boxes_ready": 2, "parallel": 2}

BACKENDS: dict[str, Callable[[], Sandbox]] = {
    "docker": lambda: docker.build(docker.Options(**OPTIONS)),
    "bubblewrap": lambda: bubblewrap.build(bubblewrap.Options(**OPTIONS)),
    "bubblewrap-namespaces": lambda: bubblewrap.build(bubblewrap.Options(**OPTIONS, separate="namespace")),
}

GAPS: dict[tuple[str, str], str] = {}

Behaviour = Callable[[Sandbox], None]
BEHAVIOURS: dict[str, Behaviour] = {}


def behaviour(function: Behaviour) -> Behaviour:
    BEHAVIOURS[function.__name__] = function
    return function


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.docker) for name in BACKENDS])
def backend(request: pytest.FixtureRequest) -> Iterator[tuple[str, Sandbox]]:
    try:
        sandbox = BACKENDS[request.param]()
    except PrerequisiteError as exc:
        pytest.skip(str(exc))
    yield request.param, sandbox
    sandbox.close()


def one(sandbox: Sandbox, code: str, stdin: str = "", limits: Limits = LIMITS) -> RunResult:
    (result,) = sandbox.run(Program(code), [BoxInput(stdin)], limits)
    return result


def call(sandbox: Sandbox, code: str, *args: object, entry: str = "f", preamble: str = "") -> RunResult:
    (result,) = sandbox.run(Program(code, entry, preamble), [BoxInput(calls=(Call(args),))], LIMITS)
    return result


def returned(result: RunResult) -> list[object]:
    assert result.status is RunStatus.OK, result
    return [values.decode(text) for text in result.values]


# -- programs that read standard input -------------------------------------------------------------------------


@behaviour
def text_goes_in_and_comes_out(sandbox: Sandbox) -> None:
    result = one(sandbox, "print(input()[::-1])", "abc\n")
    assert (result.status, result.stdout, result.stderr, result.exit_code) == (RunStatus.OK, "cba\n", "", 0)


@behaviour
def results_come_in_the_order_of_the_inputs(sandbox: Sandbox) -> None:
    code = "import time; n = int(input()); time.sleep((5 - n) * 0.05); print(n)"
    results = sandbox.run(Program(code), [BoxInput(str(n)) for n in range(6)], LIMITS)
    assert [result.stdout for result in results] == [f"{n}\n" for n in range(6)]


@behaviour
def no_input_is_no_result(sandbox: Sandbox) -> None:
    assert sandbox.run(Program("print(1)"), [], LIMITS) == []


@behaviour
def megabytes_pass_both_ways(sandbox: Sandbox) -> None:
    text = "x" * 3_000_000
    result = one(sandbox, "print(input())", text)
    assert result.status is RunStatus.OK
    assert result.stdout == text + "\n"


@behaviour
def an_exception_is_told_with_the_programs_own_line(sandbox: Sandbox) -> None:
    result = one(sandbox, "def f():\n    return 1 // 0\nf()")
    assert result.status is RunStatus.RUNTIME_ERROR
    assert result.exit_code == 1
    assert result.stderr.splitlines()[:3] == [
        "Traceback (most recent call last):",
        '  File "solution.py", line 3, in <module>',
        "    f()",
    ]
    assert result.stderr.endswith("ZeroDivisionError: integer division or modulo by zero\n")


@behaviour
def the_exit_code_is_the_programs(sandbox: Sandbox) -> None:
    result = one(sandbox, "import sys; print('x'); sys.exit(3)")
    assert (result.status, result.exit_code, result.stdout) == (RunStatus.RUNTIME_ERROR, 3, "x\n")


@behaviour
def a_signal_is_a_negative_exit_code(sandbox: Sandbox) -> None:
    assert one(sandbox, "import os; os.abort()").exit_code == -6


@behaviour
def what_does_not_compile_says_so(sandbox: Sandbox) -> None:
    result = one(sandbox, "x = (\n")
    assert result.status is RunStatus.COMPILE_ERROR
    assert "SyntaxError: '(' was never closed" in result.stderr
    assert "solution.py" in result.stderr


@behaviour
def a_syntax_error_raised_by_the_program_is_a_runtime_error(sandbox: Sandbox) -> None:
    assert one(sandbox, "compile('(', 'x', 'exec')").status is RunStatus.RUNTIME_ERROR


@behaviour
def text_that_is_no_unicode_comes_out_replaced(sandbox: Sandbox) -> None:
    assert one(sandbox, "import os; os.write(1, b'a\\xff\\x00b')").stdout == "a\ufffd\x00b"


@behaviour
def a_source_with_nul_or_surrogates_is_a_compile_error(sandbox: Sandbox) -> None:
    assert one(sandbox, "x = '\0'").status is RunStatus.COMPILE_ERROR
    assert one(sandbox, "x = '\udc80'").status is RunStatus.COMPILE_ERROR


@behaviour
def a_preamble_runs_first_and_shifts_no_line(sandbox: Sandbox) -> None:
    program = Program("print(sqrt(9))\nraise ValueError", preamble="from math import *\n\n")
    (result,) = sandbox.run(program, [BoxInput()], LIMITS)
    assert result.stdout == "3.0\n"
    assert 'File "solution.py", line 2' in result.stderr


# -- programs that are called --------------------------------------------------------------------------------


@behaviour
def calls_return_values(sandbox: Sandbox) -> None:
    inputs = [BoxInput(calls=(Call((2,), {"y": 3}), Call(({"a": (1, 2)},))))]
    (result,) = sandbox.run(Program("def f(x, y=None): return [x, y]", "f"), inputs, LIMITS)
    assert returned(result) == [[2, 3], [{"a": (1, 2)}, None]]


@behaviour
def printing_is_kept_apart_from_values(sandbox: Sandbox) -> None:
    result = call(sandbox, "print('import')\ndef f(x):\n    print(x)\n    return x + 1", 1)
    assert returned(result) == [2]
    assert result.stdout == "import\n1\n"


@behaviour
def a_method_is_called_on_a_new_instance(sandbox: Sandbox) -> None:
    code = "class S:\n    def __init__(self): self.n = 1\n    def m(self, x): self.n += x; return self.n"
    results = sandbox.run(Program(code, "S.m"), [BoxInput(calls=(Call((5,)),))] * 2, LIMITS)
    assert [returned(result) for result in results] == [[6], [6]]


@behaviour
def values_before_a_failing_call_are_kept(sandbox: Sandbox) -> None:
    inputs = [BoxInput(calls=(Call((1,)), Call((0,))))]
    (result,) = sandbox.run(Program("def f(x): return 1 // x", "f"), inputs, LIMITS)
    assert result.status is RunStatus.RUNTIME_ERROR
    assert result.values == ("1",)


@behaviour
def a_missing_entry_point_is_named(sandbox: Sandbox) -> None:
    result = call(sandbox, "def g(x): return x", 1)
    assert result.status is RunStatus.RUNTIME_ERROR
    assert result.stderr == "NameError: solution.py does not define 'f'\n"


@behaviour
def a_value_that_is_not_plain_is_an_error(sandbox: Sandbox) -> None:
    result = call(sandbox, "def f(): return object()")
    assert result.status is RunStatus.RUNTIME_ERROR
    assert "a value of type object is not plain data" in result.stderr


@behaviour
def leaving_before_the_return_is_an_error(sandbox: Sandbox) -> None:
    for way in ("__import__('os')._exit(0)", "exit()", "__import__('sys').exit(0)"):
        result = call(sandbox, f"def f(): {way}")
        assert (result.status, result.values) == (RunStatus.RUNTIME_ERROR, ()), way


@behaviour
def extra_values_are_an_error(sandbox: Sandbox) -> None:
    result = call(sandbox, "import os\ndef f():\n    os.write(4, b'1\\n')\n    return 2")
    assert result.status is RunStatus.RUNTIME_ERROR


@behaviour
def the_main_guard_is_for_standard_input_only(sandbox: Sandbox) -> None:
    code = "def f(): return __name__\nif __name__ == '__main__':\n    print('main')"
    assert one(sandbox, code).stdout == "main\n"
    result = call(sandbox, code)
    assert (result.stdout, returned(result)) == ("", ["solution"])


# -- limits --------------------------------------------------------------------------------------------------


@behaviour
def processor_time_is_limited(sandbox: Sandbox) -> None:
    result = one(sandbox, "while True: pass")
    assert result.status is RunStatus.TIME_LIMIT
    assert 1.0 < result.cpu_s < 2.0


@behaviour
def processor_time_is_measured(sandbox: Sandbox) -> None:
    code = "import time\nwhile time.process_time() < 0.3: pass"
    assert 0.29 < one(sandbox, code).cpu_s < 0.5


@behaviour
def processor_time_of_children_counts(sandbox: Sandbox) -> None:
    code = "import os\nfor _ in range(3): os.fork()\nwhile True: pass"
    assert one(sandbox, code).status is RunStatus.TIME_LIMIT


@behaviour
def sleeping_is_ended_by_the_wall_clock(sandbox: Sandbox) -> None:
    result = one(sandbox, "import time; time.sleep(100)", limits=Limits(0.5, 128))
    assert result.status is RunStatus.TIME_LIMIT
    assert result.cpu_s < 0.5
    assert 2.0 <= result.wall_s < 5.0  # twice the limit and a second


@behaviour
def memory_is_limited(sandbox: Sandbox) -> None:
    for code in (
        "x = bytearray(10**9)\nfor i in range(0, 10**9, 4096): x[i] = 1",
        "x = [0]\nwhile True: x += x",
    ):
        result = one(sandbox, code)
        assert result.status is RunStatus.MEMORY_LIMIT, code
        assert result.peak_mb > 128


@behaviour
def memory_within_the_limit_is_fine(sandbox: Sandbox) -> None:
    result = one(sandbox, "x = b'x' * (80 << 20); print(len(x))")
    assert result.status is RunStatus.OK
    assert 80 < result.peak_mb < 128


@behaviour
def memory_of_a_short_peak_is_measured(sandbox: Sandbox) -> None:
    """Too short for a look at it: in the program itself, and in a child that it waited for."""
    child = "import os\nif os.fork(): os.wait()\nelse:\n    x = b'x' * (60 << 20)\n    os._exit(0)"
    for code, least_mb in (("x = b'x' * (80 << 20); del x", 80), (child, 60)):
        for result in sandbox.run(Program(code), [BoxInput()] * 6, LIMITS):
            assert result.status is RunStatus.OK
            assert least_mb < result.peak_mb < 128


@behaviour
def a_program_has_no_file_open_but_its_own(sandbox: Sandbox) -> None:
    code = "import os\nopen('mine', 'w').close()\nfor fd in range(3, 256):\n    try: print(fd, os.readlink(f'/proc/self/fd/{fd}'))\n    except OSError: pass"
    assert one(sandbox, code).stdout == ""


@behaviour
def output_is_capped(sandbox: Sandbox) -> None:
    result = one(sandbox, "while True: print('x' * 1000)")
    assert result.status is RunStatus.OUTPUT_LIMIT
    assert 0 < len(result.stdout) <= 1 << 16


@behaviour
def the_end_of_a_long_error_is_kept(sandbox: Sandbox) -> None:
    result = one(sandbox, "import sys\nsys.stderr.write('x' * 10**6)\nraise ValueError('the end')")
    assert result.status is RunStatus.RUNTIME_ERROR
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
    assert [result.status for result in results] == [RunStatus.OK] * 4


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
    assert greedy.status is RunStatus.MEMORY_LIMIT
    assert (modest.status, modest.stdout) == (RunStatus.OK, "fine\n")


# -- isolation -----------------------------------------------------------------------------------------------


@behaviour
def no_right_is_left(sandbox: Sandbox) -> None:
    status = one(sandbox, "print(open('/proc/self/status').read())").stdout
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(fields["CapPrm"], 16) == int(fields["CapEff"], 16) == int(fields["CapInh"], 16) == 0
    assert int(fields["CapAmb"], 16) == 0
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"
    assert "0" not in fields["Uid"].split()


@behaviour
def only_the_home_is_writable(sandbox: Sandbox) -> None:
    code = """import os
found = []
for folder, folders, _ in os.walk("/"):
    folders[:] = [f for f in folders if os.path.join(folder, f) not in ("/proc", "/sys")]
    hidden = ["/box/0", "/box/1", "/box/build", "/dev/mqueue", "/dev/shm", os.getcwd()] if folder == "/" else []
    for place in [folder, *hidden]:
        try:
            open(os.path.join(place, "probe"), "w").close()
            found.append(place)
        except OSError:
            pass
print(set(found) == {os.getcwd()} or found)
"""
    assert one(sandbox, code, limits=Limits(6, 128)).stdout == "True\n"


@behaviour
def the_environment_tells_nothing(sandbox: Sandbox) -> None:
    os.environ["SDPO_TEST_SECRET"] = "secret"
    try:
        shown = one(sandbox, "import os; print(dict(os.environ))").stdout
    finally:
        del os.environ["SDPO_TEST_SECRET"]
    assert "secret" not in shown
    assert "SDPO" not in shown


@behaviour
def there_is_no_network(sandbox: Sandbox) -> None:
    result = one(sandbox, "import socket; socket.create_connection(('1.1.1.1', 53), 1)")
    assert result.status is RunStatus.RUNTIME_ERROR
    interfaces = one(sandbox, "import os; print(open('/proc/net/dev').read().count(':'))")
    assert int(interfaces.stdout) <= 1  # the loopback


@behaviour
def no_test_sees_another(sandbox: Sandbox) -> None:
    code = """import os, signal, time
me = input()
open("secret", "w").write(me)
deadline = time.monotonic() + 0.4
reached = 0
while time.monotonic() < deadline:
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        if pid == os.getpid():
            continue
        for act in (lambda: os.kill(pid, signal.SIGCONT), lambda: open(f"/proc/{pid}/mem", "rb"),
                    lambda: os.listdir(f"/proc/{pid}/fd"), lambda: os.readlink(f"/proc/{pid}/cwd"),
                    lambda: open(f"/proc/{pid}/environ", "rb").read()):
            try:
                act()
                reached += 1
            except OSError:
                pass
    for slot in range(4):
        try:
            reached += open(f"/box/{slot}/home/secret").read() not in ("", me)
        except OSError:
            pass
print(reached)
"""
    wrapper = "import os\nprint(len([p for p in os.listdir('/proc') if p.isdigit()]))"
    results = sandbox.run(Program(code), [BoxInput("a"), BoxInput("b")], LIMITS)
    # In a namespace of its own a test may signal the two helpers that hold it, and nothing else is there.
    alone = int(one(sandbox, wrapper).stdout) <= 2
    for result in results:
        assert result.status is RunStatus.OK, result
        assert result.stdout == "0\n" or alone


@behaviour
def no_test_finds_another_in_its_memory(sandbox: Sandbox) -> None:
    code = """import re
mine = input().encode()
found = set()
with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
    for line in maps:
        place, rights = line.split()[:2]
        first, last = (int(text, 16) for text in place.split("-"))
        if rights.startswith("r") and not line.rstrip().endswith("[vvar]"):
            try:
                memory.seek(first)
                found |= set(re.findall(rb"tok=[a-z]{8}", memory.read(last - first)))
            except (OSError, OverflowError, ValueError):
                pass
print(mine in found, found - {mine})
"""
    inputs = [BoxInput("tok=" + 8 * letter) for letter in "abcdef"]
    results = sandbox.run(Program(code), inputs, Limits(6, 256))
    assert [result.stdout for result in results] == ["True set()\n"] * 6, results


@behaviour
def nothing_is_carried_from_test_to_test(sandbox: Sandbox) -> None:
    code = """import os
print(sorted(os.listdir(".")), sorted(os.listxattr(".")))
open("left", "w").write("x")
os.mkdir("deep")
os.chmod("deep", 0)
if os.fork() == 0:
    os.setsid()
    while True: pass
"""
    results = sandbox.run(Program(code), [BoxInput()] * 6, LIMITS)
    assert {result.stdout for result in results} == {"[] []\n"}


@behaviour
def a_daemon_that_keeps_the_output_open_does_not_delay(sandbox: Sandbox) -> None:
    code = "import os, time\nprint('done', flush=True)\nif os.fork() == 0:\n    os.setsid(); time.sleep(100)"
    began = time.monotonic()
    assert one(sandbox, code).stdout == "done\n"
    assert time.monotonic() - began < 5


@behaviour
def killing_the_runner_is_the_programs_error_or_fails(sandbox: Sandbox) -> None:
    code = """import os, signal
for pid in (1, os.getppid(), -1):
    try:
        if pid != os.getpid():
            os.kill(pid, signal.SIGKILL)
    except OSError:
        pass
raise SystemExit(5)
"""
    assert one(sandbox, code).status is RunStatus.RUNTIME_ERROR


# -- several at a time, and ending ---------------------------------------------------------------------------


@behaviour
def stopping_early_leaves_the_rest_out(sandbox: Sandbox) -> None:
    asked = []

    def stop(index: int, result: RunResult) -> bool:
        asked.append((index, result.stdout))
        return index == 2

    began = time.monotonic()
    code = "import time; n = int(input()); time.sleep(n > 5 and 100); print(n)"
    results = sandbox.run(Program(code), [BoxInput(str(n)) for n in range(9)], LIMITS, stop)
    assert time.monotonic() - began < 2.5
    assert asked == [(0, "0\n"), (1, "1\n"), (2, "2\n")]
    assert [result.status for result in results] == [RunStatus.OK] * 3 + [RunStatus.NOT_RUN] * 6


@behaviour
def several_threads_may_run_programs(sandbox: Sandbox) -> None:
    answers: dict[int, str] = {}

    def work(n: int) -> None:
        answers[n] = one(sandbox, "print(int(input()) * 7)", str(n)).stdout

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {n: f"{n * 7}\n" for n in range(6)}


@behaviour
def the_identity_names_backend_and_version(sandbox: Sandbox) -> None:
    assert sandbox.identity().startswith(("docker (", "bubblewrap ("))


# -- another language ----------------------------------------------------------------------------------------

DOUBLE_CPP = (
    "#include <iostream>\nint main() { long long n; while (std::cin >> n) std::cout << 2 * n << '\\n'; }"
)


@behaviour
def cpp_is_compiled_once_and_run(sandbox: Sandbox) -> None:
    program = Program(DOUBLE_CPP, language="cpp")
    results = sandbox.run(program, [BoxInput("1 2"), BoxInput("-5")], LIMITS)
    assert [(result.status, result.stdout) for result in results] == [
        (RunStatus.OK, "2\n4\n"),
        (RunStatus.OK, "-10\n"),
    ]


@behaviour
def cpp_errors_are_compile_errors(sandbox: Sandbox) -> None:
    results = sandbox.run(Program("int main() { return x; }", language="cpp"), [BoxInput()] * 3, LIMITS)
    assert {result.status for result in results} == {RunStatus.COMPILE_ERROR}
    assert "solution.cpp:1:21: error" in results[0].stderr or "solution.cpp:1:" in results[0].stderr


@behaviour
def cpp_has_the_same_limits(sandbox: Sandbox) -> None:
    program = "#include <vector>\nint main() { %s }"
    for body, status in (
        ("volatile int x = 0; while (true) x = x + 1;", RunStatus.TIME_LIMIT),
        (
            "std::vector<std::vector<char>> v; while (true) v.emplace_back(1 << 20, 'x');",
            RunStatus.MEMORY_LIMIT,
        ),
        ("return 3;", RunStatus.RUNTIME_ERROR),
        ("__builtin_trap();", RunStatus.RUNTIME_ERROR),
    ):
        (result,) = sandbox.run(Program(program % body, language="cpp"), [BoxInput()], LIMITS)
        assert result.status is status, body


@behaviour
def a_compiler_that_never_ends_is_stopped(sandbox: Sandbox) -> None:
    code = "template<int N> struct A { enum { v = A<N - 1>::v + A<N - 2>::v + sizeof(char[N]) }; };\n#include __FILE__\n"
    (result,) = sandbox.run(Program(code, language="cpp"), [BoxInput()], LIMITS)
    assert result.status is RunStatus.COMPILE_ERROR


@behaviour
def calls_in_cpp_are_the_users_mistake(sandbox: Sandbox) -> None:
    with pytest.raises(ConfigError, match="cpp programs read standard input"):
        sandbox.run(Program("", "f", language="cpp"), [BoxInput(calls=(Call(),))], LIMITS)


@behaviour
def an_unknown_language_is_the_users_mistake(sandbox: Sandbox) -> None:
    with pytest.raises(ConfigError, match="unknown language 'cobol': choose one of cpp, python"):
        sandbox.run(Program("", language="cobol"), [BoxInput()], LIMITS)


# -- the list against the backends ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_behaviour(backend: tuple[str, Sandbox], name: str) -> None:
    which, sandbox = backend
    if (which, name) in GAPS:
        pytest.xfail(GAPS[which, name])
    BEHAVIOURS[name](sandbox)
