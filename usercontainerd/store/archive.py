"""Tar archives of directory trees: a layer in OCI's form, or what several layers look like together.

Runs in a child of the worker, as root of the user namespace, with descriptors only (see ``overlay``): the
tree may belong to a running container. A name that vanishes meanwhile is left out, a file that shrinks is
filled up with zeros, as GNU tar does it; both are reported. Order is by name, a directory before what is in
it, and the same tree always gives the same bytes.
"""

from __future__ import annotations

import errno
import os
import stat

from usercontainerd.base.errors import InvalidFormat
from usercontainerd.store import tar
from usercontainerd.store.overlay import MergedDirectory, is_whiteout
from usercontainerd.store.tar import BLOCK, SMALL, Entry, printable_name
from usercontainerd.store.tarwriter import END, build_header

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from usercontainerd.store.overlay import Found

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
MAX_PATH = 4095
_PIECE = 256 * 1024
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_KINDS = {stat.S_IFREG: tar.REGULAR, stat.S_IFLNK: tar.SYMLINK, stat.S_IFIFO: tar.FIFO}
_MAX_WARNINGS = 20


class TreeArchiver:
    """Writes the archive of one tree.

    With ``whiteouts`` the tree is a single layer and its whiteouts and opaque directories are written as OCI
    has them; without, hidden things are left out. The root directory itself has no entry, as in Docker's layers.
    """

    def __init__(self, write: Callable[[bytes], object], *, whiteouts: bool) -> None:
        self._write = write
        self._whiteouts = whiteouts
        self._links: dict[tuple[int, int], bytes] = {}  # of files with several names, the first one
        self._buffer: list[bytes] = []
        self._buffered = 0
        self.warnings: list[str] = []

    def write_tree(self, root: MergedDirectory) -> list[str]:
        """Write everything, with the end marks; closes ``root``. Returns warnings."""
        stack = [(b"", root, self._begin(b"", root))]
        try:
            while stack:
                path, directory, names = stack[-1]
                if not names:
                    directory.close()
                    stack.pop()
                    continue
                name = names.pop()
                child = path + name
                if len(child) > MAX_PATH:
                    raise InvalidFormat(
                        f"the path {printable_name(child)} is longer than an archive may have"
                    )
                opened = self._write_name(directory, name, child)
                if opened is not None:
                    stack.append((child + b"/", opened, self._begin(child + b"/", opened)))
        finally:
            for _, directory, _ in stack:
                directory.close()
        self._put(END)
        self._flush()
        return self.warnings

    def _begin(self, path: bytes, directory: MergedDirectory) -> list[bytes]:
        """Return the names in a directory, the first one last."""
        if self._whiteouts and directory.opaque:
            self._put(build_header(Entry(path + OPAQUE, mode=0)))
        return directory.list_names()[::-1]

    def _write_name(self, directory: MergedDirectory, name: bytes, path: bytes) -> MergedDirectory | None:
        """Write what a name stands for; return it opened if it is a directory."""
        try:
            found = directory.find(name, whiteouts=self._whiteouts)
            if found is None:
                return None
            status = found.status
            if is_whiteout(status):
                parent = path[: len(path) - len(name)]
                # Its time is that of the removal: of no use, and different in every store.
                self._put(build_header(Entry(parent + WHITEOUT + name, mode=0)))
            elif found.is_directory:
                return self._write_directory(directory, found, path)
            elif stat.S_ISSOCK(status.st_mode):
                self._warn(f"socket left out: {printable_name(path)}")
            elif stat.S_IFMT(status.st_mode) not in _KINDS:
                self._warn(f"device node left out: {printable_name(path)}")
            else:
                self._write_file(found, path)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE):
                raise
            self._warn(f"left out, it changed meanwhile: {printable_name(path)}")
        return None

    def _write_directory(
        self, directory: MergedDirectory, found: Found, path: bytes
    ) -> MergedDirectory | None:
        opened = directory.open_child(found.name)
        if opened is None:
            self._warn(f"left out, it changed meanwhile: {printable_name(path)}")
            return None
        top = opened.fds[0]
        self._put(build_header(_describe(path + b"/", tar.DIRECTORY, os.fstat(top), read_xattrs(top))))
        return opened

    def _write_file(self, found: Found, path: bytes) -> None:
        status = found.status
        key = (status.st_dev, status.st_ino)
        if status.st_nlink > 1 and (first := self._links.get(key)) is not None:
            entry = _describe(path, tar.HARD_LINK, status, self._read_xattrs_of(found))
            entry.linkname = first
            self._put(build_header(entry))
            return
        kind = _KINDS[stat.S_IFMT(status.st_mode)]
        if kind == tar.REGULAR:
            self._write_regular(found, path)
        else:
            entry = _describe(path, kind, status)
            if kind == tar.SYMLINK:
                entry.linkname = os.readlink(found.name, dir_fd=found.at)
            self._put(build_header(entry))
        if status.st_nlink > 1:
            self._links[key] = path

    @staticmethod
    def _read_xattrs_of(found: Found) -> dict[bytes, bytes]:
        """Others give the file the owner once more and lose the capabilities then: each of its names has them."""
        if not stat.S_ISREG(found.status.st_mode):
            return {}
        fd = os.open(found.name, _FILE, dir_fd=found.at)
        try:
            return read_xattrs(fd)
        finally:
            os.close(fd)

    def _write_regular(self, found: Found, path: bytes) -> None:
        fd = os.open(found.name, _FILE, dir_fd=found.at)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            entry = _describe(path, tar.REGULAR, status, read_xattrs(fd))
            entry.size = left = status.st_size
            self._put(build_header(entry))
            while left:
                piece = os.read(fd, min(left, _PIECE))
                if not piece:
                    self._warn(f"became shorter meanwhile: {printable_name(path)}")
                    piece = bytes(min(left, SMALL))
                self._put(piece)
                left -= len(piece)
            self._put(bytes(-entry.size % BLOCK))
        finally:
            os.close(fd)

    def _warn(self, text: str) -> None:
        if len(self.warnings) < _MAX_WARNINGS and text not in self.warnings:
            self.warnings.append(text)

    def _put(self, data: bytes) -> None:
        self._buffer.append(data)
        self._buffered += len(data)
        if self._buffered >= _PIECE:
            self._flush()

    def _flush(self) -> None:
        self._write(b"".join(self._buffer))
        self._buffer.clear()
        self._buffered = 0


def _describe(
    path: bytes, kind: bytes, status: os.stat_result, xattrs: dict[bytes, bytes] | None = None
) -> Entry:
    return Entry(
        path,
        kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime=status.st_mtime_ns,
        xattrs=xattrs,
    )


def read_xattrs(fd: int) -> dict[bytes, bytes]:
    """Those that a layer carries: the user's and file capabilities, none of overlayfs's own."""
    xattrs = {}
    try:
        names = os.listxattr(fd)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return {}
    for text in names:
        name = os.fsencode(text)
        if name == b"security.capability" or (
            name.startswith(b"user.") and not name.startswith(b"user.overlay.")
        ):
            try:
                xattrs[name] = os.getxattr(fd, text)
            except OSError as error:
                # A capability of another namespace means nothing here (EOVERFLOW).
                if error.errno not in (errno.ENODATA, errno.EOVERFLOW):
                    raise
    return xattrs
