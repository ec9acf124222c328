"""Having systemd load a unit anew while it is being started.

A definition that is edited while its container is stopped escapes systemd's notice: it compares times only
of units that are loaded. Whoever reads the definition at the start can compare the text of the unit with
what it should be.

A reload in the middle of a start is sound: the start goes on under the new settings. Restart and stop
settings hold at once; what concerns a process from its beginning (``Nice=``, ``LimitNOFILE=``,
``Environment=``) does for commands that are yet to be run, as the main one is during ``ExecStartPre=``;
limits are written into the cgroup before the next command, or when a process is attached to the unit.
"""

from __future__ import annotations

import os
from errno import ENOTEMPTY

from usercontainerd.base.errors import SystemdError
from usercontainerd.base.programs import find_programs
from usercontainerd.kernel.atomicfile import explain_write_error, write_atomic
from usercontainerd.kernel.cgroups import read_cgroup
from usercontainerd.systemd.manager import SERVICE, Manager

PRE_COMMAND = "renew-unit"
DROP_IN = "10-image.conf"
GENERATED = "# Generated from "  # how every unit begins that was made from a definition
GENERATOR = "usercontainerd-generator"
# systemd.generator(7): there is none for a single user.
GENERATOR_DIRECTORIES = (
    "/run/systemd/user-generators",
    "/etc/systemd/user-generators",
    "/usr/local/lib/systemd/user-generators",
    "/usr/lib/systemd/user-generators",
)


def find_generator() -> str | None:
    """Return the path of the generator that systemd runs, None if ``write-units`` stands in for it."""
    paths = (f"{directory}/{GENERATOR}" for directory in GENERATOR_DIRECTORIES)
    return next((path for path in paths if os.path.exists(path)), None)


def reload_definitions(manager: Manager) -> None:
    """Have systemd know all definitions as they are now: a reload, before which ``write-units`` runs if it has to."""
    if find_generator() is None:
        write_units()
    manager.reload()


def write_units() -> None:
    """Run ``write-units``, which leaves the reload to us. Raises ``SystemdError``."""
    import subprocess

    command = [find_programs().write_units, "--only-write"]
    try:
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        problem = result.stderr.strip() if result.returncode else ""
    except OSError as error:
        problem = f"{error.strerror}"
    if problem:
        raise SystemdError(
            problem, where=command[0], hint="`usercontainer setup --check` tells what is missing"
        )


def is_generated_unit_current(runtime_root: str, unit: str, text: str) -> bool:
    """Tell whether ``text`` was generated for ``unit``; True as well if nothing was."""
    directory = "user" if find_generator() is None else "generator"
    try:
        with open(
            f"{runtime_root}/systemd/{directory}/{unit}", encoding="utf-8", errors="surrogateescape"
        ) as file:
            return file.read() == text
    except OSError:
        return True


def reload_stale_unit(
    runtime_root: str,
    unit: str,
    text: str,
    drop_in: str = "",
    *,
    timers: tuple[str, str, str] = ("", "", ""),
    bus_address: str | None = None,
) -> bool:
    """Reload systemd if the generated ``unit`` is not ``text`` any more, or its drop-in of run time not ``drop_in``.

    Returns whether that was so. An empty ``drop_in`` is none. ``timers`` are the name of a timer that goes with the
    unit, its text if it was generated, and its text if it is one of run time. Limits hold at once, too. Raises
    ``SystemdError`` when systemd cannot be reached, ``StoreError`` when the drop-in cannot be written.
    """
    timer, generated, passing = timers
    changed = write_drop_in(runtime_root, unit, drop_in)
    if timer:
        changed = write_passing_timer(runtime_root, timer, passing) or changed
        if generated and not is_generated_unit_current(runtime_root, timer, generated):
            changed = True
    if not changed and is_generated_unit_current(runtime_root, unit, text):
        return False
    with Manager.connect(runtime_root, bus_address) as manager:
        reload_definitions(manager)
        (pid,) = manager.get_properties([(unit, SERVICE, "MainPID")])
        subgroup = read_subgroup(unit, pid) if pid else None
        if subgroup is not None:
            manager.attach_processes(unit, subgroup, [pid])  # to where it is
    return True


def write_drop_in(runtime_root: str, unit: str, text: str) -> bool:
    """Have the unit's drop-in hold ``text``, or be gone if that is empty; return whether it was otherwise."""
    directory = f"{runtime_root}/systemd/user/{unit}.d"
    path = f"{directory}/{DROP_IN}"
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            before = file.read()
    except OSError:
        before = ""
    if before == text:
        return False
    try:
        if text:
            os.makedirs(directory, exist_ok=True)
            write_atomic(path, text.encode(), mode=0o644, sync=False)
        else:
            os.unlink(path)
            os.rmdir(directory)
    except OSError as error:
        if error.errno != ENOTEMPTY:
            raise explain_write_error(error, path) from error
    return True


def write_passing_timer(runtime_root: str, timer: str, text: str) -> bool:
    """Have the timer of run time hold ``text``, or be gone if that is empty; return whether it was otherwise.

    One that was made from a definition, where no generator is, or for a container that it does not know yet, stays.
    """
    path = f"{runtime_root}/systemd/user/{timer}"
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            before = file.read()
    except OSError:
        before = ""
    if before == text or (not text and before.startswith(GENERATED)):
        return False
    try:
        if text:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            write_atomic(path, text.encode(), mode=0o644, sync=False)
        else:
            os.unlink(path)
    except OSError as error:
        raise explain_write_error(error, path) from error
    return True


def read_subgroup(unit: str, pid: int) -> str | None:
    """Return where in the cgroup of ``unit`` the process is (``/`` or a path below), None if it is elsewhere."""
    _, found, below = f"{read_cgroup(pid) or ''}/".partition(f"/{unit}/")
    return (f"/{below}".rstrip("/") or "/") if found else None


def reload_unknown_unit(runtime_root: str, unit: str, bus_address: str | None = None) -> bool:
    """Reload systemd; return whether ``unit`` now is one that the generator knows how to start.

    Those that it does not have ``renew-unit`` as a command before the main one.
    """
    with Manager.connect(runtime_root, bus_address) as manager:
        reload_definitions(manager)
        (commands,) = manager.get_properties([(unit, SERVICE, "ExecStartPre")])
    return not any(command[0].rpartition("/")[2] == PRE_COMMAND for command in commands or ())
