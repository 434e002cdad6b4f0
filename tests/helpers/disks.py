"""Small file systems that tests fill up, or mount again with other options. Mounting needs root."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

Disk = Callable[[str], Path]
"""Makes a real small file system with mount options."""


@contextmanager
def small_disks(root: Path) -> Iterator[Disk]:
    """File systems below `root`, taken away again at the end."""
    mounted: list[Path] = []

    def make(options: str) -> Path:
        place = root / f"disk-{len(mounted)}"
        place.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip("mounting a small file system needs root")
        mounted.append(place)
        return place

    if os.geteuid():
        pytest.skip("mounting a small file system needs root")
    yield make
    for place in mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path, leave_bytes: int) -> Path:
    """Fill a file system up to so many bytes."""
    free = os.statvfs(place)
    filler = place / "filler"
    filler.write_bytes(b"\0" * (free.f_bavail * free.f_frsize - leave_bytes))
    return filler


def remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)
