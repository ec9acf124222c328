"""Directories as overlayfs merges them, read without a mount.

Looks at the layers of a container or image through descriptors, one component at a time and never through a
symlink: what a container does to its files meanwhile leads nowhere else. Whiteouts (character devices 0:0)
and opaque directories (``user.overlay.opaque``) are those of a mount with ``userxattr``, which allows neither
redirects nor metadata-only copies (kernel: Documentation/filesystems/overlayfs.rst).
"""

from __future__ import annotations

import errno
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

OPAQUE_XATTR = b"user.overlay.opaque"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def is_whiteout(status: os.stat_result) -> bool:
    """Tell whether this hides what lower layers have under the name."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(directory: int) -> bool:
    """Tell whether the open directory does not merge with lower ones."""
    try:
        return os.getxattr(directory, OPAQUE_XATTR) == b"y"
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return False
        raise


class Found:
    """What a name stands for: its status, and a directory descriptor below which it has the name."""

    __slots__ = ("at", "name", "status")

    def __init__(self, at: int, name: bytes, status: os.stat_result) -> None:
        self.at = at
        self.name = name
        self.status = status

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.status.st_mode)


class MergedDirectory:
    """A directory that several layers may have, the highest first; a context manager that owns ``fds``.

    ``opaque`` tells whether the highest one hides all lower ones; those are not among ``fds`` then.
    """

    __slots__ = ("fds", "opaque")

    def __init__(self, fds: Sequence[int], *, opaque: bool = False) -> None:
        self.fds = list(fds)
        self.opaque = opaque

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptors."""
        while self.fds:
            os.close(self.fds.pop())

    def list_names(self) -> list[bytes]:
        """Return the names that any layer has here, sorted; ``find`` tells which of them are hidden."""
        return sorted({os.fsencode(name) for fd in self.fds for name in os.listdir(fd)})

    def find(self, name: bytes, *, whiteouts: bool = False) -> Found | None:
        """Look up a name; None if no layer has it or it is hidden.

        With ``whiteouts`` a whiteout is returned instead.
        """
        for fd in self.fds:
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except OSError as error:
                if error.errno in _ABSENT:
                    continue
                raise
            if is_whiteout(status) and not whiteouts:
                return None
            return Found(fd, name, status)
        return None

    def open_child(self, name: bytes) -> MergedDirectory | None:
        """Open a directory in it, merged; None if the name stands for something else."""
        opened = MergedDirectory(())
        try:
            for fd in self.fds:
                try:
                    child = os.open(name, _DIRECTORY, dir_fd=fd)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    if error.errno in _ABSENT:
                        break  # a whiteout, or something else that hides what is below
                    raise
                opened.fds.append(child)
                if is_opaque(child):
                    opened.opaque = len(opened.fds) == 1
                    break
        except BaseException:
            opened.close()
            raise
        return opened if opened.fds else None


def open_layers(base: int, names: Sequence[str]) -> MergedDirectory:
    """Open the root of layers, the highest first; ``names`` are relative to ``base``."""
    opened = MergedDirectory(())
    try:
        for name in names:
            opened.fds.append(os.open(name, _DIRECTORY, dir_fd=base))
            if is_opaque(opened.fds[-1]):
                opened.opaque = len(opened.fds) == 1
                break
    except BaseException:
        opened.close()
        raise
    return opened
