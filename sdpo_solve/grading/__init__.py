"""Grading: programs as verdicts and feedback. Programs run in the sandbox, comparison happens on the host.

May import `sandboxes` and the ground. Read `extract.py` (the program in an answer), `judge.py` (tests in
order, first failure), `checkers.py` (when an output is right), `asserts.py` and `assert_eval.py` (tests
written as Python asserts), `feedback.py` (the text for the model), `selfcheck.py` (honest and hostile
programs).
"""
