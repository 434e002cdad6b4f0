"""Grading: codes in, verdicts and feedback out. Programs run in the sandbox, expected outputs do not.

May import `sandboxes` and the ground. Read `extract.py` (the program in an answer), `judge.py` (tests in
order, first failure), `checkers.py` (when an output is right), `asserts.py` and `assert_eval.py` (tests
written as Python asserts), `feedback.py` (what the model is shown), `selfcheck.py` (honest and hostile
programs).
"""
