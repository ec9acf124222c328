"""All that the generator's output depends on, as a text that changes whenever one of it does.

A stamp is a file's times, size and inode. A file that changed a moment ago could change again within the
same tick of the kernel's clock, and keep its stamp: what saw such a file is not kept.
"""

from __future__ import annotations

import os
from time import time_ns

from usercontainerd.base.names import container_name, split_instance

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

SETTLED = 50_000_000  # nanoseconds; the kernel's tick is at most 10 ms
_DEPENDENCIES = (".wants", ".requires", ".upholds")


class Stamps:
    """Collects stamps; ``latest`` is the last change among them, in nanoseconds since 1970."""

    __slots__ = ("latest", "lines")

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.latest = 0

    def add(self, path: str, status: os.stat_result | None) -> None:
        """Add one file; None is one that cannot be looked at."""
        if status is None:
            self.lines.append(f"{path} -")
            return
        self.latest = max(self.latest, status.st_ctime_ns)
        self.lines.append(
            f"{path} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_size} {status.st_ino} {status.st_dev}"
        )

    def render(self) -> str:
        """Return the text, "" if something changed so lately that it must not be relied upon."""
        return "\n".join(self.lines) if time_ns() - self.latest > SETTLED else ""


def stamp_files(paths: Iterable[str]) -> str:
    """Return the stamps of ``paths``, "" if they are too fresh."""
    stamps = Stamps()
    for path in paths:
        try:
            stamps.add(path, os.stat(path))
        except OSError:
            stamps.add(path, None)
    return stamps.render()


def stamp_code(package: str) -> str:
    """Return the stamps of the modules that decide what a unit looks like, below our ``package``."""
    stamps = Stamps()
    for part in ("base", "definition", "generator", "systemd"):
        _stamp_directory(f"{package}/{part}", stamps, (".py",))
    return "\n".join(stamps.lines)


def stamp_definitions(directories: Iterable[str]) -> tuple[str, bool]:
    """Return the stamps of all definitions and drop-ins, and whether a template is among them."""
    stamps = Stamps()
    templates = False
    for directory in directories:
        for name in _stamp_directory(directory, stamps, (".toml", ".toml.d")):
            if name.endswith("@.toml"):
                templates = True
            elif name.endswith(".toml.d"):
                _stamp_directory(f"{directory}/{name}", stamps, (".toml",))
    return stamps.render(), templates


def _stamp_directory(directory: str, stamps: Stamps, endings: tuple[str, ...]) -> list[str]:
    names: list[str] = []
    try:
        with os.scandir(directory) as entries:
            listed = sorted((entry.name, entry) for entry in entries if entry.name.endswith(endings))
    except OSError as error:
        # Another error than before (not there, no access) has another message.
        stamps.lines.append(f"{directory} {error.errno}")
        return names
    for name, entry in listed:
        names.append(name)
        try:
            stamps.add(entry.path, entry.stat())
        except OSError:
            stamps.add(entry.path, None)
    return names


def instances_directory(runtime: str) -> str:
    """Return where an empty file stands for each instance of a template that was started since boot."""
    return f"{runtime}/instances"


def find_instances(runtime: str, unit_directories: Iterable[str]) -> tuple[str, ...]:
    """Return the names of instances (``web@blue``) that were started before, or that another unit wants.

    ``systemctl --user enable container@web@blue`` leaves a link in ``default.target.wants`` of one of
    ``unit_directories``.
    """
    found = set(_list(instances_directory(runtime)))
    for directory in unit_directories:
        for name in _list(directory):
            if name.endswith(_DEPENDENCIES):
                found.update(container_name(unit) or "" for unit in _list(f"{directory}/{name}"))
    return tuple(sorted(name for name in found if split_instance(name)[1]))


def _list(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []
