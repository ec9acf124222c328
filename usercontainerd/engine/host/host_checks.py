"""``doctor``: the kernel, IDs, namespaces and file systems."""

from __future__ import annotations

import os

from usercontainerd.base.sizes import format_size
from usercontainerd.engine.host.doctor import (
    Finding,
    find_program,
    fine,
    lost,
    missing,
    read_text,
    suggest_installation,
)
from usercontainerd.engine.host.trials import try_namespaces
from usercontainerd.kernel.idmap import NEWGIDMAP, NEWUIDMAP, parse_subordinate_ids, read_id_map

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from usercontainerd.engine.context import Context

FEWEST_SUBORDINATE_IDS = 65536  # what images expect: nobody is 65534
LEAST_KERNEL = (5, 11)  # overlayfs in user namespaces
LEAST_SPACE = 1 << 30
# Overlays on these lack what the writable layer needs, or lose it.
UNSUITABLE_FILE_SYSTEMS = (
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "vfat",
    "exfat",
    "fuse.sshfs",
    "9p",
    "afs",
    "ecryptfs",
)


def check_kernel(_context: Context) -> Iterator[Finding]:
    """The version of the kernel."""
    yield judge_kernel(os.uname().release)


def judge_kernel(release: str) -> Finding:
    """By its version. Pure."""
    numbers = []
    for part in release.replace("-", ".").split(".")[:2]:
        numbers.append(int(part) if part.isdecimal() else 0)
    if tuple(numbers) < LEAST_KERNEL:
        return missing("kernel", f"Linux {release}", "Linux 5.11 or later is needed")
    return fine("kernel", f"Linux {release}")


def check_user_namespaces(_context: Context) -> Iterator[Finding]:
    """Whether one can be made, and if not, what forbids it."""
    error = try_namespaces(None, "")
    if error is None:
        yield fine("user namespaces", "can be made")
        return
    switches = {
        path: read_text(path)
        for path in (
            "/proc/sys/user/max_user_namespaces",
            "/proc/sys/kernel/unprivileged_userns_clone",
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        )
    }
    yield judge_user_namespaces(error, switches)


def judge_user_namespaces(error: str, switches: Mapping[str, str | None]) -> Finding:
    """Name the switch that forbids them. Pure."""
    for path, bad, good in (
        ("/proc/sys/user/max_user_namespaces", "0", "28633"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "1"),
        ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
    ):
        if switches.get(path) == bad:
            name = path.removeprefix("/proc/sys/").replace("/", ".")
            return missing(
                "user namespaces",
                f"{name} = {bad}",
                f"echo {name}={good} | sudo tee /etc/sysctl.d/50-usercontainerd.conf && sudo sysctl --system",
            )
    return missing("user namespaces", error, "is this a container whose seccomp filter forbids them?")


def check_subordinate_ids(context: Context) -> Iterator[Finding]:
    """The ranges in /etc/subuid and /etc/subgid."""
    for kind in ("subuid", "subgid"):
        text = read_text(f"/etc/{kind}") or ""
        ranges = parse_subordinate_ids(text, context.uid, context.user)
        if not ranges:  # nsswitch.conf may name another source
            id_map = read_id_map(context.uid, context.gid, context.user)
            extents = id_map.uids if kind == "subuid" else id_map.gids
            ranges = [(extent.outside, extent.length) for extent in extents[1:]]
        yield judge_subordinate_ids(kind, context.user, ranges)


def judge_subordinate_ids(kind: str, user: str, ranges: list[tuple[int, int]]) -> Finding:
    """By their number. Pure."""
    count = sum(length for _, length in ranges)
    option = "--add-subuids" if kind == "subuid" else "--add-subgids"
    mend = f"sudo usermod {option} 100000-165535 {user}"
    if count == 0:
        return lost(
            kind, f"/etc/{kind} has no range of {user}", "images that use more than one user ID", mend
        )
    if count < FEWEST_SUBORDINATE_IDS:
        return lost(kind, f"{count} IDs", f"images that use IDs above {count}", mend)
    return fine(kind, f"{count} IDs")


