"""The few system calls that Python 3.11 does not offer, declared once and checked."""

from __future__ import annotations

import ctypes
import os
from enum import IntFlag

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

PR_SET_PDEATHSIG = 1
PR_CAPBSET_DROP = 24

MNT_DETACH = 2

_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "ppc64le": 203, "s390x": 217}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_libc.unshare.argtypes = (ctypes.c_int,)
_libc.setns.argtypes = (ctypes.c_int, ctypes.c_int)
_libc.prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)


class MountFlag(IntFlag):
    """Flags of mount(2), as <sys/mount.h> has them."""

    NONE = 0
    RDONLY = 1
    NOSUID = 2
    NODEV = 4
    NOEXEC = 8
    REMOUNT = 32
    BIND = 4096
    REC = 16384
    PRIVATE = 1 << 18
    SHARED = 1 << 20


def _check_result(result: int, call: str, subject: str = "") -> None:
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"{call}: {os.strerror(code)}", subject or None)


def mount(
    source: str, target: str, kind: str = "", flags: MountFlag = MountFlag.NONE, data: str = ""
) -> None:
    """mount(2)."""
    result = _libc.mount(
        source.encode(), target.encode(), kind.encode() or None, int(flags), data.encode() or None
    )
    _check_result(result, f"mount {kind or flags!r}", target)


def unmount(target: str, flags: int = MNT_DETACH) -> None:
    """umount2(2), lazily unless told otherwise."""
    _check_result(_libc.umount2(target.encode(), flags), "umount", target)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2), for which the C library has no wrapper."""
    number = _SYS_PIVOT_ROOT[os.uname().machine]
    _check_result(
        _libc.syscall(
            ctypes.c_long(number), ctypes.c_char_p(new_root.encode()), ctypes.c_char_p(put_old.encode())
        ),
        "pivot_root",
        new_root,
    )


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check_result(_libc.unshare(flags), f"unshare 0x{flags:x}")


def set_namespaces(pidfd: int, flags: int) -> None:
    """setns(2): join the named namespaces of the process behind a pidfd, all at once."""
    _check_result(_libc.setns(pidfd, flags), f"setns 0x{flags:x}")


def set_parent_death_signal(signal_number: int) -> None:
    """Have the kernel send a signal to this process when its parent dies, however it dies."""
    _check_result(_libc.prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0), "prctl PDEATHSIG")


def drop_bounding_capability(number: int) -> None:
    """Take a capability away from this process's children-to-be (a number the kernel lacks is fine)."""
    _libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)
