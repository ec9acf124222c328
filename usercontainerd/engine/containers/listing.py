"""All containers and how they are: definitions on disk, units in systemd, what the last runs left.

No file of ours says "running": systemd knows. Nothing here parses TOML or JSON unless a summary is missing; what this
imports is fixed by a test.
"""

from __future__ import annotations

import os

from usercontainerd.base.names import container_name
from usercontainerd.definition.search import find_definitions
from usercontainerd.engine.containers.lookup import (
    container_id,
    definition_directories,
    find_group,
    has_definition,
    is_known,
)
from usercontainerd.kernel.cgroups import is_frozen
from usercontainerd.runtime.health import read_state
from usercontainerd.runtime.summary import Summary, exit_file, read_exit, read_summary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from usercontainerd.base.paths import Paths
    from usercontainerd.runtime.summary import ExitRecord
    from usercontainerd.systemd.manager import Manager, UnitStatus

UNITS = "container@*.service"


class State:
    """docker's states and ours. Not an enumeration: importing ``enum`` takes as long as asking systemd."""

    CREATED = "created"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    RESTARTING = "restarting"
    EXITED = "exited"
    FAILED = "failed"  # systemd could not start it, and it never came to run
    INVALID = "invalid"  # its definition has errors

    ALL = (CREATED, STARTING, RUNNING, PAUSED, STOPPING, RESTARTING, EXITED, FAILED, INVALID)
    ALIVE = (STARTING, RUNNING, PAUSED, STOPPING, RESTARTING)


class Container:
    """One container as a list shows it. Times in seconds since the epoch, 0 if unknown.

    ``exit`` is how the last run ended, of one that does not run; also while systemd starts it again by itself.
    ``group`` is the directory of its own cgroup while it runs or is paused, and ``health`` then what its checks say,
    if it has any.
    """

    __slots__ = ("created", "exit", "group", "health", "name", "started", "state", "summary")

    def __init__(
        self,
        name: str,
        state: str,
        summary: Summary,
        *,
        created: float = 0.0,
        started: float = 0.0,
        exit: ExitRecord | None = None,  # noqa: A002
        group: str | None = None,
        health: str = "",
    ) -> None:
        self.name = name
        self.state = state
        self.summary = summary
        self.created = created
        self.started = started
        self.exit = exit
        self.group = group
        self.health = health

    @property
    def id(self) -> str:
        """The whole ID."""
        return container_id(self.name)

    @property
    def is_alive(self) -> bool:
        """True from its start until it has stopped."""
        return self.state in State.ALIVE


def derive_state(active: str, sub: str, exit_record: ExitRecord | None) -> str:
    """Return our word for systemd's two (``ActiveState``, ``SubState``). Pure.

    ``exit_record`` is how the last start or run ended; what failed without coming to run has not exited.
    """
    if active in ("active", "reloading", "refreshing"):
        return State.RUNNING
    if active == "activating":
        return State.RESTARTING if sub.startswith("auto-restart") else State.STARTING
    if active == "deactivating":
        return State.STOPPING
    if active == "failed" and (exit_record is None or not exit_record.started):
        return State.FAILED
    return State.CREATED if exit_record is None else State.EXITED


def list_units(manager: Manager) -> dict[str, UnitStatus]:
    """Return the units of containers that systemd has loaded, by container."""
    units = {}
    for unit in manager.list_units(UNITS):
        name = container_name(unit.name)
        if name is not None:
            units[name] = unit
    return units


def list_containers(
    paths: Paths,
    units: dict[str, UnitStatus],
    summarise: Callable[[str], Summary],
    *,
    everything: bool = False,
) -> list[Container]:
    """Return the containers that are alive, or all of them, the newest first.

    ``summarise`` makes the summary of a container of which there is none yet.
    """
    names = {name for name, unit in units.items() if unit.active not in ("inactive", "failed")}
    if everything:
        found = find_definitions(definition_directories(paths))
        # A unit that failed for want of a definition is no container.
        names.update(
            name for name, unit in units.items() if unit.active == "failed" and is_known(paths, name)
        )
        names.update(each.name for each in found if not each.is_template)
    containers = [read_container(paths, name, units.get(name), summarise) for name in sorted(names)]
    return sorted(containers, key=lambda container: -container.created)


def read_container(
    paths: Paths, name: str, unit: UnitStatus | None, summarise: Callable[[str], Summary]
) -> Container:
    """Return one container; ``unit`` is None if systemd has not loaded it."""
    active, sub = ("inactive", "dead") if unit is None else (unit.active, unit.sub)
    alive = active not in ("inactive", "failed")
    again = active == "activating" and sub.startswith("auto-restart")
    record = read_exit(paths.container_data(name)) if again or not alive else None
    state = derive_state(active, sub, record)
    group = find_group(paths, name) if state == State.RUNNING else None
    if group is not None and is_frozen(group):
        state = State.PAUSED
    summary = choose_summary(paths, name, active, summarise)
    if summary.problem and not alive:
        state = State.INVALID
    return Container(
        name,
        state,
        summary,
        created=_read_time(summary.definition),
        started=_read_time(f"{paths.bundle(name)}/pid") if alive else 0.0,
        exit=record,
        group=group,
        health=read_state(paths, name).state if group is not None and summary.health else "",
    )


def choose_summary(paths: Paths, name: str, active: str, summarise: Callable[[str], Summary]) -> Summary:
    """Return what a container is, whose unit has the ``ActiveState`` ``active``.

    Of one that runs what its bundle was made from, whatever the definition says now; one that starts may still have the
    bundle of its last run.
    """
    runs = active not in ("inactive", "failed", "activating")
    summary = read_summary(f"{paths.bundle(name)}/summary") if runs else None
    return summary or read_cached_summary(paths, name) or summarise(name)


def forget_ended_runs(paths: Paths) -> None:
    """Forget how containers ended whose definition is gone: another one of that name is another container.

    What they have written stays until ``usercontainer rm``.
    """
    directory = os.path.dirname(paths.container_data("x"))
    try:
        names = os.listdir(directory)
    except OSError:
        return
    for name in names:
        if not has_definition(paths, name):
            try:
                os.unlink(exit_file(f"{directory}/{name}"))
            except OSError:
                continue


def _read_time(path: str) -> float:
    try:
        return os.stat(path).st_mtime if path else 0.0
    except OSError:
        return 0.0


def summary_cache(paths: Paths, name: str) -> str:
    """Where the summary of a container that does not run is kept."""
    return f"{paths.runtime}/summaries/{name}"


def read_cached_summary(paths: Paths, name: str) -> Summary | None:
    """Return the summary of a definition if it is still true."""
    summary = read_summary(summary_cache(paths, name))
    return summary if summary is not None and summary.is_current else None


def select_containers(containers: Iterable[Container], filters: dict[str, list[str]]) -> list[Container]:
    """Apply docker's ``--filter``s: of one kind any may match (of labels all must), of different kinds all.

    Raises ``InvalidArgument`` for a kind or value that there is not.
    """
    from usercontainerd.engine.containers.filters import build_test

    tests = [build_test(kind, values) for kind, values in filters.items()]
    return [container for container in containers if all(test(container) for test in tests)]
