"""Being told of changes in directories and files: inotify(7), for an event loop to wait on."""

from __future__ import annotations

import ctypes
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

IN_MODIFY = 0x00000002
IN_CLOSE_WRITE = 0x00000008
IN_MOVED_FROM = 0x00000040
IN_MOVED_TO = 0x00000080
IN_CREATE = 0x00000100
IN_DELETE = 0x00000200
IN_DELETE_SELF = 0x00000400
IN_MOVE_SELF = 0x00000800
IN_Q_OVERFLOW = 0x00004000
IN_IGNORED = 0x00008000
IN_ONLYDIR = 0x01000000
CHANGES = (
    IN_CLOSE_WRITE
    | IN_MOVED_FROM
    | IN_MOVED_TO
    | IN_CREATE
    | IN_DELETE
    | IN_DELETE_SELF
    | IN_MOVE_SELF
    | IN_ONLYDIR
)
_EVENT = struct.Struct("iIII")
_BUFFER = 64 * 1024


class DirectoryWatch:
    """Directories (and single files) that are watched; ``fd`` becomes readable when something has changed in one."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self._paths: dict[int, str] = {}

    def add(self, directory: str) -> bool:
        """Watch a directory; False if it is not there or there are too many watches."""
        return self._add(directory, CHANGES) is not None

    def add_file(self, path: str) -> bool:
        """Watch a file that a program or the kernel writes to; False if it is watched already, or cannot be."""
        return bool(self._add(path, IN_MODIFY))

    def _add(self, path: str, mask: int) -> bool | None:
        """Return whether the watch is new, None if there is none."""
        watch = self._libc.inotify_add_watch(self.fd, os.fsencode(path), mask)
        if watch < 0:
            return None
        is_new = self._paths.get(watch) != path
        self._paths[watch] = path
        return is_new

    def read(self) -> Iterator[tuple[str, str]]:
        """Yield what has changed: (directory, name); name "" for itself or a file, both "" if events were lost."""
        try:
            data = os.read(self.fd, _BUFFER)
        except BlockingIOError:
            return
        at = 0
        while at + _EVENT.size <= len(data):
            watch, mask, _, length = _EVENT.unpack_from(data, at)
            name = data[at + _EVENT.size : at + _EVENT.size + length].split(b"\0", 1)[0]
            at += _EVENT.size + length
            if mask & IN_Q_OVERFLOW:
                yield "", ""
                continue
            directory = self._paths.get(watch, "")
            if mask & IN_IGNORED:
                self._paths.pop(watch, None)
            if directory:
                yield directory, os.fsdecode(name)

    def close(self) -> None:
        """Stop watching."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
