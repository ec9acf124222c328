"""Compressed layers that have come in part: the next pull goes on where this one stops, however it stops.

``partial/ALGORITHM-HEX`` is written while the same bytes go to the worker, and locked by whoever writes it. What
is in it is trusted no further than the network is: the digest over the whole decides. It goes when its layer is in
place, before anything is synced, so that a pull that succeeds writes no block of it to the disk. A file here is a
help, never a reason to fail: on a full disk a layer is pulled without one.
"""

from __future__ import annotations

import os
import stat
import time

from usercontainerd.base.errors import Busy, StoreError
from usercontainerd.store.locks import ObjectLock, is_held

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from usercontainerd.oci.digest import Digest
    from usercontainerd.store.layout import Store

MAX_AGE = 7 * 86400  # seconds since the last byte came
MAX_TOTAL = 8 << 30  # bytes of all together
_PIECE = 256 * 1024


def partial_path(store: Store, digest: Digest) -> str:
    """File of a blob that has come in part, whether it is there or not."""
    return f"{store.partial}/{digest.algorithm}-{digest.hex}"


def measure_partial(store: Store, digest: Digest) -> int:
    """Bytes of a blob that are here from an earlier pull."""
    try:
        return os.stat(partial_path(store, digest)).st_size
    except OSError:
        return 0


class PartialBlob:
    """The file of one blob, held by this process from ``open_partial`` to ``close``, ``discard`` or ``keep``.

    ``size`` counts its bytes; None once it could not be written.
    """

    def __init__(self, path: str, lock: ObjectLock, size: int) -> None:
        self.path = path
        self.size: int | None = size
        self._lock = lock

    def pieces(self) -> Iterator[bytes]:
        """Yield what is there from the beginning."""
        at = 0
        while at < (self.size or 0):
            piece = os.pread(self._lock.fileno(), _PIECE, at)
            if not piece:
                self.size = at  # somebody has made it shorter
                return
            at += len(piece)
            yield piece

    def append(self, data: bytes) -> None:
        """Add what has come; where that cannot be written the file is given up."""
        if self.size is None:
            return
        view = memoryview(data)
        try:
            while view:
                count = os.pwrite(self._lock.fileno(), view, self.size)
                self.size += count
                view = view[count:]
        except OSError:
            self.size = None
            os.ftruncate(self._lock.fileno(), 0)

    def restart(self) -> None:
        """Forget what is there."""
        os.ftruncate(self._lock.fileno(), 0)
        self.size = 0

    def discard(self) -> None:
        """Delete it."""
        if self._lock.fileno() >= 0:
            os.unlink(self.path)
            self._lock.release()

    def keep(self, path: str) -> bool:
        """Make the complete blob the file ``path``; False if it could not be written."""
        if self.size is None:
            self.discard()
            return False
        os.rename(self.path, path)
        self._lock.release()
        return True

    def close(self) -> None:
        """Leave it to the next pull; harmless after the others."""
        if self._lock.fileno() >= 0 and not self.size:
            self.discard()
        self._lock.release()


def open_partial(store: Store, digest: Digest) -> PartialBlob | None:
    """Open the file of a blob, making an empty one if there is none; None if another process is at it."""
    path = partial_path(store, digest)
    while True:
        lock = ObjectLock(path, wait=False)
        try:
            lock.acquire()
        except (Busy, StoreError):
            return None
        status = os.fstat(lock.fileno())
        if status.st_nlink and stat.S_ISREG(status.st_mode):
            return PartialBlob(path, lock, status.st_size)
        lock.release()  # deleted between opening and locking
        if status.st_nlink:
            return None


def measure_partials(store: Store) -> tuple[list[int], list[int]]:
    """The sizes of all, in bytes: of those that somebody writes just now, and of those that wait for another pull."""
    busy: list[int] = []
    waiting: list[int] = []
    for path, status in _list_partials(store):
        (busy if is_held(path) else waiting).append(status.st_size)
    return busy, waiting


def remove_partials(store: Store) -> list[int]:
    """Delete all that nobody writes just now; return their sizes in bytes."""
    return [status.st_size for path, status in _list_partials(store) if _remove(path)]


def _list_partials(store: Store) -> list[tuple[str, os.stat_result]]:
    found = []
    try:
        with os.scandir(store.partial) as entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError:
                    continue  # just now deleted
                if stat.S_ISREG(status.st_mode):
                    found.append((entry.path, status))
    except FileNotFoundError:
        pass
    return found


def _remove(path: str) -> bool:
    try:
        with ObjectLock(path, wait=False):
            os.unlink(path)
    except (Busy, StoreError, OSError):
        return False
    return True


def sweep_partials(store: Store, wanted: Collection[Digest], *, now: float | None = None) -> None:
    """Delete what is too old, or too much, of what is not ``wanted`` just now; what is being written stays."""
    now = time.time() if now is None else now
    needed = {os.path.basename(partial_path(store, digest)) for digest in wanted}
    found = [
        (status.st_mtime, status.st_size, path)
        for path, status in _list_partials(store)
        if os.path.basename(path) not in needed
    ]
    total = 0
    for written, size, path in sorted(found, reverse=True):
        total += size
        if total > MAX_TOTAL or now - written > MAX_AGE:
            _remove(path)
