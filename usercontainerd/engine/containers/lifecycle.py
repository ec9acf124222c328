"""Start, stop, restart and remove: systemd's jobs on a container's unit, and what is put away when it goes for good."""

from __future__ import annotations

import os
import time

from usercontainerd.base.errors import InUse, Paused, StoreError, SystemdError
from usercontainerd.base.names import health_timer, unit_name
from usercontainerd.kernel.cgroups import SUBGROUP, find_cgroup_mount, is_frozen
from usercontainerd.systemd.bus import BusError
from usercontainerd.systemd.manager import NO_SUCH_UNIT, SERVICE, UNIT
from usercontainerd.systemd.message import MEMBER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from usercontainerd.base.paths import Paths
    from usercontainerd.engine.context import Context
    from usercontainerd.systemd.manager import Manager
    from usercontainerd.systemd.message import Message

_IDLE = ("inactive", "failed")
_SIGKILL = 9
_REPORT_INTERVAL = 0.5  # seconds between two looks at a status text


def start_container(manager: Manager, name: str, *, report: Callable[[str], None] | None = None) -> None:
    """Start a container and wait until it has; one that runs is left as it is.

    The definition is used as it is now, and a start asked for by hand is not held back by earlier failures. While it
    takes long (a pull), ``report`` is told the unit's status text whenever that is a new one. Raises ``UnitFailure``,
    ``Paused``.
    """
    unit = unit_name(name)
    active, is_stale = manager.get_properties([(unit, UNIT, "ActiveState"), (unit, UNIT, "NeedDaemonReload")])
    if active == "active":
        if find_frozen_groups(manager, [name]):
            raise Paused("the container is paused", where=name, hint=f"usercontainer unpause {name}")
        return
    _renew_unit(manager, unit, active, is_stale)
    job = manager.queue_job("StartUnit", unit)
    told = ""
    while not (result := manager.wait_job(job, timeout=None if report is None else _REPORT_INTERVAL)):
        (text,) = manager.get_properties([(unit, SERVICE, "StatusText")])
        if text and text != told and report is not None:
            told = text
            report(text)
    manager.check_result(result, unit)


def restart_container(manager: Manager, name: str, *, timeout: float | None = None) -> None:
    """Stop a container if it runs, and start it, as ``stop_containers`` and ``start_container`` do.

    That is one job of systemd's: units that require this one are restarted with it, and a container that is removed
    when it has ended sees by the job that it has not. Raises ``UnitFailure``.
    """
    unit = unit_name(name)
    active, is_stale, pid = manager.get_properties(
        [(unit, UNIT, "ActiveState"), (unit, UNIT, "NeedDaemonReload"), (unit, SERVICE, "MainPID")]
    )
    _renew_unit(manager, unit, active, is_stale)
    # Held: what is to be killed after the time is this process, and not the one that comes after it.
    init = _open_process(pid) if timeout is not None and pid else None
    try:
        paused = _unfreeze_units(manager, (name,))
        job = manager.queue_job("RestartUnit", unit)
        _thaw_groups(paused)
        result = manager.wait_job(job, timeout=timeout)
        if not result:
            if init is not None:
                from usercontainerd.kernel.signals import send_signal

                send_signal(init, _SIGKILL)
            result = manager.wait_job(job)
    finally:
        if init is not None:
            os.close(init)
    manager.check_result(result, unit)


def _renew_unit(manager: Manager, unit: str, active: str, is_stale: bool) -> None:
    """Have systemd read the definition as it is now, and forget earlier failures."""
    if is_stale:
        from usercontainerd.systemd.renewal import reload_definitions

        reload_definitions(manager)
    if active == "failed":
        manager.reset_failed(unit)


