"""``usercontainer setup``: what goes where for a copy that pip installed. Pure.

Programs lie below the prefix of the copy, where ``base.programs`` looks for them. All else goes to where systemd, the
bus, man and shells look: for root below ``/usr/local``, for a user below ``$XDG_DATA_HOME``.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from usercontainerd.base.records import dataclass
from usercontainerd.engine.setup.installation import RULES, Copy, Kind, Rule, render_file, select_names

SYSTEM_DIRECTORY = "/usr/local"
LOGIN_SERVICE = "usercontainerd-units.service"
LOGIN_PATH = "usercontainerd-units.path"
_WANTS = {LOGIN_SERVICE: "default.target.wants", LOGIN_PATH: "paths.target.wants"}
_KINDS = (Kind.PROGRAM, Kind.UNIT, Kind.BUS_SERVICE, Kind.INTERFACE, Kind.MANUAL, Kind.COMPLETION)


class Scope(StrEnum):
    """For whom a set-up is."""

    SYSTEM = "system"
    USER = "user"


@dataclass(frozen=True)
class Installed:
    """A copy of this project that pip installed below ``prefix``; ``sources`` has what it carries along."""

    prefix: str
    sources: str
    copy: Copy
    version: str
    python: str  # the minor version, such as 3.13: packages of another one are not for it


@dataclass(frozen=True)
class Places:
    """Where a set-up goes: ``data`` and ``config`` are base directories, ``record`` is the file that tells of it."""

    scope: Scope
    data: str
    config: str
    record: str


@dataclass(frozen=True)
class File:
    """One file to be there."""

    path: str
    content: bytes
    mode: int


@dataclass(frozen=True)
class Plan:
    """All of a set-up. ``links`` are symbolic links by their path."""

    files: tuple[File, ...]
    links: Mapping[str, str]


def plan_places(scope: Scope, environment: Mapping[str, str]) -> Places:
    """Follow the XDG base directory specification for a user; root's set-up is for all."""
    if scope is Scope.SYSTEM:
        share = f"{SYSTEM_DIRECTORY}/share"
        return Places(scope, share, "/etc", f"{share}/usercontainerd/setup.json")
    home = environment.get("HOME") or "/"

    def base(variable: str, default: str) -> str:
        value = environment.get(variable, "")
        return value.rstrip("/") if value.startswith("/") else f"{home}/{default}"

    state = base("XDG_STATE_HOME", ".local/state")
    data, config = base("XDG_DATA_HOME", ".local/share"), base("XDG_CONFIG_HOME", ".config")
    return Places(scope, data, config, f"{state}/usercontainerd/setup.json")


def plan_setup(
    installed: Installed, places: Places, sources: Mapping[str, Mapping[str, bytes]], *, with_pair: bool
) -> Plan:
    """Return what is to be there. ``sources`` has files of each source directory by name.

    ``with_pair``: with the units that stand in for a generator. Raises ``InvalidArgument`` for paths that no script or
    unit can name.
    """
    special = (Kind.GENERATOR,) if places.scope is Scope.SYSTEM else (Kind.LOGIN_UNIT,) * with_pair
    files = {}
    for rule in RULES:
        if rule.kind in (*_KINDS, *special):
            directory = plan_directory(rule, installed.prefix, places)
            for name in select_names(rule, sources.get(rule.source, ())):
                content = render_file(rule, sources[rule.source][name], installed.copy)
                files[f"{directory}/{name}"] = File(f"{directory}/{name}", content, rule.mode)
    links = {}
    if Kind.LOGIN_UNIT in special:
        for unit, wants in _WANTS.items():
            links[f"{places.config}/systemd/user/{wants}/{unit}"] = f"{places.data}/systemd/user/{unit}"
    return Plan(tuple(files.values()), links)


def plan_directory(rule: Rule, prefix: str, places: Places) -> str:
    """Return where the files of a rule go. Pure."""
    if rule.kind is Kind.PROGRAM:
        return f"{prefix}/{rule.target}"
    if places.scope is Scope.SYSTEM:
        return f"{SYSTEM_DIRECTORY}/{rule.target}"
    if rule.kind in (Kind.UNIT, Kind.LOGIN_UNIT):
        return f"{places.data}/systemd/user"  # systemd.unit(5)
    return f"{places.data}/{rule.target.removeprefix('share/')}"
