"""Which copy of this project runs here: a checkout, a system's package, or one that pip installed and can be set up."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Iterator

from usercontainerd import __version__
from usercontainerd.base.errors import HostError, InvalidArgument
from usercontainerd.base.programs import (
    LIBEXEC,
    PACKAGE,
    SHIPPED,
    SYSTEM_PREFIX,
    find_prefix,
    find_top,
    is_checkout,
)
from usercontainerd.engine.setup.installation import SOURCES, Copy
from usercontainerd.engine.setup.plan import Installed, Scope

_SITES = ("site-packages", "dist-packages")
_MOST_LINKS = 40  # path_resolution(7)


def is_system_package() -> bool:
    """Tell whether this copy came with a package of the system, which has put everything into place."""
    prefix = find_prefix(find_top())
    return prefix == SYSTEM_PREFIX and os.path.exists(f"{prefix}/{LIBEXEC}/launch")


def find_installed(scope: Scope) -> Installed:
    """Return this copy, to be set up. Raises ``InvalidArgument`` where that is not possible."""
    top = find_top()
    if is_checkout(top):
        raise InvalidArgument(
            "this is a checkout, whose programs run where they are",
            where=top,
            hint="`pip install .` in it makes a copy that can be set up",
        )
    sources = f"{top}/{PACKAGE}/{SHIPPED}"
    prefix = find_prefix(top)
    if prefix is None or not os.path.isdir(sources):
        raise InvalidArgument(
            "this copy cannot be set up: it is not where pip installs to",
            where=top,
            hint="pip install it into a virtual environment, with --user, or as root",
        )
    locations = find_locations(top, scope)
    copy = Copy(f"{prefix}/{LIBEXEC}", locations, os.path.abspath(sys.executable))
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return Installed(prefix, sources, copy, __version__, python)


def find_locations(top: str, scope: Scope) -> tuple[str, ...]:
    """Return where this copy and what it needs are: its own directory, and every other one that packages lie in."""
    found = [top]
    for entry in sys.path:
        path = os.path.abspath(entry)
        if os.path.basename(path) in _SITES and os.path.isdir(path) and path not in found:
            found.append(path)
    if scope is Scope.SYSTEM:  # root's own packages are nobody else's, and nobody else's are for all
        found = [path for path in found if path == top or not (find_closed(path) or find_changeable(path))]
    return tuple(found)


def read_sources(directory: str) -> dict[str, dict[str, bytes]]:
    """Return the content of all files that a copy carries along, by source directory and name."""
    sources = {}
    for source in SOURCES:
        try:
            names = sorted(os.listdir(f"{directory}/{source}"))
        except FileNotFoundError:
            continue
        sources[source] = dict(_read_files(f"{directory}/{source}", names))
    return sources


def _read_files(directory: str, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    for name in names:
        if os.path.isfile(f"{directory}/{name}"):
            with open(f"{directory}/{name}", "rb") as file:
                yield name, file.read()


def check_for_all(installed: Installed) -> None:
    """Make sure that every user can run this copy, and that only root can change it. Raises ``HostError``."""
    for path in (installed.copy.interpreter, *installed.copy.locations, installed.prefix):
        closed = find_closed(path)
        if closed is not None:
            raise HostError(
                "users other than root cannot get there, and the set-up is for all",
                where=closed,
                hint="install into /usr/local or a virtual environment in /opt, or set it up as a user",
            )
    for path in (installed.copy.interpreter, *installed.copy.locations, installed.copy.programs):
        changeable = find_changeable(path)
        if changeable is not None:
            owner = os.lstat(changeable).st_uid
            who = f"this belongs to user {owner}, who" if owner else "everybody may write here, and so"
            raise HostError(
                f"{who} could change what all others run",
                where=changeable,
                hint="install a copy as root, in a place that only root can change, or set it up as a user",
            )


def find_closed(path: str) -> str | None:
    """Return the first directory on the way that others may not enter, or ``path`` if they may not read it."""
    real = os.path.realpath(path)
    parts = real.split("/")
    for number in range(2, len(parts) + 1):
        part = "/".join(parts[:number])
        try:
            mode = os.stat(part).st_mode
        except OSError:
            return part
        needed = 0o005 if stat.S_ISDIR(mode) and part == real else 0o001 if stat.S_ISDIR(mode) else 0o004
        if mode & needed != needed:
            return part
    return None


def find_changeable(path: str) -> str | None:
    """Return the first file, directory or link on the way to ``path`` that not only root can change or replace.

    What is not there yet, root will make. A group's rights are root's choice.
    """
    for step in walk_way(path):
        try:
            status = os.lstat(step)
        except OSError:
            return None
        open_to_all = status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX
        if status.st_uid != 0 or (open_to_all and not stat.S_ISLNK(status.st_mode)):
            return step
    return None


def walk_way(path: str) -> Iterator[str]:
    """Yield all that the kernel passes on the way to an absolute path: directories, links and what is behind them."""
    left = path.split("/")[::-1]
    here = ""
    links = 0
    while left:
        part = left.pop()
        if part in ("", "."):
            continue
        if part == "..":
            here = here.rpartition("/")[0]
            continue
        yield f"{here}/{part}"
        try:
            target = os.readlink(f"{here}/{part}")
        except OSError:
            here = f"{here}/{part}"
            continue
        links += 1
        if links > _MOST_LINKS:
            return
        here = "" if target.startswith("/") else here
        left += target.split("/")[::-1]
