"""The freezer of a cgroup: its processes stand still until it is thawed, or they are killed (cgroup v2, cgroup.freeze).

Groups are given as directories.
"""

from __future__ import annotations

import os

from usercontainerd.base.errors import HostError
from usercontainerd.kernel.cgroups import FILE_SIZE, read_kernel_file, write_file

PATIENCE = 10.0  # seconds for processes to come to a stand: one that waits for a disk does not at once


def has_own_freeze(group: str) -> bool:
    """Tell whether the group itself is told to stand still."""
    return read_kernel_file(f"{group}/cgroup.freeze").startswith(b"1")


def freeze_group(group: str, patience: float = PATIENCE) -> None:
    """Freeze a group and wait until it stands still. Raises ``HostError``, and then it goes on."""
    write_file(f"{group}/cgroup.freeze", "1")
    if not _wait_until_frozen(group, patience):
        thaw_group(group)
        raise HostError(
            f"not all of its processes have come to a stand in {patience:g} seconds",
            where=group,
            hint="one may wait for a disk or a network file system",
        )


def thaw_group(group: str) -> None:
    """Let a group go on that ``freeze_group`` holds; no error if it is not there any more."""
    if has_own_freeze(group):
        try:
            write_file(f"{group}/cgroup.freeze", "0")
        except OSError:
            pass  # it has just gone


def _wait_until_frozen(group: str, patience: float) -> bool:
    import select
    from time import monotonic

    try:
        fd = os.open(f"{group}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        poll = select.poll()
        poll.register(fd, select.POLLPRI)
        deadline = monotonic() + patience
        # Reading arms the next notice of the kernel's: poll(2) tells of what has changed since.
        while b"frozen 1" not in os.pread(fd, FILE_SIZE, 0):
            left = deadline - monotonic()
            if left <= 0:
                return False
            poll.poll(left * 1000)
        return True
    finally:
        os.close(fd)
