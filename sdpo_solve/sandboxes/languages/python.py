"""Python: compiled and run by the launcher, in one process a test."""

from sdpo_solve.sandboxes.languages import Language

PLUGIN = Language(
    name="python",
    title="Python 3",
    suffixes=(".py",),
    fence_tags=("python", "py", "python3"),
    empty="pass",
    run=None,
)
