"""Reports: journals to comparable runs, to figures, to tables, plots and a page. Changes nothing on disk.

May import `run`, `datasets`, what lies below them, and the loop. One run: `runs.py` reads it, `run_text.py`
draws it; `progress.py` and `follow.py` are for runs under way. Several runs, in this order: `consistency.py`
(which may stand together), `cohort.py` (as which arms), `statistics.py`, `comparison.py`, `problems.py`,
`figures.py` (what is computed), `sections.py` (its tables as text), then `text.py`, `files.py`, `plots.py`
and `page.py` (terminal, files, pictures, page). `explain/`: one attempt under its teacher. `README.md`: the
estimators.
"""
