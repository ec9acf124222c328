"""``usercontainer setup``: what pip leaves undone."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess

from usercontainerd.base.errors import HostError, InUse, InvalidArgument, SystemdError, printable
from usercontainerd.cli.options import Option, Verb
from usercontainerd.cli.output import write_error, write_output
from usercontainerd.engine.setup.check import (
    choose_places,
    find_effect,
    find_roots_record,
    inspect_setup,
    plan_own,
)
from usercontainerd.engine.setup.copy import check_for_all, find_installed, is_system_package
from usercontainerd.engine.setup.placing import Act, Changes, Step, apply_setup, plan_changes, remove_setup
from usercontainerd.engine.setup.plan import (
    LOGIN_PATH,
    LOGIN_SERVICE,
    Installed,
    Places,
    Plan,
    Scope,
)
from usercontainerd.engine.setup.record import Record, read_record
from usercontainerd.engine.setup.running import find_running
from usercontainerd.systemd.renewal import find_generator, reload_definitions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from usercontainerd.cli.call import Call
    from usercontainerd.systemd.manager import Manager

SETUP = Verb(
    "setup",
    "",
    "Put units, programs and D-Bus files of a copy that pip installed into place",
    (
        Option(
            "--check", "tell what is missing, old or changed, and which copy is in effect; change nothing"
        ),
        Option("--dry-run", "tell what would be done, and do nothing"),
        Option("--force", "replace files that are not ours; remove while containers run"),
        Option("--remove", "take away what was put into place, and nothing else"),
    ),
    most=0,
    details="As root for all users, below /usr/local; else for yourself, below ~/.local/share. To be run again after\n"
    "each pip install. Images, containers and definitions are never touched. --check exits with 1 if something is not\n"
    "as it should be.",
)
_DAEMON = "usercontainerd.service"


def run_setup(call: Call) -> int:
    """Set up, check or remove."""
    chosen = [flag for flag in ("check", "remove") if call.options.flag(flag)]
    if len(chosen) > 1:
        raise InvalidArgument("--check and --remove exclude each other")
    if "check" in chosen:
        return check(call)
    places = choose_places(call.environment, os.getuid())
    return remove(call, places) if "remove" in chosen else install(call, places)


def install(call: Call, places: Places) -> int:
    """Put everything into place, and let systemd and the bus know."""
    if is_system_package():
        write_output(
            "This copy is a package of the system, which has put everything into place: nothing to do.\n"
        )
        tell_leftover(places)
        return 0
    installed = find_installed(places.scope)
    if places.scope is Scope.SYSTEM:
        check_for_all(installed)
    elif find_roots_record(call.environment, installed):
        write_output(f"Root has set up this copy ({installed.prefix}) for all users: nothing to do.\n")
        return 0
    elif not os.access(installed.prefix, os.W_OK):
        raise HostError(
            "this copy is not yours to set up",
            where=installed.prefix,
            hint=f"sudo {installed.prefix}/bin/usercontainer setup does it for all users",
        )
    wanted = plan_own(installed, places)
    if call.options.flag("dry-run"):
        show_plan(plan_changes(wanted, read_record(places.record)))
        return 0
    steps = apply_setup(installed, places, wanted, force=call.options.flag("force"))
    write_output(render_summary(steps, installed.prefix))
    activate(call, places, wanted, steps)
    tell_rest(call, places, installed)
    return 0


def tell_leftover(places: Places) -> None:
    """Say so if another copy of the same user's is in front of the package."""
    record = read_record(places.record)
    if record is not None:
        write_error(
            f"Note: a copy in {record.prefix} was set up, too, and its units are in front of the package's:\n"
            "`usercontainer setup --check` shows which is in effect, --remove takes it away.\n"
        )


def show_plan(changes: Changes) -> None:
    """Print a line for each change."""
    for step in changes.steps:
        conflict = " (not ours: needs --force)" if step.path in changes.conflicts else ""
        write_output(f"{step.act:<8} {printable(step.path)}{conflict}\n")
    if not changes.steps:
        write_output("Everything is in place.\n")


def render_summary(steps: Iterable[Step], prefix: str) -> str:
    """One line, and one for each file that was left. Pure."""
    steps = list(steps)
    counts = {act: sum(step.act is act for step in steps) for act in Act}
    words = {Act.WRITE: "written", Act.REPLACE: "replaced", Act.LINK: "enabled", Act.REMOVE: "removed"}
    told = ", ".join(f"{counts[act]} {word}" for act, word in words.items() if counts[act])
    kept = "".join(f"left, since it was changed: {step.path}\n" for step in steps if step.act is Act.KEEP)
    return f"{prefix}: {told or 'everything is in place'}.\n{kept}"


def activate(call: Call, places: Places, wanted: Plan, steps: Iterable[Step]) -> None:
    """Have systemd and the bus read what is new."""
    if places.scope is Scope.SYSTEM:
        reload_users()
        return
    try:
        manager = call.connect()
    except SystemdError as error:
        write_error(f"Note: it takes effect at the next login ({error}).\n")
        return
    with manager:
        removed = {step.path.rpartition("/")[2] for step in steps if step.act is Act.REMOVE}
        if LOGIN_PATH in removed:
            stop_units(manager, LOGIN_PATH)
        if wanted.links:
            reload_definitions(manager)
            manager.restart_unit(LOGIN_PATH)
        else:
            manager.reload()
    reload_bus(call)


