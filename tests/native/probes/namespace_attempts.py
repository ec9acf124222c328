"""Attempts on mounts and namespaces."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import stat

from .attempts import (
    ATTEMPTS,
    MNT_DETACH,
    MS_BIND,
    MS_REMOUNT,
    NEW,
    Attempt,
    Settings,
    attempt,
    become_nested_root,
    call,
    check,
    libc,
    mount,
    read_from,
    unshare,
    write_to,
)

# Mounts and namespaces.


@attempt
def mount_tmpfs(_s: Settings) -> str:
    mount("tmpfs", "/tmp", "tmpfs")
    return "mounted"


@attempt
def mount_proc_afresh(_s: Settings) -> str:
    mount("proc", "/tmp", "proc")
    return "mounted"


@attempt
def mount_cgroup(_s: Settings) -> str:
    mount("cgroup2", "/tmp", "cgroup2")
    return "mounted"


@attempt
def unmask_by_umount(_s: Settings) -> str:
    check(libc.umount2(b"/proc/keys", ctypes.c_int(MNT_DETACH)))
    return "unmounted"


@attempt
def remount_sys_writable(_s: Settings) -> str:
    mount("none", "/sys", "none", MS_REMOUNT | MS_BIND)
    return "remounted"


@attempt
def remount_cgroup_writable(_s: Settings) -> str:
    mount("none", "/sys/fs/cgroup", "none", MS_REMOUNT | MS_BIND)
    return "remounted"


@attempt
def new_mount_interface(_s: Settings) -> str:
    call("fsopen", b"tmpfs", 0)
    return "fsopen worked"


@attempt
def detach_mount_tree(_s: Settings) -> str:
    call("open_tree", -100, b"/", 1)
    return "open_tree(CLONE) worked"


@attempt
def pivot_root(_s: Settings) -> str:
    call("pivot_root", b".", b".")
    return "pivoted"


def _unshare_one(name: str) -> Attempt:
    def run(_s: Settings) -> str:
        unshare(name)
        return f"has a new {name} namespace"

    return run


for _name in sorted(set(NEW) - {"user"}):
    ATTEMPTS[f"unshare_{_name}"] = _unshare_one(_name)


@attempt
def join_namespaces_of_init(_s: Settings) -> str:
    for name in ("user", "mnt", "pid", "net", "cgroup"):
        try:
            check(libc.setns(os.open(f"/proc/1/ns/{name}", os.O_RDONLY), 0))
        except OSError as error:
            refusal = error
        else:
            return f"joined {name}"
    raise refusal


@attempt
def set_hostname(_s: Settings) -> str:
    socket.sethostname("escaped")
    return "renamed"


# A root of a user namespace within: the profile allows it, as Podman's does. It must gain nothing.


@attempt
def nested_root_unmasks(_s: Settings) -> str:
    become_nested_root()
    check(libc.umount2(b"/proc/keys", ctypes.c_int(MNT_DETACH)))
    return "unmounted"


@attempt
def nested_root_remounts_sys(_s: Settings) -> str:
    become_nested_root()
    mount("none", "/sys", "none", MS_REMOUNT | MS_BIND)
    return "remounted"


@attempt
def nested_root_remounts_proc_sys(_s: Settings) -> str:
    become_nested_root()
    mount("none", "/proc/sys", "none", MS_REMOUNT | MS_BIND)
    return "remounted"


@attempt
def nested_root_mounts_proc(_s: Settings) -> str:
    become_nested_root()
    unshare("pid")
    if (pid := os.fork()) == 0:
        try:
            mount("proc", "/tmp", "proc")
        except OSError as error:
            os._exit(error.errno or 1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        raise OSError(status, os.strerror(status))
    return "mounted a proc without masks"


@attempt
def nested_root_mounts_sysfs(_s: Settings) -> str:
    become_nested_root()
    unshare("net")
    mount("sysfs", "/tmp", "sysfs")
    return "mounted"


@attempt
def nested_root_binds_below_mask(_s: Settings) -> str:
    become_nested_root()
    mount("/proc", "/tmp", "none", MS_BIND)  # not MS_REC: what is mounted on it would stay behind
    return read_from("/tmp/keys")


@attempt
def nested_root_maps_further_ids(_s: Settings) -> str:
    """IDs of the host that the container does not have, from within: 70000 is not there to be given away."""
    parent, child = socket.socketpair()
    if (pid := os.fork()) == 0:
        unshare("user")
        child.send(b"x")
        child.recv(1)
        os._exit(0)
    try:
        parent.recv(1)
        return write_to(f"/proc/{pid}/uid_map", "0 70000 1")
    finally:
        parent.send(b"x")
        os.waitpid(pid, 0)


@attempt
def nested_root_sees_cgroups_above(_s: Settings) -> str:
    """It may mount the cgroup file system, but only from its own cgroup downwards."""
    become_nested_root()
    unshare("cgroup")
    mount("cgroup2", "/tmp", "cgroup2")
    for name in ("user.slice", "system.slice", "container", "app.slice"):
        if os.path.exists(f"/tmp/{name}"):
            return f"sees {name}"
    with open("/proc/self/mountinfo", encoding="ascii") as file:
        roots = [line.split()[3] for line in file if line.split()[4] == "/tmp"]
    if roots[-1] != "/":
        return f"mounted {roots[-1]}"
    raise OSError(errno.ENOENT, "nothing above")


@attempt
def nested_root_mounts_device(_s: Settings) -> str:
    become_nested_root()
    mount("tmpfs", "/tmp", "tmpfs")
    os.mknod("/tmp/mem", stat.S_IFCHR | 0o600, os.makedev(1, 1))
    return "made a device node"
