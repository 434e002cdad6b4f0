"""Many runs: problems x arms x seeds, on this machine or on a Ray cluster, with locks, costs and trackers.

May import `report`, `solve`, `run`, `datasets` and what lies below them. Read `spec.py` (what a batch is),
`batch.py` (plan and execution), `runner.py` (one run of a batch), `locks.py` (the device's and the sandbox's
turns), then `ray_executor.py`, `cost.py`, `event_bus.py`, `trackers.py`. Screening, how often the base model
solves each problem, is `screening.py`, `difficulty.py` and `screening_file.py`.
"""
