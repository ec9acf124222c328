"""``write-units``: what the generator is for, as a service of the user's own (``usercontainerd-units.service``).

systemd looks for generators in the system's directories only, so a copy that a user has set up for himself brings a
pair of units: the service runs at login, and whenever ``usercontainerd-units.path`` sees a definition change::

    login: default.target wants usercontainerd-units.service
      write-units: writes $XDG_RUNTIME_DIR/systemd/user/container@NAME.service, Manager.Reload()
        systemd: default.target now wants the containers, and waits for them
      write-units: StartUnit() for each container whose target is starting or has been started
    a definition changes: the path unit starts the service
      write-units: the same, but starts nothing: a file that is saved must not

Our other programs run it with ``--only-write`` before they reload systemd themselves; ``usercontainer setup --remove``
with ``--remove``.
"""

from __future__ import annotations

import os
import sys

from usercontainerd.base.errors import InvalidArgument, UsercontainerError
from usercontainerd.base.paths import Paths
from usercontainerd.base.programs import find_programs
from usercontainerd.base.unitfile import UnitFile, render_path
from usercontainerd.generator.program import generate
from usercontainerd.generator.runtime_units import Written, plan_wishes, write_runtime_units
from usercontainerd.kernel.atomicfile import FileLock
from usercontainerd.kernel.trees import make_private_directories
from usercontainerd.systemd.manager import UNIT, Manager
from usercontainerd.systemd.renewal import find_generator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from usercontainerd.generator.entry import Entry

USAGE = "usage: write-units [--only-write | --remove]\n"
WATCHED = "usercontainerd-units.path.d/drop-ins.conf"
_MOST_ROUNDS = 10  # a file that changes all the time is looked at again by the path unit
_UNDERWAY = ("active", "activating", "reloading")


def main(arguments: list[str], environment: Mapping[str, str]) -> int:
    """``write-units [--only-write | --remove]``. Never fails for what is wrong with a definition."""
    if arguments not in ([], ["--only-write"], ["--remove"]):
        sys.stderr.write(USAGE)
        return 2
    paths = Paths.from_environment(environment, os.getuid())
    if not os.path.isdir(f"{paths.runtime_root}/systemd"):
        sys.stderr.write(f"write-units: no systemd of this user uses {paths.runtime_root}\n")
        return 1
    try:
        if arguments == ["--remove"]:
            failures = write_runtime_units(paths.runtime_units, (), {WATCHED: ""}).failures
        elif arguments:
            failures = write_definitions(paths, environment)[1].failures
        else:
            failures = serve_login(paths, environment)
    except UsercontainerError as error:
        failures = [str(error)]
    if failures:
        sys.stderr.write("".join(f"write-units: {line}\n" for line in failures))
    return 1 if failures else 0


def serve_login(paths: Paths, environment: Mapping[str, str]) -> list[str]:
    """Write and reload until nothing changes, then start what is due; return what went wrong."""
    failures: list[str] = []
    log: Sequence[str] = ()
    with Manager.connect(paths.runtime_root, environment.get("DBUS_SESSION_BUS_ADDRESS")) as manager:
        for _ in range(_MOST_ROUNDS):
            entries, written = write_definitions(paths, environment)
            failures = written.failures
            log = [line for entry in entries for line in entry.log]
            if not written.changed and not has_outdated(manager):
                break
            manager.reload()
        if not is_started(manager, "default.target"):
            failures += start_wanted(manager, entries)
    sys.stderr.write("".join(f"{line}\n" for line in log))
    return failures


def write_definitions(paths: Paths, environment: Mapping[str, str]) -> tuple[Sequence[Entry], Written]:
    """Write the units of all definitions; where there is a generator, none."""
    entries: Sequence[Entry] = ()
    extra = {WATCHED: ""}
    make_private_directories(paths.runtime)
    with FileLock(f"{paths.runtime}/units.lock"):
        if find_generator() is None:
            entries = generate(environment, os.getuid(), find_programs())
            extra = {WATCHED: render_watched(find_drop_ins(paths.definition_directories))}
        return entries, write_runtime_units(paths.runtime_units, entries, extra)


def find_drop_ins(directories: Iterable[str]) -> list[str]:
    """Return the directories of drop-ins (``NAME.toml.d``)."""
    found = []
    for directory in directories:
        try:
            names = os.listdir(directory)
        except OSError:
            continue
        found += [f"{directory}/{name}" for name in sorted(names) if name.endswith(".toml.d")]
    return found


def render_watched(directories: Iterable[str]) -> str:
    """Return a drop-in for the path unit, "" if there is nothing to watch. Pure."""
    unit = UnitFile()
    any_path = False
    for directory in directories:
        try:
            unit.add("Path", "PathChanged", render_path(directory))
        except InvalidArgument:
            continue
        any_path = True
    return unit.render() if any_path else ""


def has_outdated(manager: Manager) -> bool:
    """Tell whether systemd knows a container by an older file: one that was saved without a change, too."""
    units = manager.list_units("container@*.service")
    return any(manager.get_properties([(unit.name, UNIT, "NeedDaemonReload") for unit in units]))


def is_started(manager: Manager, unit: str) -> bool:
    """Tell whether ``unit`` is there already, and not only on its way."""
    return bool(manager.get_properties([(unit, UNIT, "ActiveState")])[0] == "active")


def start_wanted(manager: Manager, entries: Iterable[Entry]) -> list[str]:
    """Start each container that a target wants which is active or on its way; return what went wrong."""
    failures = []
    wishes = list(plan_wishes(entries))
    due = {target: _is_due(manager, target) for target in {target for target, _ in wishes}}
    for unit in dict.fromkeys(unit for target, unit in wishes if due[target]):
        try:
            manager.queue_job("StartUnit", unit, "fail")
        except UsercontainerError as error:
            failures.append(f"{unit}: {error}")
    return failures


def _is_due(manager: Manager, unit: str) -> bool:
    state, job = manager.get_properties([(unit, UNIT, "ActiveState"), (unit, UNIT, "Job")])
    return state in _UNDERWAY or bool(job and job[0])
