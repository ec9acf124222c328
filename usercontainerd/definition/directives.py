"""The tables ``[unit]``, ``[service]`` and ``[install]``: systemd's directives, passed through.

A directive is spelt as systemd does (``TimeoutStartSec``) or in snake_case (``timeout_start_sec``). Specifiers in the
values are systemd's business, save for ``%i`` and ``%I`` of an instance (see ``specifiers``); ``[install]`` is ours to
make effective, so all of ours are expanded there.
"""

from __future__ import annotations

import math

from usercontainerd.base.names import is_container_name
from usercontainerd.base.unitfile import find_directive_problem, is_unit_name
from usercontainerd.definition.directive_names import SECTIONS
from usercontainerd.definition.specifiers import expand_instance
from usercontainerd.definition.values import MAX_INTEGER, report_type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.definition.place import Place

Layer = dict[str, tuple[str, ...]]

_CONTRACT = "it is part of how a container's unit works"
_OWN_USER = (
    "the unit runs as the user whose service manager it is; the keys user and group are the container's"
)
_SANDBOX = "it would keep the launcher from making namespaces; the container has an isolation of its own"
_PATHS = "the launcher needs to see the host's files; mounts are the container's"

_REASONS: dict[str, str] = {
    "ExecStart Type NotifyAccess Delegate DelegateSubgroup KillMode PIDFile BusName RemainAfterExit ExitType "
    "GuessMainPID RootDirectoryStartOnly PermissionsStartOnly SourcePath": _CONTRACT,
    "User Group DynamicUser SupplementaryGroups PAMName SetLoginEnvironment": _OWN_USER,
    "PrivateUsers PrivateMounts PrivateDevices PrivateNetwork PrivateIPC PrivatePIDs PrivateTmp PrivateBPF "
    "ProtectSystem ProtectHome ProtectProc ProcSubset ProtectKernelTunables ProtectKernelModules ProtectKernelLogs "
    "ProtectClock ProtectControlGroups ProtectHostname RestrictNamespaces RestrictSUIDSGID RestrictRealtime "
    "RestrictAddressFamilies RestrictFileSystems SystemCallFilter SystemCallArchitectures SystemCallLog "
    "MemoryDenyWriteExecute LockPersonality CapabilityBoundingSet AmbientCapabilities SecureBits "
    "NetworkNamespacePath IPCNamespacePath DelegateNamespaces SELinuxContext AppArmorProfile "
    "SmackProcessLabel": _SANDBOX,
    "RootDirectory RootImage RootImageOptions RootImagePolicy RootHash RootHashSignature RootVerity RootEphemeral "
    "MountAPIVFS MountFlags MountImages MountImagePolicy ExtensionImages ExtensionImagePolicy ExtensionDirectories "
    "ReadWritePaths ReadOnlyPaths InaccessiblePaths ReadWriteDirectories ReadOnlyDirectories InaccessibleDirectories "
    "ExecPaths NoExecPaths BindPaths BindReadOnlyPaths BindLogSockets TemporaryFileSystem": _PATHS,
    "NoNewPrivileges": "the key security.no_new_privileges is the container's",
    "KillSignal": "the key stop_signal is the container's",
}
REFUSED = {name: reason for names, reason in _REASONS.items() for name in names.split()}

# These act on the launcher on the host, which surprises.
_MISTAKEN = {
    "Environment": "environment",
    "EnvironmentFile": "environment_files",
    "PassEnvironment": "environment",
    "WorkingDirectory": "working_directory",
}
_UNIT_LISTS = frozenset(("WantedBy", "RequiredBy", "UpheldBy", "Alias", "Also"))


def take_directives(value: object, place: Place) -> Layer | None:
    """Return each directive's values, as they are written into the unit; an empty tuple takes back earlier ones."""
    if not isinstance(value, dict):
        report_type("a table of systemd directives", value, place)
        return None
    section = str(place.path[-1])
    layer: Layer = {}
    good = True
    for key, each in value.items():
        where = place.at(key)
        name = _find_name(section, key, where)
        if name is None or not _check_name(section, name, where):
            good = False
            continue
        values = _take_values(each, where)
        if values is not None and section == "install":
            values = _take_unit_names(name, values, where)
        if values is None or not _check_values(name, values, where):
            good = False
        elif name in layer:
            where.error(f"{name} is given in two spellings")
            good = False
        else:
            layer[name] = values
    return layer if good else None


