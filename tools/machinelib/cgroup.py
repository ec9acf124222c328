"""The machine's own cgroup on the host, made, entered, killed and removed."""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress
from pathlib import Path

from machinelib import syscalls
from machinelib.cache import find_cache_directory
from machinelib.hosttools import MachineError
from machinelib.syscalls import MountFlag

PREFIX = "usercontainerd-machine"


def find_hierarchy() -> Path | None:
    """Where this process sees a writable cgroup v2 hierarchy."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[fields.index("-") + 1] == "cgroup2" and os.access(fields[4], os.W_OK):
            return Path(fields[4])
    return None


def require_hierarchy() -> Path:
    """A cgroup v2 hierarchy; on a host with none mounted, in a mount namespace that only we see."""
    if found := find_hierarchy():
        return found
    private_mount_point = find_cache_directory() / "cgroup"
    private_mount_point.mkdir(exist_ok=True)
    try:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("", "/", flags=MountFlag.REC | MountFlag.PRIVATE)
        syscalls.mount("cgroup2", str(private_mount_point), "cgroup2")
    except OSError as error:
        raise MachineError(
            f"no writable cgroup v2 hierarchy, and mounting one was refused: {error}"
        ) from error
    return private_mount_point


def enter_cgroup(directory: Path) -> None:
    """Move this process there."""
    (directory / "cgroup.procs").write_text("0")


def remove_cgroup(directory: Path, patience: float = 10.0) -> None:
    """Kill what lives in a cgroup and remove it with all below it."""
    if not directory.is_dir():
        return
    with suppress(FileNotFoundError):  # before Linux 5.14; the end of the PID namespace killed them already
        (directory / "cgroup.kill").write_text("1")
    deadline = time.monotonic() + patience
    while True:
        try:
            for path, _, _ in os.walk(directory, topdown=False):
                os.rmdir(path)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY) or time.monotonic() > deadline:
                raise
        time.sleep(0.01)
