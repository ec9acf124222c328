"""A container's network device, made before pasta(1) comes, so that it stays when pasta goes.

Of a tap device that it made itself, the end of pasta waits until the kernel has taken the device down: 20 ms, which a
stop would wait for, too. One that is persistent goes with the network namespace, in the kernel's own time (tun.txt,
``TUNSETPERSIST``).
"""

from __future__ import annotations

import posix as os
import sys

from usercontainerd.base.paths import decode_path, encode_path
from usercontainerd.kernel.cgroups import read_kernel_file

_TUNSETIFF = 0x400454CA  # <linux/if_tun.h>
_TUNSETPERSIST = 0x400454CB
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000


def read_device_name() -> str:
    """The name that the device is to have: that of the host's which leads out, as pasta has it by itself."""
    return choose_device_name(read_kernel_file("/proc/net/route"), read_kernel_file("/proc/net/ipv6_route"))


def choose_device_name(routes: bytes, routes_of_six: bytes) -> str:
    """From the kernel's tables (proc(5)): the first default route's, of IPv4 if there is one. Pure."""
    for line in routes.split(b"\n"):
        words = line.split()
        if len(words) > 7 and words[1] == words[7] == b"00000000" and words[0] != b"*":
            return decode_path(words[0])
    for line in routes_of_six.split(b"\n"):
        words = line.split()
        if len(words) == 10 and words[0] == b"0" * 32 and words[1] == b"00" and words[9] != b"lo":
            return decode_path(words[9])
    return "tap0"


def make_persistent_tap(name: str) -> bool:
    """Make it in this process's network namespace; False where that cannot be: pasta meets the same, and says why."""
    import fcntl

    try:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # struct ifreq: the name in 16 bytes, flags, the rest of a union of 24.
        flags = (_IFF_TAP | _IFF_NO_PI).to_bytes(2, sys.byteorder)
        fcntl.ioctl(fd, _TUNSETIFF, encode_path(name).ljust(16, b"\0") + flags + bytes(22))
        fcntl.ioctl(fd, _TUNSETPERSIST, 1)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True
