"""C++: compiled once an attempt by g++, run as it is."""

from sdpo_solve.sandboxes.languages import Language

LANGUAGE = Language(
    name="cpp",
    source="solution.cpp",
    compile=("g++", "-std=c++20", "-O2", "-pipe", "-o", "solution", "solution.cpp"),
    run=("/box/build/home/solution",),
)