def _open_process(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None  # it has just ended


def _unfreeze_units(manager: Manager, names: Sequence[str]) -> list[str]:
    """Have systemd able to stop paused containers; return their groups, to be thawed when it has been told to."""
    paused = find_frozen_groups(manager, names)
    for name, group in paused.items():
        from usercontainerd.engine.containers.pausing import unfreeze_unit

        unfreeze_unit(manager, name, group)
    return list(paused.values())


def _thaw_groups(groups: Sequence[str]) -> None:
    for group in groups:
        from usercontainerd.kernel.freezer import thaw_group

        thaw_group(group)


def stop_containers(manager: Manager, names: Iterable[str], *, timeout: float | None = None) -> None:
    """Stop containers, all at once, and wait until they have; those that do not run are left as they are.

    What still runs after ``timeout`` seconds is killed; None leaves that to the units. A unit's own stop timeout is
    not prolonged. A paused one goes on, once it has been told to stop.
    """
    jobs = {}
    names = tuple(names)
    paused = _unfreeze_units(manager, names)
    for name in names:
        unit = unit_name(name)
        try:
            jobs[str(manager.call("StopUnit", "ss", unit, "replace")[0])] = unit
        except BusError as error:
            if error.dbus_name != NO_SUCH_UNIT:
                raise SystemdError(error.what, where=unit) from error
    _thaw_groups(paused)
    deadline = None if timeout is None else time.monotonic() + timeout
    while jobs:
        left = None if deadline is None else max(0.001, deadline - time.monotonic())
        ended = _wait_any_job(manager, set(jobs), left)
        if ended is not None:
            del jobs[ended]
            continue
        deadline = None
        for unit in jobs.values():
            _kill_init(manager, unit)


def find_frozen_groups(manager: Manager, names: Sequence[str]) -> dict[str, str]:
    """Return the directory of each paused container's own cgroup, by its name."""
    units = manager.get_properties([(unit_name(name), SERVICE, "ControlGroup") for name in names])
    mount = find_cgroup_mount()
    groups = {name: f"{mount}{unit}/{SUBGROUP}" for name, unit in zip(names, units, strict=True) if unit}
    return {name: group for name, group in groups.items() if is_frozen(group)}


def _wait_any_job(manager: Manager, jobs: set[str], timeout: float | None) -> str | None:
    def is_end(signal: Message) -> bool:
        return signal.fields.get(MEMBER) == "JobRemoved" and len(signal.body) == 4 and signal.body[1] in jobs

    signal = manager.bus.wait_signal(is_end, timeout=timeout)
    return None if signal is None else signal.body[1]


def _kill_init(manager: Manager, unit: str) -> None:
    # All of the container goes with its init. "all" would kill our own clean-up, too, and systemd would do it by the
    # unit's cgroup.kill: see kernel/cgroups.py.
    try:
        manager.call("KillUnit", "ssi", unit, "main", _SIGKILL)
    except BusError:
        pass  # it has just ended


def is_idle(manager: Manager, name: str) -> bool:
    """Tell whether nothing of the container's unit runs, nor is about to: one that is restarted is not idle."""
    units = manager.list_units(unit_name(name))
    return all(unit.active in _IDLE and not unit.job for unit in units)


def remove_container(context: Context, manager: Manager, name: str, *, force: bool = False) -> None:
    """Remove a container made by ``create``, or what is left of one whose definition is gone.

    Raises ``InUse`` for a running one unless ``force`` kills it first, and for one that a file of the user's (or the
    administrator's) defines: that file is not ours to remove.
    """
    from usercontainerd.engine.containers.autostart import forget_choice
    from usercontainerd.kernel.trees import remove_file
    from usercontainerd.systemd.renewal import find_generator, reload_definitions, write_drop_in

    paths = context.paths
    path = find_own_definition(paths, name)
    if path is not None:
        raise InUse(
            "the container is defined by this file",
            where=path,
            hint=f"remove the file first, then `usercontainer rm {name}` removes what the container has left",
        )
    unit = unit_name(name)
    if not is_idle(manager, name):
        if not force:
            raise InUse("the container runs", where=name, hint=f"usercontainer stop {name}, or rm --force")
        stop_containers(manager, [name], timeout=0)
    fragment = str(manager.get_properties([(unit, UNIT, "FragmentPath")])[0] or "")
    for directory in (paths.created_definitions, paths.passing_definitions):
        remove_file(f"{directory}/{name}.toml")
    for file in (unit, health_timer(name)):
        remove_file(f"{paths.runtime_units}/{file}")
    write_drop_in(paths.runtime_root, unit, "")
    forget_choice(paths, name)
    manager.reset_failed(unit)
    if "/generator" in fragment or find_generator() is None:
        reload_definitions(manager)  # the generator's unit and its links go with the definition
    remove_remains(context, name)


def find_own_definition(paths: Paths, name: str) -> str | None:
    """Return the file that defines this very container, if a person (or a package) has written it.

    A template does not count: of an instance, what it has left can be removed.
    """
    from usercontainerd.definition.search import find_definition

    found = find_definition(paths.definition_directories, name)
    return None if found is None or found.template is not None else found.path


def remove_remains(context: Context, name: str) -> None:
    """Remove what a container that does not run has on disk: bundle, writable layer, caches.

    Raises ``StoreError`` if something is left.
    """
    from usercontainerd.engine.containers.listing import summary_cache
    from usercontainerd.engine.images.local import empty_trash
    from usercontainerd.kernel.trees import make_private_directories, remove_file, remove_tree
    from usercontainerd.runtime.health import health_file
    from usercontainerd.runtime.remains import discard_runtime_state, trash_directory

    paths = context.paths
    discard_runtime_state(paths, name)
    remove_file(summary_cache(paths, name))
    remove_file(health_file(paths, name))
    whole = remove_tree(paths.bundle(name))
    trash = trash_directory(paths)
    target = f"{trash}/container-{os.getpid()}-{os.urandom(6).hex()}"
    try:
        make_private_directories(trash)
        os.rename(paths.container_data(name), target)
    except FileNotFoundError:
        pass
    # Files of subordinate IDs can only be removed inside the user namespace.
    if not remove_tree(target):
        empty_trash(context)
        whole = whole and not os.path.lexists(target)
    if not whole:
        raise StoreError("something of the container could not be removed", where=target)
