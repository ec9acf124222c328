"""Whether what was set up is still there, whole and of this version; and which of several copies is in effect."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping

from usercontainerd.base.paths import Paths
from usercontainerd.base.records import dataclass
from usercontainerd.engine.setup.copy import find_installed, is_system_package, read_sources
from usercontainerd.engine.setup.placing import Act, plan_changes, plan_removal
from usercontainerd.engine.setup.plan import (
    LOGIN_SERVICE,
    Installed,
    Places,
    Plan,
    Scope,
    plan_places,
    plan_setup,
)
from usercontainerd.engine.setup.record import Record, read_record
from usercontainerd.systemd.renewal import find_generator

_PROGRAM = re.compile(r'^ExecStart=-?"?(/[^"\n]*)/libexec/usercontainerd/', re.MULTILINE)
_PATIENCE = 30  # seconds
_VERSION = "import sys; print('.'.join(map(str, sys.version_info[:2])))"


@dataclass(frozen=True)
class Problem:
    """Something that is not as it should be: ``where`` is a path."""

    what: str
    where: str


@dataclass(frozen=True)
class Inspection:
    """``own`` is this very copy, None if it is a system's package; ``record`` what is set up, ``problems`` with it."""

    places: Places
    own: Installed | None
    record: Record | None
    problems: tuple[Problem, ...]


def choose_places(environment: Mapping[str, str], uid: int) -> Places:
    """Root sets up for all, others each for himself."""
    return plan_places(Scope.SYSTEM if uid == 0 else Scope.USER, environment)


def plan_own(installed: Installed, places: Places) -> Plan:
    """Return what is to be there for this copy."""
    with_pair = places.scope is Scope.USER and find_generator() is None
    return plan_setup(installed, places, read_sources(installed.sources), with_pair=with_pair)


def find_roots_record(environment: Mapping[str, str], installed: Installed) -> Record | None:
    """Return the record of root's set-up, if it is of this copy."""
    record = read_record(plan_places(Scope.SYSTEM, environment).record)
    return record if record is not None and record.prefix == installed.prefix else None


def inspect_setup(environment: Mapping[str, str], uid: int) -> Inspection:
    """Look at what is set up: the user's, or root's if that is of this copy. Raises ``InvalidArgument``."""
    places = choose_places(environment, uid)
    own = None if is_system_package() else find_installed(places.scope)
    record = read_record(places.record)
    if own is not None and record is None and (record := find_roots_record(environment, own)) is not None:
        places = plan_places(Scope.SYSTEM, environment)
        own = find_installed(places.scope)
    problems: list[Problem] = []
    if record is not None:
        problems += check_setup(own, plan_own(own, places) if own else None, record)
        if own is not None and own.prefix != record.prefix:
            problems.append(Problem("another copy is set up than this one", record.prefix))
    elif own is not None:
        problems.append(Problem("not set up", own.prefix))
    return Inspection(places, own, record, tuple(problems))


def check_setup(installed: Installed | None, plan: Plan | None, record: Record) -> Iterator[Problem]:
    """Yield all problems. ``installed`` and its ``plan`` are this very copy, None if that needs no set-up."""
    yield from check_interpreter(record)
    if installed is None or plan is None or installed.prefix != record.prefix:
        for path in (*record.files, *record.links):
            if not os.path.lexists(path):
                yield Problem("missing", path)
        for step in plan_removal(record):
            if step.act is Act.KEEP:
                yield Problem("changed by somebody", step.path)
        return
    if installed.version != record.version:
        yield Problem(f"set up by version {record.version}, this is {installed.version}", record.prefix)
    if installed.copy.interpreter != record.interpreter:
        yield Problem(
            f"set up for {record.interpreter}, this runs with another Python", installed.copy.interpreter
        )
    changes = plan_changes(plan, record)
    for step in changes.steps:
        yield Problem(_explain(step.act, step.path in changes.conflicts), step.path)


def _explain(act: Act, foreign: bool) -> str:
    if foreign:
        return "changed by somebody"
    words = {
        Act.WRITE: "missing",
        Act.REPLACE: "old",
        Act.LINK: "not enabled",
        Act.REMOVE: "not needed any more",
    }
    return words.get(act, "changed by somebody, and not needed any more")


def check_interpreter(record: Record) -> Iterator[Problem]:
    """Whether the programs can still start: a virtual environment may be gone, or Python another one."""
    if not os.path.isdir(f"{record.package}/usercontainerd"):
        yield Problem("the Python package is gone (moved or uninstalled)", record.package)
    try:
        result = subprocess.run(
            [record.interpreter, "-IS", "-c", _VERSION],
            capture_output=True,
            text=True,
            check=False,
            timeout=_PATIENCE,
        )
    except subprocess.TimeoutExpired:
        yield Problem(
            f"the Python of all programs has not answered for {_PATIENCE} seconds", record.interpreter
        )
        return
    except OSError as error:
        yield Problem(f"the Python of all programs cannot be run: {error.strerror}", record.interpreter)
        return
    version = result.stdout.strip()
    if version != record.python:
        found = f"is Python {version} now" if version else "does not work"
        yield Problem(f"it {found}; the programs were set up for {record.python}", record.interpreter)


@dataclass(frozen=True)
class Effect:
    """What is in effect for a user. Prefixes; None: nothing."""

    generator: str | None
    units: str | None
    bus: str | None

    def render(self) -> list[str]:
        """A line for each."""
        return [
            f"definitions become units by: {self.generator or 'nothing'}",
            f"container@.service:          {self.units or 'not there'}",
            f"D-Bus interface:             {self.bus or 'not there'}",
        ]


def find_effect(paths: Paths) -> Effect:
    """Look where systemd looks (systemd.unit(5)): of several copies that are installed, the first file counts."""
    config, data = os.path.dirname(paths.config), os.path.dirname(paths.data)
    directories = (
        f"{config}/systemd/user",
        "/etc/systemd/user",
        f"{paths.runtime_root}/systemd/user",
        "/run/systemd/user",
        f"{data}/systemd/user",
        "/usr/local/share/systemd/user",
        "/usr/share/systemd/user",
        "/usr/local/lib/systemd/user",
        "/usr/lib/systemd/user",
    )
    generator = find_generator()
    if generator is None:
        enabled = os.path.lexists(f"{config}/systemd/user/default.target.wants/{LOGIN_SERVICE}")
        generator = find_unit(LOGIN_SERVICE, directories) if enabled else None
    return Effect(
        generator,
        describe_unit(find_unit("container@.service", directories)),
        describe_unit(find_unit("usercontainerd.service", directories)),
    )


def find_unit(name: str, directories: tuple[str, ...]) -> str | None:
    """Return the path of the unit that systemd takes."""
    return next((f"{each}/{name}" for each in directories if os.path.lexists(f"{each}/{name}")), None)


def describe_unit(path: str | None) -> str | None:
    """Return a unit's path, and below which prefix its program lies."""
    if path is None:
        return None
    prefix = read_prefix(path)
    return f"{path}, programs in {prefix}" if prefix else path


def read_prefix(path: str) -> str | None:
    """Return the prefix of the program that a unit of ours starts."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            found = _PROGRAM.search(file.read())
    except OSError:
        return None
    return found[1].replace("%%", "%") if found else None
