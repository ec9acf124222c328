"""Attempts to gain privileges, and system calls that the profile keeps away."""

from __future__ import annotations

import errno
import os
import resource
import struct
from typing import Any

from .attempts import ATTEMPTS, Attempt, Settings, attempt, call, check, libc

# System calls that the profile keeps away.

for _name, _arguments in {
    "acct": (b"/tmp/accounts",),
    "add_key": (b"user", b"x", b"y", 1, -3),
    "bpf": (0, None, 0),
    "clock_settime": (0, b"\0" * 16),
    "delete_module": (b"loop", 0),
    "init_module": (b"", 0, b""),
    "io_uring_setup": (1, b"\0" * 128),
    "kcmp": (1, 1, 0, 0, 0),
    "kexec_load": (0, 0, None, 0),
    "perf_event_open": (b"\0" * 128, 0, -1, -1, 0),
    "personality": (0x40000,),
    "quotactl": (0, None, 0, None),
    "reboot": (0xFEE1DEAD, 672274793, 0x89ABCDEF, None),
    "request_key": (b"user", b"x", None, 0),
    "settimeofday": (b"\0" * 16, None),
    "swapon": (b"/tmp/swap", 0),
    "userfaultfd": (0,),
}.items():

    def _call_one(name: str, arguments: tuple[Any, ...]) -> Attempt:
        return lambda _s: f"returned {call(name, *arguments)}"

    ATTEMPTS[f"call_{_name}"] = _call_one(_name, _arguments)


@attempt
def read_host_keyring(settings: Settings) -> str:
    """KEYCTL_SEARCH for a key of the host's session in every special keyring."""
    for ring in (-1, -2, -3, -4, -5):
        try:
            serial = call("keyctl", 10, ring, b"user", settings["key"].encode(), 0)
        except OSError as error:
            refusal = error
        else:
            return f"found key {serial}"
    raise refusal


# Privileges.


@attempt
def gain_capabilities(_s: Settings) -> str:
    header = struct.pack("Ii", 0x20080522, 0)
    data = struct.pack("IIIIII", *([0xFFFFFFFF] * 6))
    check(libc.capset(header, data))
    return "has all"


@attempt
def take_unmapped_id(_s: Settings) -> str:
    os.setresuid(70000, 70000, 70000)
    return "is 70000"


@attempt
def raise_limit(_s: Settings) -> str:
    try:
        resource.setrlimit(resource.RLIMIT_NPROC, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except ValueError as error:
        raise OSError(errno.EPERM, "not allowed") from error
    return "raised"


@attempt
def raise_priority(_s: Settings) -> str:
    os.setpriority(os.PRIO_PROCESS, 0, -10)
    return "raised"


@attempt
def real_time(_s: Settings) -> str:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    return "is real-time"


@attempt
def real_time_io(_s: Settings) -> str:
    call("ioprio_set", 1, 0, 1 << 13)
    return "is real-time"
