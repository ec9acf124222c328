"""Opening an archive for reading at any place: a plain tar file as it lies there, all else through a spool.

A pipe cannot be read twice, and a compressed file not from the middle; what names the layers is often at an archive's
end. So both are written, inflated, to a file in the store's ``tmp`` that has no name: whatever happens to this
process, it is gone afterwards. What does not begin as a tar archive is refused before it fills the disk: such a pipe
may have no end.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager

from usercontainerd.base.errors import InvalidArgument, InvalidFormat, StoreError
from usercontainerd.kernel.atomicfile import explain_write_error
from usercontainerd.store import tar
from usercontainerd.store.archive_inflate import BZIP2, XZ, inflate_any
from usercontainerd.store.inflate import Codecs
from usercontainerd.store.layout import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

MAX_SPOOLED = 1 << 40
MAX_ZEROS = (
    1 << 20
)  # that an archive of nothing may consist of: GNU tar writes 10 KiB, rounded up to its records
MAX_RATIO = 200  # as for layers: applies past MAX_UNMEASURED, since only what is large can do harm
MAX_UNMEASURED = 1 << 30
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"


def open_input(path: str) -> int:
    """Open a file that somebody named. Raises ``InvalidArgument``."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidArgument(f"cannot read: {error.strerror}", where=path) from error


def make_seekable(store: Store, fd: int, *, where: str, report: Callable[[int], None]) -> int:
    """Return a descriptor of the uncompressed archive that can be read anywhere: ``fd`` itself, or a spool.

    ``fd`` belongs to the caller, and so does the result. ``report`` is told the bytes read so far while a spool is
    being written. Raises ``InvalidFormat`` for damaged data and bombs, ``StoreError`` where there is no room.
    """
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and os.lseek(fd, 0, os.SEEK_CUR) == 0:
        if not is_compressed(os.pread(fd, len(XZ), 0)):
            return os.dup(fd)
    elif stat.S_ISDIR(status.st_mode):
        raise InvalidArgument("this is a directory", where=where)
    return spool_archive(store, fd, where=where, report=report)


def is_compressed(head: bytes) -> bool:
    """Tell by its first bytes whether data is compressed in a way that is understood here."""
    return head.startswith((_GZIP, _ZSTD, XZ, BZIP2))


def spool_archive(store: Store, fd: int, *, where: str, report: Callable[[int], None]) -> int:
    """Inflate what comes from ``fd`` into a file without a name; return its descriptor."""
    store.prepare()
    target = open_nameless(store.staging)
    consumed = 0

    def read(count: int) -> bytes:
        nonlocal consumed
        try:
            data = os.read(fd, count)
        except OSError as error:
            raise InvalidArgument(f"cannot read: {error.strerror}", where=where) from error
        consumed += len(data)
        return data

    try:
        produced = 0
        beginning = Beginning()
        for piece in inflate_any(read, Codecs()):
            produced += len(piece)
            check_growth(consumed, produced)
            beginning.check(piece)
            write_all(target, piece, store.staging)
            report(consumed)
    except InvalidFormat as error:
        os.close(target)
        raise name_archive(error, where) from None
    except BaseException:
        os.close(target)
        raise
    return target


class Beginning:
    """Whether what comes begins as a tar archive does: with a header, or with the zeros that end it."""

    def __init__(self) -> None:
        self._head = b""
        self._zeros = 0
        self._is_known = False

    def check(self, piece: bytes) -> None:
        """Look at what comes next. Raises ``InvalidFormat``."""
        if self._is_known:
            return
        if not self._zeros and len(self._head) < tar.BLOCK:
            self._head += piece[: tar.BLOCK]
            if len(self._head) < tar.BLOCK:
                return
            if any(self._head[: tar.BLOCK]):
                check_header(self._head[: tar.BLOCK])
                self._is_known = True
                return
        self._zeros += len(piece)
        if any(piece):
            self._is_known = True  # something follows an empty archive: whoever reads it will judge
        elif self._zeros > MAX_ZEROS:
            raise InvalidFormat("this is not a tar archive: it is all zeros")


def check_header(block: bytes) -> None:
    """Raise ``InvalidFormat`` unless this is the header of a member. Pure."""
    try:
        tar.parse_header(block)
    except InvalidFormat as error:
        why = error.what.removeprefix("broken layer: ")
        raise InvalidFormat(f"this is not a tar archive, nor one in a known compression: {why}") from None


def name_archive(error: InvalidFormat, where: str) -> InvalidFormat:
    """The same error about an archive: the readers of layers know of layers only."""
    what = error.what.replace("broken layer", "broken archive").replace("the layer", "the archive")
    return InvalidFormat(what, where=error.where or where, hint=error.hint)


def check_growth(consumed: int, produced: int) -> None:
    """Raise ``InvalidFormat`` if ``consumed`` bytes have become suspiciously many."""
    if produced > MAX_SPOOLED:
        raise InvalidFormat(f"the archive is larger than {MAX_SPOOLED >> 30} GiB")
    if produced > MAX_UNMEASURED and produced > consumed * MAX_RATIO:
        raise InvalidFormat(
            f"the archive unpacks to more than {MAX_RATIO} times its size: it looks like a decompression bomb"
        )


def open_nameless(directory: str) -> int:
    """Return a new file in ``directory`` that the kernel deletes with its last descriptor."""
    try:
        try:
            return os.open(directory, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR):  # a file system without them, such as NFS
                raise
        path = f"{directory}/.spool-{os.getpid()}-{os.urandom(6).hex()}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.unlink(path)
    except OSError as error:
        raise explain_write_error(error, directory) from error
    return fd


@contextmanager
def open_spool(directory: str) -> Iterator[tuple[BinaryIO, Callable[[bytes], None]]]:
    """A file without a name, to read from and to seek in, and what writes to it (raises ``StoreError``)."""
    with open(open_nameless(directory), "w+b") as file:
        # Past the file's buffer: what cannot be written shall be known here, not when it is read or closed.
        yield file, lambda data: write_all(file.fileno(), data, directory)


def write_all(fd: int, data: bytes, directory: str) -> None:
    """Write all of ``data``. Raises ``StoreError`` naming the directory of the spool."""
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError as error:
        explained = explain_write_error(error, directory)
        raise StoreError(
            f"the archive has to be kept for a while, and that failed: {error.strerror}",
            where=directory,
            hint=explained.hint,
        ) from error
