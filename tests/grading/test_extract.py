"""Which part of an answer is the program: other people's answers, and LiveCodeBench's rule for parity."""

import random

import pytest

from sdpo_solve.grading.extract import between_last_fences, extract
from sdpo_solve.sandboxes import languages
from sdpo_solve.types import Extracted, Finish

G = "a,b=map(int,input().split())\nprint(a+b)"
BLOCK = f"```python\n{G}\n```"
PYTHON, CPP = languages.get("python"), languages.get("cpp")
MAIN = '#include <cstdio>\nint main() { puts("3"); }'


def code(text: str, entry_point: str | None = None, *, cut: bool = False) -> str | None:
    return extract(text, Finish.LENGTH if cut else Finish.STOP, PYTHON, entry_point).code


@pytest.mark.parametrize(
    "text",
    [
        BLOCK,
        f"Some words.\n\n{BLOCK}\nMore words.",
        f"```\n{G}\n```",
        f"```Python3\n{G}\n```",
        f"```{{.python}}\n{G}\n```",
        f'```python title="a.py"\n{G}\n```',
        f"~~~python\n{G}\n~~~",
        f"````python\n{G}\n````",
        BLOCK.replace("\n", "\r\n"),
        # What follows is no program.
        f"{BLOCK}\nExample output:\n```\n3\n```",
        f"{BLOCK}\nExample output:\n```python\n3\n```",
        f"{BLOCK}\n```text\n3 4\n```",
        f"{BLOCK}\n```\nYES\n```",
        f"{BLOCK}\n```\n[1, 2]\n```",
        f"{BLOCK}\nRun it:\n```bash\npython3 a.py\n```",
        f"{BLOCK}\n```\npip install numpy\n```",
        f"{BLOCK}\n```\n$ echo 1 2 | python a.py\n3\n```",
        f"{BLOCK}\n```python\n>>> add(1, 2)\n3\n```",
        f'{BLOCK}\n```json\n{{"a": 1}}\n```',
        f"{BLOCK}\n```cpp\n{MAIN}\n```",
        f"{BLOCK}\n```\n```",
        f"{BLOCK}\n```python\n# your code\n```",
        # Fences.
        f"{BLOCK}\nPut it between ``` and ``` please.",
        f"{BLOCK}\n``` is a fence, as you know",
        f"1. Read.\n2. Add:\n   ```python\n   {G.replace(chr(10), chr(10) + '   ')}\n   ```\n3. Done.",
        f"- Add:\n\n    ```python\n    {G.replace(chr(10), chr(10) + '    ')}\n    ```\n",
        "> ```python\n> " + G.replace("\n", "\n> ") + "\n> ```",
        f"<answer>\n{BLOCK}\n</answer>",
        f"```python\n{G}```",
        f"```python\n{G}```\nThat adds them.",
        f"```python\n{G}\n```That adds them.",
        f"```python {G}\n```",
        f"```\npython\n{G}\n```",  # the tag on a line of its own
        f"{G}\n```",
        f"Here it is.\n\n{G}\n```",
        G,
        f"```python\n{G}",  # the model stopped by itself
        # Thinking.
        f"<think>\n```python\nprint(1)\n```\n</think>\n{BLOCK}",
        f"```python\nprint(1)\n```\n</think>\n{BLOCK}",
        f"```python\nprint(1)\n</think>\n{BLOCK}",
        f"<think>a</think><think>\n```python\nprint(1)\n```\n</think>{BLOCK}",
        f"draft\n```python\nprint(1)\n```\n</think>\nmore\n```python\nprint(2)\n```\n</think>\n{BLOCK}",
        f"[THINK]\n```python\nprint(1)\n```\n[/THINK]\n{BLOCK}",
        "<|channel|>analysis<|message|>```python\nprint(1)\n```<|end|><|start|>assistant"
        f"<|channel|>final<|message|>{BLOCK}<|return|>",
        f"analysisWe add.\n```python\nprint(1)\n```assistantfinal{BLOCK}",
        "<|channel|>analysis<|message|>We add.<|end|><|start|>assistant<|channel|>final "
        f"<|constrain|>python<|message|>{BLOCK}<|return|>",
        f"<|channel|>final json<|message|>{BLOCK}",
        f"<|channel>thought\n```python\nprint(1)\n```\n<channel|>{BLOCK}",
        f"<|channel>thought\n<channel|>{BLOCK}",
        # Examples behind it bring their own input.
        f"{BLOCK}\nFor example:\n```python\na, b = 1, 2\nprint(a + b)\n```",
        f"{BLOCK}\nTest it:\n```python\nimport subprocess\n"
        "print(subprocess.run(['python3', 'a.py'], input='1 2', text=True).stdout)\n```",
        f"{BLOCK}\nTest it:\n```python\nimport io, sys\nsys.stdin = io.StringIO('1 2')\n{G}\n```",
        f"{BLOCK}\nTest it:\n```python\nlines = iter(['1 2'])\ninput = lambda: next(lines)\n{G}\n```",
        f"plan\n```python\nprint(1)\n```\nso we add. </think> Here it is.\n{BLOCK}",
        f"<think>\n```python\nprint(1)\n</think>\n```\n{G}\n```",
        f"{BLOCK}\n<think>let me check</think>\nDone.",
        f"Fine.\n<think>\n```python\nprint(1)\n```\n</think>\n{BLOCK}",
        # Marks that are only mentioned.
        f"I do not need <think> tags for this.\n{BLOCK}",
        f"- <think> is not needed.\n{BLOCK}",
        f"{BLOCK}\nI wrote no <think> and no </think>.",
        f"{BLOCK}\nThere is no </think> in it.",
        f"<think>plan</think>\n{BLOCK}\nNo <think> after it.",
        f"I use no <|channel|> here.\n{BLOCK}",
        # Closing marks after a whole pair, with no code behind them.
        f"<think>plan</think>\n{BLOCK}\n</think>",
        f"<think>plan</think>\n{BLOCK}\n</think>\nIt adds.\n</think>\n",
        f"[THINK]plan[/THINK]\n{BLOCK}\n[/THINK]",
        f"<think>plan</think>\n{G}\n</think>",
        f"<think>a</think>\n```python\nprint(1)\n```\n</think>\n{BLOCK}",
        # The model stopped by itself, after a draft.
        f"First idea:\n```python\nprint(1)\n```\nThat is wrong, so:\n```python\n{G}",
        f"First idea:\n```python\nprint(1)\n```\nThat is wrong, so:\n```python\n{G}```\nIt adds.",
        f"{BLOCK}\nExample output:\n```\n3",
        f"{BLOCK}\nBetter:\n```python\nx = 3",
        # A byte order mark.
        f"A draft:\n```python\nprint(1)\n```\n```python\n\ufeff{G}\n```",
        f"\ufeff{BLOCK}",
        f"\ufeff{G}",
        # Other programs before it.
        f"A draft:\n```python\nprint(1)\n```\nBetter:\n{BLOCK}",
        f"{BLOCK}\nA test:\n```python\nassert add(1, 2) == 3\n```",
        f"{BLOCK}\nBetter:\n```python\nprint(a +\n```",
        # Its lines again, one by one.
        f"{BLOCK}\nFirst we read:\n```python\na,b=map(int,input().split())\n```\nthen\n```python\nprint(a+b)\n```",
        f"```python\na,b=map(int,input().split())\n```\n```python\nprint(a+b)\n```\nTogether:\n{BLOCK}",
        f"```plaintext\n{G}\n```",
    ],
)  # fmt: skip
def test_the_program_is_found(text: str) -> None:
    found = code(text)
    assert found is not None
    assert found.replace("\r", "").strip() == G


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I cannot solve this.",
        "Note: this is hard",
        "```\n```",
        "```python\n\n```",
        "```\n3\n```",
        "```bash\nls\n```",
        "```bash\ncat > a.py <<'E'\nprint(1)\nE\n```",  # which Python parses as well
        "```swift\nprint(1)\n```",
        "```\nYES NO\n```",
        "```python\n>>> add(1, 2)\n3\n```",
        "```python\nprint(1)\n```\n</think>\nSo the answer is to print.",
        "<|channel>thought\n```python\nprint(1)\n```\n<channel|>I cannot do it.",
        "<think>\n```python\nprint(1)\n```\n</think>\nThe answer is one.",
        "Use the print function, as in `print(1)`.",
    ],
)
def test_an_answer_without_a_program_has_none(text: str) -> None:
    assert extract(text, Finish.STOP, PYTHON) == Extracted(None)


