"""C++: compiled once an attempt by g++, run as it is."""

from sdpo_solve.sandboxes.languages import Language

_PROBE = """
#include <cstdio>
int main() {
    std::printf("C++%d (GCC %d)\\n", (int)(__cplusplus / 100 % 100), __GNUC__);
#if __has_include(<atcoder/all>)
    std::puts("the AtCoder library (#include <atcoder/all>)");
#endif
}
"""

PLUGIN = Language(
    name="cpp",
    title="C++20",
    suffixes=(".cpp", ".cc", ".cxx"),
    fence_tags=("cpp", "c++", "cc", "cxx"),
    probe=_PROBE,
    compile=("g++", "-std=c++20", "-O2", "-DONLINE_JUDGE", "-pipe", "-o", "solution", "solution.cpp"),
    run=("/box/build/home/solution",),
)
