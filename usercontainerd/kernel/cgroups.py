"""The unit's own cgroup and the one below it that the container lives in (cgroups(7), the unified hierarchy)."""

from __future__ import annotations

import posix as os

from usercontainerd.base.errors import HostError
from usercontainerd.base.paths import decode_path, parent_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

SUBGROUP = "container"
FILE_SIZE = 16384  # bytes; files of cgroups and of single processes hold less
ASIDE = "network"  # beside it: pasta and the copier, where the container's init wants its cgroup for itself


def read_kernel_file(path: str) -> bytes:
    """Return a small file of the kernel's, nothing if what it tells of is not there (any more)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, FILE_SIZE)
    except OSError:
        return b""
    finally:
        os.close(fd)


def read_cgroup(process: int | str) -> str | None:
    """The path of a process's cgroup in the unified hierarchy (/proc/[pid]/cgroup); None if it has none, or is gone."""
    for line in read_kernel_file(f"/proc/{process}/cgroup").split(b"\n"):
        if line.startswith(b"0::"):
            return decode_path(line[3:])
    return None


def read_own_cgroup() -> str | None:
    """The path of our own cgroup."""
    return read_cgroup("self")


def find_cgroup_mount() -> str:
    """Where the unified hierarchy is mounted."""
    return "/sys/fs/cgroup" if os.access("/sys/fs/cgroup/cgroup.procs", os.F_OK) else "/sys/fs/cgroup/unified"


def write_file(path: str, text: str) -> None:
    """Write a kernel file in one write(2)."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def is_frozen(group: str) -> bool:
    """Tell whether all of the group at this directory stands still, by its own freezer or that of a group above."""
    return b"frozen 1" in read_kernel_file(f"{group}/cgroup.events")


def kill_processes(groups: Sequence[str]) -> None:
    """Kill the processes, but ourselves, in the cgroups at these directories; no error for what is gone.

    One by one and never by cgroup.kill: a cgroup that has been killed by it once lets nothing live that is cloned into
    it from outside later (seen with Linux 6.18), and that is how systemd starts the unit's next run.
    """
    for group in groups:
        for pid in _list_others(group):
            try:
                os.kill(pid, 9)
            except OSError:
                pass


def kill_until_empty(groups: Sequence[str], patience: float) -> None:
    """Kill what is in these cgroups, and what it still starts, until none is left; at most ``patience`` seconds."""
    if not any(map(_list_others, groups)):
        return  # the usual case pays for no clock
    import time

    deadline = time.monotonic() + patience
    while any(map(_list_others, groups)) and time.monotonic() < deadline:
        kill_processes(groups)
        time.sleep(0.001)


def _list_others(group: str) -> list[int]:
    """The processes of a cgroup but ourselves; not those of an outer PID namespace, which show as 0."""
    try:
        with open(f"{group}/cgroup.procs", encoding="utf-8") as file:
            return [pid for pid in map(int, file) if pid not in (0, os.getpid())]
    except OSError:
        return []


def kill_leftovers(patience: float = 2.0) -> None:
    """Kill what an earlier run has left beside us in the unit: whoever starts a container is alone there.

    The clean-up of that run does it, but for one that was killed or is gone. What stays is pasta, with the ports that
    the container had published. Waits at most ``patience`` seconds for their end.
    """
    own = read_own_cgroup()
    if own is None or own.rsplit("/", 1)[-1] != SUBGROUP:
        return
    unit = find_cgroup_mount() + parent_of(own)
    kill_until_empty((f"{unit}/{SUBGROUP}", f"{unit}/{ASIDE}"), patience)


def enter_subgroup() -> None:
    """Be in the sub-cgroup ``container`` of the unit, where a private cgroup namespace may have its root.

    systemd 254 starts us there (``DelegateSubgroup=``); before that, we move ourselves.
    """
    own = read_own_cgroup()
    if own is None or own.rsplit("/", 1)[-1] == SUBGROUP:
        return
    group = f"{find_cgroup_mount()}{own}/{SUBGROUP}"
    try:
        os.mkdir(group, 0o755)
    except FileExistsError:
        pass
    except OSError as error:
        raise HostError(
            f"cannot make the container's cgroup: {error.strerror}",
            where=group,
            hint="the unit needs Delegate=yes",
        ) from error
    write_file(f"{group}/cgroup.procs", "0")


def leave_subgroup() -> None:
    """Go from the sub-cgroup of the container to one beside it.

    A cgroup with processes of its own cannot hand controllers on (cgroups(7), "no internal processes"), and
    systemd in a container can move only those that it sees.
    """
    own = read_own_cgroup()
    if own is None or own.rsplit("/", 1)[-1] != SUBGROUP:
        return
    group = f"{find_cgroup_mount()}{parent_of(own)}/{ASIDE}"
    try:
        os.mkdir(group, 0o755)
    except FileExistsError:
        pass
    write_file(f"{group}/cgroup.procs", "0")


def repeat_limits(limits: Sequence[tuple[str, str]]) -> None:
    """Write the unit's limits into our own cgroup too: runtimes such as the JVM read them there.

    The unit's limits hold anyway; where a controller is not delegated there is nothing to repeat.
    """
    own = read_own_cgroup() if limits else None
    if own is None:
        return
    group = find_cgroup_mount() + own
    for controller in sorted({file.partition(".")[0] for file, _ in limits}):
        try:
            write_file(f"{parent_of(group)}/cgroup.subtree_control", f"+{controller}")
        except OSError:
            continue
        for file, value in limits:
            if file.startswith(f"{controller}."):
                try:
                    write_file(f"{group}/{file}", value)
                except OSError:
                    pass
