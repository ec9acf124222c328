"""Changing the limits and the restart policy of a container that ``create`` or ``run`` has made, for good.

Its definition is written anew and its unit with it; systemd takes both by a reload, which leaves a container that runs
alone. So the definition, ``systemctl --user cat`` and the kernel's files say the same, and still do after a restart and
a reboot. ``systemctl set-property`` would leave a drop-in that the definition knows nothing of.

systemd writes new limits into a cgroup only when it has to do with it again: a process is "moved" to where it is.
"""

from __future__ import annotations

import os

from usercontainerd.base.errors import InUse, InvalidArgument, InvalidDefinition, NoSuchContainer
from usercontainerd.base.names import unit_name
from usercontainerd.base.records import dataclass, replace
from usercontainerd.definition.model import Restart
from usercontainerd.definition.reader import load_definition
from usercontainerd.definition.schema import DIRECTIVES
from usercontainerd.definition.search import Found, find_definition
from usercontainerd.definition.toml_reader import SourceText, parse_definition, parse_table
from usercontainerd.engine.containers.autostart import DEFAULT_TARGET
from usercontainerd.engine.containers.creation import render_created
from usercontainerd.engine.containers.lookup import find_init
from usercontainerd.engine.containers.preparation import plan_repeated_limits
from usercontainerd.engine.definitions import build_owner, definition_directories, explain_missing
from usercontainerd.kernel.atomicfile import FileLock, explain_write_error, write_atomic
from usercontainerd.kernel.cgroups import find_cgroup_mount, write_file
from usercontainerd.kernel.trees import make_private_directories
from usercontainerd.systemd.renewal import reload_definitions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

    from usercontainerd.definition.diagnostic import Diagnostic
    from usercontainerd.definition.model import Definition, Directives
    from usercontainerd.engine.context import Context
    from usercontainerd.systemd.manager import Manager

RESOURCES = ("memory", "memory_high", "swap", "cpus", "cpu_weight", "pids", "io_weight")
# Directives that can be changed, too: the reservation of memory, and what goes with a restart policy.
RESERVATION = "MemoryLow"
PACE = {
    "unit": ("StartLimitIntervalSec", "StartLimitBurst"),
    "service": ("RestartSec", "RestartSteps", "RestartMaxDelaySec"),
    "install": ("WantedBy",),
}
# Files of the container's own cgroup that repeat limits of its unit's.
_FILES = ("memory.max", "memory.high", "pids.max", "cpu.max")


@dataclass(frozen=True)
class Changes:
    """What is to be different. ``wanted`` has the new values; ``keys`` says which of its resources are meant.

    ``lifted`` are resources (and ``memory_low``) whose limit is taken away. ``total`` is a limit of memory and swap
    together, -1 for none of swap. ``restarts`` is true if the restart policy is to change, with its directives.
    """

    wanted: Definition
    keys: frozenset[str] = frozenset()
    lifted: frozenset[str] = frozenset()
    total: int | None = None
    restarts: bool = False


def plan_changes(
    context: Context,
    name: str,
    table: dict[str, Any],
    *,
    lifted: Collection[str] = (),
    total: int | None = None,
) -> tuple[Changes | None, tuple[Diagnostic, ...]]:
    """Return the changes that ``table`` means (keys of a definition, as ``parse_table`` takes them), or what is wrong.

    Raises ``InvalidArgument`` for what cannot be changed.
    """
    _check_keys(table, lifted)
    resources = table.get("resources")
    keys = frozenset(resources) if isinstance(resources, dict) else frozenset()
    if twice := sorted(keys & set(lifted)):
        raise InvalidArgument(f"{twice[0]} is both set and taken away")
    if not table and not lifted and total is None:
        raise InvalidArgument("there is nothing to change")
    wanted, diagnostics = parse_table(name, {"image": "none", **table}, build_owner(context), context.home)
    if wanted is None:
        return None, diagnostics
    return Changes(wanted, keys, frozenset(lifted), total, "restart" in table), diagnostics


def _check_keys(table: dict[str, Any], lifted: Collection[str]) -> None:
    possible: dict[str, tuple[str, ...]] = {
        "restart": (),
        "resources": RESOURCES,
        **PACE,
        "service": (RESERVATION, *PACE["service"]),
    }
    for key, value in table.items():
        if key not in possible:
            raise InvalidArgument(f'"{key}" cannot be changed', hint=f"possible are {', '.join(possible)}")
        names = possible[key]
        for each in value if isinstance(value, dict) else ():
            if each not in names:
                hint = f"possible are {', '.join(names)}"
                raise InvalidArgument(f'"{each}" of [{key}] cannot be changed', hint=hint)
            if "restart" not in table and each in PACE.get(key, ()):
                raise InvalidArgument(f"{each}= goes with a restart policy", hint="give restart, too")
    for each in lifted:
        if each not in (*RESOURCES, "memory_low"):
            raise InvalidArgument(f'there is no limit "{each}"', hint=f"there are {', '.join(RESOURCES)}")


def update_container(context: Context, manager: Manager, name: str, changes: Changes) -> None:
    """Make the changes; on return they hold, for a container that runs, too.

    Raises ``InUse`` for a container that a file of the user's defines, ``NoSuchContainer``, ``InvalidArgument``,
    ``InvalidDefinition``, ``StoreError``.
    """
    paths = context.paths
    directory = f"{paths.data}/locks"
    try:
        make_private_directories(directory)
    except OSError as error:
        raise explain_write_error(error, directory) from error
    with FileLock(f"{directory}/created"):
        path = find_created(context, name, changes)
        former, diagnostics = load_definition(Found(name, path), build_owner(context))
        if former is None:
            raise explain_problems(diagnostics)
        definition = apply_changes(former, changes)
        text = render_created(definition)
        # What is wrong only when seen together: a container that goes when it has ended cannot be restarted.
        checked, diagnostics = parse_definition(name, [SourceText(path, text)], build_owner(context))
        if checked is None:
            raise InvalidArgument("; ".join(each.message for each in diagnostics if each.is_error))
        _rewrite(path, text)
        reload_definitions(manager)
        renew_limits(context, manager, name)


