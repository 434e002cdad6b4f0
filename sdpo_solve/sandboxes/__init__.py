"""Sandboxes: run a program on inputs and report what came out.

May import the ground only. Read `_base.py` (a run of one program), `_box.py` (one box seen from the host),
`_pool.py` (boxes started ahead of need), `_engine.py` (where Docker's engine is), `docker.py` and
`bubblewrap.py` (the backends), `guest/` (what runs inside the box), `wire_values.py` (values that enter and
leave it), `languages/`, `install.py` and `images.py` (making a machine ready). `programs/` holds the honest
and the hostile programs that a sandbox is judged by.

A sandbox is one file with `Options`, a class below `SandboxPlugin` and `PLUGIN = TheClass`; the module's name
is the option name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from sdpo_solve.config import Options
from sdpo_solve.protocols import Sandbox
from sdpo_solve.registry import Registry
from sdpo_solve.sandboxes import languages


class SandboxPlugin(Sandbox, ABC):
    """Base of the sandboxes that `REGISTRY` hands out, with the facts that other rooms ask for."""

    options_type: ClassVar[type[Options]]
    """The options of the sandbox: the part `sandbox` of `--set` and of a batch file."""
    auto_order: ClassVar[int | None] = None
    """Its place in the order in which `--sandbox auto` tries them, lowest first; None: never."""
    verdict_options: ClassVar[frozenset[str]] = frozenset()
    """Its options that may change a verdict and are not part of `identity()`."""
    options: Any
    """What it was built with, of `options_type`."""

    def record(self) -> dict[str, Any]:
        """What decides verdicts: the identity, and the options that may change one."""
        return {"identity": self.identity(), **self.options.model_dump(include=set(self.verdict_options))}

    @classmethod
    @abstractmethod
    def build(cls, options: Any, language: str) -> SandboxPlugin:
        """The sandbox for programs of `language`, started; `options` is of `options_type`.

        Raises PrerequisiteError where something is missing, saying what to run.
        """


def toolchain(sandbox: Sandbox, language: str) -> languages.Toolchain:
    """The language's toolchain in the sandbox; only its title where the sandbox records none."""
    known = getattr(sandbox, "toolchain", None)
    return known or languages.Toolchain(languages.get(language).title)


REGISTRY: Registry[type[SandboxPlugin]] = Registry(
    "sandbox", __name__, frozenset({"install", "images", "wire_values"})
)