def reload_users() -> None:
    """daemon-reload of every user's systemd that runs (user@.service(5))."""
    command = ["systemctl", "reload", "user@*.service"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return
    if result.returncode:
        write_error("Note: users who are logged in run `systemctl --user daemon-reload`, or log in again.\n")


def reload_bus(call: Call) -> None:
    """Have the session bus read its service files (a bus that watches them has done so)."""
    from usercontainerd.systemd.bus import BUS_NAME, BUS_PATH, Bus

    address = call.environment.get("DBUS_SESSION_BUS_ADDRESS") or f"unix:path={call.paths.runtime_root}/bus"
    try:
        bus = Bus.connect(address)
        try:
            bus.call(BUS_NAME, BUS_PATH, BUS_NAME, "ReloadConfig", "")
        finally:
            bus.close()
    except SystemdError as error:
        write_error(f"Note: the session bus was not told ({error}).\n")


def tell_rest(call: Call, places: Places, installed: Installed) -> None:
    """What the user should know of other copies, and do next."""
    effect = find_effect(call.paths)
    if places.scope is Scope.USER and find_generator() is not None:
        write_output(
            f"There is a generator for all users ({effect.generator}): definitions become units by that one,\n"
            "and their containers are run by its programs.\n"
        )
    if effect.bus is None or not effect.bus.endswith(f"programs in {installed.prefix}"):
        write_error(f"Note: another copy is in front of this one: {effect.bus}\n")
    name = "usercontainer"
    if shutil.which(name, path=call.environment.get("PATH")) is None:
        name = shlex.quote(f"{installed.prefix}/bin/{name}")
    write_output(
        f"Next: `{name} doctor` checks the host; container-definition(5) and usercontainer(1) tell the rest.\n"
    )


def check(call: Call) -> int:
    """Print what is not as it should be; the status is 1 if there is anything."""
    found = inspect_setup(call.environment, os.getuid())
    record = found.record
    if record is not None:
        write_output(f"set up: version {record.version} in {record.prefix}, Python {record.python}\n")
    elif found.own is None:
        write_output("set up: by a package of the system\n")
    for problem in found.problems:
        write_output(f"{problem.what}: {printable(problem.where)}\n")
    write_output("".join(f"{printable(line)}\n" for line in find_effect(call.paths).render()))
    if found.problems:
        roots = found.places.scope is Scope.SYSTEM and os.getuid() != 0
        sudo = f"sudo {record.prefix}/bin/" if roots and record else ""
        write_error(f"`{sudo}usercontainer setup` mends what it can.\n")
    return 1 if found.problems else 0


def remove(call: Call, places: Places) -> int:
    """Take away what was put into place."""
    record = read_record(places.record)
    if record is None:
        write_output("Nothing is set up here.\n")
        return 0
    if call.options.flag("dry-run"):
        from usercontainerd.engine.setup.placing import plan_removal

        show_plan(Changes(tuple(plan_removal(record)), ()))
        return 0
    manager = find_manager(call, places)
    running = find_running(manager, record.prefix, os.getuid() if places.scope is Scope.USER else None)
    if running and not call.options.flag("force"):
        raise InUse(
            f"containers run: {', '.join(running)}",
            where=record.prefix,
            hint="stop them first; with --force they go on until they end, but then nothing cleans up after them or "
            "restarts them",
        )
    withdraw(manager, record)
    steps = remove_setup(places, record)
    write_output(render_summary(steps, record.prefix))
    if running:
        write_output(f"These go on running until they are stopped: {', '.join(running)}\n")
    if manager is not None:
        with manager:
            manager.reload()
        reload_bus(call)
    else:
        reload_users()
    write_output(
        f"Images and containers are still in {call.paths.data}, definitions in\n"
        f"{call.paths.definition_directories[0]};\n"
        "`pip uninstall usercontainerd` removes the Python package.\n"
        if places.scope is Scope.USER
        else "What users have is still there; `pip uninstall usercontainerd` removes the Python package.\n"
    )
    return 0


def find_manager(call: Call, places: Places) -> Manager | None:
    """The systemd of the user whose set-up it is; None: of all users, or none runs."""
    if places.scope is Scope.SYSTEM:
        return None
    try:
        return call.connect()
    except SystemdError:
        return None


def withdraw(manager: Manager | None, record: Record) -> None:
    """End what runs by itself: the daemon, on which nothing depends, and the units that stand in for a generator."""
    if manager is None:
        return
    stop_units(manager, LOGIN_PATH, LOGIN_SERVICE, _DAEMON)
    program = f"{record.prefix}/libexec/usercontainerd/write-units"
    if any(path.endswith(f"/{LOGIN_SERVICE}") for path in record.files):
        try:
            subprocess.run([program, "--remove"], check=False, stdin=subprocess.DEVNULL)
        except OSError:
            write_error("Note: units of this session stay until you log out.\n")


def stop_units(manager: Manager, *units: str) -> None:
    """Stop units that may not be there."""
    for unit in units:
        try:
            manager.stop_unit(unit)
        except SystemdError:
            continue


VERBS = {"setup": (SETUP, run_setup)}
