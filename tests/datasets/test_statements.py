"""What statements say about their tests, in the phrases of the judges."""

import json
from pathlib import Path

import pytest

from sdpo_solve.datasets import _lcb_rows, _lcb_scan
from sdpo_solve.datasets._lcb_rows import Finding, finding, scan
from sdpo_solve.datasets._statements import (
    INTERACTIVE,
    SEVERAL,
    granted_error,
    starter_fault,
    statement_fault,
)
from tests.helpers.rows import row


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("Your answer is correct if the absolute or relative error does not exceed 10^{-8}.", 1e-8),
        ("Your output is accepted if its relative or absolute error is at most 10^{-6}.", 1e-6),
        ("Answers within 10^-5 of the actual answer will be accepted.", 1e-5),
        ("Answers within 10-5 of the actual answer will be accepted.", 1e-5),
        ("Formally, let the error be at most 1e-9.", 1e-9),
        ("with an absolute error of at most 0.000001", 1e-6),
        ('The error may be 10<sup class="upper-index"> - 6</sup> at most.', 1e-6),
        ("Answers within 10⁻¹² are right.", 1e-12),
        ("with a relative error of 1e−9", 1e-9),
        ("an error below 10**-5", 1e-5),
        ("An absolute error of at most 0.01 is ignored.", 1e-2),
        ("the relative error must not exceed $10^{-12}$", 1e-12),
        ("with an accuracy of 1e-4", 1e-4),
        ("with errors less than 1e-6", 1e-6),
        ("Absolute errors must not exceed 10^-6", 1e-6),
        ("if the absolute or relative error\ndoes not exceed 10^{-6}.", 1e-6),
        ("the error, absolute\r\nor relative, is\r\nat most 10^{-6}.", 1e-6),
        ("an error of at most 10^(-6)", 1e-6),
        ("within 1.0e-6", 1e-6),
        ("an error of at most 1.0 × 10^{-6}", 1e-6),
        ("A runtime error is no answer; an absolute error below 1e-6 is fine.", 1e-6),
        ("The error grows within 3.01 seconds.", 0.0),
        ("Your program has to answer within 0.01 seconds.", 0.0),
        ("It responds within 0.1 ms. An absolute error of 1e-6 is allowed.", 1e-6),
        ("The time may be within 0.001 seconds of the right one.", 1e-3),
        ("Compilation errors in lines 10-12 are listed.", 0.0),
        ("Mind the rounding error: add 10 times.", 0.0),
        ("Print the error code 10-3.", 0.0),
        ("Print the number of errors\n\n10-5 is a range.", 0.0),
        ("The following errors are known:\n- 10-5 is a range", 0.0),
        ("All lie within 2.1e-6 of each other.", 0.0),
        ("Print at least 6 digits after the decimal point.", 0.0),
        ("Print a runtime error message 10 times.", 0.0),
        ("The values lie within 10 of each other.", 0.0),
        ("Add two numbers, each at most 10^9.", 0.0),
    ],
)
def test_granted_errors(statement: str, error: float) -> None:
    assert granted_error(statement) == pytest.approx(error)


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("If there are multiple solutions, print any of them.", SEVERAL),
        ("If multiple solutions exist, any of them is accepted.", SEVERAL),
        ("printing any one of them is accepted as correct", SEVERAL),
        ("You may return the answer in any order.", SEVERAL),
        ("Return an array of the indices in any order.", SEVERAL),
        ("You can print any valid permutation.", SEVERAL),
        ("If there are several, print any.", SEVERAL),
        ("Return any array that sums up to n.", SEVERAL),
        ("Any solution will be accepted.", SEVERAL),
        ("If there are multiple (valid) solutions, any will be accepted.", SEVERAL),
        ("Should there be multiple solutions, output an arbitrary one.", SEVERAL),
        ("If more than one solution exist, your program should output an arbitrary one of them.", SEVERAL),
        ("Any one will be accepted.", SEVERAL),
        ("Any optimal solution will be accepted.", SEVERAL),
        ("If there are several solutions, print one of them.", SEVERAL),
        ("Print any suitable sequence", SEVERAL),
        ("If there are many ways to do that, choose any.", SEVERAL),
        ("You may print the edges in arbitrary order.", SEVERAL),
        ("This is an interactive problem.", INTERACTIVE),
        ("This problem is interactive.", INTERACTIVE),
        ("The interactor answers each query.", INTERACTIVE),
        ("You may perform the operations any number of times in any order. Print the least cost.", None),
        ("Choose any two elements and remove them.", None),
        ("Remove any of these coins, at most k times.", None),
        ("Each letter may be printed in any case.", None),
        ("Print any error.", None),
        ("An arbitrary integer n is given.", None),
        ("The numbers are given in arbitrary order. Print their sum.", None),
        ("If the correct answer is Yes, any of yes, YES, and yEs will be accepted.", None),
        ("Any answer within 10^-6 will be accepted.", None),
        ("Any other output will not be accepted.", None),
        ("If any is accepted, print YES.", None),
        ("If there are several empty seats, he will choose any seat at the end.", None),
        ("If there are several, print one line for each of them.", None),
        ("If there are multiple captions, return the lexicographically smallest one.", None),
    ],
)
def test_faults_of_statements(statement: str, fault: str | None) -> None:
    assert statement_fault(statement) == fault


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("class Solution:\n    def f(self, head: Optional[ListNode]) -> int:", "ListNode"),
        ("class Solution:\n    def f(self, root: 'TreeNode') -> bool:", "TreeNode"),
        ("class Solution:\n    def f(self, head: 'ImmutableListNode') -> int:", "ImmutableListNode"),
        ("class Solution:\n    def f(self, root: 'Optional[Node]') -> int:", "Optional[Node]"),
        ("class Solution:\n    def f(self, parts: List[NestedInteger]) -> int:", "NestedInteger"),
        ("class Solution:\n    def f(self, nums: List[int]) -> None:", "in place"),
        ("# class ListNode:\nclass Solution:\n    def f(self, nums: List[int]) -> int:", None),
        ("def f(x: Optional[int] = None) -> int:", None),
        ('class Solution:\n    def f(self, head):\n        """\n        :type head: ListNode\n', "ListNode"),
        ("class Solution:\n    def __init__(self) -> None:\n        pass\n    def f(self) -> int:", None),
        (
            "class TreeNode:\n    def __init__(self, v):\n        self.v = v\ndef f(a: list[int]) -> int:",
            None,
        ),
        ("ListNode* f(ListNode* head)", "ListNode"),
        ("", None),
    ],
)
def test_faults_of_starter_code(code: str, what: str | None) -> None:
    fault = starter_fault(code)
    assert fault is None if what is None else what in str(fault)