def find_created(context: Context, name: str, changes: Changes) -> str:
    """Return the definition that ``create`` wrote. Raises ``InUse`` for one that a person has written."""
    paths = context.paths
    directories = definition_directories(context)
    found = find_definition(directories, name)
    if found is None:
        raise explain_missing(name, directories[0])
    if os.path.dirname(found.path) in (paths.created_definitions, paths.passing_definitions):
        return found.path
    drop_in = f"{paths.definition_directories[0]}/{name}.toml.d/limits.toml"
    keys = ", ".join(describe_keys(changes))
    raise InUse(
        "the container is defined by this file, which is yours to edit",
        where=found.path,
        hint=f"change {keys} in it, or in a drop-in such as {drop_in}; then `systemctl --user daemon-reload`, and "
        f"`usercontainer restart {name}` if it runs",
    )


def describe_keys(changes: Changes) -> list[str]:
    """The keys of a definition that the changes are about. Pure."""
    keys = {*changes.keys, *(each for each in changes.lifted if each != "memory_low")}
    named = [f"resources.{key}" for key in RESOURCES if key in keys or (key == "swap" and changes.total)]
    if "memory_low" in changes.lifted or dict(changes.wanted.service).get(RESERVATION):
        named.append(f"service.{RESERVATION}")
    return [*named, *(["restart"] if changes.restarts else [])]


def explain_problems(diagnostics: tuple[Diagnostic, ...]) -> InvalidDefinition:
    """The error for a definition that cannot be read."""
    return InvalidDefinition("; ".join(str(each) for each in diagnostics if each.is_error))


def apply_changes(former: Definition, changes: Changes) -> Definition:
    """Return the definition with the changes made. Pure. Raises ``InvalidArgument``.

    A directive that says the same as a key has the last word, so one for a key that changes goes.
    """
    wanted = changes.wanted
    values: dict[str, Any] = {key: getattr(wanted.resources, key) for key in changes.keys}
    values |= {key: None for key in changes.lifted if key != "memory_low"}
    resources = replace(former.resources, **values)
    if changes.total is not None:
        resources = replace(resources, swap=plan_swap(resources.memory, changes.total))
        values["swap"] = resources.swap
    stale = {DIRECTIVES[f"resources.{key}"][1] for key in values}
    reservation = tuple(pair for pair in wanted.service if pair[0] == RESERVATION)
    if reservation or "memory_low" in changes.lifted:
        stale.add(RESERVATION)
    definition = replace(
        former, resources=resources, service=(*_without(former.service, stale), *reservation)
    )
    return apply_policy(definition, wanted) if changes.restarts else definition


def plan_swap(memory: int | None, total: int) -> int:
    """Return the swap beside ``memory`` that docker's sum of both means. Raises ``InvalidArgument``."""
    if total == -1:
        return -1
    if memory is None or total < memory:
        raise InvalidArgument(
            "--memory-swap counts memory, too: it needs a limit of memory, and at least as much"
        )
    return total - memory


def apply_policy(former: Definition, wanted: Definition) -> Definition:
    """Return ``former`` with the restart policy of ``wanted``, and with what went with the old one gone. Pure.

    ``--restart always`` has a container start with the session, too; another policy takes that back.
    """
    stale = {*PACE["unit"], *PACE["service"], "Restart"}
    install = dict(former.install)
    taken = (DEFAULT_TARGET,) if former.restart is Restart.ALWAYS is not wanted.restart else ()
    targets = [*install.pop("WantedBy", ()), *dict(wanted.install).get("WantedBy", ())]
    targets = [each for each in dict.fromkeys(targets) if each not in taken]
    if targets:
        install["WantedBy"] = tuple(targets)
    pace = tuple(pair for pair in wanted.service if pair[0] in PACE["service"])
    return replace(
        former,
        restart=wanted.restart,
        unit=(*_without(former.unit, stale), *wanted.unit),
        service=(*_without(former.service, stale), *pace),
        install=tuple(install.items()),
    )


def _without(directives: Directives, names: Collection[str]) -> Directives:
    return tuple(pair for pair in directives if pair[0] not in names)


def _rewrite(path: str, text: str) -> None:
    """Replace the definition; its time stays, which is the container's time of creation."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise NoSuchContainer("it has just been removed", where=path) from error
    write_atomic(path, text.encode("utf-8", "surrogateescape"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def renew_limits(context: Context, manager: Manager, name: str) -> None:
    """Have the limits of the unit, as systemd knows it now, hold for a container that runs."""
    init = find_init(context.paths, name)
    if init is None:
        return
    os.close(init.fd)
    manager.attach_processes(unit_name(name), init.subgroup, [init.pid])
    # Drop-ins of the user's count, too.
    found = find_definition(definition_directories(context), name)
    definition = None if found is None else load_definition(found, build_owner(context))[0]
    if definition is None:
        return
    limits = {**dict.fromkeys(_FILES, "max"), **dict(plan_repeated_limits(definition.resources))}
    for file, value in limits.items():
        try:
            write_file(f"{find_cgroup_mount()}{init.cgroup}/{file}", value)
        except OSError:
            continue  # the controller is not handed on
