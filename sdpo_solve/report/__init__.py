"""Reports: journals to comparable runs, to figures, to tables, plots and a page. Changes nothing on disk.

May import `run`, `datasets`, what lies below them, and the loop. One run is read by `runs.py` and told by
`run_text.py`, `progress.py` and `follow.py`; several together:

`cohort` says which runs may stand together; `comparison`, `problems` and `figures` compute; `text`, `files`,
`plots` and `page` draw what `figures.Report` holds.
"""
