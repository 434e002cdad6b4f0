"""Programs run and say what came out: read standard input, are called, run beside each other."""

import threading
import time
from collections import deque
from decimal import Decimal
from fractions import Fraction

from sdpo_solve.protocols import Sandbox
from sdpo_solve.sandboxes import languages
from sdpo_solve.types import BoxInput, Call, Execution, ExecutionStatus, Limits, Program
from tests.helpers.behaviours import LIMITS, behaviour, call, one, returned


@behaviour
def text_goes_in_and_comes_out(sandbox: Sandbox) -> None:
    result = one(sandbox, "print(input()[::-1])", "abc\n")
    assert (result.status, result.stdout, result.stderr, result.exit_code) == (
        ExecutionStatus.OK,
        "cba\n",
        "",
        0,
    )


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
    assert result.status is ExecutionStatus.OK
    assert result.stdout == text + "\n"


@behaviour
def an_exception_is_told_with_the_programs_own_line(sandbox: Sandbox) -> None:
    result = one(sandbox, "def f():\n    return 1 // 0\nf()")
    assert result.status is ExecutionStatus.RUNTIME_ERROR
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
    assert (result.status, result.exit_code, result.stdout) == (ExecutionStatus.RUNTIME_ERROR, 3, "x\n")
    assert "exit code 3" in result.stderr


@behaviour
def a_signal_is_a_negative_exit_code(sandbox: Sandbox) -> None:
    result = one(sandbox, "import os; os.abort()")
    assert result.exit_code == -6
    assert "signal 6 (Aborted)" in result.stderr


@behaviour
def an_error_in_a_thread_is_on_standard_error(sandbox: Sandbox) -> None:
    code = "from threading import Thread\ndef f(): return 1 // 0\nThread(target=f).start()"
    result = one(sandbox, code)
    assert result.status is ExecutionStatus.OK
    assert 'File "solution.py", line 2' in result.stderr
    assert "ZeroDivisionError" in result.stderr


@behaviour
def what_does_not_compile_says_so(sandbox: Sandbox) -> None:
    result = one(sandbox, "x = (\n")
    assert result.status is ExecutionStatus.COMPILE_ERROR
    assert "SyntaxError: '(' was never closed" in result.stderr
    assert "solution.py" in result.stderr


@behaviour
def a_syntax_error_raised_by_the_program_is_a_runtime_error(sandbox: Sandbox) -> None:
    assert one(sandbox, "compile('(', 'x', 'exec')").status is ExecutionStatus.RUNTIME_ERROR


@behaviour
def standard_streams_are_opened_by_name(sandbox: Sandbox) -> None:
    for name in ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
        code = f"n = open('/dev/stdin').read()\nopen({name!r}, 'w').write(n)\nopen('/dev/stderr', 'a').write('x')"
        result = one(sandbox, code, "5")
        assert (result.status, result.stdout, result.stderr) == (ExecutionStatus.OK, "5", "x"), name


@behaviour
def text_that_is_no_unicode_comes_out_replaced(sandbox: Sandbox) -> None:
    assert one(sandbox, "import os; os.write(1, b'a\\xff\\x00b')").stdout == "a\ufffd\x00b"


@behaviour
def a_source_with_nul_or_surrogates_is_a_compile_error(sandbox: Sandbox) -> None:
    assert one(sandbox, "x = '\0'").status is ExecutionStatus.COMPILE_ERROR
    assert one(sandbox, "x = '\udc80'").status is ExecutionStatus.COMPILE_ERROR


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
    assert result.status is ExecutionStatus.RUNTIME_ERROR
    assert result.values == ("1",)


@behaviour
def a_missing_entry_point_is_named(sandbox: Sandbox) -> None:
    result = call(sandbox, "def g(x): return x", 1)
    assert result.status is ExecutionStatus.RUNTIME_ERROR
    assert result.stderr == "NameError: solution.py does not define 'f'\n"


@behaviour
def of_a_value_that_is_not_plain_the_class_is_named(sandbox: Sandbox) -> None:
    code = "class Point:\n    def __eq__(self, other): return True\ndef f(): return [Point()]"
    ((value,),) = (returned(call(sandbox, code)),)
    assert isinstance(value, list)
    assert value[0] != 1
    assert "class Point" in repr(value)


@behaviour
def standard_types_come_out_as_they_compare(sandbox: Sandbox) -> None:
    code = """from collections import deque
from decimal import Decimal
from fractions import Fraction
def f(): return deque([1]), Decimal("0.10"), Fraction(2, 6), range(2), {1: 2}.keys()
def g(): yield from (1, 2)
def h(): return {2**k for k in range(1100)}
"""
    assert returned(call(sandbox, code)) == [(deque([1]), Decimal("0.1"), Fraction(1, 3), range(2), {1})]
    (items,) = returned(call(sandbox, code, entry="g"))
    assert items != [1, 2]
    assert list(items) == [1, 2]  # type: ignore[call-overload]
    assert returned(call(sandbox, code, entry="h")) == [{2**k for k in range(1100)}]


@behaviour
def long_integers_are_read_and_printed(sandbox: Sandbox) -> None:
    assert one(sandbox, "print(int(input()) + 1)", "9" * 5000).stdout == "1" + "0" * 5000 + "\n"


@behaviour
def a_byte_order_mark_is_no_error(sandbox: Sandbox) -> None:
    assert one(sandbox, "\ufeffprint(1)").stdout == "1\n"


@behaviour
def a_program_can_read_its_own_source(sandbox: Sandbox) -> None:
    code = "print(open(__file__).read(), end='')"
    assert one(sandbox, code).stdout == code


@behaviour
def processes_can_share_work(sandbox: Sandbox) -> None:
    code = """from concurrent.futures import ProcessPoolExecutor
from multiprocessing import Pool
def double(x): return 2 * x
with Pool(2) as pool: print(pool.map(double, [1, 2]))
with ProcessPoolExecutor(2) as pool: print(list(pool.map(double, [3])))
"""
    assert one(sandbox, code, limits=Limits(5, 256)).stdout == "[2, 4]\n[6]\n"


@behaviour
def a_sandbox_knows_its_python_and_libraries(sandbox: Sandbox) -> None:
    version, *names = one(sandbox, languages.get("python").probe).stdout.splitlines()
    assert version.startswith("Python 3.")
    known = one(sandbox, "import sys\nprint('Python %d.%d' % sys.version_info[:2])").stdout
    assert known == f"{version}\n"
    for name in names:
        assert one(sandbox, f"import {name}", limits=Limits(5, 512)).status is ExecutionStatus.OK, name


@behaviour
def leaving_before_the_return_is_an_error(sandbox: Sandbox) -> None:
    for way, reason in (
        ("__import__('os')._exit(0)", "before its function had returned"),
        ("exit()", "SystemExit"),
        ("__import__('sys').exit(0)", "SystemExit"),
    ):
        result = call(sandbox, f"def f(): {way}")
        assert (result.status, result.values) == (ExecutionStatus.RUNTIME_ERROR, ()), way
        assert reason in result.stderr


@behaviour
def extra_values_are_an_error(sandbox: Sandbox) -> None:
    result = call(sandbox, "import os\ndef f():\n    os.write(4, b'1\\n')\n    return 2")
    assert result.status is ExecutionStatus.RUNTIME_ERROR


@behaviour
def the_main_guard_is_for_standard_input_only(sandbox: Sandbox) -> None:
    code = "def f(): return __name__\nif __name__ == '__main__':\n    print('main')"
    assert one(sandbox, code).stdout == "main\n"
    result = call(sandbox, code)
    assert (result.stdout, returned(result)) == ("", ["solution"])


# -- several at a time, and ending ---------------------------------------------------------------------------


@behaviour
def stopping_early_leaves_the_rest_out(sandbox: Sandbox) -> None:
    asked = []

    def stop(index: int, result: Execution) -> bool:
        asked.append((index, result.stdout))
        return index == 2

    began = time.monotonic()
    code = "import time; n = int(input()); time.sleep(n > 5 and 100); print(n)"
    results = sandbox.run(Program(code), [BoxInput(str(n)) for n in range(9)], LIMITS, stop)
    assert time.monotonic() - began < 2.5
    assert asked == [(0, "0\n"), (1, "1\n"), (2, "2\n")]
    assert [result.status for result in results] == [ExecutionStatus.OK] * 3 + [ExecutionStatus.NOT_RUN] * 6


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
