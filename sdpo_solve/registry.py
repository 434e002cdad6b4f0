"""Plug-ins by option name: the modules of a room, and those that installed packages add to it.

A module name is the option name, with `-` for `_`. Another package adds a plug-in by an entry point in the
group that is called as the room is, for example:

    [project.entry-points."sdpo_solve.methods"]
    my-method = "my_package.my_method"

Imports a plug-in when it is asked for, never before.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from importlib import metadata
from types import ModuleType

from sdpo_solve.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Registry:
    """The plug-ins of one room.

    `what`: what a plug-in of it is called in messages. `room`: the dotted name of the package. `others`: its
    modules that are no plug-ins, besides those that begin with `_`.
    """

    what: str
    room: str
    others: frozenset[str] = frozenset()

    def names(self) -> list[str]:
        """Every option name, sorted."""
        return sorted({*self._modules(), *self._added()})

    def load(self, name: str) -> ModuleType:
        """The module behind an option name.

        Raises ConfigError naming the known ones, and where an added plug-in cannot be imported.
        """
        own = self._modules()
        if name in own:
            return importlib.import_module(f"{self.room}.{own[name]}")
        added = self._added()
        if name not in added:
            raise ConfigError(f"unknown {self.what} {name!r} (known: {', '.join(self.names())})")
        try:
            return importlib.import_module(added[name])
        except ImportError as exc:
            raise ConfigError(f"the {self.what} {name!r} cannot be imported: {exc}") from None

    def _modules(self) -> dict[str, str]:
        package = importlib.import_module(self.room)
        found = (info.name for info in pkgutil.iter_modules(package.__path__) if not info.ispkg)
        return {
            name.replace("_", "-"): name
            for name in found
            if not name.startswith("_") and name not in self.others
        }

    def _added(self) -> dict[str, str]:
        return {point.name: point.value for point in metadata.entry_points(group=self.room)}
