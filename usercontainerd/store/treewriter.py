"""Writing an archive's entries into a tree that is there already, and that somebody else may be changing.

For what is copied into a container, or out of it: unlike a layer (see ``unpack``) it is merged with what is there. All
is done through descriptors, one component at a time and never through a symlink: a container that swaps a directory
for one meanwhile leads nowhere. A file gets its name when it is complete, a directory its mode when all is in it.
"""

from __future__ import annotations

import errno
import os
import stat

from usercontainerd.base.errors import (
    AlreadyExists,
    HostError,
    InvalidFormat,
    StoreError,
    SubIdsMissing,
    UsercontainerError,
)
from usercontainerd.kernel.trees import remove_entry
from usercontainerd.store import tar
from usercontainerd.store.places import clean_path
from usercontainerd.store.tar import Entry, printable_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from usercontainerd.store.tarreader import TarReader

    Parts = tuple[bytes, ...]

OPAQUE = b"user.overlay."
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NOT_A_DIRECTORY = (errno.ENOTDIR, errno.ELOOP)
_IS_A_DIRECTORY = (errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST)
_MAX_TIME = (1 << 40) * 1_000_000_000
_MAX_WARNINGS = 20
_PIECE = 1 << 20


class Manner:
    """How entries are written.

    ``owner`` are the IDs that everything gets, None to leave them to the kernel; with ``exact`` it is the archive's
    that count, and directories that are there get the archive's attributes, too. ``overwrite`` lets a directory be
    replaced by something else and the other way round. ``modes`` are the bits of modes that are taken over.
    ``follow`` opens what a symlink among the parents of a name leads to, or returns -1; it is not asked for the
    archive's own.
    """

    __slots__ = ("exact", "follow", "modes", "overwrite", "owner")

    def __init__(
        self,
        *,
        owner: tuple[int, int] | None = None,
        exact: bool = False,
        overwrite: bool = False,
        modes: int = 0o7777,
        follow: Callable[[int, bytes], int] | None = None,
    ) -> None:
        self.owner = owner
        self.exact = exact
        self.overwrite = overwrite
        self.modes = modes
        self.follow = follow


class Level:
    """An open directory on the way down. ``entry`` has the attributes that it gets when it is left."""

    __slots__ = ("entry", "fd", "name")

    def __init__(self, name: bytes, fd: int, entry: Entry | None) -> None:
        self.name = name
        self.fd = fd
        self.entry = entry


