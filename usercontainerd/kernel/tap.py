"""A container's network device, made before pasta(1) comes, so that it stays when pasta goes.

Of a tap device that it made itself, the end of pasta waits until the kernel has taken the device down: 20 ms, which a
stop would wait for, too. One that is persistent goes with the network namespace, in the kernel's own time (tun.txt,
``TUNSETPERSIST``).
"""

from __future__ import annotations

import os
import sys

NAME = "eth0"

_TUNSETIFF = 0x400454CA  # <linux/if_tun.h>
_TUNSETPERSIST = 0x400454CB
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000


def make_persistent_tap() -> bool:
    """Make it in this process's network namespace; False where that cannot be: pasta meets the same, and says why."""
    import fcntl

    try:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # struct ifreq: the name in 16 bytes, flags, the rest of a union of 24.
        flags = (_IFF_TAP | _IFF_NO_PI).to_bytes(2, sys.byteorder)
        fcntl.ioctl(fd, _TUNSETIFF, NAME.encode().ljust(16, b"\0") + flags + bytes(22))
        fcntl.ioctl(fd, _TUNSETPERSIST, 1)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True
