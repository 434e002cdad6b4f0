"""Sandboxes: run a program on inputs and say what came out. The module name is the option name.

May import the ground only. Read `docker.py` and `bubblewrap.py` (the backends), `_box.py` (one
box seen from the host), `_pool.py` (boxes started ahead of need), `guest/` (what runs inside the box),
`languages/`, then `install.py` and `images.py` (making a machine ready). `programs/` holds the honest and the
hostile programs that a sandbox is judged by.
"""

from sdpo_solve.registry import Registry

REGISTRY = Registry("sandbox", __name__, frozenset({"install", "images", "wire_values"}))
