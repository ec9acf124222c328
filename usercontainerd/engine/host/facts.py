"""What this program can do, and what the host gives the user: short facts for panels, none of them tried out."""

from __future__ import annotations

import os

from usercontainerd.base.errors import UsercontainerError
from usercontainerd.kernel.idmap import read_id_map

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.engine.context import Context


def list_features() -> list[str]:
    """The capabilities of this version, by name: org.usercontainer1(5) says what each stands for."""
    return [
        "applications",
        "autostart",
        "commit",
        "copy",
        "definitions",
        "diff",
        "exec",
        "healthchecks",
        "images",
        "logs",
        "pause",
        "policy",
        "registries",
        "statistics",
        "update",
        "update-available",
    ]


def lingers(user: str) -> bool:
    """Tell whether the user's services run without a login (loginctl(1), enable-linger)."""
    return os.path.exists(f"/var/lib/systemd/linger/{user}")


def count_subordinate_ids(context: Context) -> tuple[int, int]:
    """How many user and group IDs a container can have."""
    try:
        id_map = read_id_map(context.uid, context.gid, context.user)
    except UsercontainerError:
        return 0, 0
    return sum(entry.length for entry in id_map.uids), sum(entry.length for entry in id_map.gids)


def list_controllers(uid: int) -> list[str]:
    """The cgroup controllers that systemd has delegated to the user."""
    path = f"/sys/fs/cgroup/user.slice/user-{uid}.slice/user@{uid}.service/cgroup.controllers"
    try:
        with open(path, encoding="ascii") as file:
            return file.read().split()
    except OSError:
        return []
