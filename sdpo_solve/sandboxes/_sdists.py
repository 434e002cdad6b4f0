"""Source archives that an image needs, fetched from the package index before the image is built: the build
may reach no index, and boxes never do.

The image's file `sdists` names them as requirements of pip with their hashes; nothing of them is installed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sdpo_solve.errors import PrerequisiteError

_PIP = (
    *("-m", "pip", "download", "--no-deps", "--no-cache-dir", "--disable-pip-version-check", "--no-input"),
    *("--progress-bar=off", "--quiet", "--retries=2", "--require-hashes"),
)


@contextmanager
def with_sdists(folder: Path) -> Iterator[Path]:
    """The image's folder as it can be built: itself, or a copy with its source archives in it.

    Raises PrerequisiteError where they cannot be fetched.
    """
    listed = folder / "sdists"
    if not listed.is_file():
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="sdpo-solve-image-") as place:
        context = Path(shutil.copytree(folder, Path(place) / folder.name))
        names = [line.partition("==")[0] for line in listed.read_text(encoding="utf-8").splitlines()]
        command = [sys.executable, *_PIP, *(f"--no-binary={name}" for name in names), f"--dest={context}"]
        done = subprocess.run(
            [*command, f"--requirement={listed}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode:
            lines = done.stderr.splitlines()
            errors = [line for line in lines if line.startswith("ERROR: ")]
            last = [*lines, *errors][-1] if lines else "no reason given"
            raise PrerequisiteError(
                f"cannot fetch {', '.join(names)} from the package index: {last.removeprefix('ERROR: ')}; "
                "check the network and pip's index settings"
            )
        yield context
