"""``doctor``: systemd's user manager, its cgroup, the bus, lingering, the journal."""

from __future__ import annotations

import os

from usercontainerd.base.errors import SystemdError
from usercontainerd.base.programs import LIBEXEC, find_top, is_checkout
from usercontainerd.engine.host.doctor import Finding, fine, lost, missing, read_text
from usercontainerd.engine.setup.check import Effect, Inspection, find_effect, inspect_setup
from usercontainerd.kernel.cgroups import find_cgroup_mount
from usercontainerd.systemd.renewal import GENERATOR, GENERATOR_DIRECTORIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from usercontainerd.engine.context import Context

DROP_IN = "/etc/systemd/system/user@.service.d/delegate.conf"
DELEGATE = (
    f"sudo mkdir -p {os.path.dirname(DROP_IN)} && printf '[Service]\\nDelegate=cpu cpuset io memory pids\\n' | "
    f"sudo tee {DROP_IN} && sudo systemctl daemon-reload, and log in again"
)
MEND_SETUP = "usercontainer setup, or install usercontainerd as a package"
# What of a definition has no effect without each controller.
CONTROLLERS = {
    "cpu": "cpus and cpu_weight have no effect",
    "io": "io_weight has no effect",
    "memory": "memory, memory_high and swap have no effect",
    "pids": "pids has no effect",
}


def check_runtime_directory(context: Context) -> Iterator[Finding]:
    """XDG_RUNTIME_DIR, which login sessions and lingering users have."""
    path = context.paths.runtime_root
    try:
        status = os.stat(path)
    except OSError as error:
        yield missing(
            "runtime directory", f"{path}: {error.strerror}", f"loginctl enable-linger {context.user}"
        )
        return
    if status.st_uid != context.uid:
        yield missing(
            "runtime directory",
            f"{path} belongs to user {status.st_uid}",
            "log in as the user (not by su or sudo): machinectl shell USER@",
        )
        return
    said = dict(context.environment).get("XDG_RUNTIME_DIR")
    yield fine("runtime directory", path if said else f"{path} (XDG_RUNTIME_DIR is not set)")


def check_user_manager(context: Context) -> Iterator[Finding]:
    """systemd --user: reached, its version, its controllers, our units."""
    from usercontainerd.systemd.manager import Manager

    address = dict(context.environment).get("DBUS_SESSION_BUS_ADDRESS")
    try:
        manager = Manager.connect(context.paths.runtime_root, address)
    except SystemdError as error:
        yield missing("systemd --user", str(error), f"sudo loginctl enable-linger {context.user}, or log in")
        return
    with manager:
        reply = manager.bus.call(
            "org.freedesktop.systemd1",
            "/org/freedesktop/systemd1",
            "org.freedesktop.DBus.Properties",
            "GetAll",
            "s",
            "org.freedesktop.systemd1.Manager",
        )[0]
        properties = {key: variant.value for key, variant in reply.items()}
        units = manager.get_properties(
            [("container@usercontainer-doctor.service", "org.freedesktop.systemd1.Unit", "LoadState")]
        )
    yield fine("systemd --user", f"version {properties.get('Version', 'unknown')}")
    group = find_cgroup_mount() + str(properties.get("ControlGroup", ""))
    yield from judge_controllers(read_text(f"{group}/cgroup.controllers"))
    yield judge_units(find_effect(context.paths).generator, units[0] == "loaded")


def judge_controllers(text: str | None) -> Iterator[Finding]:
    """One finding for each controller, by the text of cgroup.controllers; None: no cgroup v2 there. Pure."""
    if text is None:
        yield lost(
            "cgroup v2",
            "the user manager has no cgroup of the unified hierarchy",
            "no limit has any effect",
            "boot with systemd.unified_cgroup_hierarchy=1",
        )
        return
    delegated = text.split()
    for controller, effect in CONTROLLERS.items():
        name = f"cgroup {controller}"
        if controller in delegated:
            yield fine(name, "delegated")
        else:
            yield lost(name, "not delegated to users", effect, DELEGATE)


def judge_units(generator: str | None, has_template: bool) -> Finding:
    """Whether definitions become units. Pure."""
    if generator is None:
        return lost(
            "generator",
            f"{GENERATOR} is not in {GENERATOR_DIRECTORIES[-1]}, and no unit stands in for it",
            "definitions do not become units, nothing starts at login",
            MEND_SETUP,
        )
    if not has_template:
        return lost(
            "generator",
            "container@.service is not installed",
            "a new definition needs systemctl --user daemon-reload before its first start",
            MEND_SETUP,
        )
    return fine("generator", generator)


def check_set_up(context: Context) -> Iterator[Finding]:
    """Whether all files of a copy that pip installed are in place and of its version, and which copy is in effect."""
    if is_checkout(find_top()):
        yield fine("set-up", "a checkout")
        return
    yield judge_setup(
        inspect_setup(dict(context.environment), context.uid),
        find_effect(context.paths),
        context.programs.directory,
    )


def judge_setup(found: Inspection, effect: Effect, programs: str) -> Finding:
    """By what was found. Pure."""
    if found.record is None and found.own is not None:
        return missing("set-up", f"the copy in {found.own.prefix} is not set up", MEND_SETUP)
    if found.problems:
        first, more = found.problems[0], len(found.problems) - 1
        told = f"{first.what}: {first.where}" + (f" (and {more} more)" if more else "")
        return lost("set-up", told, "perhaps everything; `usercontainer setup --check` lists it", MEND_SETUP)
    if effect.bus is not None and not effect.bus.endswith(f" {programs.removesuffix(f'/{LIBEXEC}')}"):
        return lost(
            "set-up", f"in effect is {effect.bus}", "this copy is not the one that answers on D-Bus", ""
        )
    return fine("set-up", f"version {found.record.version}" if found.record else "a package of the system")


def check_session_bus(context: Context) -> Iterator[Finding]:
    """The bus that desktop apps talk to us by; starting containers does not need it."""
    from usercontainerd.systemd.bus import Bus

    address = dict(context.environment).get("DBUS_SESSION_BUS_ADDRESS")
    address = address or f"unix:path={context.paths.runtime_root}/bus"
    try:
        Bus.connect(address).close()
    except SystemdError as error:
        yield lost(
            "session bus", str(error), "the D-Bus interface", "install dbus-user-session or dbus-broker"
        )
    else:
        yield fine("session bus", address)


def check_linger(context: Context) -> Iterator[Finding]:
    """Whether the user's containers outlive the login session."""
    if os.path.exists(f"/var/lib/systemd/linger/{context.user}"):
        yield fine("linger", "enabled")
    else:
        yield lost(
            "linger",
            "not enabled",
            "containers stop when you log out, and do not start at boot",
            f"sudo loginctl enable-linger {context.user}",
        )


def check_journal(_context: Context) -> Iterator[Finding]:
    """Whether logs can be read, those of processes that are not root in their container too."""
    from usercontainerd.engine.containers.logs import list_journal_files

    files = list_journal_files()
    readable = [file for file in files if os.access(file, os.R_OK)]
    mend = "sudo usermod --append --groups systemd-journal $USER, and log in again"
    if not readable:
        yield lost("journal", "cannot be read", "`usercontainer logs` shows nothing", mend)
    elif len(readable) < len(files):
        yield lost(
            "journal",
            "only the user's own can be read",
            "`usercontainer logs` does not show what processes write that are not root in their container",
            mend,
        )
    else:
        yield fine("journal", "can be read")


SESSION_CHECKS = (
    check_set_up,
    check_runtime_directory,
    check_user_manager,
    check_session_bus,
    check_linger,
    check_journal,
)
