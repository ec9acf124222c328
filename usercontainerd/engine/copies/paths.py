"""Where a copy comes from and goes to, by docker's rules; and finding paths without being led astray."""

from __future__ import annotations

import errno
import os
import stat

from usercontainerd.base.errors import AlreadyExists, InvalidArgument, NoSuchFile, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Open = Callable[[int, bytes], int]

FILE, DIRECTORY, OTHER, MISSING, STREAM = "file", "directory", "other", "missing", "stream"
CONTENTS = b"."
MAX_SYMLINKS = 40
_PATH = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_AT_FDCWD = -100


class Source:
    """What is copied: its kind, and the name that it has in a directory that it is copied into.

    The name is ``CONTENTS`` for what is in a directory (``dir/.``).
    """

    __slots__ = ("kind", "name")

    def __init__(self, kind: str, name: bytes = b"") -> None:
        self.kind = kind
        self.name = name

    def as_dict(self) -> dict[str, str]:
        """As JSON can carry it; see ``parse_source``."""
        return {"kind": self.kind, "name": os.fsdecode(self.name)}


def parse_source(document: dict[str, str]) -> Source:
    """Read what ``Source.as_dict`` wrote."""
    return Source(document["kind"], os.fsencode(document["name"]))


class Place:
    """What a path stands for: a name in the directory ``parent``, a descriptor that it owns.

    ``status`` is None if there is nothing. ``insists`` tells that the path ends as that of a directory does.
    """

    __slots__ = ("insists", "name", "parent", "path", "status")

    def __init__(
        self, parent: int, name: bytes, status: os.stat_result | None, *, path: str, insists: bool
    ) -> None:
        self.parent = parent
        self.name = name
        self.status = status
        self.path = path
        self.insists = insists

    @property
    def kind(self) -> str:
        """One of the words above."""
        if self.status is None:
            return MISSING
        mode = self.status.st_mode
        return DIRECTORY if stat.S_ISDIR(mode) else FILE if stat.S_ISREG(mode) else OTHER

    def describe_source(self) -> Source:
        """It as a source. Raises ``NoSuchFile``, and ``InvalidArgument`` for what cannot be copied."""
        if self.status is None:
            raise NoSuchFile("no such file or directory", where=self.path)
        if self.kind == OTHER and not stat.S_ISFIFO(self.status.st_mode):
            what = "a socket" if stat.S_ISSOCK(self.status.st_mode) else "a device"
            raise InvalidArgument(f"this is {what}, which cannot be copied", where=self.path)
        if self.insists and self.kind != DIRECTORY:
            raise InvalidArgument("this is not a directory", where=self.path)
        base = os.path.basename(self.path.rstrip("/"))
        if self.kind == DIRECTORY and (base in ("", ".") or self.path.endswith("/.")):
            return Source(DIRECTORY, CONTENTS)
        if base == "..":
            base = os.path.basename(os.path.realpath(self.path))
        return Source(self.kind, os.fsencode(base))

    def close(self) -> None:
        """Close the directory."""
        os.close(self.parent)


def open_plainly(at: int, path: bytes) -> int:
    """Open a directory as any program does."""
    return os.open(path, _PATH, dir_fd=None if at == _AT_FDCWD else at)


def find_place(path: str, *, start: int = _AT_FDCWD, open_directory: Open = open_plainly) -> Place:
    """Find what ``path`` stands for, from the directory ``start``; a symlink at its end is followed, dangling or not.

    Raises ``NoSuchFile`` if its directory is not there, ``InvalidArgument``.
    """
    raw = os.fsencode(path)
    if not raw or b"\0" in raw:
        raise InvalidArgument("a path is empty, or holds a NUL character", where=printable(path))
    insists = raw.endswith((b"/", b"/.", b"/..")) or raw in (b".", b"..")
    at = start
    opened: list[int] = []
    try:
        for _ in range(MAX_SYMLINKS):
            directory, _, name = raw.rstrip(b"/").rpartition(b"/")
            if name in (b"", b".", b".."):
                opened.append(open_directory(at, raw))
                return Place(opened[-1], CONTENTS, os.fstat(opened.pop()), path=path, insists=insists)
            top = b"/" if raw.startswith(b"/") and not directory else directory or b"."
            opened.append(open_directory(at, top))
            at = opened[-1]
            status = _look(name, at)
            if status is None or not stat.S_ISLNK(status.st_mode):
                return Place(opened.pop(), name, status, path=path, insists=insists)
            raw = os.readlink(name, dir_fd=at)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    except FileNotFoundError:
        raise NoSuchFile("no such directory", where=os.path.dirname(path.rstrip("/")) or path) from None
    except OSError as error:
        raise InvalidArgument(f"cannot be reached: {error.strerror}", where=path) from error
    finally:
        for fd in opened:
            os.close(fd)


def _look(name: bytes, at: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=at, follow_symlinks=False)
    except FileNotFoundError:
        return None


class Target:
    """Where a copy goes: into the directory ``at``, a descriptor that it owns, as ``name``.

    ``name`` is None for an archive that has its own names, ``CONTENTS`` to put them into ``at`` itself. ``is_new``
    tells that it is a directory that is not there yet.
    """

    __slots__ = ("at", "is_new", "name")

    def __init__(self, at: int, name: bytes | None, *, is_new: bool = False) -> None:
        self.at = at
        self.name = name
        self.is_new = is_new

    def close(self) -> None:
        """Close the directory."""
        os.close(self.at)


def open_target(source: Source, place: Place, *, overwrite: bool) -> Target:
    """Decide by docker's rules where ``source`` goes. Raises ``InvalidArgument``, ``NoSuchFile``, ``AlreadyExists``."""
    kind = place.kind
    if kind == DIRECTORY:
        at = os.open(
            place.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place.parent
        )
        if source.kind == STREAM:
            return Target(at, None)
        is_new = source.kind == DIRECTORY and source.name != CONTENTS and _look(source.name, at) is None
        return Target(at, source.name, is_new=is_new)
    check_target(source, kind, place.path, insists=place.insists, overwrite=overwrite)
    return Target(os.dup(place.parent), place.name, is_new=source.kind == DIRECTORY and kind == MISSING)


def check_target(source: Source, kind: str, path: str, *, insists: bool, overwrite: bool) -> None:
    """Raise unless ``source`` can become what is, or is not yet, at ``path``: no directory. Pure."""
    if source.kind == STREAM:
        if kind == MISSING:
            raise NoSuchFile("no such directory: an archive is unpacked into one that is there", where=path)
        raise InvalidArgument("this is not a directory: an archive is unpacked into one", where=path)
    if kind == OTHER:
        raise InvalidArgument("this is neither a file nor a directory", where=path)
    if source.kind == DIRECTORY:
        if kind == FILE and not overwrite:
            raise AlreadyExists(
                "cannot copy a directory onto a file", where=path, hint="--overwrite replaces the file"
            )
    elif insists and kind == MISSING:
        raise NoSuchFile("no such directory: it is not made for a file", where=path)
    elif insists:
        raise InvalidArgument("this is not a directory", where=path)
