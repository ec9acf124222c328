"""Writing a layer's entries into its directory, in the form that a rootless overlay mount wants.

Runs inside the user namespace, in a process that has made the layer's directory its root with chroot(2):
whatever names and symlinks a layer holds, nothing outside can be reached. Names are cleaned all the same, so
that an archive means the same thing here as to tools that do not have this net.

Whiteouts (OCI layer.md) become character devices 0:0, opaque directories get ``user.overlay.opaque=y``:
overlayfs with the option ``userxattr``. Device nodes are left out, as every rootless tool must; that is
reported.
"""

from __future__ import annotations

import errno
import os
import stat

from usercontainerd.base.errors import HostError, InvalidFormat
from usercontainerd.store import tar
from usercontainerd.store.places import (
    MAX_PATH,
    MappedIds,
    Summary,
    clean_path,
    explain_failure,
    follow_symlinks,
)
from usercontainerd.store.tar import Entry, printable_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from usercontainerd.store.places import (
        MAX_PATH,
        FileSystem,
        MappedIds,
        Summary,
        clean_path,
        explain_failure,
        follow_symlinks,
    )
    from usercontainerd.store.recipe import Recorder
    from usercontainerd.store.tarreader import TarReader


WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
_AUFS = b".wh..wh."  # its bookkeeping, of no meaning here
MAX_DEFERRED = 10_000  # hard links to files of lower layers
OPAQUE_XATTR = b"user.overlay.opaque"
MAX_TIME = (1 << 40) * 1_000_000_000
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Unpacker:
    """Unpacks one archive below the current directory, which is the root directory too."""

    def __init__(
        self,
        fs: FileSystem,
        ids: MappedIds,
        *,
        max_entries: int = 4_000_000,
        max_size: int = 1 << 40,
        defer_links: bool = False,
        recorder: Recorder | None = None,
    ) -> None:
        self._fs = fs
        self._recorder = recorder
        self._ids = ids
        self._max_entries = max_entries
        self._max_size = max_size
        self._defer_links = defer_links
        self._deferred: list[tuple[bytes, bytes]] = []
        # Directories get their times, and a set-group-ID bit (new files would inherit the group), at the
        # very end.
        self._directories: dict[bytes, tuple[int, int | None]] = {}
        self._known_ids: set[tuple[int, int]] = {(0, 0)}
        # A name that leads through symlinks of the layer is changed into the one that it stands for, so that
        # a thing has one name only. Entries of a directory mostly come together: the last one is remembered.
        self._symlinks: set[bytes] = set()
        self._parent: bytes | None = None
        self._real_parent = b""
        self.summary = Summary()

    def unpack(self, reader: TarReader) -> Summary:
        """Write everything. Raises ``InvalidFormat``, ``SubIdsMissing``, ``StoreError`` or ``HostError``."""
        while (entry := reader.read_entry()) is not None:
            if reader.entries > self._max_entries:
                raise InvalidFormat(f"the layer has more than the {self._max_entries} entries allowed")
            try:
                self._write_entry(entry, reader)
            except OSError as error:
                raise explain_failure(error, entry) from error
        self._finish_directories()
        self.summary.entries = reader.entries
        return self.summary

    def _write_entry(self, entry: Entry, reader: TarReader) -> None:
        path = self._locate(entry.name)
        if WHITEOUT in path and self._write_whiteout(path, entry):
            return
        owner = (entry.uid, entry.gid)
        if owner not in self._known_ids:
            self._ids.check(entry)
            self._known_ids.add(owner)
        kind = entry.type
        if kind == tar.REGULAR:
            self._write_file(path, entry, reader)
        elif kind == tar.DIRECTORY:
            self._write_directory(path, entry)
        elif not path:
            raise InvalidFormat("broken layer: its root is not a directory")
        elif kind == tar.SYMLINK:
            self._write_symlink(path, entry)
        elif kind == tar.HARD_LINK:
            self._write_link(path, entry)
        elif kind == tar.FIFO:
            self._place(path, lambda: self._fs.mknod(path, stat.S_IFIFO | (entry.mode & 0o777), 0))
            self._finish_special(path, entry)
        else:
            self.summary.warn(f"device node left out: {printable_name(path)}")

    def _locate(self, name: bytes) -> bytes:
        """Return the place that a name stands for, from the root; symlinks in its parents are followed."""
        parent, slash, base = name.rpartition(b"/")
        if slash and parent == self._parent and base not in (b"", b".", b"..") and len(name) <= MAX_PATH:
            return self._real_parent + base
        path = clean_path(name)
        parent, slash, base = path.rpartition(b"/")
        if not slash:
            return path
        real = follow_symlinks(self._fs, self._symlinks, parent) if self._symlinks else parent
        self._real_parent = real + b"/" if real else b""
        self._parent = parent
        return self._real_parent + base

    def _place(self, path: bytes, make: Callable[[], object]) -> None:
        """Call ``make``.

        If something is in the way remove it, if a parent is missing make it; then call again.
        """
        for _ in range(2):
            try:
                make()
                return
            except FileExistsError:
                self._remove(path)
            except (FileNotFoundError, NotADirectoryError):
                self._make_parents(path)
        make()

    def _write_file(self, path: bytes, entry: Entry, reader: TarReader) -> None:
        if not path:
            raise InvalidFormat("broken layer: its root is not a directory")
        fs = self._fs
        mode = entry.mode
        try:
            fd = fs.open(path, _NEW_FILE, mode & 0o777)
        except (FileExistsError, FileNotFoundError, NotADirectoryError):
            opened: list[int] = []
            self._place(path, lambda: opened.append(fs.open(path, _NEW_FILE, mode & 0o777)))
            fd = opened[0]
        try:
            self._write_content(fd, path, entry, reader)
            if entry.uid or entry.gid:
                fs.fchown(fd, entry.uid, entry.gid)
            if mode & 0o7000:  # write(2) and chown(2) clear them
                fs.fchmod(fd, mode)
            if entry.xattrs:
                self._set_xattrs(fd, entry)
            time = _clamp(entry.mtime)
            fs.utime(fd, ns=(time, time))
        finally:
            fs.close(fd)

    def _write_content(self, fd: int, path: bytes, entry: Entry, reader: TarReader) -> None:
        summary = self.summary
        if entry.segments is not None:
            summary.size += entry.real_size
            self._check_size()
            self._write_segments(fd, path, entry, reader)
            return
        summary.size += entry.size
        if self._recorder is not None:
            self._recorder.add_content(path, entry.size)
        small = reader.small_content()
        if small is None:
            self._check_size()
            self._write_pieces(fd, reader.content())
        elif small and (written := self._fs.write(fd, small)) < len(small):
            self._write_pieces(fd, (memoryview(small)[written:],))

    def _write_pieces(self, fd: int, pieces: Iterable[memoryview]) -> None:
        write = self._fs.write
        for view in pieces:
            while view:
                view = view[write(fd, view) :]  # noqa: PLW2901

    def _write_segments(self, fd: int, path: bytes, entry: Entry, reader: TarReader) -> None:
        for offset, length in entry.segments or ():
            self._fs.lseek(fd, offset, os.SEEK_SET)
            if self._recorder is not None:
                self._recorder.add_segment(path, offset, length)
            self._write_pieces(fd, reader.content(length))
        self._fs.ftruncate(fd, entry.real_size)

    def _check_size(self) -> None:
        # What is stored is counted on its way here already; holes are not.
        if self.summary.size > self._max_size:
            raise InvalidFormat(f"the layer unpacks to more than the {self._max_size} bytes allowed")

    def _write_directory(self, path: bytes, entry: Entry) -> None:
        fs = self._fs
        mode = entry.mode & 0o1777
        place = path or b"."
        try:
            fs.mkdir(place, mode)
        except FileExistsError:
            if self._is_directory(place):
                fs.chmod(place, mode)
            else:
                self._replace_by_directory(path, mode)
        except (FileNotFoundError, NotADirectoryError):
            self._make_parents(path)
            fs.mkdir(place, mode)
        if entry.uid or entry.gid or not path:
            fs.lchown(place, entry.uid, entry.gid)
        if entry.xattrs:
            self._set_xattrs(place, entry)
        self._directories[path] = (_clamp(entry.mtime), entry.mode if entry.mode & 0o6000 else None)

    def _replace_by_directory(self, path: bytes, mode: int) -> None:
        hides = self._is_whiteout(path)
        self._unlink(path)
        self._fs.mkdir(path, mode)
        if hides:
            # The layer removes what lower layers have here and begins anew.
            self._fs.setxattr(path, OPAQUE_XATTR, b"y")

    def _write_symlink(self, path: bytes, entry: Entry) -> None:
        if not entry.linkname or len(entry.linkname) > MAX_PATH:
            raise InvalidFormat(f"broken layer: the symlink {printable_name(path)} has no usable target")
        self._place(path, lambda: self._fs.symlink(entry.linkname, path))
        self._symlinks.add(path)
        self._parent = None
        self._finish_special(path, entry)

    def _write_link(self, path: bytes, entry: Entry) -> None:
        source = self._locate(entry.linkname)
        if source == path:
            return
        try:
            status = self._fs.lstat(source or b".")
        except (FileNotFoundError, NotADirectoryError):
            if self._defer_links and source and len(self._deferred) < MAX_DEFERRED:
                self._make_room(path)
                self._deferred.append((path, source))
                return
            raise InvalidFormat(
                f"the hard link {printable_name(path)} leads to {printable_name(source)}, which is not in its layer",
                hint="build the image anew: a layer must hold the file that its hard links lead to",
            ) from None
        if stat.S_ISDIR(status.st_mode) or stat.S_ISCHR(status.st_mode):
            raise InvalidFormat(f"broken layer: the hard link {printable_name(path)} does not lead to a file")
        self._place(path, lambda: self._fs.link(source, path, follow_symlinks=False))
        self._finish_link(path, entry, status)

    def _finish_link(self, path: bytes, entry: Entry, status: os.stat_result) -> None:
        """Give the file what the entry of its further name says, as Docker and Podman do, if it says otherwise."""
        fs = self._fs
        is_symlink = stat.S_ISLNK(status.st_mode)
        differs = (entry.uid, entry.gid) != (status.st_uid, status.st_gid)
        if differs:
            fs.lchown(path, entry.uid, entry.gid)
        if not is_symlink and (differs or stat.S_IMODE(status.st_mode) != entry.mode):
            fs.chmod(path, entry.mode)
        if entry.xattrs and not is_symlink:
            self._set_xattrs(path, entry)
        time = _clamp(entry.mtime)
        if time != status.st_mtime_ns:
            fs.utime(path, ns=(time, time), follow_symlinks=False)

    def _write_whiteout(self, path: bytes, entry: Entry) -> bool:
        """Do what a name with ``.wh.`` in it means; False if it is an ordinary name after all."""
        *above, base = path.split(b"/")
        for part in above:
            if part.startswith(_AUFS):
                return True
            if part.startswith(WHITEOUT):
                raise InvalidFormat(f"broken layer: {printable_name(entry.name)} is inside of a whiteout")
        if not base.startswith(WHITEOUT):
            return False
        parent = path[: len(path) - len(base)]
        if base == OPAQUE:
            directory = parent.rstrip(b"/") or b"."
            if parent:
                self._make_parents(path)
            self._fs.setxattr(directory, OPAQUE_XATTR, b"y", follow_symlinks=False)
        elif not base.startswith(_AUFS):
            name = base[len(WHITEOUT) :]
            if name in (b"", b".", b".."):
                raise InvalidFormat(
                    f"broken layer: {printable_name(entry.name)} hides nothing that can be named"
                )
            self._hide(parent + name)
        return True

    def _hide(self, target: bytes) -> None:
        try:
            status = self._fs.lstat(target)
        except (FileNotFoundError, NotADirectoryError):
            self._place(target, lambda: self._fs.mknod(target, stat.S_IFCHR, 0))
            return
        # The layer has the name itself: its own file hides the lower one anyway, a directory must not merge
        # with it.
        if stat.S_ISDIR(status.st_mode):
            self._fs.setxattr(target, OPAQUE_XATTR, b"y", follow_symlinks=False)

    def _make_room(self, path: bytes) -> None:
        self._make_parents(path)
        try:
            self._fs.lstat(path)
        except FileNotFoundError:
            return
        self._remove(path)

    def list_deferred(self) -> list[tuple[bytes, bytes]]:
        """Return the hard links to files of lower layers, as (name, file); names that were taken later are none."""
        left = []
        for path, source in self._deferred:
            try:
                self._fs.lstat(path)
            except FileNotFoundError:
                left.append((path, source))
            except NotADirectoryError:
                pass
        return left

    def _finish_special(self, path: bytes, entry: Entry) -> None:
        """Owner and time of what cannot be opened: symlinks and FIFOs."""
        if entry.uid or entry.gid:
            self._fs.lchown(path, entry.uid, entry.gid)
        time = _clamp(entry.mtime)
        self._fs.utime(path, ns=(time, time), follow_symlinks=False)

    def _set_xattrs(self, place: bytes | int, entry: Entry) -> None:
        for name, value in entry.xattrs.items():
            if name.startswith(b"user.overlay."):
                # A layer must not talk to overlayfs behind our back.
                self.summary.warn(f"attribute of overlayfs left out: {printable_name(entry.name)}")
            elif name == b"security.capability" or name.startswith(b"user."):
                try:
                    self._fs.setxattr(place, name, value)
                except OSError as error:
                    if error.errno in (errno.ENOSPC, errno.E2BIG, errno.ERANGE):
                        raise HostError(
                            f"the extended attributes of {printable_name(entry.name)} do not fit: {error.strerror}",
                            hint="file systems keep a few KiB of them for each file; or is the disk full?",
                        ) from error
                    if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.EINVAL):
                        raise
                    self.summary.warn(
                        f"attribute {printable_name(name)} of {printable_name(entry.name)} left out: {error.strerror}"
                    )

    def _is_directory(self, path: bytes) -> bool:
        try:
            return stat.S_ISDIR(self._fs.lstat(path).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def _is_whiteout(self, path: bytes) -> bool:
        try:
            status = self._fs.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0

    def _make_parents(self, path: bytes) -> None:
        """Make the directories that ``path`` needs, as mkdir -p: root's, mode 755."""
        parts = path.split(b"/")[:-1]
        for depth in range(1, len(parts) + 1):
            parent = b"/".join(parts[:depth])
            try:
                self._fs.mkdir(parent, 0o755)
            except FileExistsError:
                if self._is_whiteout(parent):
                    self._replace_by_directory(parent, 0o755)

    def _remove(self, path: bytes) -> None:
        """Make way for an entry that comes again under the same name (the last one counts)."""
        if not path:
            raise InvalidFormat("broken layer: its root is not a directory")
        if not self._is_directory(path):
            self._unlink(path)
            return
        pending = [path]
        while pending:  # no recursion: a layer may nest deeply
            directory = pending[-1]
            inner = []
            for name in self._fs.listdir(directory):
                child = directory + b"/" + name
                if self._is_directory(child):
                    inner.append(child)
                else:
                    self._unlink(child)
            if inner:
                pending.extend(inner)
            else:
                self._fs.rmdir(directory)
                self._directories.pop(directory, None)
                pending.pop()

    def _unlink(self, path: bytes) -> None:
        fs = self._fs
        if self._recorder is not None:
            status = fs.lstat(path)
            if stat.S_ISREG(status.st_mode):
                self._recorder.add_lost(path, status.st_size, lambda: self._read(path, status.st_size))
        fs.unlink(path)
        if path in self._symlinks:
            self._symlinks.discard(path)
            self._parent = None

    def _read(self, path: bytes, size: int) -> bytes:
        fs = self._fs
        fd = fs.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            parts = []
            while size and (part := fs.read(fd, size)):
                parts.append(part)
                size -= len(part)
            return b"".join(parts)
        finally:
            fs.close(fd)

    def _finish_directories(self) -> None:
        for path, (time, mode) in self._directories.items():
            place = path or b"."
            try:
                if mode is not None:
                    self._fs.chmod(place, mode)
                self._fs.utime(place, ns=(time, time), follow_symlinks=False)
            except OSError as error:
                # A later entry may have replaced it, or a directory above it by a symlink.
                if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    raise explain_failure(error, Entry(path)) from error


def _clamp(time: int) -> int:
    return max(-MAX_TIME, min(MAX_TIME, time))
