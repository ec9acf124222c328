"""Runs inside a container and prints what it sees there, as JSON; the same for ours and for Podman's.

Needs nothing but Python. ``main(OUTPUT)`` writes to a file, so that no log stands in between.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import signal
import socket
import stat

HIDDEN = (  # noqa: SIM905, easier to read so
    "/proc/acpi /proc/asound /proc/bus /proc/fs /proc/interrupts /proc/irq /proc/kcore /proc/keys "
    "/proc/latency_stats /proc/sched_debug /proc/scsi /proc/timer_list /proc/timer_stats /proc/kmsg "
    "/proc/kallsyms /proc/vmallocinfo /proc/slabinfo /proc/kpagecount /proc/kpageflags /proc/pagetypeinfo "
    "/proc/1/mem /sys/dev/block /sys/devices/virtual/powercap /sys/firmware /sys/fs/selinux /sys/fs/bpf "
    "/sys/fs/fuse/connections /sys/fs/pstore /sys/kernel /sys/kernel/debug /sys/kernel/security /sys/kernel/tracing"
).split()
WRITABLE = (  # noqa: SIM905
    "/proc/sys/kernel/core_pattern /proc/sys/kernel/hostname /proc/sys/kernel/modprobe "
    "/proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/ping_group_range /proc/sys/vm/overcommit_memory "
    "/proc/sysrq-trigger /proc/irq /proc/bus /proc/fs /proc/asound /proc/acpi /proc/scsi /proc/kcore "
    "/proc/timer_list /proc/keys /proc/mtrr /proc/sys/kernel/shmmax /proc/sys/fs/binfmt_misc/register "
    "/proc/sys/user/max_user_namespaces /sys/kernel/uevent_helper /sys/kernel/mm/transparent_hugepage/enabled "
    "/sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/cgroup.subtree_control /sys/fs/cgroup/memory.max "
    "/sys/fs/cgroup/cgroup.kill /sys/fs/cgroup /sys/power/state /sys/class/net/lo/mtu /sys"
).split()
# Those that end, wait, or fork on their own; and the numbers that no architecture of ours uses.
DANGEROUS = (
    frozenset((15, 34, 57, 58, 60, 219, 231))
    if os.uname().machine == "x86_64"
    else frozenset((93, 94, 128, 139))
)
SYSTEM_CALLS = tuple(n for n in (*range(335), *range(424, 470)) if n not in DANGEROUS)


def name_error(number: int | None) -> str:
    return "fine" if not number else errno.errorcode.get(number, str(number))


def read_text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError as error:
        return f"!{name_error(error.errno)}"


def read_status() -> dict[str, str]:
    pairs = (line.split(":", 1) for line in read_text("/proc/self/status").splitlines() if ":" in line)
    return {key: value.strip() for key, value in pairs}


def read_mounts() -> list[dict[str, object]]:
    mounts: list[dict[str, object]] = []
    for line in read_text("/proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        words, rest = left.split(), right.split()
        mounts.append(
            {
                "root": words[3],
                "target": words[4],
                "options": words[5].split(","),
                "propagation": words[6:],
                "type": rest[0],
                "source": rest[1],
                "super": rest[2].split(","),
            }
        )
    return mounts


def look_into(path: str) -> str:
    """How much can be read: ``0``, ``more``, a list of names, or the error."""
    try:
        if stat.S_ISDIR(os.lstat(path).st_mode):
            return f"{len(os.listdir(path))} entries"
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            return "more" if os.read(fd, 4096).strip(b"\0") else "0"
        finally:
            os.close(fd)
    except OSError as error:
        return name_error(error.errno)


def try_writing(path: str) -> str:
    """Open for writing without changing anything (a directory: make a file there)."""
    try:
        if os.path.isdir(path):
            os.mkdir(f"{path}/probe")
            os.rmdir(f"{path}/probe")
        else:
            os.close(os.open(path, os.O_WRONLY))
    except OSError as error:
        return name_error(error.errno)
    return "fine"


def list_descriptors() -> dict[str, str]:
    """What is open, but for the descriptors of the listing itself and of this program's libffi (3.5: a trampoline)."""
    found: dict[str, str] = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue
        if not os.path.basename(target).startswith("libffi.so."):
            found[name] = target
    return found


