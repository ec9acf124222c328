"""What a running container uses: from its unit's cgroup (cgroup v2, "Controllers") and its network namespace."""

from __future__ import annotations

import os
import time

from usercontainerd.base.errors import NotRunning
from usercontainerd.engine.containers.lookup import find_group, get_init
from usercontainerd.kernel.cgroups import find_cgroup_mount, read_kernel_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.base.paths import Paths


class Usage:
    """Figures of one moment; None is what the kernel does not tell, for want of the controller in the user's session.

    ``cpu`` seconds that processors worked, in ``lived`` seconds; bytes for ``memory``, ``limit``, ``received`` and
    ``sent`` (by the network), ``read`` and ``written`` (to disks); ``tasks`` are processes and threads.
    """

    __slots__ = ("cpu", "limit", "lived", "memory", "read", "received", "sent", "tasks", "written")

    def __init__(self, group: str, init: int, lived: float) -> None:
        self.lived = lived
        self.cpu = _read_flat(f"{group}/cpu.stat").get("usage_usec", 0) / 1e6
        self.memory, self.limit = read_memory(group)
        self.tasks = _read_number(f"{group}/pids.current")
        self.read, self.written = read_disks(group)
        self.received, self.sent = read_network(init)

    @property
    def average(self) -> float:
        """How much of a processor it has had since its start; 1.0 is one."""
        return self.cpu / self.lived if self.lived > 0 else 0.0


def read_usage(paths: Paths, name: str) -> Usage:
    """Return what a container uses now. Raises ``NotRunning``."""
    init = get_init(paths, name)
    try:
        group = find_group(paths, name)
        if group is None:
            raise NotRunning("the container has just ended", where=name)
        try:
            started = os.stat(f"{paths.bundle(name)}/pid").st_mtime
        except OSError:
            started = time.time()
        return Usage(os.path.dirname(group), init.pid, time.time() - started)
    finally:
        os.close(init.fd)


def read_memory(group: str) -> tuple[int | None, int | None]:
    """What is used, without the file cache that could go at any time, and the nearest limit (at most all there is)."""
    used = _read_number(f"{group}/memory.current")
    if used is None:
        return None, None
    used -= _read_flat(f"{group}/memory.stat").get("inactive_file", 0)
    limit = _read_total_memory()
    mount = find_cgroup_mount()
    while group.startswith(f"{mount}/"):
        own = _read_number(f"{group}/memory.max")
        limit = limit if own is None else min(own, limit)
        group = os.path.dirname(group)
    return max(0, used), limit


def read_disks(group: str) -> tuple[int | None, int | None]:
    """Bytes read and written, of all devices."""
    if not os.path.exists(f"{group}/io.stat"):
        return None, None
    sums = {"rbytes": 0, "wbytes": 0}
    for line in read_kernel_file(f"{group}/io.stat").decode("ascii", "replace").splitlines():
        for word in line.split()[1:]:
            key, _, value = word.partition("=")
            if key in sums and value.isdecimal():
                sums[key] += int(value)
    return sums["rbytes"], sums["wbytes"]


def read_network(init: int) -> tuple[int | None, int | None]:
    """Bytes received and sent, by all interfaces but the loop; None if the network is the host's."""
    try:
        if os.stat(f"/proc/{init}/ns/net").st_ino == os.stat("/proc/self/ns/net").st_ino:
            return None, None
    except OSError:
        return None, None
    received = sent = 0
    for line in read_kernel_file(f"/proc/{init}/net/dev").decode("utf-8", "replace").splitlines()[2:]:
        name, _, numbers = line.rpartition(":")
        words = numbers.split()
        if name.strip() != "lo" and len(words) > 8:
            received += int(words[0])
            sent += int(words[8])
    return received, sent


def _read_number(path: str) -> int | None:
    """None where there is no such file, or no limit."""
    text = read_kernel_file(path).strip()
    return int(text) if text.isdigit() else None


def _read_flat(path: str) -> dict[str, int]:
    """A flat keyed file: a name and a number a line."""
    pairs = (line.split() for line in read_kernel_file(path).decode("ascii", "replace").splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def _read_total_memory() -> int:
    text = read_kernel_file("/proc/meminfo").decode("ascii", "replace")
    return int(text.partition("MemTotal:")[2].split()[0]) * 1024
