"""The launcher: runs one Python program in its test's process.

Its source travels into the box; it is never imported on the host. Its first line on pipe 4, "ok", is written
before any line of the program runs; whatever follows in that pipe is the program's own output and is trusted
no more than that.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # `typing` itself would cost every test some milliseconds
if TYPE_CHECKING:
    from types import CodeType, ModuleType
    from typing import Any

INT_DIGITS = 50_000  # as LiveCodeBench's own grader sets it; judges have no such limit


def print_traceback(exc: BaseException, source: str) -> None:
    """The traceback as Python prints it, from the program's first frame on."""
    import linecache
    import traceback

    linecache.cache["solution.py"] = (len(source), None, source.splitlines(True), "solution.py")
    trace = exc.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == "<launcher>":
        trace = trace.tb_next
    try:  # noqa: SIM105 (contextlib is not loaded yet)
        sys.stdout.flush()
    except Exception:
        pass  # the program may have closed or replaced it
    traceback.print_exception(type(exc), exc, trace)
    sys.stderr.flush()


def execute(code: CodeType, job: dict[str, Any], name: str) -> ModuleType:
    """Preamble and program in one module of its own."""
    module = type(sys)(name)
    module.__file__ = "solution.py"
    sys.modules[name] = module
    if job["preamble"]:
        exec(compile(job["preamble"], "<preamble>", "exec", dont_inherit=True), module.__dict__)
    exec(code, module.__dict__)
    return module


def run_stdin(code: CodeType, job: dict[str, Any]) -> None:
    """Like `python solution.py`: it ends as any interpreter does, threads and exit handlers included."""
    os.close(4)
    status, leave = 0, os._exit
    opened: list[bool] = []

    def watch_opens(event: str, details: tuple[Any, ...]) -> None:
        if event == "open" and not opened and details[1] is not None and set(details[1]) & set("wax+"):
            opened.append(True)

    sys.addaudithook(watch_opens)
    try:
        execute(code, job, "__main__")
    except SystemExit as exc:
        status = status_of(exc)
    except BaseException as exc:
        print_traceback(exc, job["code"])
        status = 1
    if opened:  # the order in which files close is Python's own business
        raise SystemExit(status)
    leave(wind_up(status))


def status_of(exc: SystemExit) -> int:
    """The exit status; a text goes to standard error."""
    if exc.code is None or isinstance(exc.code, int):
        return (exc.code or 0) & 255
    sys.stderr.write(f"{exc.code}\n")
    return 1


def wind_up(status: int) -> int:
    """What Python does before it exits (Py_FinalizeEx), but for the library's modules: to take those apart
    takes longer than most tests. Threads are waited for, exit handlers run, the program's objects go.
    """
    import atexit
    import gc

    try:
        if "threading" in sys.modules:
            sys.modules["threading"]._shutdown()
    except BaseException:
        pass
    atexit._run_exitfuncs()
    status = flush(status)
    module = sys.modules.pop("__main__", None)
    sys.stdin, sys.stdout, sys.stderr = sys.__stdin__, sys.__stdout__, sys.__stderr__
    del module
    gc.collect()
    flush(0)
    return status


def flush(status: int) -> int:
    """`status`, or what Python has where standard output is broken."""
    for stream, broken in ((sys.stdout, 120), (sys.stderr, status)):
        try:
            if stream is not None and not getattr(stream, "closed", False):
                stream.flush()
        except BaseException:
            status = broken
    return status


def run_calls(code: CodeType, job: dict[str, Any]) -> None:
    """Call the entry point; a line for each value. Ends at once after the last one."""
    wire: dict[str, Any] = job["wire"] or {"__name__": "values"}
    if not job["wire"]:
        exec(job["values"], wire)
    encode, write, leave = wire["encode_result"], os.write, os._exit
    calls = [wire["decode"](call) for call in job["calls"]]
    try:
        target = find(execute(code, job, "solution").__dict__, job["entry"])
        for args, kwargs in calls:
            line = (encode(target(*args, **kwargs)) + "\n").encode()
            while line:
                line = line[write(4, line) :]
        sys.stdout.flush()
    except BaseException as exc:
        print_traceback(exc, job["code"])
        leave(1)
    leave(0)


def find(namespace: dict[str, Any], entry: str) -> Any:
    """A function, or a method of a new instance."""
    first, _, method = entry.partition(".")
    if first not in namespace:
        raise NameError(f"solution.py does not define {first!r}")
    return getattr(namespace[first](), method) if method else namespace[first]


def main(job: dict[str, Any]) -> None:
    """Compile, report that, run."""
    sys.set_int_max_str_digits(INT_DIGITS)
    sys.argv = ["solution.py"]
    sys.setrecursionlimit(sys.getrecursionlimit() + 5)  # the calls between here and the program
    try:
        code = compile(job["code"].removeprefix("\ufeff"), "solution.py", "exec", dont_inherit=True)
    except BaseException as exc:
        print_traceback(exc, job["code"])
        os._exit(1)
    os.write(4, b"ok\n")
    (run_stdin if job["entry"] is None else run_calls)(code, job)
