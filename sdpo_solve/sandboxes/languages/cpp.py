"""C++: compiled once an attempt by g++, run as it is."""

from collections.abc import Sequence

from sdpo_solve.sandboxes.languages import CheckerForm, Language

_PROBE = """
#include <cstdio>
int main() {
    std::printf("C++%d (GCC %d)\\n", (int)(__cplusplus / 100 % 100), __GNUC__);
#if __has_include(<atcoder/all>)
    std::puts("the AtCoder library (#include <atcoder/all>)");
#endif
}
"""
_CHECKER_TAIL = """
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


def _checker_program(source: str) -> str:
    return f"#define main checker_main\n{source}\n{_CHECKER_TAIL}"


def _checker_stdin(texts: Sequence[str]) -> str:
    sizes = " ".join(str(len(text.encode(errors="replace"))) for text in texts)
    return f"{sizes}\n{''.join(texts)}"


PLUGIN = Language(
    name="cpp",
    title="C++20",
    suffixes=(".cpp", ".cc", ".cxx"),
    fence_tags=("cpp", "c++", "cc", "cxx"),
    probe=_PROBE,
    compile=("g++", "-std=c++20", "-O2", "-DONLINE_JUDGE", "-pipe", "-o", "solution", "solution.cpp"),
    run=("/box/build/home/solution",),
    checker=CheckerForm(_checker_program, _checker_stdin),
)
