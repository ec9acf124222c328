"""``ExecStopPost=``: drops crun's state and, unless it is kept, the writable layer. Fast: stopping waits for it."""

from __future__ import annotations

import os

from usercontainerd.base.errors import UsercontainerError
from usercontainerd.base.names import is_container_name
from usercontainerd.base.paths import Paths
from usercontainerd.kernel.cgroups import ASIDE, SUBGROUP, find_cgroup_mount, kill_group, read_own_cgroup
from usercontainerd.kernel.trees import remove_tree
from usercontainerd.runtime.copier import finish_copier
from usercontainerd.runtime.plan import read_plan
from usercontainerd.runtime.remains import discard_layer, discard_runtime_state, record_exit


def kill_rest(own_cgroup: str | None) -> None:
    """Kill what is left in the container's cgroups, which is pasta.

    systemd would do it after us (``KillMode=mixed``): taking down its network lasts as long as everything else here,
    and begun now, it goes on beside it. With ``KillMode=process`` systemd leaves it to us.
    """
    if own_cgroup is None or not own_cgroup.endswith("/.control"):
        return  # not started as ExecStopPost= of a delegated unit
    unit = find_cgroup_mount() + os.path.dirname(own_cgroup)
    for group in (SUBGROUP, ASIDE):
        kill_group(f"{unit}/{group}")


def clean_up(paths: Paths, name: str) -> None:
    """Put away what the container left; its init is dead."""
    finish_copier(paths.bundle(name))
    kill_rest(read_own_cgroup())
    discard_runtime_state(paths, name)
    plan = read_plan(f"{paths.bundle(name)}/plan", None)  # it may have run since before an update
    if plan is None or plan.keep:
        return
    trash = discard_layer(paths, name)
    if trash is not None and not remove_tree(trash):
        # Files of subordinate IDs: theirs is the user namespace.
        from usercontainerd.kernel.userns import enter_user_namespace

        enter_user_namespace(plan.id_map)
        remove_tree(trash)


def main(arguments: list[str], environment: dict[str, str]) -> int:
    """``cleanup NAME``."""
    if len(arguments) != 1 or not is_container_name(arguments[0]):
        os.write(2, b"usage: cleanup NAME (it is the ExecStopPost= of container@NAME.service)\n")
        return 125
    paths = Paths.from_environment(environment, os.getuid())
    try:
        record_exit(paths, arguments[0], environment)
        clean_up(paths, arguments[0])
    except (UsercontainerError, OSError) as error:
        from usercontainerd.kernel.notification import write_line

        write_line(str(error), 4, environment)
        return 1
    return 0
