"""Runs one Python program in its test's process. Its source travels; it is never imported on the host.

Its first word on pipe 4, "ok", is written before any line of the program runs; whatever follows in that pipe
is the program's own output and is trusted no more than that.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # `typing` itself would cost every test some milliseconds
if TYPE_CHECKING:
    from types import CodeType, ModuleType
    from typing import Any


def explain(exc: BaseException, source: str) -> None:
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
    try:
        execute(code, job, "__main__")
    except SystemExit:
        raise
    except BaseException as exc:
        explain(exc, job["code"])
        raise SystemExit(1) from None


def run_calls(code: CodeType, job: dict[str, Any]) -> None:
    """Call the entry point; a line for each value. Ends at once after the last one."""
    wire: dict[str, Any] = job["wire"] or {"__name__": "values"}
    if not job["wire"]:
        exec(job["values"], wire)
    encode, write, leave = wire["encode"], os.write, os._exit
    calls = [wire["decode"](call) for call in job["calls"]]
    try:
        target = find(execute(code, job, "solution").__dict__, job["entry"])
        for args, kwargs in calls:
            line = (encode(target(*args, **kwargs)) + "\n").encode()
            while line:
                line = line[write(4, line) :]
        sys.stdout.flush()
    except BaseException as exc:
        explain(exc, job["code"])
        leave(1)
    leave(0)


def find(namespace: dict[str, Any], entry: str) -> Any:
    """A function, or a method of a new instance."""
    first, _, method = entry.partition(".")
    if first not in namespace:
        raise NameError(f"solution.py does not define {first!r}")
    return getattr(namespace[first](), method) if method else namespace[first]


def main(job: dict[str, Any]) -> None:
    """Compile, say so, run."""
    sys.argv = ["solution.py"]
    try:
        code = compile(job["code"], "solution.py", "exec", dont_inherit=True)
    except BaseException as exc:
        explain(exc, job["code"])
        os._exit(1)
    os.write(4, b"ok\n")
    (run_stdin if job["entry"] is None else run_calls)(code, job)
