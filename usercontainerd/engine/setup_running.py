"""Which containers run: before what runs them is taken away."""

from __future__ import annotations

import os

from usercontainerd.base.names import container_name
from usercontainerd.kernel.cgroups import find_cgroup_mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.systemd.manager import Manager

_IDLE = ("inactive", "failed")


def find_running(manager: Manager | None) -> list[str]:
    """Return the names of the containers of a user's ``manager``; None: of all users, with their unit's cgroup."""
    if manager is not None:
        units = manager.list_units("container@*.service")
        return sorted(container_name(unit.name) or unit.name for unit in units if unit.active not in _IDLE)
    return sorted(find_cgroups(f"{find_cgroup_mount()}/user.slice"))


def find_cgroups(top: str) -> list[str]:
    """Return ``USER-ID/NAME`` for each container that has a cgroup below ``user.slice``."""
    found = []
    for directory, names, _ in os.walk(top):
        here = [name for name in names if name.startswith("container@") and name.endswith(".service")]
        names[:] = [name for name in names if name.endswith((".slice", ".service")) and name not in here]
        for name in here:
            user = directory.partition("/user@")[2].partition(".service")[0]
            found.append(f"{user}/{container_name(name)}")
    return found
