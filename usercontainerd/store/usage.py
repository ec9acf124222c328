"""Which layers containers have mounted: those must stay, whatever is removed.

Nothing counts users. A bundle links to the layers it was made from, and the kernel says whether its container
runs. A start holds the lock ``starting`` (shared with other starts) from before it mounts its layers until its
container's first process is known; whoever moves layers away holds it exclusively while looking and moving. So a
layer is either gone before a start mounts it, which then fails, or seen to be in use.
"""

from __future__ import annotations

import os

from usercontainerd.base.names import is_container_name, unit_name
from usercontainerd.kernel.cgroups import read_cgroup

STARTING = "starting"  # the lock's name; the launcher takes it


def find_layers_in_use(runtime: str) -> dict[str, list[str]]:
    """Return the layers (hexadecimal, as their directories are called) that running containers have mounted.

    Each with the names of its containers; ``runtime`` is this program's part of ``$XDG_RUNTIME_DIR``.
    """
    used: dict[str, list[str]] = {}
    bundles = f"{runtime}/containers"
    for name in _list(bundles):
        if not is_container_name(name) or not _runs(f"{bundles}/{name}", name):
            continue
        for link in _list(f"{bundles}/{name}/lower"):
            try:
                target = os.readlink(f"{bundles}/{name}/lower/{link}")
            except OSError:
                continue
            used.setdefault(os.path.basename(os.path.dirname(target)), []).append(name)
    return used


def _runs(bundle: str, name: str) -> bool:
    try:
        with open(f"{bundle}/pid", encoding="ascii") as file:
            pid = int(file.read())
    except (OSError, ValueError):
        return False
    cgroup = read_cgroup(pid)
    return cgroup is not None and f"/{unit_name(name)}/" in f"{cgroup}/"


def _list(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