@pytest.mark.parametrize(
    ("text", "finish"),
    [
        ("```python\nprint(1)", Finish.LENGTH),
        ("We start by", Finish.LENGTH),
        ("```python\nfor i in range(", Finish.STOP),
        ("<think>\n```python\nprint(1)\n```\nso", Finish.STOP),
        ("[THINK] a ```python\nprint(1)\n```", Finish.LENGTH),
        ("<|channel|>analysis<|message|>```python\nprint(1)\n```", Finish.STOP),
        ("analysisWe print.\n```python\nprint(1)\n```", Finish.LENGTH),
        ("<|channel>thought\n```python\nprint(1)\n```\nso", Finish.STOP),
    ],
)
def test_an_answer_that_ends_before_its_program_is_cut_off(text: str, finish: Finish) -> None:
    assert extract(text, finish, PYTHON) == Extracted(None, cut_off=True)


def test_a_cut_answer_gives_its_last_whole_block_and_never_prose() -> None:
    text = "```python\nprint(1)\n```\nImproved version:\n```python\nfor i in ran"
    for finish in Finish:
        assert extract(text, finish, PYTHON) == Extracted("print(1)")


def test_a_cut_answer_gives_no_open_block() -> None:
    assert code(f"```python\nprint(1)\n```\nBetter:\n```python\n{G}", cut=True) == "print(1)"


