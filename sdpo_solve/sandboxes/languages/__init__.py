"""Programming languages of the sandbox, one file each; the file's name is the language's name.

A language's file has `PLUGIN = Language(...)`; its image is made from `sandbox_images/<name>/`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import PurePath

from sdpo_solve.registry import Registry


@dataclass(frozen=True, slots=True)
class Toolchain:
    """A language as one sandbox has it, for prompts."""

    title: str
    """Name and version."""
    libraries: tuple[str, ...] = ()
    """What programs may use besides the standard library."""


@dataclass(frozen=True, slots=True)
class CheckerForm:
    """How a testlib checker of a language is run: on input, output and answer, files in its own directory.

    All three texts come on standard input; the program around the checker writes the files.
    """

    program: Callable[[str], str]
    """The source to run, of the checker's source."""
    stdin: Callable[[Sequence[str]], str]
    """What the source reads, of the three texts."""


@dataclass(frozen=True, slots=True)
class Language:
    """Facts about a language: how a prompt names it, how files of it are called, how a program is run.

    Paths are those inside the box.
    """

    name: str
    title: str
    """What prompts call it before a sandbox is known."""
    suffixes: tuple[str, ...]
    """File name endings, the usual one first."""
    fence_tags: tuple[str, ...]
    """Info strings of a markdown code block, the usual one first."""
    probe: str
    """A program that prints its `Toolchain`: the title, then a line a library."""
    run: tuple[str, ...] | None
    """Command line of a test, run in its own directory; None: the Python launcher, which also makes calls.

    Without `compile` the file `source` lies in that directory.
    """
    compile: tuple[str, ...] | None = None
    """Command line, run once an attempt in /box/build/home, where the file `source` lies.

    Tests may open by name what it leaves there. Its errors are the compile error.
    """
    checker: CheckerForm | None = None
    """None: checkers cannot be written in it."""

    @property
    def source(self) -> str:
        """File name of the program."""
        return "solution" + self.suffixes[0]

    @property
    def makes_calls(self) -> bool:
        """Whether its functions can be called; otherwise programs only read standard input."""
        return self.run is None


DEFAULT = "python"
"""The language of programs where nothing else is said, and the one that `setup` makes ready."""
REGISTRY: Registry[Language] = Registry("language", __name__)


def names() -> list[str]:
    """Every language there is."""
    return REGISTRY.names()


@cache
def get(name: str) -> Language:
    """Raises ConfigError for a language that is not there."""
    return REGISTRY.load(name)


def of_file(path: PurePath) -> Language | None:
    """The language that a file's name ends like; None for an unknown ending."""
    every = (get(name) for name in names())
    return next((language for language in every if path.suffix in language.suffixes), None)
