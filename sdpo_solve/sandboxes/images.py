"""The sandbox images' names and sources: where their folders lie and how they are tagged. Builds nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sdpo_solve.errors import ConfigError

_PACKAGE = Path(__file__).parents[1]


def image_folder(language: str) -> Path:
    """The folder with the language's Dockerfile, in an installed package or in a source checkout."""
    for root in (_PACKAGE / "_data" / "sandbox_images", _PACKAGE.parent / "sandbox_images"):
        if (root / language / "Dockerfile").is_file():
            return root / language
    raise ConfigError(f"there is no sandbox image for {language!r}: sandbox_images/{language}/Dockerfile")


def image_tag(language: str) -> str:
    """Name and tag; the tag is a hash of the folder's files, so that a change is noticed."""
    digest = hashlib.sha256()
    for path in sorted(image_folder(language).rglob("*")):
        if path.is_file():
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return f"sdpo-solve-{language}:{digest.hexdigest()[:12]}"


def setup_command(language: str) -> str:
    """The command that makes the language's image."""
    return "sdpo-solve setup" + ("" if language == "python" else f" --language {language}")
