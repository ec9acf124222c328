"""Which files of a layer were touched after it was unpacked: a quick look that reads no content.

Nobody can set a file's change time, and nothing that runs on a layer changes it: overlayfs only reads there. So
whatever is younger than the layer's recipe, which is finished last, was touched by somebody else; a directory that is
younger has got or lost an entry.
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def list_touched(directory: int, since: int) -> Iterator[bytes]:
    """Yield the paths below ``directory`` (an open descriptor) whose change time is after ``since`` (nanoseconds).

    No recursion: a layer may nest deeper than Python does. Raises ``OSError``.
    """
    if os.fstat(directory).st_ctime_ns > since:
        yield b"."
    stack = [(os.dup(directory), b"", _list_entries(directory))]
    try:
        while stack:
            fd, path, names = stack[-1]
            if not names:
                os.close(stack.pop()[0])
                continue
            name = names.pop()
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            place = os.path.join(path, name)
            if status.st_ctime_ns > since:
                yield place
            if stat.S_ISDIR(status.st_mode):
                inner = os.open(name, _FLAGS, dir_fd=fd)
                stack.append((inner, place, _list_entries(inner)))
    finally:
        for fd, _, _ in stack:
            os.close(fd)


def _list_entries(directory: int) -> list[bytes]:
    return [os.fsencode(name) for name in os.listdir(directory)]
