"""Pausing: a container stands still, with all that it has in memory, until it is resumed, stopped or killed.

What is frozen is the container's own cgroup below the unit's, not the unit (``systemctl freeze``): systemd starts
``ExecStopPost=`` in the unit's cgroup and waits for it to be executed, so that a frozen unit whose first process dies
brings the whole user manager to a stand (seen with systemd 257 and 262). A unit that somebody has frozen all the same
counts as paused, and is brought into the other form before anything is done to it.
"""

from __future__ import annotations

from usercontainerd.base.errors import HostError, NotPaused, NotRunning, Paused
from usercontainerd.base.names import unit_name
from usercontainerd.kernel.cgroups import SUBGROUP, find_cgroup_mount, is_frozen, write_file
from usercontainerd.kernel.freezer import freeze_group, has_own_freeze, thaw_group
from usercontainerd.systemd.bus import BusError
from usercontainerd.systemd.manager import SERVICE, UNIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.systemd.manager import Manager

_RUNNING = ("active", "reloading", "refreshing")


def find_running_group(manager: Manager, name: str) -> str:
    """Return the directory of a running container's own cgroup. Raises ``NotRunning``."""
    unit = unit_name(name)
    active, group = manager.get_properties([(unit, UNIT, "ActiveState"), (unit, SERVICE, "ControlGroup")])
    if active not in _RUNNING or not group:
        raise NotRunning("the container does not run", where=name, hint=f"usercontainer start {name}")
    return f"{find_cgroup_mount()}{group}/{SUBGROUP}"


def refuse_paused(name: str, group: str) -> None:
    """Raise ``Paused`` if the container stands still."""
    if is_frozen(group):
        raise Paused("the container is paused", where=name, hint=f"usercontainer unpause {name}")


def pause_container(manager: Manager, name: str) -> None:
    """Have a running container stand still. Raises ``NotRunning``, ``Paused`` if it does already, ``HostError``."""
    group = find_running_group(manager, name)
    refuse_paused(name, group)
    try:
        freeze_group(group)
        # A stop that began meanwhile would wait for it in vain.
        find_running_group(manager, name)
    except OSError as error:
        raise HostError(f"cannot freeze it: {error.strerror}", where=group) from error
    except NotRunning:
        thaw_group(group)
        raise


def resume_container(manager: Manager, name: str) -> None:
    """Let a paused container go on. Raises ``NotRunning``, ``NotPaused``, ``HostError``."""
    group = find_running_group(manager, name)
    if not is_frozen(group):
        raise NotPaused("the container is not paused", where=name)
    unfreeze_unit(manager, name, group)
    thaw_group(group)
    if is_frozen(group):
        raise HostError(
            "something above the container is frozen, too",
            where=group,
            hint="systemctl --user thaw container.slice, if it is that",
        )


def unfreeze_unit(manager: Manager, name: str, group: str) -> None:
    """Have the container's own cgroup stand still instead of the unit, if that has been frozen as a whole."""
    unit = group.removesuffix(f"/{SUBGROUP}")
    if not has_own_freeze(unit):
        return
    try:
        write_file(f"{group}/cgroup.freeze", "1")
        manager.call("ThawUnit", "s", unit_name(name))
    except (BusError, OSError):
        pass  # it has just ended, or is frozen behind systemd's back
    thaw_group(unit)
