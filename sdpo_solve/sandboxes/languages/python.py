"""Python: compiled and run by the launcher, in one process a test."""

from sdpo_solve.sandboxes.languages import Language

LANGUAGE = Language(name="python", source="solution.py", run=None)
