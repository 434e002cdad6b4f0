"""Many runs: problems x arms x seeds, on this machine or on a Ray cluster.

May import `report`, `solve`, `run`, `datasets` and what lies below them. Read `spec.py` (options, list of
runs), `batch.py` (prepare and run), `runner.py` (one run of a batch), `stop.py`, `locks.py`,
`outage.py`, `merged_sampling.py` (what runs share), `local_executor.py`, `ray_executor.py`, then
`measure.py`, `cost.py`, `event_bus.py`, `trackers.py`. Screening, how often the base model solves a problem,
is `screening.py`, `difficulty.py` and `screening_file.py`. `README.md` is for users.
"""
