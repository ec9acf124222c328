"""Which containers run: before what runs them is taken away."""

from __future__ import annotations

import os

from usercontainerd.base.names import container_name
from usercontainerd.base.programs import LIBEXEC
from usercontainerd.kernel.cgroups import find_cgroup_mount
from usercontainerd.systemd.manager import SERVICE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from usercontainerd.systemd.manager import Manager

_IDLE = ("inactive", "failed")


def find_running(manager: Manager | None, prefix: str, user: int | None = None) -> list[str]:
    """Return the names of the containers of a user's ``manager`` that programs below ``prefix`` run.

    Without a manager, of one ``user`` or of all (``USER-ID/NAME``), whichever programs run them.
    """
    if manager is not None:
        units = [unit.name for unit in manager.list_units("container@*.service") if unit.active not in _IDLE]
        commands = manager.get_properties([(unit, SERVICE, "ExecStart") for unit in units])
        programs = f"{prefix}/{LIBEXEC}/"
        ours = (unit for unit, each in zip(units, commands, strict=True) if _starts_with(each, programs))
        return sorted(container_name(unit) or unit for unit in ours)
    users = "user.slice" if user is None else f"user.slice/user-{user}.slice"
    return sorted(find_cgroups(f"{find_cgroup_mount()}/{users}"))


def _starts_with(commands: Any, programs: str) -> bool:
    """Whether the first command of ``ExecStart=``, as D-Bus has it, is one of the ``programs``; if unsure, it is."""
    return not commands or str(commands[0][0]).startswith(programs)


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
