"""What is wrong with values only when seen together."""

from __future__ import annotations

from usercontainerd.definition.ports import find_conflicts
from usercontainerd.definition.schema import DIRECTIVES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.definition.layers import Layers

MAX_PORTS = 1000  # entries; each may be a range


def check_layers(layers: Layers) -> None:
    """Report contradictions in the merged values."""
    _check_ports(layers)
    _check_mounts(layers)
    _check_capabilities(layers)
    _check_user(layers)
    _check_memory(layers)
    _check_directives(layers)
    _check_removal(layers)
    values, places = layers.values, layers.places
    if values.get("security.read_only") and values.get("writable_layer") == "keep":
        places["writable_layer"].warn("has nothing to keep: the root file system is read-only")


def _check_removal(layers: Layers) -> None:
    values = layers.values
    if not values.get("remove"):
        return
    place = layers.places["remove"]
    # base/paths.py, passing_definitions
    made = f"{place.reading.owner.runtime_root}/usercontainerd/created"
    if place.source.path and place.reading.directory != made:
        place.warn(
            "has no effect here: only what `create` and `run` have made is removed; "
            'writable_layer = "fresh" (the default) has what the container wrote forgotten'
        )
        values["remove"] = False
        return
    again = values.get("service", {}).get("Restart", ())
    if values.get("restart", "no") != "no" or (again and again[-1] != "no"):
        place.error("a container that is removed when it has ended cannot be started again by restart")


def _check_ports(layers: Layers) -> None:
    entries = layers.lists.get("ports", [])
    network = layers.values.get("network")
    if len(entries) > MAX_PORTS:
        layers.places["ports"].error(f"more than {MAX_PORTS} entries; a range is one entry")
        return
    if entries and network in {"host", "none"}:
        reason = "the container has the host's ports" if network == "host" else "the container has no network"
        layers.places["ports"].error(f'nothing can be published with network = "{network}": {reason}')
    if len(entries) > 1:
        find_conflicts(entries)


def _check_mounts(layers: Layers) -> None:
    seen = set()
    for mount, place in layers.lists.get("mounts", ()):
        if mount.target in seen:
            place.error(f'"{mount.target}" is mounted twice')
        seen.add(mount.target)


def _check_capabilities(layers: Layers) -> None:
    added = {name for name, _ in layers.lists.get("security.add_capabilities", ())}
    for name, place in layers.lists.get("security.drop_capabilities", ()):
        if name in added:
            place.error(f"{name} is both added and dropped")


def _check_user(layers: Layers) -> None:
    if ":" in layers.values.get("user", "") and "group" in layers.values:
        layers.places["group"].error(f'the user "{layers.values["user"]}" names a group already')


def _check_memory(layers: Layers) -> None:
    memory, high = (layers.values.get(f"resources.{name}") for name in ("memory", "memory_high"))
    if memory is not None and high is not None and high > memory:
        layers.places["resources.memory_high"].warn("has no effect above resources.memory")


def _check_directives(layers: Layers) -> None:
    for key, (section, directive) in DIRECTIVES.items():
        if key in layers.places and layers.values.get(section, {}).get(directive):
            layers.places[key].warn(f"{directive}= in [{section}] says the same again and has the last word")
