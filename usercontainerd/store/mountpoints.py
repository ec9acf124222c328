"""Where something was mounted in a container: the empty files and directories that were made for that are nobody's.

What is under a mount cannot be seen from inside, so nothing that the container did is passed over.
"""

from __future__ import annotations

import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from usercontainerd.store.overlay import Found, MergedDirectory


class MountPoints:
    """Paths, absolute in the container."""

    __slots__ = ("_above", "_paths")

    def __init__(self, paths: Iterable[bytes] = ()) -> None:
        self._paths = frozenset(paths)
        self._above = frozenset(
            b"/".join(parts[:depth])
            for parts in (path.split(b"/") for path in self._paths)
            for depth in range(2, len(parts))
        )

    def is_empty_one(self, directory: MergedDirectory, found: Found, path: bytes) -> bool:
        """Tell whether ``path`` is a mount point with nothing in it; ``found`` is what is there, in ``directory``."""
        return path in self._paths and self._is_bare(directory, found, path)

    def is_made_for_one(self, directory: MergedDirectory, found: Found, path: bytes) -> bool:
        """The same, or a directory in which there are only such."""
        return (path in self._paths or path in self._above) and self._is_bare(directory, found, path)

    def _is_bare(self, directory: MergedDirectory, found: Found, path: bytes) -> bool:
        if not found.is_directory:
            return stat.S_ISREG(found.status.st_mode) and not found.status.st_size
        opened = directory.open_child(found.name)
        if opened is None:
            return False
        with opened:
            for name in opened.list_names():
                inner = opened.find(name)
                if inner is not None and not self.is_made_for_one(opened, inner, path + b"/" + name):
                    return False
        return True


NONE = MountPoints()
