"""Where this program keeps files of its own."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Where this program keeps files of its own: $SDPO_SOLVE_CACHE, else the user's cache directory."""
    own = os.environ.get("SDPO_SOLVE_CACHE")
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "sdpo-solve"
