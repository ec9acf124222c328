"""A container that stands still for a while, and goes on whatever becomes of us.

A child waits for our end: it is what lets the container go on, so that no signal to us can leave it standing.
"""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager

from usercontainerd.base.errors import HostError
from usercontainerd.kernel.cgroups import SUBGROUP, find_cgroup_mount
from usercontainerd.kernel.freezer import freeze_group, has_own_freeze, thaw_group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from usercontainerd.engine.containers.lookup import Init


def find_group(init: Init) -> str:
    """The directory of the container's own cgroup, below the unit's."""
    unit = init.cgroup.removesuffix(init.subgroup)
    return f"{find_cgroup_mount()}{unit}/{SUBGROUP}"


@contextmanager
def standing_still(group: str) -> Iterator[None]:
    """Have the processes of a cgroup stand still for as long as the block lasts. One that is paused stays so.

    Raises ``HostError`` if not all of them come to a stand.
    """
    if has_own_freeze(group):
        yield
        return
    reader, writer = os.pipe()
    guard = os.fork()
    if guard == 0:
        _guard(group, reader, writer)
    os.close(reader)
    try:
        try:
            freeze_group(group)
        except OSError as error:
            raise HostError(f"cannot freeze the container: {error.strerror}", where=group) from error
        yield
    finally:
        os.close(writer)
        os.waitpid(guard, 0)


def _guard(group: str, reader: int, writer: int) -> None:
    """The child: wait until nobody holds the other end of the pipe, and let the group go on."""
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        os.close(writer)
        os.read(reader, 1)
        thaw_group(group)
    finally:
        os._exit(0)
