"""The values of one definition, merged from its file and drop-ins while each remembers where it stands."""

from __future__ import annotations

from usercontainerd.definition import health, pairs, paths, values, words
from usercontainerd.definition.directives import take_directives
from usercontainerd.definition.model import (
    Definition,
    Desktop,
    Health,
    HealthAction,
    Network,
    Notify,
    Output,
    Resources,
    Restart,
    Security,
    UserNamespace,
    WritableLayer,
)
from usercontainerd.definition.mounts import take_mount
from usercontainerd.definition.ports import take_port
from usercontainerd.definition.pull_policy import PullPolicy
from usercontainerd.definition.schema import CHOICES, TABLES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from usercontainerd.definition.place import Place

CONVERTERS: dict[str, Callable[[Any, Place], Any]] = {
    "line": values.take_line,
    "boolean": values.take_boolean,
    "argv": values.take_argv,
    "image": words.take_image,
    "user": words.take_user,
    "group": words.take_group,
    "hostname": words.take_hostname,
    "directory": paths.take_container_path,
    "environment": pairs.take_environment,
    "labels": pairs.take_labels,
    "signal": words.take_signal,
    "duration": values.take_timeout,
    "memory": values.take_memory,
    "swap": values.take_swap,
    "cpus": values.take_cpus,
    "weight": values.take_weight,
    "pids": values.take_pids,
    "seccomp": paths.take_seccomp,
    "directives": take_directives,
    "health_command": health.take_command,
    "health_interval": health.take_interval,
    "health_time": health.take_time,
    "health_retries": health.take_retries,
    **{kind: values.take_choice(kind) for kind in CHOICES},
}
ELEMENTS: dict[str, Callable[[Any, Place], Any]] = {
    "optional_paths": paths.take_optional_path,
    "capabilities": words.take_capability,
    "applications": words.take_application,
    "ports": take_port,
    "mounts": take_mount,
}
_TABLE_KINDS = frozenset(("environment", "labels", "directives"))
_ENUMERATIONS: dict[str, Callable[[str], Any]] = {
    "pull": PullPolicy,
    "network": Network,
    "restart": Restart,
    "notify": Notify,
    "output": Output,
    "writable_layer": WritableLayer,
    "security.user_namespace": UserNamespace,
    "health.on_failure": HealthAction,
}


class Layers:
    """``values`` holds single values and tables, ``lists`` elements of lists, ``places`` where a key was last set."""

    __slots__ = ("lists", "places", "values")

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.lists: dict[str, list[tuple[Any, Place]]] = {}
        self.places: dict[str, Place] = {}

    def take(self, key: str, kind: str, value: object, place: Place) -> None:
        """Convert ``value`` and merge it; problems are reported at ``place``."""
        self.places[key] = place
        if kind in ELEMENTS:
            self._take_list(key, kind, value, place)
            return
        converted = CONVERTERS[kind](value, place)
        if converted is None:
            return
        if kind not in _TABLE_KINDS or key not in self.values:
            self.values[key] = converted
        elif kind == "directives":
            merged = self.values[key]
            for name, each in converted.items():
                merged[name] = (*merged.get(name, ()), *each) if each else ()
        else:
            self.values[key].update(converted)

    def _take_list(self, key: str, kind: str, value: object, place: Place) -> None:
        if isinstance(value, str) and kind == "optional_paths":
            value = [value]
        if not isinstance(value, list):
            values.report_type("an array", value, place)
            return
        items = self.lists.setdefault(key, [])
        if not value:
            items.clear()
        taken = []
        for index, each in enumerate(value):
            where = place.at(index)
            converted = ELEMENTS[kind](each, where)
            if converted is not None:
                taken.append((converted, where))
        if items and key in _IDENTITIES:
            identify = _IDENTITIES[key]
            replaced = {identify(item) for item, _ in taken}
            items[:] = [item for item in items if identify(item[0]) not in replaced]
        items.extend(taken)

    def build(self, name: str, sources: tuple[str, ...]) -> Definition:
        """Return the definition; only to be called when no error was reported."""
        arguments: dict[str, Any] = {"name": name, "sources": sources}
        tables: dict[str, dict[str, Any]] = {table: {} for table in TABLES}
        everything = {**self.values, **{key: _unique(items) for key, items in self.lists.items()}}
        for key, value in everything.items():
            table, _, leaf = key.rpartition(".")
            target = tables[table] if table else arguments
            target[leaf] = _freeze(key, value)
        user, colon, group = (arguments.get("user") or "").partition(":")
        if colon:
            arguments["user"], arguments["group"] = user, group
        if tables["resources"]:
            arguments["resources"] = Resources(**tables["resources"])
        if tables["security"]:
            arguments["security"] = Security(**tables["security"])
        if tables["health"]:
            arguments["health"] = Health(**tables["health"])
        if tables["desktop"]:
            arguments["desktop"] = Desktop(**tables["desktop"])
        return Definition(**arguments)


_IDENTITIES: dict[str, Callable[[Any], object]] = {
    "mounts": lambda mount: mount.target,
    "ports": lambda port: (port.address, port.host, port.length, port.protocol),
}


def _unique(items: list[tuple[Any, Place]]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(item for item, _ in items))


def _freeze(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        return tuple((name, each) for name, each in value.items() if each != ())
    return _ENUMERATIONS[key](value) if key in _ENUMERATIONS else value
