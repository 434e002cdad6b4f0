"""Python: compiled and run by the launcher, in one process a test."""

from sdpo_solve.sandboxes.languages import Language

_PROBE = """
import importlib.util
import sys
from importlib import metadata

print("Python %d.%d" % sys.version_info[:2])
for name in ("numpy", "scipy", "networkx", "sympy", "more_itertools", "bitarray", "sortedcontainers"):
    if importlib.util.find_spec(name) is not None:
        try:
            print(name, ".".join(metadata.version(name).split(".")[:2]))
        except metadata.PackageNotFoundError:  # bubblewrap shows the package alone
            print(name)
"""

PLUGIN = Language(
    name="python",
    title="Python 3",
    suffixes=(".py",),
    fence_tags=("python", "py", "python3"),
    probe=_PROBE,
    run=None,
)
