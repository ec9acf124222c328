"""How one image's files differ from another's: both are read as overlayfs would merge their layers.

Of two files nobody reads the contents: the same inode is the same file, else size, time, mode, owner and, of a symlink,
its target decide, as in docker. A directory counts as changed only if its mode or owner differ or something in it does.
"""

from __future__ import annotations

import os
import stat

from usercontainerd.store.changes import ADDED, CHANGED, DELETED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from usercontainerd.store.overlay import Found, MergedDirectory


class _Level:
    """A directory on the way down; one of the two may lack it. ``told`` says whether it is in the list already."""

    __slots__ = ("names", "new", "old", "path", "told")

    def __init__(self, path: bytes, new: MergedDirectory, old: MergedDirectory | None, *, told: bool) -> None:
        self.path = path
        self.new = new
        self.old = old
        self.told = told
        names = {*new.list_names(), *(old.list_names() if old is not None else ())}
        self.names = sorted(names, reverse=True)

    def close(self) -> None:
        self.new.close()
        if self.old is not None:
            self.old.close()


def list_differences(new: MergedDirectory, old: MergedDirectory) -> Iterator[tuple[bytes, bytes]]:
    """Yield (kind, absolute path) of what ``new`` has otherwise than ``old``, parents first; both are closed.

    What is in a directory that only ``old`` has is not listed.
    """
    stack = [_Level(b"", new, old, told=True)]
    try:
        while stack:
            level = stack[-1]
            if not level.names:
                stack.pop().close()
                continue
            name = level.names.pop()
            path = level.path + b"/" + name
            kind, below = _compare(level, name)
            if kind:
                for above in stack:
                    if not above.told:
                        above.told = True
                        yield CHANGED, above.path
                yield kind, path
            if below is not None:
                stack.append(_Level(path, *below, told=bool(kind)))
    finally:
        for level in stack:
            level.close()


def _compare(
    level: _Level, name: bytes
) -> tuple[bytes, tuple[MergedDirectory, MergedDirectory | None] | None]:
    """Return how the name differs (b"" if it does not), and the directories to go on with, if it is one."""
    found = level.new.find(name)
    before = level.old.find(name) if level.old is not None else None
    if found is None:
        return (DELETED if before is not None else b""), None
    opened = level.new.open_child(name) if found.is_directory else None
    if before is None:
        return ADDED, (opened, None) if opened is not None else None
    if opened is None:
        return (b"" if _are_same(found, before) else CHANGED), None
    if not before.is_directory or level.old is None:
        return CHANGED, (opened, None)
    lower = level.old.open_child(name)
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
