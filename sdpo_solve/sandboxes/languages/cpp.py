"""C++: compiled once an attempt by g++, run as it is."""

from sdpo_solve.sandboxes.languages import Language

PLUGIN = Language(
    name="cpp",
    title="C++17",
    suffixes=(".cpp", ".cc", ".cxx"),
    fence_tags=("cpp", "c++", "cc", "cxx"),
    empty="int main() {}",
    compile=("g++", "-std=c++20", "-O2", "-pipe", "-o", "solution", "solution.cpp"),
    run=("/box/build/home/solution",),
)
