"""One run: from names to objects, and its files on disk.

May import `grading`, `methods`, `learner`, `engines`, `model`, `sandboxes` and the ground. Read `options.py`
(every part's options, checked), `build.py` (engine, sandbox, learner and method from them), `journal.py` and
`clock.py` (the journal that is written, the seconds in it), `records.py` and `events.py` (the one reader of
journals), `identity.py` (what makes a run the same run).
"""
