"""Checkers that are programs: run in a box of their own, with input, output and expected answer as files.

Arguments and exit codes are those of testlib (https://github.com/MikeMirzayanov/testlib): `checker INPUT
OUTPUT ANSWER`; 0: right; 1, 2, 4 and 8: wrong. Any other end, such as a crash or a time-out, is an error of
the problem, never a verdict. It is trusted like the problem file; the judged program is not in its box.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sdpo_solve.errors import ProblemError
from sdpo_solve.protocols import Sandbox
from sdpo_solve.types import BoxInput, Checker, Execution, ExecutionStatus, Limits, Program

LIMITS = Limits(time_s=30.0, memory_mb=1024)
_WRONG = (1, 2, 4, 8)
# Each checker reads three texts from standard input and finds them as files, in its own directory.
_PYTHON_HEAD = """
import json as _json, sys as _sys
for _name, _text in zip(("input.txt", "output.txt", "answer.txt"), _json.load(_sys.stdin)):
    with open(_name, "w", encoding="utf-8", newline="") as _file:
        _file.write(_text)
_sys.argv = ["checker", "input.txt", "output.txt", "answer.txt"]
"""
_CPP_TAIL = """
#undef main
#include <cstdio>
#include <string>
int main() {
    long sizes[3];
    if (std::scanf("%ld %ld %ld", sizes, sizes + 1, sizes + 2) != 3) return 3;
    std::getchar();
    const char* names[3] = {"input.txt", "output.txt", "answer.txt"};
    for (int k = 0; k < 3; k++) {
        std::string text(sizes[k], '\\0');
        if (sizes[k] && std::fread(&text[0], 1, sizes[k], stdin) != (size_t)sizes[k]) return 3;
        FILE* file = std::fopen(names[k], "wb");
        if (!file) return 3;
        std::fwrite(text.data(), 1, text.size(), file);
        std::fclose(file);
    }
    char words[4][16] = {"checker", "input.txt", "output.txt", "answer.txt"};
    char* arguments[5] = {words[0], words[1], words[2], words[3], nullptr};
    return checker_main(4, arguments);
}
"""


@dataclass(frozen=True, slots=True)
class ToCheck:
    """What one run of the checker reads."""

    input: str
    output: str
    answer: str


def check(sandbox: Sandbox, problem_id: str, checker: Checker, items: Sequence[ToCheck]) -> list[bool]:
    """Whether each output is right.

    Raises ProblemError where the checker neither accepts nor refuses, SandboxError where the box broke.
    """
    if not items:
        return []
    if checker.language == "cpp":
        program = Program(f"#define main checker_main\n{checker.program}\n{_CPP_TAIL}", language="cpp")
    else:
        run = f"exec(compile({checker.program!r}, 'checker.py', 'exec'), {{'__name__': '__main__'}})"
        program = Program(f"{_PYTHON_HEAD}{run}\n")
    inputs = [BoxInput(stdin=_packed(item, checker.language)) for item in items]
    return [_verdict(problem_id, each) for each in sandbox.run(program, inputs, LIMITS)]


def _packed(item: ToCheck, language: str) -> str:
    texts = [item.input, item.output, item.answer]
    if language == "cpp":
        sizes = " ".join(str(len(text.encode(errors="replace"))) for text in texts)
        return f"{sizes}\n{''.join(texts)}"
    return json.dumps(texts)


def _verdict(problem_id: str, result: Execution) -> bool:
    if result.status is ExecutionStatus.OK and not result.exit_code:
        return True
    crashed = "Traceback (most recent call last)" in result.stderr
    if result.status is ExecutionStatus.RUNTIME_ERROR and result.exit_code in _WRONG and not crashed:
        return False
    last = (result.stderr.strip().splitlines() or [f"exit code {result.exit_code}"])[-1]
    raise ProblemError(
        f"{problem_id}: its checker failed ({result.status.value}): {last[:200]}; mend the checker"
    )