class TreeWriter:
    """Writes an archive below the directory ``top``, a descriptor of the caller's.

    With a ``name`` the archive is of one item, which gets that name; "." puts what is in it into ``top`` itself.
    """

    def __init__(self, top: int, manner: Manner, name: bytes | None = None) -> None:
        self._top = top
        self._manner = manner
        self._name = name
        self._stack: list[Level] = []
        self._made: dict[Parts, Entry] = {}  # directories whose attributes are the archive's
        self._top_entry: Entry | None = None
        self._symlinks: set[tuple[int, int]] = set()  # the archive's own
        self._temporary: tuple[int, bytes] | None = None
        self._counter = 0
        self.warnings: list[str] = []

    def write(self, reader: TarReader) -> list[str]:
        """Write everything; return warnings.

        Raises ``InvalidFormat``, ``AlreadyExists``, ``StoreError`` for a full disk, ``SubIdsMissing``, ``HostError``.
        """
        try:
            while (entry := reader.read_entry()) is not None:
                try:
                    self._write_entry(entry, reader)
                except OSError as error:
                    raise explain_write(error, entry.name) from error
            self._leave(0)
            if self._top_entry is not None:
                self._set_attributes(self._top, self._top_entry)
        finally:
            self._forget_temporary()
            for level in self._stack:
                os.close(level.fd)
            self._stack.clear()
        return self.warnings

    def _locate(self, name: bytes) -> Parts:
        """Where an entry goes, from ``top``; empty for ``top`` itself."""
        parts = tuple(part for part in clean_path(name).split(b"/") if part)
        if self._name is None:
            return parts
        return parts[1:] if self._name == b"." else (self._name, *parts[1:])

    def _write_entry(self, entry: Entry, reader: TarReader) -> None:
        parts = self._locate(entry.name)
        kind = entry.type
        if kind == tar.DIRECTORY:
            self._enter(parts)
            self._take_attributes(parts, entry)
            return
        if not parts:
            raise InvalidFormat("broken archive: its root is not a directory")
        name = parts[-1]
        at = self._enter(parts[:-1])
        if kind == tar.REGULAR:
            self._write_file(at, name, entry, reader)
        elif kind == tar.SYMLINK:
            self._write_symlink(at, name, entry)
        elif kind == tar.HARD_LINK:
            self._write_link(at, name, entry)
        elif kind == tar.FIFO:
            self._place(at, name, lambda new: os.mkfifo(new, entry.mode & 0o777, dir_fd=at))
        else:
            self._warn(f"device node left out: {printable_name(entry.name)}")

    # Directories

    def _enter(self, parts: Parts) -> int:
        """Go to a directory, making what is missing; return its descriptor."""
        depth = 0
        for level, part in zip(self._stack, parts, strict=False):
            if level.name != part:
                break
            depth += 1
        self._leave(depth)
        for index in range(depth, len(parts)):
            at = self._stack[-1].fd if self._stack else self._top
            fd, is_new = self._open_or_make(at, parts[index])
            entry = self._made.get(parts[: index + 1]) or (_PLAIN if is_new else None)
            self._stack.append(Level(parts[index], fd, entry))
        return self._stack[-1].fd if self._stack else self._top

    def _open_or_make(self, at: int, name: bytes) -> tuple[int, bool]:
        """Open a directory; tell whether it had to be made."""
        for _ in range(2):
            try:
                return os.open(name, _DIRECTORY, dir_fd=at), False
            except FileNotFoundError:
                break
            except OSError as error:
                if error.errno not in _NOT_A_DIRECTORY:
                    raise
            fd = self._follow(at, name)
            if fd >= 0:
                return fd, False
            if not self._manner.overwrite:
                raise AlreadyExists(
                    f"{printable_name(name)} is there and not a directory",
                    hint="--overwrite replaces it by the directory",
                )
            remove_entry(at, os.fsdecode(name))
        os.mkdir(name, 0o700, dir_fd=at)
        return os.open(name, _DIRECTORY, dir_fd=at), True

    def _follow(self, at: int, name: bytes) -> int:
        """Open the directory that a symlink leads to; -1 if it is not to be followed."""
        if self._manner.follow is None:
            return -1
        status = os.stat(name, dir_fd=at, follow_symlinks=False)
        if (status.st_dev, status.st_ino) in self._symlinks:
            return -1
        return self._manner.follow(at, name)

    def _take_attributes(self, parts: Parts, entry: Entry) -> None:
        """Note the attributes of the directory that was entered last, if it is to have them."""
        if not parts:
            if self._manner.exact:
                self._top_entry = entry
            return
        level = self._stack[-1]
        if level.entry is not None or self._manner.exact:
            level.entry = self._made[parts] = entry

    def _leave(self, depth: int) -> None:
        while len(self._stack) > depth:
            level = self._stack[-1]
            if level.entry is not None:
                self._set_attributes(level.fd, level.entry)
            os.close(level.fd)
            self._stack.pop()

    # What is no directory

    def _write_file(self, at: int, name: bytes, entry: Entry, reader: TarReader) -> None:
        def make(new: bytes) -> None:
            fd = os.open(new, _NEW_FILE, 0o600, dir_fd=at)
            try:
                if entry.segments is None:
                    _write_pieces(fd, reader, None)
                else:
                    for offset, length in entry.segments:
                        os.lseek(fd, offset, os.SEEK_SET)
                        _write_pieces(fd, reader, length)
                    os.ftruncate(fd, entry.real_size)
                self._set_attributes(fd, entry)
            finally:
                os.close(fd)

        self._place(at, name, make)

    def _write_symlink(self, at: int, name: bytes, entry: Entry) -> None:
        def make(new: bytes) -> None:
            os.symlink(entry.linkname, new, dir_fd=at)
            owner = self._plan_owner(entry)
            if owner is not None:
                os.chown(new, *owner, dir_fd=at, follow_symlinks=False)
            time = _clamp(entry.mtime)
            os.utime(new, ns=(time, time), dir_fd=at, follow_symlinks=False)
            if self._manner.follow is not None:
                status = os.stat(new, dir_fd=at, follow_symlinks=False)
                self._symlinks.add((status.st_dev, status.st_ino))

        if not entry.linkname:
            raise InvalidFormat(f"broken archive: the symlink {printable_name(entry.name)} leads nowhere")
        self._place(at, name, make)

    def _write_link(self, at: int, name: bytes, entry: Entry) -> None:
        *parents, source = self._locate(entry.linkname) or (b"",)
        opened = [os.open(b".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._top)]
        try:
            for part in parents:
                opened.append(self._open_parent(opened[-1], part))
            self._place(
                at,
                name,
                lambda new: os.link(source, new, src_dir_fd=opened[-1], dst_dir_fd=at, follow_symlinks=False),
            )
        except FileNotFoundError:
            raise InvalidFormat(
                f"broken archive: the hard link {printable_name(entry.name)} leads to "
                f"{printable_name(entry.linkname)}, which is not there"
            ) from None
        finally:
            for fd in opened:
                os.close(fd)

    def _open_parent(self, at: int, name: bytes) -> int:
        try:
            return os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
        except OSError as error:
            if error.errno not in _NOT_A_DIRECTORY or (fd := self._follow(at, name)) < 0:
                raise
            return fd

    def _place(self, at: int, name: bytes, make: Callable[[bytes], object]) -> None:
        """Have ``make`` make something under a temporary name, then give it ``name``."""
        self._counter += 1
        new = make_temporary_name(self._counter)
        self._temporary = (at, new)
        make(new)
        try:
            self._rename(at, new, name)
        finally:
            # Also of use after success: renaming one name of a file over another of the same file does nothing.
            self._forget_temporary()

    def _rename(self, at: int, new: bytes, name: bytes) -> None:
        try:
            os.rename(new, name, src_dir_fd=at, dst_dir_fd=at)
        except OSError as error:
            if error.errno == errno.EBUSY:
                _write_in_place(at, new, name)
                return
            if error.errno not in _IS_A_DIRECTORY:
                raise
            if not self._manner.overwrite:
                raise AlreadyExists(
                    f"{printable_name(name)} is there and a directory", hint="--overwrite replaces it"
                ) from error
            remove_entry(at, os.fsdecode(name))
            os.rename(new, name, src_dir_fd=at, dst_dir_fd=at)

    def _forget_temporary(self) -> None:
        if self._temporary is not None:
            at, name = self._temporary
            self._temporary = None
            try:
                os.unlink(name, dir_fd=at)
            except OSError:
                pass  # it has its name

    # Attributes

    def _plan_owner(self, entry: Entry) -> tuple[int, int] | None:
        owner = self._manner.owner
        return (entry.uid, entry.gid) if owner is not None and self._manner.exact else owner

    def _set_attributes(self, fd: int, entry: Entry) -> None:
        owner = self._plan_owner(entry)
        if owner is not None:
            status = os.fstat(fd)
            if (status.st_uid, status.st_gid) != owner:
                _change_owner(fd, owner, entry)
        os.fchmod(fd, entry.mode & self._manner.modes)  # after chown(2), which clears bits
        for name, value in entry.xattrs.items():
            self._set_xattr(fd, name, value, entry)
        if entry is not _PLAIN:
            time = _clamp(entry.mtime)
            os.utime(fd, ns=(time, time))

    def _set_xattr(self, fd: int, name: bytes, value: bytes, entry: Entry) -> None:
        if name.startswith(OPAQUE) or not (name == b"security.capability" or name.startswith(b"user.")):
            return
        try:
            os.setxattr(fd, name, value)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.EINVAL, errno.EACCES):
                raise
            if name != b"security.capability":  # nobody expects those of a container on the host
                self._warn(f"attribute {printable_name(name)} of {printable_name(entry.name)} left out")

    def _warn(self, text: str) -> None:
        if len(self.warnings) < _MAX_WARNINGS and text not in self.warnings:
            self.warnings.append(text)


_PLAIN = Entry(b"", tar.DIRECTORY, mode=0o755)  # of a directory that the archive has not described


def make_temporary_name(number: int = 0) -> bytes:
    """A name that nobody else has; hidden, since a killed process may leave it."""
    return b".usercontainer-cp-%d-%s-%d" % (os.getpid(), os.urandom(6).hex().encode(), number)


def _write_pieces(fd: int, reader: TarReader, count: int | None) -> None:
    for view in reader.content(count):
        while view:
            view = view[os.write(fd, view) :]  # noqa: PLW2901


def _write_in_place(at: int, new: bytes, name: bytes) -> None:
    """Something is mounted on the file, so no other can get its name: give it the content of the new one."""
    source = os.open(new, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
    try:
        target = os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)
        try:
            if not stat.S_ISREG(os.fstat(target).st_mode):
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
            os.ftruncate(target, 0)
            while data := os.read(source, _PIECE):
                view = memoryview(data)
                while view:
                    view = view[os.write(target, view) :]
        finally:
            os.close(target)
    finally:
        os.close(source)


def _change_owner(fd: int, owner: Sequence[int], entry: Entry) -> None:
    try:
        os.fchown(fd, owner[0], owner[1])
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise SubIdsMissing(
            f"{printable_name(entry.name)} belongs to {owner[0]}:{owner[1]}, which the container does not have",
            hint="leave out -a, or give your user larger ranges in /etc/subuid and /etc/subgid",
        ) from error


def explain_write(error: OSError, name: bytes) -> UsercontainerError:
    """Say why something could not be written: no room, no right, or the host's fault."""
    what = f"cannot write {printable_name(name)}: {error.strerror}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(what, hint="free some space there")
    if error.errno == errno.EROFS:
        return HostError(what, hint="it is mounted read-only there")
    return HostError(what)


def _clamp(time: int) -> int:
    return max(-_MAX_TIME, min(_MAX_TIME, time))
