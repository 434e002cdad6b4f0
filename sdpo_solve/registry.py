"""Plug-ins by option name: those of a room's modules, and those that installed packages add.

A module is a plug-in of its room by `PLUGIN = TheClass`; its name, with `-` for `_`, is the option name. The
facts about a plug-in (its options, what it can and cannot do) stand on its class, and no other file compares
names. Another package adds one by an entry point in the group that is called as the room is, which names a
class, or a module with a `PLUGIN`:

    [project.entry-points."sdpo_solve.methods"]
    my-method = "my_package.my_method:MyMethod"

A plug-in is imported when it is loaded, never before.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from importlib import metadata
from types import ModuleType
from typing import Any, Generic, TypeVar

from sdpo_solve.errors import ConfigError

PluginT = TypeVar("PluginT")


@dataclass(frozen=True, slots=True)
class Registry(Generic[PluginT]):
    """The plug-ins of one room.

    `what`: what a plug-in of it is called in messages. `room`: the dotted name of the package. `others`: its
    modules that are no plug-ins, besides those that begin with `_`.
    """

    what: str
    room: str
    others: frozenset[str] = frozenset()

    def names(self) -> list[str]:
        """Every option name, sorted."""
        return sorted({*self._modules(), *self._entry_points()})

    def load(self, name: str) -> PluginT:
        """The plug-in of this name.

        Raises ConfigError naming the known ones, and where an added plug-in cannot be imported.
        """
        plugin = self.find(name)
        if plugin is None:
            raise ConfigError(f"unknown {self.what} {name!r} (known: {', '.join(self.names())})")
        return plugin

    def find(self, name: str) -> PluginT | None:
        """As `load`; None for an unknown name, such as that of a plug-in no longer installed."""
        modules = self._modules()
        if name in modules:
            plugin: PluginT = importlib.import_module(f"{self.room}.{modules[name]}").PLUGIN
            return plugin
        point = self._entry_points().get(name)
        return None if point is None else self._imported(point)

    def _imported(self, point: metadata.EntryPoint) -> PluginT:
        try:
            value: Any = point.load()
            plugin: PluginT = value.PLUGIN if isinstance(value, ModuleType) else value
        except (ImportError, AttributeError) as exc:
            raise ConfigError(f"the {self.what} {point.name!r} cannot be imported: {exc}") from None
        return plugin

    def _modules(self) -> dict[str, str]:
        package = importlib.import_module(self.room)
        modules = (info.name for info in pkgutil.iter_modules(package.__path__) if not info.ispkg)
        return {
            name.replace("_", "-"): name
            for name in modules
            if not name.startswith("_") and name not in self.others
        }

    def _entry_points(self) -> dict[str, metadata.EntryPoint]:
        return {point.name: point for point in metadata.entry_points(group=self.room)}
