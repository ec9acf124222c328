"""What unpacking asks of the file system, which names it lets in, and whose files they may be. Pure."""

from __future__ import annotations

from usercontainerd.base.errors import InvalidFormat, SubIdsMissing
from usercontainerd.store.tar import Entry, printable_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
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
