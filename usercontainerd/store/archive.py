"""Tar archives of directory trees: a layer in OCI's form, or what several layers look like together.

Runs in a child of the worker, as root of the user namespace, with descriptors only (see ``overlay``): the
tree may belong to a running container. Also for what is copied out of a container, or into one: then the tree is an
ordinary one. A name that vanishes meanwhile is left out, a file that shrinks is
filled up with zeros, as GNU tar does it; both are reported. Order is by name, a directory before what is in
it, and the same tree always gives the same bytes.
"""

from __future__ import annotations

import errno
import os
import stat

from usercontainerd.base.errors import HostError, InvalidFormat
from usercontainerd.store import tar
from usercontainerd.store.mountpoints import NONE
from usercontainerd.store.overlay import MergedDirectory, is_whiteout
from usercontainerd.store.tar import BLOCK, SMALL, Entry, printable_name
from usercontainerd.store.tarwriter import END, build_header, build_sparse_header

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from usercontainerd.store.mountpoints import MountPoints
    from usercontainerd.store.overlay import Found
    from usercontainerd.store.tar import Segments

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
MAX_PATH = 4095
_PIECE = 256 * 1024
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_KINDS = {stat.S_IFREG: tar.REGULAR, stat.S_IFLNK: tar.SYMLINK, stat.S_IFIFO: tar.FIFO}
_MAX_WARNINGS = 20
_MAX_SEGMENTS = 10_000  # of a sparse file; what lies behind the last of them is written with its holes
_MAX_MADE_UP = 1 << 20  # bytes of a file that the kernel makes up when it is read: its size is always 0
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE)
# What files of procfs and its like answer that cannot be read, or not now.
_REFUSED = (errno.EACCES, errno.EPERM, errno.EIO, errno.EINVAL, errno.EAGAIN, errno.ENODATA, errno.EBUSY)


class TreeArchiver:
    """Writes the archive of one tree.

    With ``whiteouts`` the tree is a single layer and its whiteouts and opaque directories are written as OCI
    has them; without, hidden things are left out. The root directory itself has no entry, as in Docker's layers.
    With ``sparse`` the holes of files take no room. ``made_up`` are the devices (``st_dev``) of file systems in
    which the kernel makes up the files: they are entered only if all of what is written lies in one. What is only there
    because something was ``mounted`` on it is left out.
    """

    def __init__(
        self,
        write: Callable[[bytes], object],
        *,
        whiteouts: bool,
        sparse: bool = False,
        made_up: Collection[int] = (),
        mounted: MountPoints = NONE,
    ) -> None:
        self._write = write
        self._whiteouts = whiteouts
        self._sparse = sparse
        self._made_up = made_up
        self._mounted = mounted
        self._links: dict[tuple[int, int], bytes] = {}  # of files with several names, the first one
        self._buffer: list[bytes] = []
        self._buffered = 0
        self.warnings: list[str] = []

    def write_tree(self, root: MergedDirectory) -> list[str]:
        """Write everything, with the end marks; closes ``root``. Returns warnings."""
        self._write_below(b"", root)
        return self._finish()

    def write_item(self, parent: MergedDirectory, name: bytes, title: bytes) -> list[str]:
        """Write what ``parent`` has under ``name`` as ``title``, with all that is in it, and the end marks.

        Returns warnings. Raises ``HostError`` for what cannot be archived at all.
        """
        opened = self._write_name(parent, name, title)
        if opened is not None:
            self._write_below(title + b"/", opened)
        return self._finish()

    def _finish(self) -> list[str]:
        self._put(END)
        self._flush()
        return self.warnings

    def _write_below(self, start: bytes, root: MergedDirectory) -> None:
        """Write what is in a directory, whose path ``start`` is with a slash; closes it."""
        stack = [(start, root, self._begin(start, root))]
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

    def _begin(self, path: bytes, directory: MergedDirectory) -> list[bytes]:
        """Return the names in a directory, the first one last."""
        if self._whiteouts and directory.opaque:
            self._put(build_header(Entry(path + OPAQUE, mode=0)))
        return directory.list_names()[::-1]

    def _write_name(self, directory: MergedDirectory, name: bytes, path: bytes) -> MergedDirectory | None:
        """Write what a name stands for; return it opened if it is a directory."""
        found = directory.find(name, whiteouts=self._whiteouts)
        if found is None or self._mounted.is_empty_one(directory, found, b"/" + path):
            return None
        status = found.status
        try:
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
        except BrokenPipeError:
            raise  # of the one who takes the archive
        except OSError as error:
            if error.errno in _GONE:
                self._warn(f"left out, it changed meanwhile: {printable_name(path)}")
            elif self._made_up and error.errno in _REFUSED and status.st_dev in self._made_up:
                self._warn(f"left out, it cannot be read: {printable_name(path)}")
            else:
                raise HostError(f"cannot read {printable_name(path)}: {error.strerror}") from error
        return None

    def _write_directory(
        self, directory: MergedDirectory, found: Found, path: bytes
    ) -> MergedDirectory | None:
        opened = directory.open_child(found.name)
        if opened is None:
            self._warn(f"left out, it changed meanwhile: {printable_name(path)}")
            return None
        top = opened.fds[0]
        status = os.fstat(top)
        self._put(build_header(_describe(path + b"/", tar.DIRECTORY, status, read_xattrs(top))))
        if status.st_dev in self._made_up and os.fstat(directory.fds[0]).st_dev not in self._made_up:
            self._warn(f"left empty, its files are the kernel's: {printable_name(path)}")
            opened.close()
            return None
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
            if status.st_dev in self._made_up and not status.st_size:
                self._write_made_up(fd, entry)
                return
            segments = None
            if self._sparse and status.st_blocks * 512 < status.st_size:
                segments = find_segments(fd, status.st_size)
            if segments is None:
                entry.size = status.st_size
                self._put(build_header(entry))
                self._write_content(fd, path, status.st_size)
            else:
                self._put(build_sparse_header(entry, segments, status.st_size))
                for offset, length in segments:
                    os.lseek(fd, offset, os.SEEK_SET)
                    self._write_content(fd, path, length)
            self._put(bytes(-entry.size % BLOCK))
        finally:
            os.close(fd)

    def _write_content(self, fd: int, path: bytes, left: int) -> None:
        while left:
            piece = os.read(fd, min(left, _PIECE))
            if not piece:
                self._warn(f"became shorter meanwhile: {printable_name(path)}")
                piece = bytes(min(left, SMALL))
            self._put(piece)
            left -= len(piece)

    def _write_made_up(self, fd: int, entry: Entry) -> None:
        parts = []
        while entry.size < _MAX_MADE_UP and (part := os.read(fd, SMALL)):
            parts.append(part)
            entry.size += len(part)
        self._put(build_header(entry))
        self._put(b"".join(parts) + bytes(-entry.size % BLOCK))

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


def find_segments(fd: int, size: int) -> Segments | None:
    """Where the bytes of a file of ``size`` bytes are, as (offset, length); None where that is not known."""
    segments: list[tuple[int, int]] = []
    at = 0
    try:
        while at < size:
            try:
                start = os.lseek(fd, at, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                break  # a hole up to the end
            at = size if len(segments) == _MAX_SEGMENTS else min(os.lseek(fd, start, os.SEEK_HOLE), size)
            if start < at:
                segments.append((start, at - start))
    except OSError:
        return None
    finally:
        os.lseek(fd, 0, os.SEEK_SET)
    return segments


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
