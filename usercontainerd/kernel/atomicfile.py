"""Files that are either the old or the new one, and locks that end with the process that holds them."""

from __future__ import annotations

import errno
import fcntl
import posix as os
import sys
import time

from usercontainerd.base.errors import Busy, StoreError
from usercontainerd.base.paths import parent_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

_counter = 0


def _temporary_name(path: str) -> str:
    global _counter
    _counter += 1
    directory, base = parent_of(path), path.rpartition("/")[2]
    # A leading dot and a fixed prefix, so that a sweep knows what a killed process has left.
    return f"{directory}/.new-{os.getpid()}-{time.monotonic_ns()}-{_counter}-{base[:60]}"


def write_atomic(path: str, data: bytes, *, mode: int = 0o600, sync: bool = True) -> None:
    """Replace ``path`` by a file holding ``data``; with ``sync`` it is on disk when this returns.

    Raises ``StoreError`` naming the path; the old file is then untouched and no temporary file stays.
    """
    temporary = _temporary_name(path)
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
        if sync:
            sync_directory(parent_of(path))
    except OSError as error:
        try:
            os.unlink(temporary)
        except OSError:
            pass
        raise explain_write_error(error, path) from error


def sync_directory(path: str) -> None:
    """fsync(2) a directory, so that a rename in it survives a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def explain_write_error(error: OSError, path: str) -> StoreError:
    """Say what to do about a full disk, a quota or a read-only file system."""
    hints = {
        errno.ENOSPC: "free some space on that file system, or remove unused images",
        errno.EDQUOT: "your disk quota is used up",
        errno.EROFS: "the file system is read-only",
        errno.EACCES: "check the owner and mode of the directory",
    }
    return StoreError(f"cannot write: {error.strerror}", where=path, hint=hints.get(error.errno or 0))


class FileLock:
    """An advisory lock on a file of its own, tied to the open file description: gone when the process is.

    ``with FileLock(path): …``; ``wait=False`` raises ``Busy`` at once. The file stays, or is removed by ``remove``: by
    nobody else, or two holders could hold different files of one name.
    """

    def __init__(self, path: str, *, exclusive: bool = True, wait: bool = True) -> None:
        self.path = path
        self.exclusive = exclusive
        self.wait = wait
        self._fd = -1

    def __enter__(self) -> FileLock:
        self.acquire()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.release()

    def acquire(self) -> None:
        """Take the lock, waiting for it unless told otherwise."""
        while True:
            fd = self._open()
            if os.fstat(fd).st_nlink:
                self._fd = fd
                return
            os.close(fd)  # removed by its last holder, between our opening and locking it

    def _open(self) -> int:
        # A shared one needs no right to write: what is on a read-only file system can be locked for reading.
        access = os.O_RDWR if self.exclusive else os.O_RDONLY
        try:
            fd = os.open(self.path, access | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise explain_write_error(error, self.path) from error
        kind = fcntl.F_WRLCK if self.exclusive else fcntl.F_RDLCK
        # struct flock of 64-bit Linux, of which all but the kind is 0: the whole file, no process (fcntl(2)).
        request = kind.to_bytes(2, sys.byteorder) + bytes(30)
        try:
            fcntl.fcntl(fd, 38 if self.wait else 37, request)  # F_OFD_SETLKW, F_OFD_SETLK
        except OSError as error:
            os.close(fd)
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise Busy("another process is working on it", where=self.path) from error
            raise explain_write_error(error, self.path) from error
        return fd

    def remove(self) -> None:
        """Remove the file of a lock that is held exclusively, and give the lock back: the last thing to do with it."""
        os.unlink(self.path)
        self.release()

    def release(self) -> None:
        """Give the lock back; harmless if it is not held."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
