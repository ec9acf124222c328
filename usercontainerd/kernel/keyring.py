"""Session keyrings (session-keyring(7)): what a process inherits from its session, such as Kerberos tickets."""

from __future__ import annotations

import os

_JOIN_SESSION_KEYRING = 1  # keyctl(2), <linux/keyctl.h>
# <asm/unistd.h>; the newer architectures share the generic number.
_NUMBERS = {"x86_64": 250, "i686": 288, "armv7l": 311, "ppc64le": 271, "s390x": 280}
_GENERIC_NUMBER = 219
_RTLD_NOW = 2


def leave_session_keyring() -> None:
    """Give this process a new, empty session keyring; a kernel without keyrings has nothing to leave.

    With the C half of ctypes only (0.7 ms instead of 5): the one caller is in a hurry.
    """
    import _ctypes

    number = _NUMBERS.get(os.uname().machine, _GENERIC_NUMBER)
    syscall = _ctypes.dlsym(_ctypes.dlopen(None, _RTLD_NOW), "syscall")  # type: ignore[arg-type]
    _ctypes.call_function(syscall, (number, _JOIN_SESSION_KEYRING, None))
