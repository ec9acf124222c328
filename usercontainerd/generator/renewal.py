"""``renew-unit NAME``: gives a container that is being started the unit that its definition asks for.

systemd runs the generator only at login and on daemon-reload. It starts ``container@NAME.service`` from the
static template ``container@.service`` when the generator did not know NAME then: a new definition, an
instance of a template, or nothing at all. That template, and the unit of a definition with errors, have
this program as ``ExecStartPre=``::

    systemctl start container@web@blue
      systemd: loads container@.service, runs ExecStartPre=renew-unit web@blue
        renew-unit: finds web@.toml, notes the instance, Manager.Reload()
          generator: writes container@web@blue.service
          systemd: reads it; the start under way goes on with what it says
      systemd: runs its ExecStart=, in the environment and with the limits that it sets

What is not there, or has errors, is told on standard error and as ``STATUS=``, and the start fails.
"""

from __future__ import annotations

import os
import sys

from usercontainerd.base.errors import InvalidDefinition, SystemdError, UsercontainerError
from usercontainerd.base.names import check_container_name, unit_name
from usercontainerd.base.programs import Programs
from usercontainerd.definition.reader import load_definition
from usercontainerd.definition.search import find_definition, find_definitions
from usercontainerd.engine.context import build_context
from usercontainerd.engine.definitions import build_owner, definition_directories, explain_missing
from usercontainerd.generator.inputs import instances_directory
from usercontainerd.kernel.notification import notify, one_line
from usercontainerd.systemd.renewal import reload_unknown_unit
from usercontainerd.systemd.unit import build_unit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.engine.context import Context

CONFIGURATION_ERROR = 78  # EX_CONFIG of sysexits.h, which systemctl shows as 78/CONFIG
_ERROR = "<3>"  # sd-daemon(3): the journal's priority


class Problems(InvalidDefinition):
    """Everything that is wrong with a definition, one ``line`` each."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


def main(arguments: list[str], environment: dict[str, str], programs: str) -> int:
    """``renew-unit NAME``."""
    if len(arguments) != 1:
        sys.stderr.write("usage: renew-unit NAME\n")
        return 2
    try:
        context = build_context(environment, Programs(programs), os.getuid(), os.getgid())
        renew_unit(context, arguments[0], environment.get("DBUS_SESSION_BUS_ADDRESS"))
    except UsercontainerError as error:
        lines = error.lines if isinstance(error, Problems) else [str(error)]
        prefix = _ERROR if "JOURNAL_STREAM" in environment else ""
        sys.stderr.write("".join(f"{prefix}{line}\n" for line in lines))
        more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
        try:
            notify(environment.get("NOTIFY_SOCKET"), f"STATUS={one_line(lines[0])}{more}")
        except UsercontainerError:
            pass
        return CONFIGURATION_ERROR
    return 0


def renew_unit(context: Context, name: str, bus_address: str | None = None) -> None:
    """Have systemd load the unit of container ``name``. Raises what keeps it from being started."""
    check_container_name(name)
    found = find_definition(definition_directories(context), name)
    if found is None:
        raise _explain_missing(context, name)
    definition, diagnostics = load_definition(found, build_owner(context))
    if definition is None:
        raise Problems([str(one) for one in diagnostics if one.is_error])
    build_unit(definition, context.programs)
    if found.template is not None:
        note_instance(context.paths.runtime, name)
    unit = unit_name(name)
    if not reload_unknown_unit(context.paths.runtime_root, unit, bus_address):
        raise SystemdError(
            "systemd was reloaded, but no unit was generated for this container",
            where=unit,
            hint="is usercontainerd-generator in /usr/lib/systemd/user-generators?",
        )


def note_instance(runtime: str, name: str) -> None:
    """Let the generator know, until the next boot, that this instance of a template is used."""
    directory = instances_directory(runtime)
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        os.close(os.open(f"{directory}/{name}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise SystemdError(f"cannot note the instance: {error.strerror}", where=directory) from error


def _explain_missing(context: Context, name: str) -> UsercontainerError:
    from difflib import get_close_matches

    directories = definition_directories(context)
    missing = explain_missing(name, directories[0])
    known = [found.name for found in find_definitions(directories) if not found.is_template]
    near = get_close_matches(name, known, 1)
    if near and missing.hint is not None:
        missing.hint = f'did you mean "{near[0]}"? Else {missing.hint}'
    return missing
