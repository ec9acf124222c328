"""Whether a port is free, asked by binding to it: in time for a clear error. Uses ``_socket``: see ``notification``."""

from __future__ import annotations

import _socket
import errno

from usercontainerd.base.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_KINDS = {"tcp": _socket.SOCK_STREAM, "udp": _socket.SOCK_DGRAM}
# The family is not there, or has no such address: nothing to publish on.
_ABSENT = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


def check_ports_free(ports: Iterable[tuple[str, str, int, int]]) -> None:
    """Raise ``HostError`` naming the first of the (protocol, address, first, length) ranges that cannot be bound.

    An empty address means all of IPv4 and of IPv6: pasta would be content with one of the two, and the other would
    lead to somebody else's program.
    """
    for protocol, address, first, length in ports:
        if address:
            places = [(_socket.AF_INET6 if ":" in address else _socket.AF_INET, address)]
        else:
            places = [(_socket.AF_INET, "0.0.0.0"), (_socket.AF_INET6, "::")]  # noqa: S104
        for port in range(first, first + length):
            for family, place in places:
                _check_port(family, protocol, place, port, optional=not address)


def _check_port(family: int, protocol: str, address: str, port: int, *, optional: bool) -> None:
    try:
        probe = _socket.socket(family, _KINDS[protocol] | _socket.SOCK_CLOEXEC)
    except OSError as error:
        if optional and error.errno in _ABSENT:
            return
        raise
    try:
        if protocol == "tcp":
            # Connections of the last run that linger are no obstacle, a listener is.
            probe.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        if family == _socket.AF_INET6:
            probe.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 1)
        probe.bind((address, port))
    except OSError as error:
        if optional and error.errno in _ABSENT:
            return
        shown = f"[{address}]" if ":" in address else address
        hints = {
            errno.EADDRINUSE: f"`ss -lp{protocol[0]} sport = {port}` shows who has it",
            errno.EACCES: f"sudo sysctl net.ipv4.ip_unprivileged_port_start={port}",
        }
        raise HostError(
            f"cannot publish {protocol} port {port}: {error.strerror}",
            where=f"{shown}:{port}",
            hint=hints.get(error.errno or 0, "is it an address of this host?"),
        ) from error
    finally:
        probe.close()
