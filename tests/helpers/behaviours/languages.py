"""Languages besides Python."""

import pytest

from sdpo_solve.errors import ConfigError
from sdpo_solve.protocols import Sandbox
from sdpo_solve.sandboxes import languages
from sdpo_solve.types import BoxInput, Call, ExecutionStatus, Program
from tests.helpers.behaviours import LIMITS, behaviour, needs_cpp

DOUBLE_CPP = (
    "#include <iostream>\nint main() { long long n; while (std::cin >> n) std::cout << 2 * n << '\\n'; }"
)


@behaviour
@needs_cpp
def cpp_is_compiled_once_and_run(sandbox: Sandbox) -> None:
    program = Program(DOUBLE_CPP, language="cpp")
    results = sandbox.run(program, [BoxInput("1 2"), BoxInput("-5")], LIMITS)
    assert [(result.status, result.stdout) for result in results] == [
        (ExecutionStatus.OK, "2\n4\n"),
        (ExecutionStatus.OK, "-10\n"),
    ]


@behaviour
@needs_cpp
def cpp_opens_standard_streams_by_name(sandbox: Sandbox) -> None:
    body = 'int n; freopen("/dev/stdin", "r", stdin); freopen("/dev/stdout", "w", stdout);'
    code = f'#include <cstdio>\nint main() {{ {body} scanf("%d", &n); printf("%d", 2 * n); }}'
    (result,) = sandbox.run(Program(code, language="cpp"), [BoxInput("21")], LIMITS)
    assert (result.status, result.stdout) == (ExecutionStatus.OK, "42")


@behaviour
@needs_cpp
def cpp_errors_are_compile_errors(sandbox: Sandbox) -> None:
    results = sandbox.run(Program("int main() { return x; }", language="cpp"), [BoxInput()] * 3, LIMITS)
    assert {result.status for result in results} == {ExecutionStatus.COMPILE_ERROR}
    assert "solution.cpp:1:21: error" in results[0].stderr or "solution.cpp:1:" in results[0].stderr


@behaviour
@needs_cpp
def cpp_has_the_same_limits(sandbox: Sandbox) -> None:
    program = "#include <vector>\nint main() { %s }"
    for body, status in (
        ("volatile int x = 0; while (true) x = x + 1;", ExecutionStatus.TIME_LIMIT),
        (
            "std::vector<std::vector<char>> v; while (true) v.emplace_back(1 << 20, 'x');",
            ExecutionStatus.MEMORY_LIMIT,
        ),
        ("return 3;", ExecutionStatus.RUNTIME_ERROR),
        ("__builtin_trap();", ExecutionStatus.RUNTIME_ERROR),
    ):
        (result,) = sandbox.run(Program(program % body, language="cpp"), [BoxInput()], LIMITS)
        assert result.status is status, body


@behaviour
@needs_cpp
def a_compiler_that_never_ends_is_stopped(sandbox: Sandbox) -> None:
    code = "template<int N> struct A { enum { v = A<N - 1>::v + A<N - 2>::v + sizeof(char[N]) }; };\n#include __FILE__\n"
    (result,) = sandbox.run(Program(code, language="cpp"), [BoxInput()], LIMITS)
    assert result.status is ExecutionStatus.COMPILE_ERROR


@behaviour
def calls_in_cpp_are_the_users_mistake(sandbox: Sandbox) -> None:
    with pytest.raises(ConfigError, match="cpp programs read standard input"):
        sandbox.run(Program("", "f", language="cpp"), [BoxInput(calls=(Call(),))], LIMITS)


@behaviour
def an_unknown_language_is_the_users_mistake(sandbox: Sandbox) -> None:
    with pytest.raises(ConfigError, match=r"unknown language .cobol. \(known: cpp, python\)"):
        sandbox.run(Program("", language="cobol"), [BoxInput()], LIMITS)


@behaviour
@needs_cpp
def cpp_knows_that_it_is_judged(sandbox: Sandbox) -> None:
    code = """#include <cstdio>
#include <ranges>
int main() {
#ifndef ONLINE_JUDGE
    std::freopen("input.txt", "r", stdin);
#endif
    int n = 0;
    std::scanf("%d", &n);
    std::printf("%d %ld\\n", n, __cplusplus);
}
"""
    (result,) = sandbox.run(Program(code, language="cpp"), [BoxInput("7")], LIMITS)
    assert result.stdout == "7 202002\n"


@behaviour
@needs_cpp
def a_sandbox_knows_its_compiler(sandbox: Sandbox) -> None:
    probe = languages.get("cpp").probe
    (result,) = sandbox.run(Program(probe, language="cpp"), [BoxInput()], LIMITS)
    assert result.stdout.startswith("C++20 (GCC ")
