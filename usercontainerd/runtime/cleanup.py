"""``ExecStopPost=``: drops crun's state and, unless it is kept, the writable layer. Fast: stopping waits for it."""

from __future__ import annotations

import posix as os

from usercontainerd.base.errors import UsercontainerError
from usercontainerd.base.names import is_container_name
from usercontainerd.base.paths import Paths, parent_of
from usercontainerd.kernel.cgroups import (
    ASIDE,
    SUBGROUP,
    find_cgroup_mount,
    is_frozen,
    kill_processes,
    kill_until_empty,
    read_own_cgroup,
)
from usercontainerd.kernel.trees import remove_tree
from usercontainerd.runtime.copier import finish_copier
from usercontainerd.runtime.plan import read_plan
from usercontainerd.runtime.remains import discard_layer, discard_runtime_state, record_exit

END_PATIENCE = (
    2.0  # seconds until processes that were killed are left to systemd: it would log that they remain
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from usercontainerd.runtime.plan import LaunchPlan

    WillStart = Callable[[Paths, str], bool]


def list_groups(own_cgroup: str | None) -> list[str]:
    """The container's cgroups, as directories; none if we are not the ``ExecStopPost=`` of a delegated unit."""
    if own_cgroup is None or not own_cgroup.endswith("/.control"):
        return []
    unit = find_cgroup_mount() + parent_of(own_cgroup)
    return [f"{unit}/{SUBGROUP}", f"{unit}/{ASIDE}"]


def learn(paths: Paths, name: str, plan: LaunchPlan, environment: Mapping[str, str], lived: float) -> None:
    """Have a run that failed soon looked at, if it had the journal's socket: that cannot be opened by name."""
    if not plan.pipe and environment.get("SERVICE_RESULT", "success") != "success":
        from usercontainerd.runtime.lesson import ask_next_time

        if ask_next_time(paths.container_data(name), environment, lived):
            os.unlink(f"{paths.bundle(name)}/plan")  # so that there is a next time


def clean_up(paths: Paths, name: str, environment: Mapping[str, str], will_start: WillStart) -> None:
    """Put away what the container left; its init is dead. ``environment`` is what systemd says of the run."""
    bundle = paths.bundle(name)
    caller = None
    if os.access(f"{bundle}/caller", os.F_OK, follow_symlinks=False):
        from usercontainerd.runtime.caller import call

        caller = call(bundle)
    ran = caller is not None and os.access(f"{bundle}/pid", os.F_OK, follow_symlinks=False)
    lived = record_exit(paths, name, environment)
    groups = list_groups(read_own_cgroup())
    if groups and is_frozen(groups[0]):
        # It was killed while it was paused: the copier has to go on.
        from usercontainerd.kernel.freezer import thaw_group

        thaw_group(groups[0])
    finish_copier(bundle, environment)
    # What is left is pasta, and systemd leaves it to us (KillMode=process). Taking down its network lasts as long as
    # everything else here, and begun now, it goes on beside it.
    kill_processes(groups)
    discard_runtime_state(paths, name)
    plan = read_plan(f"{bundle}/plan", None)  # it may have run since before an update
    if plan is not None and lived is not None:
        learn(paths, name, plan, environment, lived)
    if plan is not None and plan.remove:
        if will_start(paths, name):
            # It is prepared anew: how it was to be run was for the run that has ended.
            os.unlink(f"{bundle}/plan")
        else:
            delete_all(paths, name, plan)
    elif plan is not None and not plan.keep:
        delete_layer(paths, name, plan)
    kill_until_empty(groups, END_PATIENCE)
    if caller is not None:
        from usercontainerd.runtime.caller import render_end

        caller.send(render_end(environment, ran=ran))


def delete_all(paths: Paths, name: str, plan: LaunchPlan) -> None:
    """Delete whatever there is of a container that is removed when it has ended."""
    from usercontainerd.runtime.removal import remove_everything

    _delete_inside(remove_everything(paths, name), plan)


def delete_layer(paths: Paths, name: str, plan: LaunchPlan) -> None:
    """Delete the writable layer."""
    _delete_inside(discard_layer(paths, name), plan)


def _delete_inside(trash: str | None, plan: LaunchPlan) -> None:
    if trash is not None and not remove_tree(trash):
        # Files of subordinate IDs: theirs is the user namespace.
        from usercontainerd.kernel.userns import enter_user_namespace

        enter_user_namespace(plan.id_map)
        remove_tree(trash)


def main(arguments: list[str], environment: dict[str, str], will_start: WillStart) -> int:
    """``cleanup NAME``. ``will_start`` asks systemd whether the container is being restarted, not stopped."""
    if len(arguments) != 1 or not is_container_name(arguments[0]):
        os.write(2, b"usage: cleanup NAME (it is the ExecStopPost= of container@NAME.service)\n")
        return 125
    paths = Paths.from_environment(environment, os.getuid())
    try:
        clean_up(paths, arguments[0], environment, will_start)
    except (UsercontainerError, OSError) as error:
        from usercontainerd.kernel.notification import write_line

        write_line(str(error), 4, environment)
        return 1
    return 0
