"""Datasets: files of others (and ours) in, `Problem` records out. One format, one file.

May import `grading`, `sandboxes` and the ground. Read `load.py` (from a source as written to problems),
`selection.py` (which of them are taken), `problem_json.py` (our own files), then the benchmarks:
`livecodebench.py`, `mbpp.py`.
"""