def check_id_mappers(_context: Context) -> Iterator[Finding]:
    """newuidmap and newgidmap, and their right to map."""
    for path in (NEWUIDMAP, NEWGIDMAP):
        name = path.rpartition("/")[2]
        if not find_program(path):
            yield lost(
                name,
                "not installed",
                "images that use more than one user ID",
                suggest_installation("newuidmap"),
            )
            continue
        mode = os.stat(path).st_mode
        try:
            capable = bool(os.getxattr(path, "security.capability"))
        except OSError:
            capable = False
        if mode & 0o4000 or capable:
            yield fine(name, "set-user-ID" if mode & 0o4000 else "has file capabilities")
        else:
            capability = "cap_setuid" if name == "newuidmap" else "cap_setgid"
            yield lost(
                name,
                f"{path} has neither set-user-ID nor capabilities",
                "images that use more than one user ID",
                f"sudo setcap {capability}+ep {path}",
            )


def check_overlay(context: Context) -> Iterator[Finding]:
    """An overlay mount in the user namespace, on the store's own file system: really tried."""
    id_map = read_id_map(context.uid, context.gid, context.user)
    directory = _existing_parent(context.paths.data)
    error = try_namespaces(id_map, directory)
    if error is None:
        yield fine("overlay", f"can be mounted in a user namespace, on {directory}")
    else:
        yield missing(
            "overlay",
            error,
            "does dmesg say why? Linux 5.11 or later and a file system with user.* attributes are needed",
        )


def _existing_parent(path: str) -> str:
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def check_store(context: Context) -> Iterator[Finding]:
    """The store's file system and its free space."""
    directory = _existing_parent(context.paths.data)
    kind = find_file_system(directory, read_text("/proc/self/mountinfo") or "")
    if kind in UNSUITABLE_FILE_SYSTEMS:
        yield missing(
            "store",
            f"{context.paths.data} is on {kind}",
            "set XDG_DATA_HOME to a directory of a local disk, for systemd --user too (environment.d(5))",
            "image layers cannot be unpacked and mounted there",
        )
    else:
        yield fine("store", f"{context.paths.data} on {kind or 'an unknown file system'}")
    status = os.statvfs(directory)
    free = status.f_bavail * status.f_frsize
    if free < LEAST_SPACE:
        yield lost(
            "disk space", f"{format_size(free)} free", "larger images", f"free some space on {directory}"
        )
    else:
        yield fine("disk space", f"{format_size(free)} free")


def find_file_system(path: str, mountinfo: str) -> str:
    """The type of the file system that ``path`` is on, from the text of proc_pid_mountinfo(5). Pure."""
    best, kind = "", ""
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        if len(fields) < 5 or not right:
            continue
        point = fields[4].replace("\\040", " ")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):  # of two mounts on one place, the later one counts
            best, kind = point, right.split(" ")[0]
    return kind


def check_seccomp(_context: Context) -> Iterator[Finding]:
    """The kernel's filters and the default profile."""
    from usercontainerd.runtime.seccomp import PROFILE_PATHS, find_profile

    if not os.path.exists("/proc/sys/kernel/seccomp/actions_avail"):
        yield lost(
            "seccomp",
            "the kernel has no system call filters",
            "containers may use every system call that the user may",
            "a kernel with CONFIG_SECCOMP_FILTER is needed",
        )
        return
    profile = find_profile()
    if profile is None:
        yield lost(
            "seccomp",
            f"no profile in {' or '.join(PROFILE_PATHS)}",
            "containers may use every system call that the user may",
            suggest_installation("containers-common"),
        )
    else:
        yield fine("seccomp", f"profile {profile}")


def check_low_ports(_context: Context) -> Iterator[Finding]:
    """From which port on a user may publish; 1024 is the default everywhere, so it is nothing to mend."""
    start = read_text("/proc/sys/net/ipv4/ip_unprivileged_port_start") or "1024"
    yield fine("ports", f"can be published from {start} on (sysctl net.ipv4.ip_unprivileged_port_start)")


HOST_CHECKS = (
    check_kernel,
    check_user_namespaces,
    check_subordinate_ids,
    check_id_mappers,
    check_overlay,
    check_store,
    check_seccomp,
    check_low_ports,
)