@pytest.mark.parametrize(
    "line",
    [
        "# <think> about it",
        "# drop what is inside <think> and </think>",
        "x = 1  # until </think>",
        "x = 1  # split at <|channel|>",
        "x = r'(?s)<think>(.*?)</think>'",
        'x = """\n<think>\n</think>\n"""',
    ],
)
def test_a_thinking_mark_within_the_program_is_part_of_it(line: str) -> None:
    program = f"{line}\n{G}"
    draft = "<think>\n```python\nprint(1)\n```\n</think>\n"
    for text in (f"```python\n{program}\n```", f"{draft}```python\n{program}\n```\n```\n3\n```"):
        assert code(text) == program
    if not line.endswith('"'):
        assert (code(program), code(f"```python\n{program}")) == (program, program)


SOLVE = "def solve():\n    a,b=map(int,input().split())\n    print(a+b)"
USES_OF_MAIN = [
    "main()",
    "if __name__ == '__main__':\n    main()",
    "main() if True else None",
    "[main() for _ in range(3)]",
    "import threading\nthreading.Thread(target=main).start()",
    "import atexit\natexit.register(main)",
    "run = main\nrun()",
    "globals()['main']()",
    "class Main:\n    def __init__(self):\n        main()\nclass Other(Main):\n    pass\nOther()",
    "def call(f):\n    f()\n@call\ndef other():\n    main()",
]


@pytest.mark.parametrize(
    "definitions",
    [
        SOLVE,
        "def show(x):\n    print(x)",
        "solve = lambda: print(3)",
        f"import sys\ninput, print = sys.stdin.readline, sys.stdout.write\n{SOLVE}",
        "from functools import cache\n@cache\ndef solve(n):\n    print(n)",
        "class Node:\n    def show(self) -> 'Node':\n        print(self)\nclass Leaf(Node):\n    pass",
        "def size():\n    return 3\nN = size()\ndef solve():\n    print(N)",
    ],
)
def test_definitions_alone_are_no_whole_program(definitions: str) -> None:
    heart = f"The heart of it is:\n```python\n{definitions}\n```"
    assert code(f"```python\n{SOLVE}\nsolve()\n```\n{heart}") == f"{SOLVE}\nsolve()"
    assert code(f"{heart}\n```python\nx = 3\n```") == definitions, "but more than a fragment"


@pytest.mark.parametrize("use", USES_OF_MAIN)
def test_a_program_that_uses_its_definitions_writes(use: str) -> None:
    program = f"def main():\n    print(3)\n{use}"
    assert code(f"```python\nprint(1)\n```\nBetter:\n```python\n{program}\n```") == program


@pytest.mark.parametrize(
    "program",
    [
        "import sys, json\njson.dump([1], sys.stdout)",
        "from pprint import pprint\npprint([1])",
        "import csv, sys\ncsv.writer(sys.stdout).writerow([1])",
    ],
)
def test_a_program_writes_by_other_means_than_print(program: str) -> None:
    assert code(f"```python\nprint(1)\n```\nBetter:\n```python\n{program}\n```") == program


