"""Attempts on devices and on the kernel's own files."""

from __future__ import annotations

import errno
import os
import stat

from .attempts import ATTEMPTS, Attempt, Settings, attempt, read_from, write_to

# Devices and the kernel's own files.


@attempt
def make_block_device(_s: Settings) -> str:
    os.mknod("/tmp/disk", stat.S_IFBLK | 0o600, os.makedev(8, 0))
    return "made"


@attempt
def make_memory_device(_s: Settings) -> str:
    os.mknod("/tmp/mem", stat.S_IFCHR | 0o600, os.makedev(1, 1))
    return "made"


@attempt
def open_host_devices(_s: Settings) -> str:
    for name in ("mem", "kmsg", "fuse", "net/tun", "console", "loop-control", "kvm", "vda", "sda", "ubda"):
        try:
            os.close(os.open(f"/dev/{name}", os.O_RDONLY | os.O_NONBLOCK))
        except OSError as error:
            refusal = error
        else:
            return f"opened {name}"
    raise refusal


def _read_one(path: str) -> Attempt:
    return lambda _s: read_from(path)


def _write_one(path: str, text: str) -> Attempt:
    return lambda _s: write_to(path, text)


for _path in (
    "/proc/kcore",
    "/proc/kmsg",
    "/proc/keys",
    "/proc/timer_list",
    "/proc/interrupts",
):
    ATTEMPTS[f"read_{_path[1:].replace('/', '_')}"] = _read_one(_path)
for _path, _text in (
    ("/proc/sys/kernel/core_pattern", "|/tmp/evil"),
    ("/proc/sys/kernel/modprobe", "/tmp/evil"),
    ("/proc/sys/kernel/hostname", "evil"),
    ("/proc/sys/kernel/shmmax", "1"),
    ("/proc/sys/vm/panic_on_oom", "1"),
    ("/proc/sys/net/ipv4/ip_forward", "1"),
    ("/proc/sys/user/max_user_namespaces", "0"),
    ("/proc/sys/fs/binfmt_misc/register", ":x:M::x::/tmp/evil:"),
    ("/proc/sysrq-trigger", "h"),
    ("/sys/kernel/uevent_helper", "/tmp/evil"),
    ("/sys/kernel/mm/transparent_hugepage/enabled", "never"),
    ("/sys/fs/cgroup/cgroup.procs", "1"),
    ("/sys/fs/cgroup/cgroup.subtree_control", "+memory"),
    ("/sys/fs/cgroup/cgroup.kill", "1"),
    ("/sys/fs/cgroup/memory.max", "max"),
    ("/sys/fs/cgroup/pids.max", "max"),
    ("/sys/fs/cgroup/../cgroup.procs", "1"),
    ("/proc/self/oom_score_adj", "-1000"),
):
    ATTEMPTS[f"write_{_path[1:].replace('/', '_')}"] = _write_one(_path, _text)


@attempt
def make_cgroup(_s: Settings) -> str:
    os.mkdir("/sys/fs/cgroup/evil")
    return "made"


@attempt
def see_cgroup_above(_s: Settings) -> str:
    with open("/proc/self/cgroup", encoding="ascii") as file:
        own = next(line for line in file if line.startswith("0::")).strip()
    if own == "0::/":
        raise OSError(errno.EPERM, "the namespace's root")
    return own
