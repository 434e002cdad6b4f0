"""Rows of benchmarks as their files hold them."""

import base64
import json
import pickle
import zlib
from typing import Any

from sdpo_solve.datasets import livecodebench
from sdpo_solve.protocols import Sandbox


def never() -> Sandbox:
    raise AssertionError("no sandbox is needed for these rows")


def packed(tests: object) -> str:
    """Private tests as the hub encodes them."""
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests)))).decode()


def stdin_test(given: str, output: str) -> dict[str, str]:
    return {"input": given, "output": output, "testtype": "stdin"}


def call_test(given: str, output: str) -> dict[str, str]:
    return {"input": given, "output": output, "testtype": "functional"}


def row(**changes: Any) -> dict[str, Any]:
    fields = dict.fromkeys(livecodebench.FIELDS, "")
    fields |= {
        "question_title": "Sum",
        "question_content": "Add.",
        "question_id": "abc001_a",
        "platform": "atcoder",
        "contest_date": "2025-02-01T00:00:00",
        "difficulty": "easy",
        "public_test_cases": json.dumps([stdin_test("1 2\n", "3\n")]),
        "private_test_cases": packed([stdin_test("5 5", "10"), stdin_test("0 0", "0")]),
        "metadata": "{}",
    }
    return {**fields, **changes}


FUNCTIONAL = {
    "starter_code": "class Solution:\n    def pick(self, a: int, b: List[int]) -> int:\n        ",
    "public_test_cases": json.dumps([call_test("3\n[1, 2]", "2")]),
    "private_test_cases": json.dumps([call_test('"x"\nnull', "[1.5, true]")]),
    "metadata": '{"func_name": "pick"}',
}
MBPP = {
    "task_id": 11,
    "text": "Write a function to double a number.",
    "code": "import math\ndef helper():\n    pass\ndef double(x):\n    return 2 * x\n",
    "test_list": ["assert double(2) == 4", "assert double(-1) == -2"],
    "test_setup_code": "",
    "challenge_test_list": ["assert double(10**6) == 2 * 10**6"],
}
