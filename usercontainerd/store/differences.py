"""How one image's files differ from another's: both are read as overlayfs would merge their layers.

Of two files nobody reads the contents: the same inode is the same file, else size, time, mode, owner and, of a symlink,
its target decide, as in docker. A directory counts as changed only if its mode or owner differ or something in it does.
"""

from __future__ import annotations

import os
import stat

from usercontainerd.store.changes import ADDED, CHANGED, DELETED, Level, walk_levels
from usercontainerd.store.mountpoints import NONE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from usercontainerd.store.changes import Below
    from usercontainerd.store.mountpoints import MountPoints
    from usercontainerd.store.overlay import Found, MergedDirectory


def list_differences(
    new: MergedDirectory, old: MergedDirectory, mounted: MountPoints = NONE
) -> Iterator[tuple[bytes, bytes]]:
    """Yield (kind, absolute path) of what ``new`` has otherwise than ``old``, parents first; both are closed.

    What is in a directory that only ``old`` has is not listed, nor what is only there because something was
    ``mounted`` on it.
    """
    return walk_levels(new, old, _list_names, lambda level, name: _compare(level, name, mounted))


def _list_names(level: Level) -> set[bytes]:
    return {*level.one.list_names(), *(level.other.list_names() if level.other is not None else ())}


def _compare(level: Level, name: bytes, mounted: MountPoints) -> tuple[bytes, Below | None]:
    """Return how the name differs (b"" if it does not), and the directories to go on with, if it is one."""
    found = level.one.find(name)
    before = level.other.find(name) if level.other is not None else None
    if found is None:
        return (DELETED if before is not None else b""), None
    if before is None and mounted.is_made_for_one(level.one, found, level.path + b"/" + name):
        return b"", None
    opened = level.one.open_child(name) if found.is_directory else None
    if before is None:
        return ADDED, (opened, None) if opened is not None else None
    if opened is None:
        return (b"" if _are_same(found, before) else CHANGED), None
    if not before.is_directory or level.other is None:
        return CHANGED, (opened, None)
    lower = level.other.open_child(name)
    if lower is not None and _identify(opened) == _identify(lower):
        opened.close()
        lower.close()
        return b"", None  # both have it from the same layers
    differs = _attributes(found.status) != _attributes(before.status)
    return (CHANGED if differs else b""), (opened, lower)


def _identify(directory: MergedDirectory) -> list[tuple[int, int]]:
    return [(status.st_dev, status.st_ino) for status in map(os.fstat, directory.fds)]


def _are_same(new: Found, old: Found) -> bool:
    one, other = new.status, old.status
    if (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino):
        return True
    if _attributes(one) != _attributes(other) or stat.S_IFMT(one.st_mode) != stat.S_IFMT(other.st_mode):
        return False
    if (one.st_size, one.st_mtime_ns, one.st_rdev) != (other.st_size, other.st_mtime_ns, other.st_rdev):
        return False
    return not stat.S_ISLNK(one.st_mode) or (
        os.readlink(new.name, dir_fd=new.at) == os.readlink(old.name, dir_fd=old.at)
    )


def _attributes(status: os.stat_result) -> tuple[int, int, int]:
    return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
