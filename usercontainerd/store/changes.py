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
    from collections.abc import Callable, Iterator

    Below = tuple[MergedDirectory, MergedDirectory | None]

ADDED = b"A"
CHANGED = b"C"
DELETED = b"D"


class Level:
    """A directory on the way down, and what stands for it on the other side, if anything does.

    ``told`` says whether it is in the list already.
    """

    __slots__ = ("names", "one", "other", "path", "told")

    def __init__(
        self, path: bytes, one: MergedDirectory, other: MergedDirectory | None, *, told: bool
    ) -> None:
        self.path = path
        self.one = one
        self.other = other
        self.told = told
        self.names: list[bytes] = []

    def close(self) -> None:
        """Close both."""
        self.one.close()
        if self.other is not None:
            self.other.close()


def walk_levels(
    one: MergedDirectory,
    other: MergedDirectory,
    list_names: Callable[[Level], set[bytes]],
    compare: Callable[[Level, bytes], tuple[bytes, Below | None]],
) -> Iterator[tuple[bytes, bytes]]:
    """Yield (kind, absolute path) of what ``compare`` finds, parents first, names sorted; both are closed.

    ``compare`` returns how a name differs (b"" if it does not) and the directories to go on with, if it is one.
    """
    stack: list[Level] = []

    def descend(path: bytes, below: Below, *, told: bool) -> None:
        level = Level(path, *below, told=told)
        stack.append(level)
        level.names = sorted(list_names(level), reverse=True)

    try:
        descend(b"", (one, other), told=True)
        while stack:
            level = stack[-1]
            if not level.names:
                stack.pop().close()
                continue
            name = level.names.pop()
            path = level.path + b"/" + name
            kind, below = compare(level, name)
            if kind:
                for above in stack:
                    if not above.told:
                        above.told = True
                        yield CHANGED, above.path
                yield kind, path
            if below is not None:
                descend(path, below, told=bool(kind))
    finally:
        for level in stack:
            level.close()


def list_changes(upper: MergedDirectory, lower: MergedDirectory) -> Iterator[tuple[bytes, bytes]]:
    """Yield (kind, absolute path), parents first, names sorted.

    ``upper`` is one layer, ``lower`` those below it; both are closed.
    """
    return walk_levels(upper, lower, _list_names, _compare)


def _list_names(level: Level) -> set[bytes]:
    names = set(level.one.list_names())
    if level.one.opaque and level.other is not None:
        names.update(level.other.list_names())
    return names


def _compare(level: Level, name: bytes) -> tuple[bytes, Below | None]:
    """Return how the name changed (b"" if it did not) and the directories to go on with, if it is one."""
    found = level.one.find(name, whiteouts=True)
    old = level.other.find(name) if level.other is not None else None
    if found is None or is_whiteout(found.status):
        return (DELETED if old is not None else b""), None
    if not found.is_directory:
        return (CHANGED if old is not None else ADDED), None
    opened = level.one.open_child(name)
    if opened is None:
        return b"", None  # it vanished
    if old is None:
        return ADDED, (opened, None)
    if level.other is None or not old.is_directory:
        return CHANGED, (opened, None)
    differs = _attributes(found.status) != _attributes(old.status)
    return (CHANGED if differs else b""), (opened, level.other.open_child(name))


def _attributes(status: os.stat_result) -> tuple[int, int, int, int]:
    return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns
