"""The system calls that Python's ``os`` lacks, by ctypes: prototypes declared once, failures raised as ``OSError``.

Importing ctypes costs about 5 ms, so a fast path imports this module only where no ``os`` function will do.
Numbers and structures: <linux/mount.h>, <linux/openat2.h>; the syscall numbers above 423 are the
same on every architecture.
"""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MNT_DETACH = 2

RESOLVE_NO_MAGICLINKS = 0x2
RESOLVE_IN_ROOT = 0x10

_SYS_OPENAT2 = 437

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, _function: Any, arguments: tuple[Any, ...]) -> int:
    if result == -1:
        number = ctypes.get_errno()
        name = next((a.decode(errors="replace") for a in arguments if isinstance(a, bytes)), None)
        raise OSError(number, os.strerror(number), name)
    return result


def _declare(name: str, *types: Any) -> Any:
    function = getattr(_libc, name)
    function.argtypes = types
    function.restype = ctypes.c_int
    function.errcheck = _check
    return function


_unshare = _declare("unshare", ctypes.c_int)
_setns = _declare("setns", ctypes.c_int, ctypes.c_int)
_mount = _declare("mount", ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_umount2 = _declare("umount2", ctypes.c_char_p, ctypes.c_int)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


def unshare(flags: int) -> None:
    """unshare(2)."""
    _unshare(flags)


def setns(fd: int, flags: int = 0) -> None:
    """setns(2)."""
    _setns(fd, flags)


def mount(
    source: str, target: str, filesystem: str | None, flags: int = 0, options: str | None = None
) -> None:
    """mount(2). ``options`` must not hold text from outside: its commas are syntax."""
    mount_raw(
        os.fsencode(source),
        os.fsencode(target),
        None if filesystem is None else filesystem.encode(),
        flags,
        None if options is None else os.fsencode(options),
    )


def mount_raw(
    source: bytes, target: bytes, filesystem: bytes | None, flags: int, options: bytes | None
) -> None:
    """mount(2), of bytes."""
    _mount(source, target, filesystem, flags, options)


def umount(target: str, flags: int = MNT_DETACH) -> None:
    """umount2(2), lazy unless told otherwise."""
    _umount2(os.fsencode(target), flags)


def openat2(directory: int, path: str, flags: int, *, mode: int = 0, resolve: int = RESOLVE_IN_ROOT) -> int:
    """openat2(2): the kernel itself keeps ``path``, and every symlink on the way, beneath ``directory``."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    raw = os.fsencode(path)
    while True:
        fd: int = _syscall(
            _SYS_OPENAT2, directory, ctypes.c_char_p(raw), ctypes.byref(how), ctypes.sizeof(how)
        )
        if fd >= 0:
            return fd
        number = ctypes.get_errno()
        # EAGAIN: a rename raced with the walk; the man page says to try again.
        if number not in (4, 11):
            raise OSError(number, os.strerror(number), path)
