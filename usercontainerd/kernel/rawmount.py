"""mount(2) in a hurry: by the C half of ctypes alone, whose other half takes 1.5 ms to import."""

from __future__ import annotations

import _ctypes

MS_RDONLY = 0x1
MS_REMOUNT = 0x20
MS_BIND = 0x1000

_RTLD_NOW = 2


def mount(source: bytes, target: bytes, filesystem: bytes | None, flags: int, options: bytes | None) -> None:
    """mount(2); raises ``OSError``. ``options`` must not hold text from outside: its commas are syntax."""
    function = _ctypes.dlsym(_ctypes.dlopen(None, _RTLD_NOW), "mount")  # type: ignore[arg-type]
    if _ctypes.call_function(function, (source, target, filesystem, flags, options)) != 0:
        # errno is lost here; the other way has it, and there is time now.
        from usercontainerd.kernel import syscalls

        syscalls.mount_raw(source, target, filesystem, flags, options)


def bind_read_only(source: bytes, target: bytes) -> None:
    """Mount a file on another, read-only; raises ``OSError``."""
    mount(source, target, None, MS_BIND, None)
    mount(source, target, None, MS_BIND | MS_REMOUNT | MS_RDONLY, None)
