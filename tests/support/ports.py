"""Ports of loopback for tests to have published or listened on."""

from __future__ import annotations

import random
import socket
from pathlib import Path

_LOWEST = 10_000
_given: set[int] = set()


def find_port(
    kind: socket.SocketKind = socket.SOCK_STREAM, address: str = "127.0.0.1", *, count: int = 1
) -> int:
    """The first of ``count`` ports in a row that nobody has; no port is given twice.

    Not one of those that the kernel gives to whoever binds none: it would be gone before it is used.
    """
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    places = range(_LOWEST, low - count) if low > 2 * _LOWEST else range(high + 1, 65536 - count)
    for first in random.SystemRandom().sample(places, len(places)):
        row = range(first, first + count)
        if _given.isdisjoint(row) and all(_is_free(kind, address, port) for port in row):
            _given.update(row)
            return first
    raise OSError("no port is free")


def _is_free(kind: socket.SocketKind, address: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, kind) as probe:
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True