@pytest.mark.parametrize(
    "program",
    [
        "print(open(0).read())",
        "import os\nprint(os.read(0, 99))",
        "import fileinput\nprint(*fileinput.input())",
        "from pathlib import Path\nprint(Path('/dev/stdin').read_text())",
        "import sys\nwords = iter(sys.stdin.read().split())\ninput = lambda: next(words)\nprint(input())",
        "import sys\nclass Fast:\n    def __init__(self, file):\n        self.readline = file.readline\n"
        "sys.stdin = Fast(sys.stdin)\nprint(sys.stdin.readline())",
        "import os, sys\nif os.path.exists('in.txt'):\n    sys.stdin = open('in.txt')\nprint(input())",
        "def solve(input):\n    print(input)\nsolve(input())",
    ],
)
def test_a_program_reads_by_other_means_than_input(program: str) -> None:
    """So that a draft before it, which reads, is no more of a program."""
    assert code(f"{BLOCK}\nBetter:\n```python\n{program}\n```") == program


def test_where_none_reads_the_last_that_writes_is_the_program() -> None:
    assert code("```python\nprint(1)\n```\nBetter:\n```python\nprint(2)\n```") == "print(2)"


ADD = "def add(a, b):\n    return a + b"


@pytest.mark.parametrize(
    ("text", "right"),
    [
        (f"```python\n{ADD}\n```\nUsage:\n```python\nprint(add(1, 2))\n```", ADD),
        (f"```python\n{ADD}\n```\n```python\nfrom solution import add\nassert add(1, 2) == 3\n```", ADD),
        (f"```python\n{ADD}\n```\nTo fill in:\n```python\ndef add(a, b):\n    pass\n```", ADD),
        (f"```python\nx = 1\n```\n```python\n{ADD}\n```", ADD),
        (f"```python\n{ADD}\n```\n```python\ndef sub(a, b):\n    return a - b\n```", ADD),
        ("```python\nadd = lambda a, b: a + b\n```\n```\n3\n```", "add = lambda a, b: a + b"),
        ("```python\nclass Solution:\n    def add(self, a, b):\n        return a + b\n```", ...),
        ("```python\nimport operator\nadd = operator.add\n```", ...),
        (
            '```python\ndef add(a, b):\n  """Adds.\n\n  ```\n  add(1, 2)\n  ```\n  """\n  return a + b\n```',
            ...,
        ),
        ('```python\ndef tag():\n    return "</think>"\ndef add(a, b):\n    return a + b\n```', ...),
        # None defines it: the last program of the language is graded and fails.
        ("```python\nx = f(\n```", "x = f("),
        (
            "```python\ndef plus(a, b):\n    return a + b\n```\n```\n3\n```",
            "def plus(a, b):\n    return a + b",
        ),
    ],
)
def test_for_a_function_it_is_the_block_that_defines_it(text: str, right: object) -> None:
    whole = text.removeprefix("```python\n").removesuffix("\n```")
    assert code(text, "add") == (whole if right is ... else right)


@pytest.mark.parametrize(
    ("program", "entry_point", "usage"),
    [
        ("add, sub = (lambda a, b: a + b), (lambda a, b: a - b)", "add", "print(add(1, 2))"),
        (
            "class Base:\n    def add(self, a, b):\n        return a + b\nclass Middle(Base):\n    pass\n"
            "class Solution(Middle):\n    pass",
            "Solution.add",
            "print(Solution().add(1, 2))",
        ),
    ],
)
def test_functions_are_defined_in_bases_and_together_too(program: str, entry_point: str, usage: str) -> None:
    text = f"```python\n{program}\n```\nUsage:\n```python\n{usage}\n```"
    assert code(text, entry_point) == program


def test_code_beside_the_fence_belongs_to_the_block_that_needs_it() -> None:
    for beside in ("from math import *", "from math import sqrt", "sqrt = abs"):
        assert code(f"```python {beside}\nprint(sqrt(4))\n```") == f"{beside}\nprint(sqrt(4))"
    assert code("```python title = 3\nprint(4)\n```") == "print(4)"


def test_a_block_that_uses_another_is_no_program_by_itself() -> None:
    program = "def solve(n):\n    return n * 2\nprint(solve(int(input())))"
    assert code(f"```python\n{program}\n```\nExample:\n```python\nprint(solve(4))\n```") == program


@pytest.mark.parametrize(
    "program",
    [
        # Each reads a name that a draft before it binds.
        "match input().split():\n    case [n]:\n        print(n)",
        "from math import *\nn = pi\nprint(n)",
        "import os.path\nprint(os.path.sep)",
        "from numpy import pi\nprint(pi)",
    ],
)
def test_a_draft_that_binds_the_same_names_takes_nothing_away(program: str) -> None:
    draft = "n = 1\npi = 3\nos = 2\nprint(n)"
    assert code(f"```python\n{draft}\n```\nBetter:\n```python\n{program}\n```") == program