def _find_name(section: str, key: str, place: Place) -> str | None:
    """Return systemd's spelling of ``key``."""
    known = SECTIONS[section]
    problem = find_directive_problem(key.replace("_", ""), "")
    if problem is not None:
        place.error("is no systemd directive")
        return None
    if key in known or key.startswith("X-"):
        return key
    folded = key.replace("_", "")
    if key.islower() and (name := _by_folded(section).get(folded)):
        return name
    likely = place.suggest(key, known)
    elsewhere = next((other for other, names in SECTIONS.items() if other != section and key in names), None)
    if elsewhere is not None:
        place.warn(f"is no directive of [{section}] that is known here, but of [{elsewhere}]")
        return key
    if key[:1].isupper() and "_" not in key:
        # It may be new in systemd, so it is passed through; systemd ignores what it does not know.
        place.warn("is no systemd directive that is known here; it is passed through", likely)
        return key
    place.error("is no systemd directive", likely)
    return None


_FOLDED: dict[str, dict[str, str]] = {}


def _by_folded(section: str) -> dict[str, str]:
    """Return the directives of ``section`` by their names in lower case."""
    if section not in _FOLDED:
        _FOLDED[section] = {name.lower(): name for name in SECTIONS[section]}
    return _FOLDED[section]


def _check_name(section: str, name: str, place: Place) -> bool:
    if name in REFUSED and section != "install":
        subject = "" if place.path[-1] == name else f"{name} "
        place.error(f"{subject}cannot be set: {REFUSED[name]}")
        return False
    if section == "service" and name in _MISTAKEN:
        place.warn(f"acts on the launcher on the host; for the container use the key {_MISTAKEN[name]}")
    if section == "install" and name == "Also":
        place.warn("has no effect on a generated unit")
    return True


def _take_values(value: object, place: Place) -> tuple[str, ...] | None:
    if not isinstance(value, list):
        text = _take_value(value, place)
        return None if text is None else (text,)
    texts = [_take_value(each, place.at(index)) for index, each in enumerate(value)]
    return None if None in texts else tuple(text for text in texts if text is not None)


def _take_value(value: object, place: Place) -> str | None:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and abs(value) <= MAX_INTEGER:
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return repr(value)
    if not isinstance(value, str):
        report_type("a string, a number, a boolean or an array of these", value, place)
        return None
    text = value.strip()  # as systemd does
    return expand_instance(text, place.reading.name)


def _check_values(name: str, values: tuple[str, ...], place: Place) -> bool:
    good = True
    for index, value in enumerate(values):
        where = place if len(values) == 1 else place.at(index)
        problem = find_directive_problem(name, value)
        if problem is None and not value and name == "ExecStopPost":
            problem = "an empty value would drop the clean-up after the container"
        if problem is not None:
            where.error(problem)
            good = False
    return good


def _take_unit_names(name: str, values: tuple[str, ...], place: Place) -> tuple[str, ...] | None:
    """Split lists of units and check each, since they become names of files."""
    if name not in _UNIT_LISTS:
        return _take_instance(values, place) if name == "DefaultInstance" else values
    units: list[str] = []
    good = True
    for value in values:
        if not value:
            units.clear()  # systemd: an empty value takes back earlier ones
        for word in place.expand(value).split():
            if not is_unit_name(word):
                suggestion = f"{word}.target" if is_unit_name(f"{word}.target") else None
                place.error(f'"{word}" is no name of a unit', suggestion)
                good = False
            # systemd.unit(5): an instance has other names only as the same instance of another template.
            elif name == "Alias" and word.partition("@")[2] != f"{place.reading.name}.service":
                place.error(f'"{word}" cannot be an alias; only PREFIX@{place.reading.name}.service can be')
                good = False
            else:
                units.append(word)
    return tuple(units) if good else None


def _take_instance(values: tuple[str, ...], place: Place) -> tuple[str, ...] | None:
    if not place.reading.is_template:
        place.warn("has a meaning in a template only")
    bad = [value for value in values if not is_container_name(f"x@{value}")]
    for value in bad:
        place.error(f'"{value}" is no name of an instance')
    return None if bad else values
