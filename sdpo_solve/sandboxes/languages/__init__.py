"""Programming languages of the sandbox: each a folder in `sandbox_images/` and one small file here.

A language file defines `LANGUAGE`. The file's name is the language's name and that of its image's folder.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass

from sdpo_solve.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Language:
    """How a program becomes a process. Paths are those inside the box."""

    name: str
    source: str
    """File name of the program."""
    run: tuple[str, ...] | None
    """Command line of a test; None: the Python launcher, which also makes calls."""
    compile: tuple[str, ...] | None = None
    """Command line, run once an attempt in the build directory; its errors are the compile error."""


def names() -> list[str]:
    """Every language there is."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def get(name: str) -> Language:
    """Raises ConfigError for a language that is not there."""
    try:
        language: Language = importlib.import_module(f"{__name__}.{name}").LANGUAGE
    except ModuleNotFoundError:
        raise ConfigError(f"unknown language {name!r}: choose one of {', '.join(names())}") from None
    return language
