"""Processes as /proc tells of them (proc_pid_stat(5), proc_pid_status(5)). One that ends meanwhile is left out."""

from __future__ import annotations

import os

from usercontainerd.kernel.cgroups import read_kernel_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


class Process:
    """One process; ``ids`` are its numbers, ours first and the innermost PID namespace's last.

    ``uid`` and ``gid`` are the effective ones as we see them; times are in seconds, ``started`` since the boot;
    sizes in bytes; ``tty`` is the device's number, 0 for none.
    """

    __slots__ = (
        *(
            "arguments",
            "cpu",
            "gid",
            "group",
            "ids",
            "name",
            "nice",
            "parent",
            "resident",
            "started",
            "state",
        ),
        *("tty", "uid", "virtual"),
    )

    def __init__(self, stat: bytes, status: dict[str, str], arguments: bytes) -> None:
        name, _, rest = stat.partition(b"(")[2].rpartition(b")")
        fields = rest.split()
        self.name = os.fsdecode(name)
        self.state = fields[0].decode()
        self.parent = int(fields[1])
        self.group = int(fields[2])
        self.tty = int(fields[4])
        self.cpu = (int(fields[11]) + int(fields[12])) / _TICKS
        self.nice = int(fields[16])
        self.started = int(fields[19]) / _TICKS
        self.virtual = int(fields[20])
        self.resident = int(fields[21]) * PAGE
        self.uid = int(status["Uid"].split()[1])
        self.gid = int(status["Gid"].split()[1])
        self.ids = tuple(map(int, status["NSpid"].split()))
        words = os.fsdecode(arguments.rstrip(b"\0").replace(b"\0", b" "))
        self.arguments = words or f"[{self.name}]"


def read_process(pid: int) -> Process | None:
    """Return a process, None if it has ended."""
    stat, status = (read_kernel_file(f"/proc/{pid}/{name}") for name in ("stat", "status"))
    lines = (line.partition(":") for line in os.fsdecode(status).splitlines())
    try:
        return Process(
            stat,
            {key: value.strip() for key, _, value in lines},
            read_kernel_file(f"/proc/{pid}/cmdline"),
        )
    except (IndexError, KeyError, ValueError):
        return None


def list_group_processes(group: str) -> Iterator[int]:
    """Yield the processes of a cgroup, given as a directory, and of those below it."""
    for directory, _, _ in os.walk(group):
        for word in read_kernel_file(f"{directory}/cgroup.procs").split():
            yield int(word)


def find_pid_namespace(pid: int) -> int:
    """Return what tells a process's PID namespace from others, 0 if we may not know."""
    try:
        return os.stat(f"/proc/{pid}/ns/pid").st_ino
    except OSError:
        return 0


def read_uptime() -> float:
    """Seconds since the boot."""
    return float(read_kernel_file("/proc/uptime").split()[0])
