"""Python: compiled and run by the launcher, in one process a test."""

import json

from sdpo_solve.sandboxes.languages import CheckerForm, Language

_PROBE = """
import importlib.util
import sys

print("Python %d.%d" % sys.version_info[:2])
for name in ("numpy", "scipy", "networkx", "sympy", "more_itertools", "bitarray", "sortedcontainers"):
    if importlib.util.find_spec(name) is not None:
        print(name)
"""
_CHECKER_HEAD = """
import json as _json, sys as _sys
for _name, _text in zip(("input.txt", "output.txt", "answer.txt"), _json.load(_sys.stdin)):
    with open(_name, "w", encoding="utf-8", newline="") as _file:
        _file.write(_text)
_sys.argv = ["checker", "input.txt", "output.txt", "answer.txt"]
"""


def _checker_program(source: str) -> str:
    run = f"exec(compile({source!r}, 'checker.py', 'exec'), {{'__name__': '__main__'}})"
    return f"{_CHECKER_HEAD}{run}\n"


PLUGIN = Language(
    name="python",
    title="Python 3",
    suffixes=(".py",),
    fence_tags=("python", "py", "python3"),
    probe=_PROBE,
    run=None,
    checker=CheckerForm(_checker_program, json.dumps),
)