@pytest.mark.parametrize(
    ("program", "entry_point", "usage"),
    [
        ("def first{T}(n): return n\nprint(first(input()))", None, "print(first(4))"),
        ("def f{T}(n):\n    return n", "f", "print(f(4))"),
    ],
)
def test_a_program_that_the_hosts_python_cannot_parse_is_no_less_than_its_usage(
    program: str, entry_point: str | None, usage: str
) -> None:
    """As where the sandbox's Python is newer than the host's."""
    text = f"```python\n{program}\n```\nUsage:\n```python\n{usage}\n```"
    assert code(text, entry_point) == program


@pytest.mark.parametrize(
    ("text", "right"),
    [
        (f"```cpp\n{MAIN}\n```\n```\n3\n```", MAIN),
        (f"```c++\n{MAIN}\n```\n```cpp\nint add(int a, int b);\n```", MAIN),
        (f"```C++17\n{MAIN}\n```\n```bash\ng++ a.cpp\n```", MAIN),
        (f"```\n{MAIN}\n```", MAIN),
        (f"```cpp\n{MAIN}```", MAIN),
        (f"```c\n{MAIN}\n```", MAIN),
        (MAIN, MAIN),
        (f"```cpp\nint main() {{}}\n```\nBetter:\n```cpp\n{MAIN}", MAIN),
        (f"```cpp\n{MAIN}\n```\nBetter:\n```cpp\nint main() {{ return", MAIN),
        ("```cpp\nint main() { return", None),
        (f"Here it is.\n\n{MAIN}\n```", MAIN),
        ("```cpp\nauto main() -> int\n{\n}\n```\n```cpp\nint add(int a);\n```", "auto main() -> int\n{\n}"),
        ("The function main() reads.\n```cpp\nint f() { return 1; }\n```", "int f() { return 1; }"),
        ("Call main() first. Then {1, 2} is printed.", None),
        (f"```cpp\n{MAIN}\n```\n```python\nprint(3)\n```", MAIN),
        ("```cpp\nint f() { return 1; }\n```", "int f() { return 1; }"),
        ("```python\nprint(3)\n```", None),
        ("```\n3\n```", None),
    ],
)
def test_cpp_goes_by_its_tag_and_main(text: str, right: str | None) -> None:
    assert extract(text, Finish.STOP, CPP).code == right


@pytest.mark.parametrize(
    "text",
    [
        "```python\n" + "-" * 200_000 + "1\n```",
        "```python\nx = " + "(" * 5000 + ")" * 5000 + "\n```",
        "```python\nx = '\ud800'\n```",
        "```python\nx = 1\0\n```",
        "```python\nx" + " = x" * 30_000 + "\n```",
        "```\n" * 20_000,
        "```python\nx=(\n" * 5_000,
        "> " * 50_000 + "```",
        "<think>" * 20_000,
        "</think>\n" * 20_000,
        "`" * 200_000,
        "1. a\n" * 20_000,
        "a </think> b" * 20_000,
        "```\n</think>\n" * 20_000,
        "```cpp\nint main() {" + '"\\' * 100_000,
        "<think>a</think>" + "</think>\n" * 20_000,
        "```python\nclass B:\n " + "=".join(f"a{n}" for n in range(8000)) + "=0\n"
        + "\n".join(f"class C{n}(B): 0" for n in range(2000)) + "\n```",
    ],
    ids=range(17),
)  # fmt: skip
def test_hostile_answers_end_soon(text: str) -> None:
    for language in (PYTHON, CPP):
        extract(text, Finish.STOP, language, "add")


# LiveCodeBench's rule again (lcb_runner/utils/extraction_utils.py, extract_code), as an oracle.


def upstream(model_output: str) -> str:
    outputlines = model_output.split("\n")
    indexlines = [i for i, line in enumerate(outputlines) if "```" in line]
    if len(indexlines) < 2:
        return ""
    return "\n".join(outputlines[indexlines[-2] + 1 : indexlines[-1]])


def test_livecodebenchs_rule_is_upstreams_on_2000_answers() -> None:
    pieces = ["```", "```python", " ```", "~~~", "\n", "\n\n", "x = 1", "print(1)", "text ``` text", "<think>",
              "</think>", "    ", "\r\n", "`", "````"]  # fmt: skip
    draw = random.Random(5)
    for _ in range(2000):
        text = "".join(draw.choice(pieces) for _ in range(draw.randrange(20)))
        assert (between_last_fences(text) or "") == upstream(text)
        assert extract(text, Finish.STOP, PYTHON, rule="livecodebench").code == between_last_fences(text)