def test_only_the_signature_that_is_called_counts() -> None:
    code = "def show(x: int) -> None:\n    ...\n\nclass Solution:\n    def f(self, x: int) -> int:\n"
    assert starter_fault(code, "Solution.f") is None
    assert "in place" in str(starter_fault(code, "show"))
    assert "in place" in str(starter_fault(code)), "any of them where that is not known"


@pytest.mark.parametrize(
    "name",
    [
        "abc343_a", "arc185_c", "arc189_a", "apply-operations-to-make-string-empty", "most-frequent-ids", "3234",
    ],
)  # fmt: skip
def test_rows_that_people_named_are_bad(name: str) -> None:
    assert finding(row(question_id=name)).fault
    if not name.isdigit():
        assert finding(row(question_title=name, question_id="1")).fault


def test_rows_in_no_table_are_scanned_as_they_are_loaded() -> None:
    new = row(question_id="abc999_z", question_content="an absolute error of at most 10^{-7} is accepted")
    assert finding(new) == scan(new)
    assert finding(new).tolerance == pytest.approx(1e-7)
    assert finding(row()) == Finding()


def test_each_row_of_the_table_has_a_date_and_a_reason_and_a_command_makes_it_again(tmp_path: Path) -> None:
    kept = json.loads(_lcb_rows.TABLE.read_text())
    assert all(values["reason"] and values["scanned"].startswith("20") for values in kept["rows"].values())
    content = "an error of 10^{-6} is accepted"
    lines = [row(), row(question_id="x1", question_content=content), row(question_id="x2")]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "later.jsonl").write_text("\n".join(map(json.dumps, [row(question_id="x1"), lines[2]])))
    table = tmp_path / "table.json"
    _lcb_scan.main([str(tmp_path / "rows.jsonl")], table)
    made = json.loads(table.read_text())
    assert ([scan["n_rows"] for scan in made["scans"]], list(made["rows"])) == ([3], ["x1"])
    _lcb_scan.main([str(tmp_path / "later.jsonl")], table)
    made = json.loads(table.read_text())
    assert ([scan["n_rows"] for scan in made["scans"]], made["rows"]) == ([3, 2], {})
