"""Checking health by hand: by the unit that the timer starts, too, so that both are never at it at once."""

from __future__ import annotations

import os

from usercontainerd.base.errors import InvalidArgument, NotRunning, Paused
from usercontainerd.base.names import health_service
from usercontainerd.engine.containers.lookup import get_init
from usercontainerd.kernel.cgroups import find_cgroup_mount, is_frozen
from usercontainerd.runtime.health import read_check, read_state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.base.paths import Paths
    from usercontainerd.runtime.health import HealthState
    from usercontainerd.systemd.manager import Manager


def run_healthcheck(paths: Paths, manager: Manager, name: str) -> HealthState:
    """Check once, and return what is known then; the last of its log is this check.

    Raises ``NotRunning``, ``Paused``, ``InvalidArgument`` if there is no check, ``UnitFailure``.
    """
    init = get_init(paths, name)
    os.close(init.fd)
    if read_check(paths.bundle(name)) is None:
        raise InvalidArgument(
            "the container has no health check", where=name, hint="--health-cmd, or command in [health]"
        )
    if is_frozen(f"{find_cgroup_mount()}{init.cgroup}"):
        raise Paused("the container is paused", where=name, hint=f"usercontainer unpause {name}")
    manager.start_unit(health_service(name))
    state = read_state(paths, name)
    if not state.log:
        raise NotRunning("the container ended meanwhile", where=name)
    return state
