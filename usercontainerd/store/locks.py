"""Locks of the store's objects: who makes or needs a layer holds its lock, so that nobody takes it away.

A pull holds each of its layers exclusively while it makes it, and shared from then until the image is
recorded; whoever removes layers takes only those that it gets exclusively at once. The kernel drops all of
it when a process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import struct

from usercontainerd.kernel.atomicfile import FileLock

_F_OFD_GETLK = 36
_F_OFD_SETLK = 37


class ObjectLock(FileLock):
    """A lock that can go from exclusive to shared without a gap, and be shared with another process."""

    def fileno(self) -> int:
        """The descriptor that holds the lock: whoever gets a copy of it holds it too."""
        return self._fd

    def downgrade(self) -> None:
        """Let others share it from now on."""
        request = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
        fcntl.fcntl(self._fd, _F_OFD_SETLK, request)
        self.exclusive = False


def is_held(path: str) -> bool:
    """Tell whether anybody has the lock just now, without taking it; not, if there is no such file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        request = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        # The answer has F_UNLCK where a lock could be had.
        answer = fcntl.fcntl(fd, _F_OFD_GETLK, request)
        return bool(struct.unpack_from("h", answer)[0] != fcntl.F_UNLCK)
    finally:
        os.close(fd)