def describe_session_keyring() -> str:
    """KEYCTL_DESCRIBE of the session keyring: ``keyring;UID;GID;PERMISSIONS;NAME``."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    buffer = ctypes.create_string_buffer(256)
    number = 250 if os.uname().machine == "x86_64" else 219
    size = libc.syscall(
        ctypes.c_long(number), ctypes.c_long(6), ctypes.c_long(-3), buffer, ctypes.c_long(256)
    )
    return buffer.value.decode() if size > 0 else name_error(ctypes.get_errno())


def list_devices() -> dict[str, list[object]]:
    found: dict[str, list[object]] = {}
    for name in sorted(os.listdir("/dev")):
        path = f"/dev/{name}"
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            found[name] = ["link", os.readlink(path)]
        elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            kind = "character" if stat.S_ISCHR(status.st_mode) else "block"
            found[name] = [
                kind,
                os.major(status.st_rdev),
                os.minor(status.st_rdev),
                oct(status.st_mode & 0o7777),
            ]
        else:
            found[name] = [
                "directory" if stat.S_ISDIR(status.st_mode) else "file",
                oct(status.st_mode & 0o7777),
            ]
    return found


def call_with_nonsense(number: int) -> str:
    """What system call ``number`` says to six times -1; in a child, since some of them do something."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(1)
        libc = ctypes.CDLL(None, use_errno=True)
        libc.syscall.restype = ctypes.c_long
        nonsense = [ctypes.c_long(-1)] * 6
        result = libc.syscall(ctypes.c_long(number), *nonsense)
        os._exit(ctypes.get_errno() & 0xFF if result == -1 else 0)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        return f"signal {os.WTERMSIG(status)}"
    return name_error(os.WEXITSTATUS(status))


def gather(*, syscalls: bool) -> dict[str, object]:
    mask = os.umask(0)
    os.umask(mask)
    return {
        "status": read_status(),
        "namespaces": {
            name: os.readlink(f"/proc/self/ns/{name}") for name in sorted(os.listdir("/proc/self/ns"))
        },
        "mounts": read_mounts(),
        "devices": list_devices(),
        "hidden": {path: look_into(path) for path in HIDDEN},
        "writable": {path: try_writing(path) for path in WRITABLE},
        "environment": dict(os.environ),
        "hostname": socket.gethostname(),
        "umask": oct(mask),
        "directory": os.getcwd(),
        "limits": {
            name: resource.getrlimit(getattr(resource, name))
            for name in dir(resource)
            if name.startswith("RLIMIT_")
        },
        "oom_score_adj": read_text("/proc/self/oom_score_adj").strip(),
        "descriptors": list_descriptors(),
        "cgroup": read_text("/proc/self/cgroup").strip(),
        "uid_map": read_text("/proc/self/uid_map").split(),
        "gid_map": read_text("/proc/self/gid_map").split(),
        "setgroups": read_text("/proc/self/setgroups").strip(),
        "processes": [name for name in os.listdir("/proc") if name.isdecimal()],
        "interfaces": sorted(os.listdir("/sys/class/net")),
        "ping_group_range": read_text("/proc/sys/net/ipv4/ping_group_range").split(),
        "session": os.getsid(0),
        "keyring": describe_session_keyring(),
        "run": sorted(os.listdir("/run")) if os.path.isdir("/run") else [],
        "etc": {name: read_text(f"/etc/{name}") for name in ("hosts", "hostname", "resolv.conf")},
        "signals": read_status().get("SigIgn"),
        "syscalls": {str(number): call_with_nonsense(number) for number in SYSTEM_CALLS} if syscalls else {},
    }


def main(output: str, *options: str) -> None:
    facts = gather(syscalls="--syscalls" in options)
    with open(output, "w", encoding="utf-8") as file:
        json.dump(facts, file)
