"""What unpacking asks of the file system, where names lead in it, whose files they may be, and what is said of it."""

from __future__ import annotations

import errno
import os
import stat

from usercontainerd.base.errors import HostError, InvalidFormat, StoreError, SubIdsMissing, UsercontainerError
from usercontainerd.store.tar import Entry, printable_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Sequence
    from typing import Protocol

    class FileSystem(Protocol):
        """The part of ``os`` that unpacking uses; the module itself is one, tests have another."""

        def open(self, path: bytes, flags: int, mode: int = ..., /) -> int: ...  # noqa: D102
        def read(self, fd: int, count: int, /) -> bytes: ...  # noqa: D102
        def write(self, fd: int, data: bytes | memoryview, /) -> int: ...  # noqa: D102
        def close(self, fd: int, /) -> None: ...  # noqa: D102
        def fchown(self, fd: int, uid: int, gid: int, /) -> None: ...  # noqa: D102
        def fchmod(self, fd: int, mode: int, /) -> None: ...  # noqa: D102
        def lchown(self, path: bytes, uid: int, gid: int, /) -> None: ...  # noqa: D102
        def chmod(self, path: bytes, mode: int, /) -> None: ...  # noqa: D102
        def mkdir(self, path: bytes, mode: int = ..., /) -> None: ...  # noqa: D102
        def mknod(self, path: bytes, mode: int = ..., device: int = ..., /) -> None: ...  # noqa: D102
        def symlink(self, target: bytes, path: bytes, /) -> None: ...  # noqa: D102
        def link(self, source: bytes, target: bytes, /, *, follow_symlinks: bool) -> None: ...  # noqa: D102
        def lseek(self, fd: int, offset: int, how: int, /) -> int: ...  # noqa: D102
        def ftruncate(self, fd: int, length: int, /) -> None: ...  # noqa: D102
        def readlink(self, path: bytes, /) -> bytes: ...  # noqa: D102
        def lstat(self, path: bytes, /) -> os.stat_result: ...  # noqa: D102
        def unlink(self, path: bytes, /) -> None: ...  # noqa: D102
        def rmdir(self, path: bytes, /) -> None: ...  # noqa: D102
        def listdir(self, path: bytes, /) -> list[bytes]: ...  # noqa: D102
        def utime(  # noqa: D102
            self, path: bytes | int, /, *, ns: tuple[int, int], follow_symlinks: bool = ...
        ) -> None: ...
        def setxattr(  # noqa: D102
            self, path: bytes | int, name: bytes, value: bytes, /, *, follow_symlinks: bool = ...
        ) -> None: ...


MAX_PATH = 4095
MAX_SYMLINKS = 40  # on the way to one file, as in the kernel


class MappedIds:
    """Which IDs the namespace has, as (first, count) ranges, and what to say about one that it has not."""

    __slots__ = ("gids", "hint", "uids")

    def __init__(
        self, uids: Sequence[tuple[int, int]], gids: Sequence[tuple[int, int]], hint: str | None = None
    ) -> None:
        self.uids = tuple(uids)
        self.gids = tuple(gids)
        self.hint = hint

    def check(self, entry: Entry) -> None:
        """Raise ``SubIdsMissing`` naming the file, the ID and the range if an owner is not mapped."""
        for number, ranges, kind in ((entry.uid, self.uids, "user"), (entry.gid, self.gids, "group")):
            if not any(first <= number < first + count for first, count in ranges):
                spans = ", ".join(str(f) if c == 1 else f"{f} to {f + c - 1}" for f, c in ranges)
                mapped = f"ID {spans} is" if len(ranges) == 1 and ranges[0][1] == 1 else f"IDs {spans} are"
                hint = self.hint
                if hint is None:
                    file = "subuid" if kind == "user" else "subgid"
                    hint = f"give your user a range in /etc/{file} that makes {number + 1} or more IDs in all"
                raise SubIdsMissing(
                    f"the image's file {printable_name(entry.name)} belongs to {kind} ID {number}, "
                    f"but only the {mapped} mapped",
                    hint=hint,
                )


def clean_path(name: bytes) -> bytes:
    """Return ``name`` relative to the layer's root, b"" for the root itself.

    A leading slash is dropped, ``.`` and inner ``..`` are resolved by the text. Raises ``InvalidFormat`` for
    an empty name, NUL, too long a path and for one that climbs above the root.
    """
    if not name:
        raise InvalidFormat("broken layer: an entry has no name")
    if len(name) > MAX_PATH or b"\0" in name:
        raise InvalidFormat(
            f"broken layer: the name {printable_name(name)} is too long or holds a NUL character"
        )
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part in (b"", b"."):
            continue
        if part == b"..":
            if not parts:
                raise InvalidFormat(f"broken layer: the name {printable_name(name)} leads out of the layer")
            parts.pop()
        else:
            parts.append(part)
    return b"/".join(parts)


def follow_symlinks(fs: FileSystem, symlinks: Container[bytes], path: bytes) -> bytes:
    """Return ``path`` with all symlinks followed, as the kernel follows them; ``symlinks`` are all there are.

    What ``path`` itself names need not be there, what a symlink leads to must be a directory. Raises ``OSError``.
    """
    pending = path.split(b"/")[::-1]
    real: list[bytes] = []
    followed = 0
    own = len(pending)  # of the pending parts, those that are the path's and no symlink's
    while pending:
        part = pending.pop()
        of_symlink = len(pending) >= own
        own = min(own, len(pending))
        if part == b"..":
            real[-1:] = []
            continue
        real.append(part)
        place = b"/".join(real)
        if place in symlinks:
            followed += 1
            if followed > MAX_SYMLINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            target = fs.readlink(place)
            if target.startswith(b"/"):
                real.clear()
            else:
                real.pop()
            pending += [p for p in reversed(target.split(b"/")) if p not in (b"", b".")]
        elif of_symlink and not stat.S_ISDIR(fs.lstat(place).st_mode):
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    return b"/".join(real)


class Summary:
    """What came out of a layer: entries, bytes of file content, and what could not be had rootless."""

    __slots__ = ("entries", "size", "warning_count", "warnings")

    def __init__(self) -> None:
        self.entries = 0
        self.size = 0
        self.warnings: list[str] = []
        self.warning_count = 0

    def warn(self, text: str) -> None:
        """Keep the first twenty warnings and count the others."""
        self.warning_count += 1
        if len(self.warnings) < 20:
            self.warnings.append(text)


# What a layer's author did wrong, as opposed to what the host lacks.
_AUTHOR = frozenset(
    (
        errno.ENOENT,
        errno.ENOTDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.EISDIR,
        errno.EEXIST,
        errno.ENOTEMPTY,
    )
)


def explain_failure(error: OSError, entry: Entry) -> UsercontainerError:
    """Say what went wrong with an entry: the layer's fault, no room, or the host's."""
    name = printable_name(entry.name)
    if error.errno in _AUTHOR:
        return InvalidFormat(f"broken layer: {name} cannot be placed: {error.strerror}")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(
            f"no room for {name}: {error.strerror}", hint="free some space, or remove unused images"
        )
    return HostError(f"cannot unpack {name}: {error.strerror}", hint="see `usercontainer doctor`")
