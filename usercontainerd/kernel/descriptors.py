"""Which descriptors may go into a container as they are; why, says ``usercontainerd.engine.containers.relay``."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_NULL = os.makedev(1, 3)


def find_unfit(fds: Iterable[int]) -> tuple[int, ...]:
    """Return those of the caller's descriptors that a container must not have; open its pipes to whoever holds an end.

    Else a pipe that crun gives to another user could not be opened by name (/dev/stdin) on our side any more.
    """
    reader, writer = os.pipe()
    pipes = os.fstat(reader).st_dev  # those without a name; a FIFO's owner and mode are a file's
    os.close(reader)
    os.close(writer)
    unfit = []
    for fd in fds:
        try:
            status = os.fstat(fd)
        except OSError:
            continue  # closed
        if status.st_dev == pipes:
            try:
                os.fchmod(fd, 0o666)
            except OSError:
                pass  # another user's
        elif status.st_rdev != _NULL:
            unfit.append(fd)
    return tuple(unfit)
