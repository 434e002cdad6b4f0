"""The sandbox images' names and sources: where their folders lie and how they are tagged. Builds nothing."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from sdpo_solve.errors import PrerequisiteError
from sdpo_solve.sandboxes import languages

_PACKAGE = Path(__file__).parents[1]
_HOST = r"(?:[A-Za-z0-9]+(?:[.-]+[A-Za-z0-9]+)*|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_TAG, _DIGEST = r":\w[\w.-]{0,127}", r"@[A-Za-z][\w+.-]*:[0-9A-Fa-f]{32,}"
_REFERENCE = re.compile(rf"(?:{_HOST}/)?{_PART}(?:/{_PART})*(?:{_TAG})?(?:{_DIGEST})?", re.ASCII)


def image_folder(name: str) -> Path:
    """The folder with the image's Dockerfile, in an installed package or in a source checkout.

    `name` is that of a language, or a language's fuller image such as `python-full`. Raises PrerequisiteError
    where there is none, as for a language of another package.
    """
    for root in (_PACKAGE / "_data" / "sandbox_images", _PACKAGE.parent / "sandbox_images"):
        if (root / name / "Dockerfile").is_file():
            return root / name
    remedy = "use --sandbox bubblewrap, or --set sandbox.image=NAME"
    raise PrerequisiteError(f"there is no sandbox image for {name!r}; {remedy}")


def is_reference(name: str) -> bool:
    """Whether an engine can hold an image of this name, by the grammar of Docker and Podman."""
    return _REFERENCE.fullmatch(name) is not None


def image_tag(name: str) -> str:
    """Name and tag; the tag is a hash of the folder's files, so that a change is noticed."""
    digest = hashlib.sha256()
    for path in sorted(image_folder(name).rglob("*")):
        if path.is_file():
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return f"sdpo-solve-{name}:{digest.hexdigest()[:12]}"


def setup_command(name: str) -> str:
    """The command that makes the image."""
    language, _, kind = name.partition("-")
    flags = f" --language {language}" if language != languages.DEFAULT else ""
    return f"sdpo-solve setup{flags}" + (f" --image {kind}" if kind else "")
