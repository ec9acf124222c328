"""What a layer changes of those below it, as ``docker diff`` tells it.

Everything the layer has under a name that nothing had is added, a name that it hides is deleted; the rest is
changed, a directory only if its mode, owner or time differ or something in it changed. What is in a deleted
directory is not listed.
"""

from __future__ import annotations

import os
import stat

from usercontainerd.store.overlay import MergedDirectory, is_whiteout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

ADDED = b"A"
CHANGED = b"C"
DELETED = b"D"


class _Level:
    """A directory on the way down. ``told`` says whether it is in the list already."""

    __slots__ = ("lower", "names", "path", "told", "upper")

    def __init__(
        self, path: bytes, upper: MergedDirectory, lower: MergedDirectory | None, *, told: bool
    ) -> None:
        self.path = path
        self.upper = upper
        self.lower = lower
        self.told = told
        names = set(upper.list_names())
        if upper.opaque and lower is not None:
            names.update(lower.list_names())
        self.names = sorted(names, reverse=True)

    def close(self) -> None:
        self.upper.close()
        if self.lower is not None:
            self.lower.close()


def list_changes(upper: MergedDirectory, lower: MergedDirectory) -> Iterator[tuple[bytes, bytes]]:
    """Yield (kind, absolute path), parents first, names sorted.

    ``upper`` is one layer, ``lower`` those below it; both are closed.
    """
    stack = [_Level(b"", upper, lower, told=True)]
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
    """Return how the name changed (b"" if it did not) and the directories to go on with, if it is one."""
    found = level.upper.find(name, whiteouts=True)
    old = level.lower.find(name) if level.lower is not None else None
    if found is None or is_whiteout(found.status):
        return (DELETED if old is not None else b""), None
    if not found.is_directory:
        return (CHANGED if old is not None else ADDED), None
    opened = level.upper.open_child(name)
    if opened is None:
        return b"", None  # it vanished
    if old is None:
        return ADDED, (opened, None)
    if level.lower is None or not old.is_directory:
        return CHANGED, (opened, None)
    differs = _attributes(found.status) != _attributes(old.status)
    return (CHANGED if differs else b""), (opened, level.lower.open_child(name))


def _attributes(status: os.stat_result) -> tuple[int, int, int, int]:
    return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns
